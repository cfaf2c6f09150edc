//! A whole MCP server: a tool with progress that asks its user and knows its caller.
//!
//! `cargo run --example greeter` serves at http://127.0.0.1:8081/api/v1/mcp/org-1, in every revision, for anybody
//! on this machine. With `ASGARD_REDIS_URL` (and what `docs/library.md` names) the same program is a worker
//! of a site behind its gateway.

use std::process::ExitCode;
use std::time::Duration;

use odin::identity::Principal;
use odin::{Ask, Asked, Program};
use rmcp::handler::server::{tool::Extension, wrapper::Parameters};
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock, ProgressNotificationParam};
use rmcp::schemars::{self, JsonSchema};
use rmcp::{ErrorData, RoleServer, ServerHandler, service::RequestContext, tool, tool_handler, tool_router};
use serde::Deserialize;

struct Greeter;

#[derive(Deserialize, JsonSchema)]
struct Times {
    /// How often to greet.
    times: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Language {
    /// Such as `en` or `is`.
    language: String,
}

#[tool_router]
impl Greeter {
    #[tool(description = "Greets you, in a language that it asks for", annotations(read_only_hint = true))]
    async fn greet(
        &self,
        Parameters(Times { times }): Parameters<Times>,
        Extension(caller): Extension<Principal>,
        ask: Ask,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let hello = match ask.user::<Language>("language", "In which language?").await? {
            Asked::Answer(Language { language }) if language == "is" => "Sæl",
            Asked::Later(response) => return Ok(response),
            _ => "Hello",
        };
        for step in 1..=times {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, step.into()).with_total(times.into());
                let _ = context.peer.notify_progress(progress).await;
            }
        }
        let text = format!("{hello}, {} of {}!", caller.subject, caller.organisation);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

#[tool_handler]
impl ServerHandler for Greeter {}

#[tokio::main]
async fn main() -> ExitCode {
    Program::from_args().serve(Greeter).await
}
