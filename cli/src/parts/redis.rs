//! Redis (Mimir): queue, sessions, events. A store of its own on loopback, never the system's.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::health::Probe;
use crate::problem::Result;
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let folder = plan.folder("redis")?;
    let address = Plan::local(plan.state.ports.redis);
    let args = [
        "--bind",
        "127.0.0.1",
        "--port",
        &plan.state.ports.redis.to_string(),
        "--dir",
        &folder.display().to_string(),
        // Survives a kill of the process; the file goes with the stack.
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--loglevel",
        "notice",
        "--tcp-backlog",
        "511",
    ];
    Ok(PartSpec {
        name: "redis".to_owned(),
        kind: Kind::Redis,
        address: address.clone(),
        program: plan.tools.redis.clone(),
        args: args.map(str::to_owned).into(),
        env: BTreeMap::new(),
        folder,
        stale: Vec::new(),
        after: Vec::new(),
        probe: Probe::Redis(address),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        orphan_signal: Signal::SIGKILL,
        stop_wave: 1,
    })
}
