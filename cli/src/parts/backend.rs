//! OdinMCP: the MCP front end behind the gateway.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::health::Probe;
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan, number: u16) -> PartSpec {
    let name = format!("backend-{number}");
    let secrets = &plan.state.secrets;
    let address = Plan::local(plan.state.ports.backend.saturating_add(number.saturating_sub(1)));
    let policy = plan.paths.policy_file();
    let policy = policy.is_file().then(|| ("ASGARD_POLICY", policy.display().to_string()));
    let env = plan.own_env(
        Kind::Backend,
        [
            ("ASGARD_LISTEN", address.clone()),
            ("ASGARD_HANDOVER", plan.gateway.name().to_owned()),
            ("ASGARD_ASSERTION_KEYS", secrets.assertion_keys.clone()),
            ("ASGARD_SESSION_KEY", secrets.session_key.clone()),
            ("ASGARD_GRIP_ISS", "pushpin".to_owned()),
            ("ASGARD_GRIP_KEY", secrets.grip_key.clone()),
            ("ASGARD_NODE", name.clone()),
        ]
        .into_iter()
        .chain(admin(plan, number))
        .chain(policy),
    );
    PartSpec {
        name,
        kind: Kind::Backend,
        address: address.clone(),
        program: plan.program(Kind::Backend, &plan.tools.backend),
        args: Vec::new(),
        env,
        folder: plan.paths.run(),
        stale: Vec::new(),
        after: vec!["redis".to_owned(), "pushpin".to_owned()],
        probe: Probe::Http(format!("http://{address}/readyz")),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        orphan_signal: Signal::SIGKILL,
        stop_wave: 0,
    }
}

/// The admin API, if the stack has a port for it.
fn admin(plan: &Plan, number: u16) -> Vec<(&'static str, String)> {
    match plan.state.admin_address(number) {
        Some(address) => vec![
            ("ASGARD_ADMIN_LISTEN", address),
            ("ASGARD_ADMIN_TOKEN", plan.state.secrets.admin_token.clone()),
        ],
        None => Vec::new(),
    }
}
