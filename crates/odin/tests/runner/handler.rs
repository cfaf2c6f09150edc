//! A handler with one tool for each thing that a handler may do, well or badly.
// Sampling, roots and logging are deprecated in MCP, and served to the clients that have them.
#![expect(deprecated)]

use std::{sync::Arc, time::Duration};

use identity::Principal;
use odin::runner::CallContext;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
        CreateMessageRequestParams, CustomRequest, CustomResult, ElicitRequest, ElicitRequestParams,
        ElicitationSchema, InputRequest, InputRequiredResult, ListToolsResult, LoggingLevel,
        LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
        SamplingMessage, ServerCapabilities, ServerConfig, ServerRequest, SetLevelRequestParams,
        SubscriptionFilter, Tool, ToolAnnotations,
    },
    service::{NotificationContext, PeerRequestOptions, RequestContext, SubscriptionContext},
};
use serde_json::json;

use super::support::Counts;

pub(crate) struct Handler {
    counts: Arc<Counts>,
    /// Whether `get_tool` knows the tools, or only `list_tools`.
    pub(crate) shy: bool,
}

impl Handler {
    pub(crate) fn new(counts: Arc<Counts>) -> Self {
        Self { counts, shy: false }
    }

    fn tools() -> Vec<Tool> {
        let tool = |name: &'static str, annotations: Option<ToolAnnotations>| {
            let schema = json!({ "type": "object" }).as_object().cloned().unwrap_or_default();
            let tool = Tool::new(name, "A test.", Arc::new(schema));
            match annotations {
                Some(annotations) => tool.annotate(annotations),
                None => tool,
            }
        };
        let mirrored = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" } } });
        let mirrored = mirrored.as_object().cloned().unwrap_or_default();
        vec![
            tool("reads", Some(ToolAnnotations::new().read_only(true))),
            tool("repeats", Some(ToolAnnotations::new().read_only(false).idempotent(true))),
            tool("writes", Some(ToolAnnotations::new().read_only(false).idempotent(false))),
            tool("says-nothing", None),
            Tool::new("mirrors", "A test.", Arc::new(mirrored)),
        ]
    }

    async fn flood(&self, context: &RequestContext<RoleServer>, count: usize) {
        // All at once, each send polled in order: what rmcp reorders when it is left to it.
        let sends = (0..count).map(|n| {
            context
                .peer
                .notify_logging_message(LoggingMessageNotificationParam::new(LoggingLevel::Error, json!(n)))
        });
        futures::future::join_all(sends).await;
    }
}

/// Counts that a tool ended, also when it is dropped.
struct Ended(Arc<Counts>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.add(|counts| &counts.ended);
    }
}

fn failed(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().enable_logging().build();
        ServerConfig::new(capabilities)
            .with_server_info(rmcp::model::Implementation::new("test-server", "1.2.3"))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        if self.shy { None } else { Self::tools().into_iter().find(|tool| tool.name == name) }
    }

    async fn list_tools(
        &self,
        params: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // Two pages.
        let second = params.and_then(|params| params.cursor).is_some();
        let mut tools = Self::tools();
        let rest = tools.split_off(2);
        Ok(ListToolsResult {
            tools: if second { rest } else { tools },
            next_cursor: (!second).then(|| "2".to_owned()),
            ..ListToolsResult::default()
        })
    }

    async fn set_level(
        &self,
        _: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        assert!(context.extensions.get::<Principal>().is_some());
        self.counts.add(|counts| &counts.initialized);
    }

    async fn on_custom_notification(
        &self,
        notification: rmcp::model::CustomNotification,
        _: NotificationContext<RoleServer>,
    ) {
        match notification.method.as_str() {
            "x/panic" => panic!("a notification's panic"),
            _ => std::future::pending().await,
        }
    }

    async fn on_progress(
        &self,
        _: rmcp::model::ProgressNotificationParam,
        _: NotificationContext<RoleServer>,
    ) {
        self.counts.add(|counts| &counts.progress);
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        match request.method.as_str() {
            "x/own" => Ok(CustomResult::new(json!({ "own": true }))),
            method => Err(ErrorData::new(rmcp::model::ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None)),
        }
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        context.sink().notify_tool_list_changed().await.map_err(failed)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.counts.add(|counts| &counts.started);
        let _ended = Ended(Arc::clone(&self.counts));
        let arguments = request.arguments.clone().unwrap_or_default();
        let say = |text: String| Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into());
        match request.name.as_ref() {
            "reads" => say("read".into()),
            "mirrors" => say("mirrored".into()),
            "bare" => serde_json::from_value::<CallToolResult>(json!({ "content": [] }))
                .map(Into::into)
                .map_err(failed),
            // Says what it was brought, and asks again.
            "remembers" => {
                if request.input_responses.is_some() {
                    return say(format!("state: {:?}", request.request_state));
                }
                Ok(InputRequiredResult::from_request_state("a secret of the handler").into())
            }
            "panics" => panic!("a tool's panic with a secret"),
            "panics-late" => {
                tokio::task::yield_now().await;
                panic!("a tool's panic with a secret")
            }
            "deaf" => loop {
                tokio::time::sleep(Duration::from_secs(3600)).await;
            },
            "listens" => {
                context.ct.cancelled().await;
                self.counts.add(|counts| &counts.saw_cancel);
                // What a cancelled request still sends must not go out.
                let _ = context
                    .peer
                    .notify_logging_message(LoggingMessageNotificationParam::new(
                        LoggingLevel::Error,
                        json!("late"),
                    ))
                    .await;
                say("cancelled".into())
            }
            "counts" => {
                for n in 0..5000 {
                    let message = LoggingMessageNotificationParam::new(LoggingLevel::Error, json!(n));
                    context.peer.notify_logging_message(message).await.map_err(failed)?;
                }
                say("done".into())
            }
            "floods" => {
                self.flood(
                    &context,
                    arguments.get("count").and_then(serde_json::Value::as_u64).unwrap_or(0) as usize,
                )
                .await;
                say("done".into())
            }
            "spawns" => {
                // A task that outlives the tool: it may send nothing after the answer.
                let (peer, counts, ct) = (context.peer.clone(), Arc::clone(&self.counts), context.ct.clone());
                tokio::spawn(async move {
                    ct.cancelled().await;
                    counts.add(|counts| &counts.saw_cancel);
                    let late = LoggingMessageNotificationParam::new(LoggingLevel::Error, json!("late"));
                    if peer.notify_logging_message(late).await.is_err() {
                        counts.add(|counts| &counts.spawned_refused);
                    }
                });
                say("answered".into())
            }
            "progress" => {
                let token = context.meta.get_progress_token();
                if let Some(token) = &token {
                    for step in 1..=3 {
                        let progress = ProgressNotificationParam::new(token.clone(), f64::from(step))
                            .with_total(3.0)
                            .with_message(format!("step {step}"));
                        context.peer.notify_progress(progress).await.map_err(failed)?;
                    }
                }
                let other = ProgressToken(rmcp::model::NumberOrString::String("another-request".into()));
                context
                    .peer
                    .notify_progress(ProgressNotificationParam::new(other, 1.0))
                    .await
                    .map_err(failed)?;
                say(token.map_or_else(|| "no token".to_owned(), |token| token.0.to_string()))
            }
            "logs" => {
                for level in [LoggingLevel::Debug, LoggingLevel::Warning, LoggingLevel::Emergency] {
                    let message = LoggingMessageNotificationParam::new(level, json!("x"));
                    context.peer.notify_logging_message(message).await.map_err(failed)?;
                }
                say("logged".into())
            }
            "changes" => {
                context.peer.notify_tool_list_changed().await.map_err(failed)?;
                say("changed".into())
            }
            "who" => {
                let principal = context.extensions.get::<Principal>().cloned();
                let call = context.extensions.get::<CallContext>().cloned();
                let parts = context.extensions.get::<http::request::Parts>().cloned();
                let client = context.client_info().map(|client| client.name);
                let peer = context.peer.peer_info();
                let result = json!({
                    "subject": principal.map(|principal| principal.subject),
                    "call": call.map(|call| call.id),
                    "path": parts.as_ref().map(|parts| parts.uri.path().to_owned()),
                    "authorization": parts.is_some_and(|parts| parts.headers.contains_key("authorization")),
                    "client": client,
                    "peer": peer.as_ref().map(|peer| peer.client_info.name.clone()),
                    "peerProtocol": peer.map(|peer| peer.protocol_version.to_string()),
                    "protocol": context.protocol_version().map(|version| version.to_string()),
                    "elicitation": context.client_capabilities().is_some_and(|client| client.elicitation.is_some()),
                });
                Ok(CallToolResult::structured(result).into())
            }
            "asks-model" => {
                let ask = CreateMessageRequestParams::new(vec![SamplingMessage::user_text("?")], 10);
                let answered = context.peer.create_message(ask).await.map_err(failed)?;
                say(format!("model: {}", answered.model))
            }
            "asks-from-a-task" => {
                // Where rmcp's own guard, a task-local, does not reach.
                let peer = context.peer.clone();
                let asked = tokio::spawn(async move { peer.list_roots().await });
                match asked.await.map_err(failed)? {
                    Ok(roots) => say(format!("{} roots", roots.roots.len())),
                    Err(error) => say(format!("refused: {error}")),
                }
            }
            "asks-briefly" => {
                let request = ServerRequest::ListRootsRequest(rmcp::model::ListRootsRequest {
                    method: Default::default(),
                    extensions: Default::default(),
                });
                let options = PeerRequestOptions::with_timeout(Duration::from_millis(20));
                let asked = context.peer.send_request_with_option(request, options).await.map_err(failed)?;
                match asked.await_response().await {
                    Ok(_) => say("answered".into()),
                    Err(error) => say(format!("gave up: {error}")),
                }
            }
            "input" => {
                let schema = ElicitationSchema::builder().required_string("name").build().map_err(failed)?;
                let ask = ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
                    meta: None,
                    message: "Your name?".into(),
                    requested_schema: schema,
                });
                let requests = [("name".to_owned(), InputRequest::Elicitation(ask))].into();
                Ok(InputRequiredResult::new(Some(requests), Some("state".into())).into())
            }
            "needs-sampling" => Err(ErrorData::missing_required_client_capability(
                ClientCapabilities::builder().enable_sampling().build(),
            )),
            name => Err(ErrorData::invalid_params(format!("no tool {name}"), None)),
        }
    }
}
