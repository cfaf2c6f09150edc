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
    let (run, log) = (folder.join("run"), plan.paths.logs().join("pushpin"));
    private_dir(&run)?;
    private_dir(&log)?;
    let ports = &plan.state.ports;
    let gateway_host = if plan.state.listen == "0.0.0.0" { "127.0.0.1" } else { plan.state.listen.as_str() };
    let values: Values = [
        ("PUSHPIN_SERVICES", "condure,zurl,pushpin-proxy,pushpin-handler".to_owned()),
        ("PUSHPIN_RUN", run.display().to_string()),
        ("PUSHPIN_LOG", log.display().to_string()),
        ("PUSHPIN_HTTP", format!("{}:{}", plan.state.listen, ports.pushpin)),
        ("PUSHPIN_PULL", format!("tcp://{}", Plan::local(ports.pushpin_pull))),
        ("PUSHPIN_SUB", format!("tcp://{}", Plan::local(ports.pushpin_sub))),
        ("PUSHPIN_PUBLISH_ADDRESS", "127.0.0.1".to_owned()),
        ("PUSHPIN_PUBLISH_PORT", ports.pushpin_http.to_string()),
        ("PUSHPIN_COMMAND", format!("tcp://{}", Plan::local(ports.pushpin_command))),
        ("PUSHPIN_STATS", format!("tcp://{}", Plan::local(ports.pushpin_stats))),
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
        probe: Probe::Tcp(vec![
            Plan::local(ports.pushpin_sub),
            format!("{gateway_host}:{}", ports.pushpin),
            Plan::local(ports.pushpin_http),
        ]),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(5),
        // It has children of its own, and ends them.
        orphan_signal: Signal::SIGTERM,
        stop_wave: 1,
    })
}
