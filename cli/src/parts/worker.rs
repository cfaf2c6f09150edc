//! The Odin worker: runs the tools.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::health::Probe;
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan, number: u16) -> PartSpec {
    let name = format!("worker-{number}");
    let address = Plan::local(plan.state.ports.worker.saturating_add(number.saturating_sub(1)));
    let env = plan.own_env(
        Kind::Worker,
        [
            ("ASGARD_LISTEN", address.clone()),
            // As private as Redis' socket, and cheaper than TCP.
            ("ASGARD_LINKS", format!("unix:{}", plan.paths.sockets().join(format!("{name}.sock")).display())),
            ("ASGARD_WORKER", name.clone()),
            ("ASGARD_STATE_KEY", plan.state.secrets.dialogue_key.clone()),
            // The toolbox's notebooks, which all workers share.
            ("ASGARD_DATA", plan.paths.data().join("toolbox").display().to_string()),
        ],
    );
    PartSpec {
        name,
        kind: Kind::Worker,
        address: address.clone(),
        program: plan.program(Kind::Worker, &plan.tools.worker),
        args: Vec::new(),
        env,
        folder: plan.paths.run(),
        stale: Vec::new(),
        after: vec!["redis".to_owned(), "pushpin".to_owned()],
        probe: Probe::Http(format!("http://{address}/readyz")),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        // A tool may have children of its own; it gets the chance to end them.
        orphan_signal: Signal::SIGTERM,
        stop_wave: 0,
    }
}
