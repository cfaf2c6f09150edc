//! The peer: an rmcp server as its authors meant it, with JSON answers.

use axum::serve::ListenerExt;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, schemars, tool, tool_router};

use super::process::{Process, free_address};
use crate::cpu::Part;
use crate::mcp::Endpoint;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    text: String,
}

#[derive(Clone)]
struct Server {
    tool_router: rmcp::handler::server::router::tool::ToolRouter<Self>,
}

#[tool_router]
impl Server {
    /// Says the same.
    #[tool]
    async fn echo(&self, Parameters(Echo { text }): Parameters<Echo>) -> String {
        text
    }
}

#[rmcp::tool_handler(router = self.tool_router)]
impl ServerHandler for Server {}

/// Starts this program as the peer.
pub async fn start() -> crate::Result<(Process, Endpoint)> {
    let address = free_address()?;
    let program = std::env::current_exe()?;
    let mut process = Process::spawn(&program, ["plain", "--listen", &address], [], address.clone())?;
    process.ready(None).await?;
    let endpoint = Endpoint::new("plain rmcp, direct", &format!("http://{address}/mcp"))?;
    let endpoint = endpoint.with_parts(vec![Part::new("server", process.pid)]);
    Ok((process, endpoint))
}

/// Serves until the process ends.
pub async fn serve(listen: &str) -> crate::Result<()> {
    let mut config = StreamableHttpServerConfig::default();
    config.legacy_session_mode = false;
    config.json_response = true;
    let server = Server { tool_router: Server::tool_router() };
    let service: StreamableHttpService<Server, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(server.clone()), Default::default(), config);
    let listener = tokio::net::TcpListener::bind(listen).await?.tap_io(|io| {
        let _ = io.set_nodelay(true);
    });
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
