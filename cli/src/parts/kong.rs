//! Kong as the gateway (Bifrost), natively: a `kong` on `PATH`.
//!
//! The files are those of the compose setup (`kong/`), rendered for loopback; its README explains the names.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Plan, envoy, filter};
use crate::hosts::Hosts;
use crate::paths::{private_dir, write_private};
use crate::problem::{Problem, Result};
use crate::render::{Values, render, render_file};
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let program = plan.tools.kong.clone().ok_or_else(|| {
        Problem::new("there is no kong on PATH").mend("install Kong Gateway 3.9, or use --gateway envoy")
    })?;
    let folder = plan.folder("gateway")?;
    let (prefix, filters) = (folder.join("prefix"), folder.join("filters"));
    private_dir(&prefix)?;
    private_dir(&filters)?;
    let module = filters.join("kong_filter.wasm");
    std::fs::copy(&plan.tools.filter, &module).map_err(|e| Problem::io("write", &module, &e))?;
    let meta = plan.paths.root.join("kong/kong_filter.meta.json");
    if meta.is_file() {
        let text = std::fs::read(&meta).map_err(|e| Problem::io("read", &meta, &e))?;
        write_private(&filters.join("kong_filter.meta.json"), &text)?;
    }
    let templates = plan.paths.root.join("kong");
    let mut values = values(plan)?;
    values.insert("HOST_ROUTES".to_owned(), host_routes(&templates, &Hosts::load(&plan.paths)?)?);
    for (name, path) in [("KONG_CONF_DIR", &folder), ("KONG_PREFIX", &prefix), ("KONG_FILTERS_DIR", &filters)]
    {
        values.insert(name.to_owned(), path.display().to_string());
    }
    for file in ["kong.yml", "nginx-http.conf", "nginx-proxy.conf"] {
        render_file(&templates.join(format!("{file}.in")), &folder.join(file), &values)?;
    }
    let env = environment(&templates, &values)?;
    let host = if plan.state.listen == "0.0.0.0" { "127.0.0.1" } else { plan.state.listen.as_str() };
    Ok(PartSpec {
        name: "gateway".to_owned(),
        kind: Kind::Gateway,
        address: format!("{}:{}", plan.state.listen, plan.state.ports.gateway),
        program,
        args: vec!["start".to_owned(), "--prefix".to_owned(), prefix.display().to_string()],
        env,
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

/// The routes of the hosts' short paths: `host-route.yml.in`, filled in for each.
fn host_routes(templates: &Path, hosts: &Hosts) -> Result<String> {
    let file = templates.join("host-route.yml.in");
    let text = std::fs::read_to_string(&file).map_err(|e| Problem::io("read", &file, &e))?;
    let one = |(host, organisation): (&str, &str)| {
        let values = [("ORGANISATION_HOST", host), ("ORGANISATION", organisation)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        filled(&file, &text, &values.into())
    };
    hosts.iter().map(one).collect()
}

fn filled(file: &Path, text: &str, values: &Values) -> Result<String> {
    render(text, values).map_err(|p| Problem { what: format!("{}: {}", file.display(), p.what), ..p })
}

/// `kong.env.in`, filled in: lines of NAME=value.
fn environment(templates: &Path, values: &Values) -> Result<BTreeMap<String, String>> {
    let file = templates.join("kong.env.in");
    let text = std::fs::read_to_string(&file).map_err(|e| Problem::io("read", &file, &e))?;
    let text = filled(&file, &text, values)?;
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| Problem::new(format!("{}: {line:?} is not NAME=value", file.display())))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn values(plan: &Plan) -> Result<Values> {
    let ports = &plan.state.ports;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten()
        .ok_or_else(|| Problem::new("this user has no name in /etc/passwd"))?
        .name;
    let targets: Vec<_> =
        plan.backend_addresses().into_iter().map(|target| json!({"target": target, "weight": 100})).collect();
    let mut origins = filter::origins(plan);
    origins.push(plan.state.public_url.clone());
    let pushpin = Plan::local(ports.pushpin);
    Ok([
        ("KONG_USER", format!("{user} {user}")),
        ("KONG_WORKERS", threads.to_string()),
        ("GATEWAY_LISTEN", format!("{}:{}", plan.state.listen, ports.gateway)),
        ("KONG_STATUS_LISTEN", Plan::local(ports.kong_status)),
        ("KONG_TRUSTED_IPS", "127.0.0.1/32".to_owned()),
        ("KONG_ERROR_LOG", "/dev/stderr".to_owned()),
        ("BACKEND_TARGETS", json!(targets).to_string()),
        ("CORS_ORIGINS", json!(origins).to_string()),
        ("FILTER_CONFIG", filter::config(plan)?),
        ("KEYCLOAK_ADDRESS", Plan::local(ports.keycloak)),
        ("HERMOD_SERVERS", format!("server {pushpin};")),
        ("GRIP_ISS", "pushpin".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}
