//! `asgard org`, `asgard user` and `asgard host`: who belongs where, in the running Keycloak and in the gateway.

use std::io::{BufRead, IsTerminal, Read};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::reload;
use crate::args::{HostCommand, OrgCommand, Trusted, UserCommand};
use crate::hosts::{self, Hosts, at_host, resources};
use crate::keycloak::{Admin, NewUser, Wanted};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::ui::say;

/// Longest password that is read, in bytes.
const MAX_PASSWORD: usize = 256;

/// `asgard org`.
///
/// # Errors
/// What stands in the way; what was done before stays done, and the command can be run again.
pub async fn organisations(paths: &Paths, command: OrgCommand) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    match command {
        OrgCommand::Add { name, title, domains, theme } => {
            check_alias(&name)?;
            if let Some(theme) = &theme {
                check_theme(paths, theme)?;
            }
            let mut hosts = Hosts::load(paths)?;
            let mut new_host = false;
            for domain in &domains {
                hosts::url(&state, domain)?;
                new_host |= hosts.give(domain, &name)?;
            }
            let wanted = Wanted {
                resources: resources(&state, &name, &hosts.of(&name))?,
                alias: name.clone(),
                title,
                domains,
                theme,
            };
            let new = Admin::log_in(&state).await?.put_organisation(&wanted).await?;
            if new_host {
                hosts.save(paths)?;
                reload::gateway(paths, &state).await?;
            }
            say(format!("{name} {}", if new { "is added" } else { "is as it should be" }));
            for resource in &wanted.resources {
                say(format!("  {resource}"));
            }
            if new {
                say(format!("  next: ./asgard user add USER --org {name}"));
            }
        }
        OrgCommand::List { json } => {
            let all = Admin::log_in(&state).await?.organisations().await?;
            let hosts = Hosts::load(paths)?;
            if json {
                let shown = serde_json::to_string_pretty(&all).map_err(|e| Problem::new(e.to_string()))?;
                println!("{shown}");
            } else {
                for one in &all {
                    println!("{} ({})", one.alias, one.title);
                    let resources = resources(&state, &one.alias, &hosts.of(&one.alias))?;
                    let lines = [
                        ("endpoints", resources.join(", ")),
                        ("domains", one.domains.join(", ")),
                        ("theme", one.theme.clone().unwrap_or_default()),
                        ("members", one.members.join(", ")),
                    ];
                    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
                        println!("  {name:<10} {value}");
                    }
                }
            }
        }
        OrgCommand::Remove { name, domains } => {
            let admin = Admin::log_in(&state).await?;
            let mut hosts = Hosts::load(paths)?;
            let gone = if domains.is_empty() { hosts.of(&name) } else { domains.clone() };
            if domains.is_empty() {
                admin.remove_organisation(&name, &resources(&state, &name, &gone)?).await?;
            }
            for domain in &domains {
                admin.remove_domain(&name, domain, &at_host(&state, &name, domain)?).await?;
            }
            let changed = gone.iter().map(|host| hosts.take(host)).fold(false, |a, b| a | b);
            if changed {
                hosts.save(paths)?;
                reload::gateway(paths, &state).await?;
            }
            match domains.as_slice() {
                [] => say(format!("{name} is removed; its users stay")),
                some => say(format!("{name} has no more {}", some.join(", "))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `asgard user`.
///
/// # Errors
/// As above.
pub async fn users(paths: &Paths, command: UserCommand) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    match command {
        UserCommand::Add { name, orgs, email, full_name, password_stdin } => {
            let given = if password_stdin { Some(read_password()?) } else { None };
            let password =
                given.clone().unwrap_or_else(|| URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>()));
            let admin = Admin::log_in(&state).await?;
            for org in &orgs {
                // Before the user is made: a mistyped organisation shall leave nothing behind.
                admin.organisation(org).await?;
            }
            let user = NewUser { name: name.clone(), email, full_name, password, temporary: given.is_none() };
            let new = admin.put_user(&user).await?;
            for org in &orgs {
                let joined = admin.add_member(&name, org).await?;
                say(format!("{name} {} {org}", if joined { "is now a member of" } else { "is a member of" }));
            }
            match (new, given) {
                (true, None) => {
                    say(format!("{name} is added; the first login asks for another password than this:"));
                    println!("{}", user.password);
                }
                (true, Some(_)) => say(format!("{name} is added")),
                (false, _) => say(format!("{name} was there; password, address and name are as they were")),
            }
        }
        UserCommand::Remove { name, orgs } => {
            let admin = Admin::log_in(&state).await?;
            for org in &orgs {
                admin.remove_member(&name, org).await?;
                say(format!("{name} is no longer a member of {org}"));
            }
            if orgs.is_empty() {
                admin.remove_user(&name).await?;
                say(format!("{name} is removed"));
            }
            say(
                "tokens that were given before are good until they expire, unless the gateway asks Keycloak (introspection)",
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `asgard host`.
///
/// # Errors
/// As above.
pub async fn hosts(paths: &Paths, command: HostCommand) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    let admin = Admin::log_in(&state).await?;
    let (Trusted { host, client }, trust) = match command {
        HostCommand::List => {
            admin.trusted_hosts().await?.iter().for_each(|host| println!("{host}"));
            return Ok(ExitCode::SUCCESS);
        }
        HostCommand::Add(trusted) => (trusted, true),
        HostCommand::Remove(trusted) => (trusted, false),
    };
    let (who, changed) = match (client, host) {
        (Some(client), _) => (client.name().to_owned(), admin.trust_client(client, trust).await?),
        (None, host) => {
            let host = host.unwrap_or_default();
            state.host_url(&host)?;
            (format!("clients at {host}"), admin.trust_host(&host, trust).await?)
        }
    };
    say(match (trust, changed) {
        (true, true) => format!("{who} may register from now on"),
        (true, false) => format!("{who} could already register"),
        (false, true) => format!("{who} may no longer register; what registered itself stays"),
        (false, false) => format!("{who} could not register before either"),
    });
    Ok(ExitCode::SUCCESS)
}

fn check_alias(name: &str) -> Result<()> {
    if identity::path::is_alias(name) {
        return Ok(());
    }
    Err(Problem::new(format!("{name:?} cannot be an organisation's name")).hint(
        "use letters, digits, and - . _ between them; mcp, sse, messages and servers have another meaning",
    ))
}

/// The theme's folder is there.
fn check_theme(paths: &Paths, theme: &str) -> Result<()> {
    let folder = paths.root.join("keycloak/themes/asgard/login/resources/organisations");
    let plain = theme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if plain && !theme.is_empty() && folder.join(theme).join("theme.css").is_file() {
        return Ok(());
    }
    let mut there: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("theme.css").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    there.sort_unstable();
    Err(Problem::new(format!("there is no theme {theme:?}")).hint(format!(
        "the themes are {}; a new one is a folder with a theme.css in {}",
        there.join(", "),
        paths.shown(&folder)
    )))
}

fn read_password() -> Result<String> {
    if std::io::stdin().is_terminal() {
        say("the password (it is shown):");
    }
    let mut line = String::new();
    // No more is read than could be a password.
    let mut input = std::io::stdin().lock().take(MAX_PASSWORD as u64 + 2);
    input.read_line(&mut line).map_err(|e| Problem::new(format!("cannot read the password: {e}")))?;
    let password = line.trim_end_matches(['\r', '\n']).to_owned();
    match password.len() {
        0 => Err(Problem::new("the password is empty").hint("write it as one line to standard input")),
        length if length > MAX_PASSWORD => {
            Err(Problem::new(format!("the password is longer than {MAX_PASSWORD} bytes")))
        }
        _ => Ok(password),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_else_are_refused() {
        assert!(check_alias("org-3").is_ok());
        for bad in ["", "mcp", "a b", "a/b", "-a"] {
            assert!(check_alias(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_theme_that_is_not_there_names_those_that_are() {
        let paths = Paths::discover().unwrap();
        assert!(check_theme(&paths, "aurora").is_ok());
        for bad in ["nope", "", "..", "aurora/../ember"] {
            assert!(check_theme(&paths, bad).unwrap_err().to_string().contains("aurora, ember"), "{bad}");
        }
    }
}
