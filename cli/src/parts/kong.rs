//! Kong as the gateway (Bifrost), natively: a `kong` on `PATH`.
//!
//! The files are those of the compose setup (`kong/`), rendered for loopback; its README explains the names.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Plan, envoy};
use crate::config::kong::{self, Files, Place};
use crate::paths::{private_dir, write_private};
use crate::problem::{Problem, Result};
use crate::supervisor::part::{Kind, PartSpec};

/// Kong's working folder, in the folder of its files.
const PREFIX: &str = "prefix";
/// The folder of the filter, there too.
const FILTERS: &str = "filters";

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let program = plan.tools.kong.clone().ok_or_else(|| {
        Problem::new("there is no kong on PATH").hint("install Kong Gateway 3.9, or use --gateway envoy")
    })?;
    let folder = plan.folder("gateway")?;
    let (prefix, filters) = (folder.join(PREFIX), folder.join(FILTERS));
    private_dir(&prefix)?;
    private_dir(&filters)?;
    let module = filters.join("kong_filter.wasm");
    std::fs::copy(&plan.tools.filter, &module).map_err(|e| Problem::io("write", &module, &e))?;
    let meta = plan.paths.root.join("kong/kong_filter.meta.json");
    if meta.is_file() {
        let text = std::fs::read(&meta).map_err(|e| Problem::io("read", &meta, &e))?;
        write_private(&filters.join("kong_filter.meta.json"), &text)?;
    }
    let files = configuration(plan, &folder)?;
    for (name, text) in files.read_by_kong() {
        write_private(&folder.join(name), text.as_bytes())?;
    }
    let host = if plan.state.listen == "0.0.0.0" { "127.0.0.1" } else { plan.state.listen.as_str() };
    Ok(PartSpec {
        name: "gateway".to_owned(),
        kind: Kind::Gateway,
        address: format!("{}:{}", plan.state.listen, plan.state.ports.gateway),
        program,
        args: vec!["start".to_owned(), "--prefix".to_owned(), prefix.display().to_string()],
        env: files.environment()?,
        folder,
        // After kill -9 Kong believes that it still runs.
        stale: vec![prefix.join("pids/nginx.pid")],
        after: Vec::new(),
        probe: envoy::ready(host, plan.state.ports.gateway),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        // The master ends its workers.
        orphan_signal: Signal::SIGTERM,
        stop_wave: 0,
    })
}

/// Kong's files, for a Kong that has them in this folder.
pub(super) fn configuration(plan: &Plan, folder: &Path) -> Result<Files> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .ok_or_else(|| Problem::new("this user has no name in /etc/passwd"))?
        .name;
    let place = Place {
        files: folder.display().to_string(),
        prefix: folder.join(PREFIX).display().to_string(),
        filters: folder.join(FILTERS).display().to_string(),
        user: format!("{user} {user}"),
        workers: threads.to_string(),
        status_listen: Plan::local(plan.state.ports.kong_status),
        trusted_ips: "127.0.0.1/32".to_owned(),
    };
    kong::files(&plan.gateway_settings()?, &place)
}
