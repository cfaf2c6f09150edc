//! `asgard can`: the policy, asked on behalf of a user.

use std::collections::BTreeMap;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::claims::{self, Expected};
use identity::policy::Request;
use identity::scopes::Hierarchy;
use identity::{ClaimNames, Claims, Policy, Principal};
use serde_json::{Value, json};

use crate::client::Client;
use crate::paths::Paths;
use crate::policy;
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::token;

/// Prints what a user may use in an organisation, and which rule says so: one tool, or all that are known.
///
/// # Errors
/// When Keycloak or the server does not answer, or the policy is not usable.
pub async fn run(paths: &Paths, user: &str, organisation: &str, tool: Option<&str>) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    let policy = policy::load(paths)?.unwrap_or_default();
    let (token, _) = token::for_user(&state, user, Some(organisation)).await?;
    let caller = match caller(&state, &token, organisation)? {
        Ok(mut caller) => {
            Hierarchy::new(&policy::implied_scopes()).complete(&mut caller.scopes);
            caller
        }
        Err(why) => {
            println!("{user} may use nothing in {organisation}: {why}");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("{}", describe(user, &caller));
    if let Some(tool) = tool {
        let (allowed, line) = decide(&policy, &caller, tool);
        println!("{line}");
        return Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let client = Client::new(state.resource(organisation), token)?;
    let tools = client.request("tools/list", json!({}), &[], |_, _| {}).await?.result;
    for (_, line) in known(&policy, &tools).keys().map(|tool| decide(&policy, &caller, tool)) {
        println!("{line}");
    }
    if policy.dry_run {
        println!("The policy is in a dry run: nothing is refused, the gateway's log says what would be.");
    }
    Ok(ExitCode::SUCCESS)
}

/// The caller that the gateway would see, or why it would refuse the token.
fn caller(state: &State, token: &str, organisation: &str) -> Result<std::result::Result<Principal, String>> {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = payload.and_then(|payload| claims::object(&payload).ok());
    let claims = claims.and_then(|claims| Claims::from_object(&claims, &ClaimNames::default()).ok());
    let claims = claims.ok_or_else(|| Problem::new("Keycloak's token is not one that the gateway reads"))?;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (issuer, resource) = (state.issuer(), state.resource(organisation));
    let audience = |audience: &str| claims::same_resource(audience, &resource);
    let expected = Expected { issuer: &issuer, audience: &audience, clients: None, leeway: 30, now };
    if let Err(error) = claims.check(&expected) {
        return Ok(Err(format!("{error} ({})", error.code())));
    }
    let member = claims.principal(organisation);
    Ok(member.ok_or_else(|| "the token shows no membership in it (organisation_not_member)".to_owned()))
}

/// Who it is, as far as the policy's rules can tell callers apart.
fn describe(user: &str, caller: &Principal) -> String {
    let list = |name: &str, values: &[String]| match values {
        [] => format!("no {name}"),
        values => format!("{name} {}", values.join(", ")),
    };
    format!(
        "{user} in {}: {}; {}; {}; client {}",
        caller.organisation,
        list("scopes", &caller.scopes),
        list("roles", &caller.roles),
        list("groups", &caller.groups),
        caller.client.as_deref().unwrap_or("unknown")
    )
}

/// Whether a tool may be called, and a line that says so with its reason.
fn decide(policy: &Policy, caller: &Principal, tool: &str) -> (bool, String) {
    let decision = policy.decide(caller, Request { method: "tools/call", name: Some(tool) });
    let by = match decision.rule {
        Some((number, rule)) => match &rule.name {
            Some(name) => format!("rule {number}, {name:?}"),
            None => format!("rule {number}"),
        },
        None if policy.rules.is_empty() => "there are no rules".to_owned(),
        None => "no rule fits, so the default holds".to_owned(),
    };
    let mut line = format!("{}  {tool:<20} {by}", if decision.allowed() { "yes" } else { "no " });
    if !decision.scopes.is_empty() {
        line.push_str(&format!("; allowed with the scopes {}", decision.scopes.join(" ")));
    }
    (decision.allowed(), line)
}

/// All tools that one can know of: those that the server lists to this user, and those that rules name
/// without a wildcard.
fn known(policy: &Policy, listed: &Value) -> BTreeMap<String, ()> {
    let listed = listed.get("tools").and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|tool| tool.get("name")?.as_str().map(str::to_owned));
    let named = policy.rules.iter().filter(|rule| {
        rule.methods.is_empty() || rule.methods.iter().any(|method| method.matches("tools/call"))
    });
    let named = named.flat_map(|rule| &rule.names).filter(|name| !name.0.contains('*'));
    listed.chain(named.map(|name| name.0.clone())).map(|name| (name, ())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::from_json(
            br#"{"rules": [
                {"name": "admins drop", "effect": "allow", "scopes": ["mcp:admin"], "names": ["drop"]},
                {"effect": "deny", "names": ["drop", "wipe*"]}
            ]}"#,
        )
        .unwrap()
    }

    fn caller(scopes: &[&str]) -> Principal {
        let mut caller = Principal::new("i", "s", "org-1");
        caller.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        caller
    }

    #[test]
    fn each_answer_names_its_rule() {
        let of = |scopes: &[&str], tool| decide(&policy(), &caller(scopes), tool);
        assert_eq!(
            of(&[], "echo").1.split_whitespace().collect::<Vec<_>>().join(" "),
            "yes echo no rule fits, so the default holds"
        );
        let (allowed, line) = of(&[], "drop");
        assert!(!allowed && line.ends_with("rule 2; allowed with the scopes mcp:admin"), "{line}");
        let (allowed, line) = of(&["mcp:admin"], "drop");
        assert!(allowed && line.ends_with("rule 1, \"admins drop\""), "{line}");
        assert!(decide(&Policy::default(), &caller(&[]), "x").1.ends_with("there are no rules"));
    }

    #[test]
    fn tools_come_from_the_server_and_from_the_rules() {
        let listed = json!({"tools": [{"name": "echo"}, {"name": "drop"}]});
        assert_eq!(known(&policy(), &listed).into_keys().collect::<Vec<_>>(), ["drop", "echo"]);
        assert_eq!(known(&policy(), &Value::Null).into_keys().collect::<Vec<_>>(), ["drop"]);
    }
}
