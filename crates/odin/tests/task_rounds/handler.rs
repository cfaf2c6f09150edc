//! A handler with the tools that the tests run as tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use odin::call::{TaskContext, task::TaskTool};
use odin::later;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest,
    ElicitRequestParams, ElicitationSchema, InputRequest, InputRequiredResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

/// What the tools did, over all workers of a test.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) starts: AtomicUsize,
    pub(crate) ends: AtomicUsize,
    pub(crate) drops: AtomicUsize,
}

pub(crate) struct Handler {
    pub(crate) counts: Arc<Counts>,
}

/// Counts a run of a tool.
struct Running<'a> {
    counts: &'a Counts,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let counter = if self.ended { &self.counts.ends } else { &self.counts.drops };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

fn tool(name: &'static str, safe: bool, task: TaskTool) -> Tool {
    let schema = json!({ "type": "object" }).as_object().cloned().unwrap_or_default();
    let annotations = ToolAnnotations::new().read_only(false).idempotent(safe);
    Tool::new(name, "A test.", Arc::new(schema)).annotate(annotations).with_meta(task.meta())
}

fn question(text: &str) -> InputRequest {
    let schema = ElicitationSchema::builder().required_string("name").build().unwrap();
    InputRequest::Elicitation(ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: text.to_owned(),
        requested_schema: schema,
    }))
}

fn text(text: impl Into<String>) -> CallToolResponse {
    CallToolResult::success(vec![ContentBlock::text(text.into())]).into()
}

fn said(responses: &BTreeMap<String, Value>, key: &str) -> Option<String> {
    Some(responses.get(key)?["content"]["name"].as_str()?.to_owned())
}

impl Handler {
    fn tools() -> Vec<Tool> {
        let quick = TaskTool::optional().poll(Duration::from_millis(50));
        vec![
            tool("plain", true, TaskTool::default()),
            tool("slow", true, quick),
            tool("once", false, quick),
            tool("brief", true, TaskTool::optional().ttl(Duration::from_millis(1500))),
            tool("only", true, TaskTool::required()),
            tool("fails", true, TaskTool::required()),
            tool("panics", true, TaskTool::required()),
            tool("asks", false, quick),
            tool("asks-safely", true, quick),
            tool("checkpoints", false, quick),
            tool("ask-first", false, TaskTool::default()),
        ]
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tasks().build())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        Self::tools().into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(Self::tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.counts.starts.fetch_add(1, Ordering::SeqCst);
        let mut running = Running { counts: &self.counts, ended: false };
        let task = context.extensions.get::<TaskContext>().cloned();
        let responses = request.input_responses.clone().unwrap_or_default();
        let state = request.request_state.clone();
        let arguments = request.arguments.clone().unwrap_or_default();
        let round = task.as_ref().map_or(0, |task| task.round);
        let answered = match request.name.as_ref() {
            "slow" | "once" | "brief" => {
                let steps = arguments.get("steps").and_then(Value::as_u64).unwrap_or(5);
                for step in 1..=steps {
                    if let Some(token) = context.meta.get_progress_token() {
                        let progress = ProgressNotificationParam::new(token, step as f64)
                            .with_message(format!("step {step}"));
                        context.peer.notify_progress(progress).await.ok();
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(text(format!("did {steps} in round {round}")))
            }
            "plain" | "only" => Ok(text(format!("round {round}"))),
            "fails" => Err(ErrorData::internal_error("it failed", Some(json!({ "why": "test" })))),
            "panics" => panic!("as the test wants"),
            "asks" | "asks-safely" => {
                match (said(&responses, "name"), said(&responses, "colour"), state.as_deref()) {
                    (None, None, None) => Ok(InputRequiredResult::new(
                        Some(
                            [
                                ("name".to_owned(), question("Name?")),
                                ("colour".to_owned(), question("Colour?")),
                            ]
                            .into(),
                        ),
                        Some("first".to_owned()),
                    )
                    .into()),
                    (Some(name), Some(colour), Some("first")) => Ok(InputRequiredResult::new(
                        Some([("name".to_owned(), question("Name again?"))].into()),
                        Some(format!("{name} {colour}")),
                    )
                    .into()),
                    (Some(name), None, Some(before)) => Ok(text(format!("{before}, {name}, round {round}"))),
                    other => Err(ErrorData::internal_error(format!("unexpected: {other:?}"), None)),
                }
            }
            "checkpoints" => match state.as_deref().unwrap_or("") {
                "aaa" => Ok(text(format!("after round {round}"))),
                before => Ok(InputRequiredResult::new(None, Some(format!("{before}a"))).into()),
            },
            "ask-first" => match (task, said(&responses, "name")) {
                (None, None) => {
                    let questions = [("name".to_owned(), question("Name?"))].into();
                    Ok(InputRequiredResult::new(Some(questions), Some("asked".to_owned())).into())
                }
                (None, Some(_)) => Ok(later().into()),
                (Some(_), Some(name)) => Ok(text(format!("Hello, {name}!"))),
                (Some(_), None) => Err(ErrorData::internal_error("the answer is lost", None)),
            },
            other => Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        running.ended = true;
        answered
    }
}
