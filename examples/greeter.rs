//! A whole MCP server: a tool with progress that asks its user and knows its caller.
//!
//! `cargo run --example greeter` serves at http://127.0.0.1:8081/api/v1/mcp/org-1, in every revision, for anybody
//! on this machine. With `ASGARD_REDIS_URL` (and what `docs/library.md` names) the same program is a worker
//! of a site behind its gateway.

use odin::rmcp::handler::server::wrapper::Parameters;
use odin::rmcp::model::{CallToolResult, ContentBlock};
use odin::rmcp::{self, ServerHandler, schemars, tool, tool_handler, tool_router};
use odin::{Ask, Asked, Caller, Program, Progress, ToolResult};

struct Greeter;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Times {
    /// How often to greet.
    times: u32,
}

#[tool_router]
impl Greeter {
    #[tool(description = "Greets you, in a language that it asks for", annotations(read_only_hint = true))]
    async fn greet(&self, args: Parameters<Times>, by: Caller, ask: Ask, progress: Progress) -> ToolResult {
        let hello = match ask.text("language", "In which language, such as en or is?").await? {
            Asked::Answer(language) if language == "is" => "Sæl",
            Asked::Later(response) => return Ok(response),
            _ => "Hello",
        };
        for step in 1..=args.0.times {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            progress.report(step, args.0.times).await?;
        }
        let text = format!("{hello}, {} of {}!", by.subject, by.organisation);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

#[tool_handler(name = "greeter")]
impl ServerHandler for Greeter {}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    Program::from_args().serve(Greeter).await
}
