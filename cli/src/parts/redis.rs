//! Redis: queue, sessions, events. A store of its own, never the system's: it listens at a socket in the private
//! run folder, and at no port. Whoever reaches it reads and forges all streams.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::health::Probe;
use crate::problem::Result;
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let folder = plan.folder("redis")?;
    let socket = plan.paths.redis();
    let address = socket.display().to_string();
    let args = [
        "--port",
        "0",
        "--unixsocket",
        &address,
        "--unixsocketperm",
        "700",
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
        probe: Probe::Redis(socket),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        orphan_signal: Signal::SIGKILL,
        stop_wave: 1,
    })
}
