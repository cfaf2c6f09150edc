//! A server as rmcp's users write it for stdio, made distributed by one line: the one in `main` was
//! `Counter::default().serve(rmcp::transport::stdio()).await?.waiting().await?;`.
//!
//! `cargo run --example counter`, then call it at http://127.0.0.1:8081/api/v1/mcp/org-1; or as a worker of a site.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ErrorData, ServerHandler, schemars, tool, tool_handler, tool_router};

/// A number that tools change. It lives in this process: behind a site, every worker has its own.
#[derive(Clone, Default)]
struct Counter {
    value: Arc<AtomicI64>,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Step {
    /// What to add.
    by: i64,
}

#[tool_router]
impl Counter {
    #[tool(description = "Adds to the counter, and gives its value")]
    async fn add(&self, Parameters(Step { by }): Parameters<Step>) -> Result<CallToolResult, ErrorData> {
        let value = self.value.fetch_add(by, Ordering::Relaxed).wrapping_add(by);
        Ok(CallToolResult::success(vec![ContentBlock::text(value.to_string())]))
    }

    #[tool(description = "Gives the counter's value", annotations(read_only_hint = true))]
    async fn value(&self) -> Result<CallToolResult, ErrorData> {
        let value = self.value.load(Ordering::Relaxed);
        Ok(CallToolResult::success(vec![ContentBlock::text(value.to_string())]))
    }
}

#[tool_handler]
impl ServerHandler for Counter {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("counter", env!("CARGO_PKG_VERSION")))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    odin::Program::from_args().run(Counter::default()).await?;
    Ok(())
}
