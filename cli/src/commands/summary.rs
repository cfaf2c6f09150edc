//! What `up` prints when all is ready: addresses, sample accounts, a call to copy.

use crate::paths::Paths;
use crate::samples::USERS;
use crate::state::{SAMPLE_PASSWORD, State};
use crate::ui::say;

/// Prints it.
pub fn print(paths: &Paths, state: &State) {
    say(text(paths, state));
}

fn text(paths: &Paths, state: &State) -> String {
    let url = &state.public_url;
    let ports = &state.ports;
    let inspector = format!(
        "http://localhost:{}/?MCP_INSPECTOR_API_TOKEN={}",
        ports.inspector, state.secrets.inspector_token
    );
    let known: &[_] = if state.sample_users == Some(false) { &[] } else { &USERS };
    let users: Vec<String> = known
        .iter()
        .map(|(user, organisations)| match organisations {
            [] => format!("{user} (no organisation)"),
            some => format!("{user} ({})", some.join(", ")),
        })
        .collect();
    let admin = &state.secrets;
    let mut text = format!(
        "
  MCP endpoint     {url}/api/v1/mcp/org-1   (and org-2)
  at its own host  {own}/mcp
  by Pushpin       http://localhost:{pushpin}/api/v1/mcp/org-1
  MCP Inspector    {inspector}
  Keycloak         {url}/heimdall/   {user} / {password}
  sample users     {users}
  files            {home}

{calls}  ./asgard status
",
        own = state.host_url("org-1.localhost").unwrap_or_default(),
        pushpin = ports.pushpin,
        user = admin.admin_user,
        password =
            if admin.admin_password == SAMPLE_PASSWORD { SAMPLE_PASSWORD } else { "(in the state file)" },
        users = if users.is_empty() {
            "none".into()
        } else {
            format!("{}; the password is the name", users.join(", "))
        },
        calls = if users.is_empty() {
            ""
        } else {
            "  ./asgard call report --arg steps=20 --arg step_ms=200 --user thor\n  ./asgard token thor\n"
        },
        home = paths.shown(&paths.home),
    );
    for warning in warnings(state) {
        text.push_str(&format!("\n  WARNING: {warning}\n"));
    }
    text
}

/// What is wrong with a sample setup that others can reach.
#[must_use]
pub fn warnings(state: &State) -> Vec<String> {
    if state.is_loopback() {
        return Vec::new();
    }
    let mut warnings: Vec<String> =
        state.check_samples().err().map(|problem| problem.what).into_iter().collect();
    if state.sample_users == Some(true) {
        warnings.push(
            "others can reach this stack, and the sample users thor, hel, freya and surt have their names as passwords: \
             sample_users = true in the state file says so"
                .into(),
        );
    }
    if state.sample_users == Some(true) && state.secrets.admin_password == SAMPLE_PASSWORD {
        warnings.push(
            "Keycloak's administrator has the sample password: write another admin_password into the state file".into(),
        );
    }
    if state.public_url.starts_with("http:") {
        warnings.push("tokens travel in clear text: put TLS in front and write https into public_url".into());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    #[test]
    fn others_that_can_reach_it_are_a_reason_to_warn() {
        let mut state = State::new(Ports::default());
        assert!(warnings(&state).is_empty());
        state.listen = "0.0.0.0".into();
        assert_eq!(warnings(&state).len(), 2, "accounts that everybody knows, and no TLS");
        state.sample_users = Some(true);
        assert_eq!(warnings(&state).len(), 3);
        state.secrets.admin_password = "another".into();
        state.public_url = "https://mcp.example.org".into();
        assert_eq!(warnings(&state).len(), 1);
        state.sample_users = Some(false);
        assert!(warnings(&state).is_empty());
    }

    #[test]
    fn who_can_log_in_is_said() {
        let paths = Paths { root: "/r".into(), cache: "/c".into(), home: "/h".into() };
        let mut state = State::new(Ports::default());
        assert!(
            text(&paths, &state)
                .contains("thor (org-1), hel (org-2), freya (org-1, org-2), surt (no organisation); the")
        );
        state.sample_users = Some(false);
        let text = text(&paths, &state);
        assert!(text.contains("sample users     none\n") && !text.contains("thor"), "{text}");
    }
}
