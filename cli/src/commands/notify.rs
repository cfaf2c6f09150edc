//! `asgard notify`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::args::{News, Notify};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::state::State;

/// Asks a backend's admin API to notify clients.
///
/// # Errors
/// When no backend does it.
pub async fn run(paths: &Paths, notify: &Notify) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    let (path, body) = request(&state, notify);
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .map_err(|error| Problem::new(format!("cannot make an HTTP client: {error}")))?;
    let mut problem = Problem::new("this stack has no admin API")
        .hint("add `admin = 8181` to [ports] of its asgard.toml, and start it again");
    for number in 1..=state.size.backends {
        let Some(address) = state.admin_address(number) else { break };
        let sent = client
            .post(format!("http://{address}{path}"))
            .bearer_auth(&state.secrets.admin_token)
            .json(&body)
            .send()
            .await;
        match sent {
            Ok(answer) if answer.status().is_success() => {
                println!("sent");
                return Ok(ExitCode::SUCCESS);
            }
            // Every backend says the same of a request that is wrong.
            Ok(answer) if answer.status().is_client_error() => {
                let said: Value = answer.json().await.unwrap_or_default();
                let why = said.get("error").and_then(Value::as_str).unwrap_or("the request is refused");
                return Err(Problem::new(why.to_owned()));
            }
            Ok(answer) => problem = Problem::new(format!("backend-{number} answers {}", answer.status())),
            Err(_) => {
                problem = Problem::new(format!("backend-{number} does not answer on {address}"))
                    .hint("is the stack up? ./asgard status");
            }
        }
    }
    Err(problem)
}

fn request(state: &State, notify: &Notify) -> (&'static str, Value) {
    let issuer = state.issuer();
    let audience = match (&notify.session, &notify.org, &notify.subject) {
        (Some(session), _, _) => json!({ "session": session }),
        (None, Some(organisation), Some(subject)) => {
            json!({ "principal": { "issuer": issuer, "subject": subject, "organisation": organisation } })
        }
        (None, Some(organisation), None) => {
            json!({ "organisation": { "issuer": issuer, "organisation": organisation } })
        }
        (None, None, _) => json!("everyone"),
    };
    let list = |name: &str| (format!("notifications/{name}/list_changed"), json!({}));
    let (method, params) = match &notify.what {
        News::Tools => list("tools"),
        News::Prompts => list("prompts"),
        News::Resources => list("resources"),
        News::Resource { uri } => ("notifications/resources/updated".to_owned(), json!({ "uri": uri })),
        News::Log { text, level } => {
            ("notifications/message".to_owned(), json!({ "level": level, "data": text }))
        }
        News::Close => return ("/close", json!({ "audience": audience })),
    };
    ("/notify", json!({ "audience": audience, "method": method, "params": params }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::ports::Ports;

    #[test]
    fn the_command_line_becomes_a_request() {
        let state = State::new(Ports::default());
        let of = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Notify(notify) = cli.command else { panic!("not notify") };
            request(&state, &notify)
        };
        let issuer = state.issuer();
        assert_eq!(
            of("asgard notify tools"),
            (
                "/notify",
                json!({ "audience": "everyone", "method": "notifications/tools/list_changed", "params": {} })
            )
        );
        let (path, body) = of("asgard notify log hello --level error --org org-1 --subject u1");
        assert_eq!(path, "/notify");
        assert_eq!(
            body["audience"],
            json!({ "principal": { "issuer": issuer, "subject": "u1", "organisation": "org-1" } })
        );
        assert_eq!(body["params"], json!({ "level": "error", "data": "hello" }));
        assert_eq!(of("asgard notify close --session s").1, json!({ "audience": { "session": "s" } }));
        assert!(Cli::try_parse_from(["asgard", "notify", "tools", "--subject", "u1"]).is_err());
    }
}
