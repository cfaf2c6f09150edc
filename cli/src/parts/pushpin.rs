//! Pushpin (Hermod): holds the streams.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Plan;
use crate::health::Probe;
use crate::paths::private_dir;
use crate::problem::Result;
use crate::render::{Values, render_file};
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let folder = plan.folder("pushpin")?;
    let (run, log) = (plan.paths.pushpin(), plan.paths.logs().join("pushpin"));
    private_dir(&run)?;
    private_dir(&log)?;
    let socket = |name: &str| format!("ipc://{}", run.join(name).display());
    let ports = &plan.state.ports;
    let gateway_host = if plan.state.listen == "0.0.0.0" { "127.0.0.1" } else { plan.state.listen.as_str() };
    let values: Values = [
        ("PUSHPIN_SERVICES", "condure,zurl,pushpin-proxy,pushpin-handler".to_owned()),
        ("PUSHPIN_RUN", run.display().to_string()),
        ("PUSHPIN_LOG", log.display().to_string()),
        ("PUSHPIN_HTTP", format!("{}:{}", plan.state.listen, ports.pushpin)),
        // Whoever reaches these reads and forges all streams: sockets in the private run folder.
        ("PUSHPIN_PULL", socket("pull")),
        ("PUSHPIN_SUB", plan.publish_address()),
        ("PUSHPIN_COMMAND", socket("command")),
        ("PUSHPIN_STATS", socket("stats")),
        // Publishing over HTTP knows no sockets. None: nobody here needs it.
        ("PUSHPIN_PUBLISH_ADDRESS", "127.0.0.1".to_owned()),
        ("PUSHPIN_PUBLISH_PORT", "-1".to_owned()),
        // Counters alone.
        ("PUSHPIN_METRICS", Plan::local(ports.pushpin_metrics)),
        ("GRIP_ISS", "pushpin".to_owned()),
        ("GRIP_KEY_BASE64", plan.state.secrets.grip_key_standard()?),
        ("BACKENDS", plan.backend_addresses().join(" ")),
        ("GATEWAY", format!("{gateway_host}:{}", ports.gateway)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let templates = plan.paths.root.join("pushpin");
    render_file(&templates.join("pushpin.conf.in"), &folder.join("pushpin.conf"), &values)?;
    render_file(&templates.join("routes.in"), &folder.join("routes"), &values)?;
    Ok(PartSpec {
        name: "pushpin".to_owned(),
        kind: Kind::Pushpin,
        address: format!("{}:{}", plan.state.listen, ports.pushpin),
        program: plan.tools.pushpin.clone(),
        args: vec![format!("--config={}", folder.join("pushpin.conf").display())],
        env: BTreeMap::new(),
        folder,
        stale: Vec::new(),
        after: Vec::new(),
        probe: Probe::Open(vec![
            run.join("sub").display().to_string(),
            run.join("pull").display().to_string(),
            format!("{gateway_host}:{}", ports.pushpin),
        ]),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        // It has children of its own, and ends them.
        orphan_signal: Signal::SIGTERM,
        stop_wave: 1,
    })
}
