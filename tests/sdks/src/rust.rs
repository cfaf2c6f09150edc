//! rmcp's own client.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams,
    ElicitResult, ElicitationAction, Implementation, ProgressNotificationParam, ProtocolVersion,
    ServerResult,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt, NotificationContext, PeerRequestOptions, RequestContext,
    RequestHandle, RunningService,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde_json::{Value, json};

use crate::{Mode, Seen, now_ms};

/// Longest time for one case.
const LIMIT: Duration = Duration::from_secs(60);

/// The client's own side.
#[derive(Clone, Default)]
struct User {
    /// Progress, by token.
    steps: Arc<Mutex<HashMap<String, Vec<u64>>>>,
    asked: Arc<AtomicUsize>,
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(capabilities, Implementation::new("asgard-sdks", "1"))
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"wish": "warm"})))
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let token = serde_json::to_string(&progress.progress_token).unwrap();
        self.steps.lock().unwrap().entry(token).or_default().push(progress.progress as u64);
    }
}

type Client = RunningService<RoleClient, User>;

async fn connect(mode: Mode, url: &str, token: &str) -> Result<Client, String> {
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(token);
    let transport = StreamableHttpClientTransport::from_config(config);
    let lifecycle = match mode {
        Mode::Modern => {
            ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
        }
        _ => ClientLifecycleMode::Initialize,
    };
    User::default().serve_with_lifecycle(transport, lifecycle).await.map_err(|error| error.to_string())
}

fn params(name: &'static str, arguments: &Value) -> CallToolRequestParams {
    CallToolRequestParams::new(name).with_arguments(arguments.as_object().unwrap().clone())
}

/// Calls `slow_echo` so that it can be cancelled, and its progress distinguished from others'.
async fn open_slow_echo(client: &Client, total_ms: u64, events: u64) -> RequestHandle<RoleClient> {
    let arguments = json!({"text": "x", "total_ms": total_ms, "events": events});
    let request = CallToolRequest::new(params("slow_echo", &arguments));
    client.send_cancellable_request(request.into(), PeerRequestOptions::no_options()).await.unwrap()
}

fn steps(client: &Client, call: &str) -> Vec<u64> {
    client.service().steps.lock().unwrap().get(call).cloned().unwrap_or_default()
}

async fn slow_echo(client: &Client, total_ms: u64, events: u64) -> Value {
    let call = open_slow_echo(client, total_ms, events).await;
    let token = serde_json::to_string(&call.progress_token).unwrap();
    let text = match call.await_response().await {
        Ok(ServerResult::CallToolResult(result)) => {
            result.structured_content.map_or(Value::Null, |content| content["text"].clone())
        }
        Ok(other) => json!(format!("error: {other:?}")),
        Err(error) => json!(format!("error: {error}")),
    };
    // Handlers run beside each other: the last may still be on its way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    json!({"text": text, "steps": steps(client, &token)})
}

async fn echo(client: &Client) -> Value {
    match client.call_tool(params("echo", &json!({"text": "still here"}))).await {
        Ok(result) => {
            json!(result.content.first().and_then(|content| content.as_text()).map(|text| &text.text))
        }
        Err(error) => json!(format!("error: {error}")),
    }
}

async fn case(name: &str, client: &Client) -> Value {
    match name {
        "connect" => {
            let info = client.peer_info().expect("the server said what it is");
            json!({"revision": info.protocol_version})
        }
        "list" => match client.list_all_tools().await {
            Ok(tools) => json!({"tools": tools.iter().map(|tool| tool.name.as_ref()).collect::<Vec<_>>()}),
            Err(error) => json!({"error": error.to_string()}),
        },
        "progress" => slow_echo(client, 1_000, 10).await,
        "elicit" => match client.call_tool(params("plan_outing", &json!({"month": 7}))).await {
            Ok(result) => {
                let asked = client.service().asked.load(Ordering::Relaxed);
                json!({"asked": asked, "plan": result.structured_content})
            }
            Err(error) => json!({"error": error.to_string()}),
        },
        "cancel" => {
            let call = open_slow_echo(client, 20_000, 400).await;
            let token = serde_json::to_string(&call.progress_token).unwrap();
            while steps(client, &token).len() < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let at_ms = now_ms();
            match call.cancel(Some("enough".into())).await {
                Ok(()) => json!({"at_ms": at_ms, "then": echo(client).await}),
                Err(error) => json!({"error": error.to_string()}),
            }
        }
        "refused" => {
            let large = json!({"text": "x".repeat(5 * 1024 * 1024)});
            let large = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.call_tool(params("echo", &large)).await
            };
            let (mut seen, refused) = tokio::join!(slow_echo(client, 1_500, 3), large);
            seen["refused"] =
                json!(refused.map_or_else(|error| format!("error: {error}"), |_| "it was not".into()));
            seen["then"] = echo(client).await;
            seen
        }
        "ended" => {
            let call = tokio::time::timeout(Duration::from_secs(8), slow_echo(client, 300, 3)).await;
            let mut seen = call.unwrap_or_else(|_| json!({"text": "error: no answer"}));
            seen["then"] = echo(client).await;
            seen
        }
        _ => {
            let mut seen = slow_echo(client, 3_000, 30).await;
            seen["then"] = echo(client).await;
            seen
        }
    }
}

/// Runs all cases, each with a client of its own.
pub async fn run(mode: Mode, [url, cut_url, blank_url]: [&str; 3], token: &str) -> Seen {
    let mut seen = Seen::new();
    let ended = (mode == Mode::Session).then_some("ended");
    for name in ["connect", "list", "progress", "elicit", "cancel", "refused", "cut"].into_iter().chain(ended)
    {
        let url = match name {
            "cut" => cut_url,
            "ended" => blank_url,
            _ => url,
        };
        let work = async {
            let client = connect(mode, url, token).await?;
            let outcome = case(name, &client).await;
            client.cancel().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(outcome)
        };
        let outcome = match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => json!({"error": error}),
            Err(_) => json!({"error": "not done in time"}),
        };
        seen.insert(name.to_owned(), outcome);
    }
    seen
}
