//! Envoy as the gateway (Bifrost).

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::config::envoy;
use crate::health::Probe;
use crate::paths::write_private;
use crate::problem::{Problem, Result};
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let program = plan.tools.envoy.clone().ok_or_else(|| Problem::new("Envoy is not installed"))?;
    let folder = plan.folder("gateway")?;
    let file = folder.join("envoy.yaml");
    write_private(&file, configuration(plan)?.as_bytes())?;
    let address = format!("{}:{}", plan.state.listen, plan.state.ports.gateway);
    let host = if plan.state.listen == "0.0.0.0" { "127.0.0.1" } else { plan.state.listen.as_str() };
    // Half of the machine: backends and workers run there too, and each thread more makes all of them wait for each other.
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2).clamp(1, 8);
    let args =
        ["-c", &file.display().to_string(), "--disable-hot-restart", "--concurrency", &threads.to_string()]
            .map(str::to_owned)
            .into_iter()
            .chain(["-l", "warning", "--log-format", "%Y-%m-%d %T.%e %l %n %v"].map(str::to_owned))
            .collect();
    Ok(PartSpec {
        name: "gateway".to_owned(),
        kind: Kind::Gateway,
        address,
        program,
        args,
        env: BTreeMap::new(),
        folder,
        stale: Vec::new(),
        after: Vec::new(),
        probe: ready(host, plan.state.ports.gateway),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(3),
        orphan_signal: Signal::SIGKILL,
        stop_wave: 0,
    })
}

/// The filter itself answers this path: a good answer shows that it is loaded and configured.
pub(super) fn ready(host: &str, port: u16) -> Probe {
    Probe::Http(format!("http://{host}:{port}/.well-known/oauth-protected-resource/api/v1/mcp/org-1"))
}

/// `envoy.yaml`.
pub(super) fn configuration(plan: &Plan) -> Result<String> {
    envoy::file(&plan.gateway_settings()?, &envoy::module(&plan.tools.filter))
}
