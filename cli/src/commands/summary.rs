//! What `up` prints when all is ready: addresses, sample accounts, a call to copy.

use crate::paths::Paths;
use crate::state::State;
use crate::ui::say;

/// The sample users and their organisations; each one's password is the name.
pub const USERS: [(&str, &[&str]); 4] =
    [("thor", &["org-1"]), ("hel", &["org-2"]), ("freya", &["org-1", "org-2"]), ("surt", &[])];

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
    let users: Vec<String> = USERS
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
  sample users     {users}; the password is the name
  files            {home}

  ./asgard call report --arg steps=20 --arg step_ms=200 --user thor
  ./asgard token thor
  ./asgard status
",
        own = state.host_url("org-1.localhost").unwrap_or_default(),
        pushpin = ports.pushpin,
        user = admin.admin_user,
        password =
            if admin.admin_password == "adminpassword" { "adminpassword" } else { "(in the state file)" },
        users = users.join(", "),
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
    let mut warnings = vec![format!(
        "{} is not a loopback address, and the sample users thor, hel, freya and surt have their names as passwords: \
         remove them in Keycloak before others can reach it",
        state.public_url
    )];
    if state.secrets.admin_password == "adminpassword" {
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
        assert_eq!(warnings(&state).len(), 3);
        state.secrets.admin_password = "another".into();
        state.public_url = "https://mcp.example.org".into();
        assert_eq!(warnings(&state).len(), 1);
    }
}
