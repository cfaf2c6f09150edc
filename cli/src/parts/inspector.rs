//! MCP Inspector (Loki): what a person looks with.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::Plan;
use crate::health::Probe;
use crate::paths::{private_dir, write_private};
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::supervisor::part::{Kind, PartSpec};

pub(super) fn part(plan: &Plan) -> Result<PartSpec> {
    let (Some(node), Some(script)) = (plan.tools.node.clone(), plan.tools.inspector.clone()) else {
        return Err(
            Problem::new("the Inspector is not installed").hint("run ./asgard up without --no-inspector")
        );
    };
    let folder = plan.folder("inspector")?;
    let storage = plan.paths.data().join("inspector");
    private_dir(&storage)?;
    let catalog = storage.join("servers.json");
    // The page can change its servers, so a file that is there stays, unless the address has changed.
    let stays =
        std::fs::read_to_string(&catalog).is_ok_and(|text| text.contains(&plan.state.resource("org-1")));
    if !stays {
        write_private(&catalog, servers(&plan.state).as_bytes())?;
    }
    let ports = &plan.state.ports;
    let address = Plan::local(ports.inspector);
    let env = [
        ("HOST", "127.0.0.1".to_owned()),
        ("CLIENT_PORT", ports.inspector.to_string()),
        ("MCP_SANDBOX_PORT", ports.inspector_sandbox.to_string()),
        ("MCP_APP_ORIGIN_PORT", ports.inspector_apps.to_string()),
        ("MCP_INSPECTOR_API_TOKEN", plan.state.secrets.inspector_token.clone()),
        ("MCP_INSPECTOR_SECRET_STORE", "memory".to_owned()),
        ("MCP_AUTO_OPEN_ENABLED", "false".to_owned()),
        ("MCP_STORAGE_DIR", storage.display().to_string()),
    ];
    Ok(PartSpec {
        name: "inspector".to_owned(),
        kind: Kind::Inspector,
        address: address.clone(),
        program: node,
        args: vec![
            script.display().to_string(),
            "--web".to_owned(),
            "--catalog".to_owned(),
            catalog.display().to_string(),
        ],
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
        folder,
        stale: Vec::new(),
        after: Vec::new(),
        probe: Probe::Open(vec![address]),
        start_timeout: Duration::from_secs(60),
        stop_timeout: Duration::from_secs(2),
        orphan_signal: Signal::SIGTERM,
        stop_wave: 0,
    })
}

/// The sample's endpoints, as the Inspector reads them.
#[must_use]
pub fn servers(state: &State) -> String {
    let servers = json!({"mcpServers": {
        "asgard org-1": server(state, "org-1", Transport::Streamable),
        "asgard org-2": server(state, "org-2", Transport::Streamable),
        "asgard org-1 sse": server(state, "org-1", Transport::Sse),
    }});
    format!("{servers:#}\n")
}

/// How the Inspector is to speak.
enum Transport {
    /// Streamable HTTP, in the modern era.
    Streamable,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

fn server(state: &State, organisation: &str, transport: Transport) -> serde_json::Value {
    let url = state.resource(organisation);
    let oauth =
        json!({"clientId": "inspector", "scopes": format!("openid mcp:tools organization:{organisation}")});
    match transport {
        Transport::Streamable => json!({
            "type": "streamable-http",
            "url": url,
            "protocolEra": "modern",
            "headers": {},
            "oauth": oauth,
        }),
        Transport::Sse => json!({"type": "sse", "url": format!("{url}/sse"), "headers": {}, "oauth": oauth}),
    }
}
