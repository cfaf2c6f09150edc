//! What a tool can take as an argument beside its own parameters.

use std::sync::Arc;
use std::time::Duration;

use odin::rmcp::{ErrorData, ServerHandler, model::CallToolResult, model::ContentBlock};
use odin::rmcp::{tool, tool_handler, tool_router};
use odin::{Ask, Asked, Caller, Cancelled, Progress, ToolResult};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::http_server::{ERAS, Era, HttpServer};

/// What the tools tell the tests.
#[derive(Clone)]
struct Server {
    started: Arc<Semaphore>,
    cancelled: Arc<Semaphore>,
}

#[tool_router]
impl Server {
    fn new() -> Self {
        Self { started: Arc::new(Semaphore::new(0)), cancelled: Arc::new(Semaphore::new(0)) }
    }

    #[tool(description = "Reports twice.")]
    async fn reports(&self, progress: Progress) -> Result<String, ErrorData> {
        progress.report(1, 2).await?;
        progress.send(2.0, None, Some("nearly".to_owned())).await?;
        Ok(format!("wanted: {}", progress.is_wanted()))
    }

    #[tool(description = "Says who calls.")]
    async fn who(&self, caller: Caller) -> String {
        format!("{} of {}", caller.subject, caller.organisation)
    }

    #[tool(description = "Works in a thread until the client cancels.")]
    async fn works(&self, cancelled: Cancelled) -> String {
        let Self { started, cancelled: seen } = self.clone();
        let work = tokio::task::spawn_blocking(move || {
            started.add_permits(1);
            while !cancelled.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(cancelled.token().is_cancelled());
            seen.add_permits(1);
        });
        work.await.unwrap();
        "nobody reads this".to_owned()
    }

    #[tool(description = "Leaves something running.")]
    async fn leaves(&self, cancelled: Cancelled) -> String {
        let seen = self.cancelled.clone();
        tokio::spawn(async move {
            cancelled.wait().await;
            cancelled.await;
            seen.add_permits(1);
        });
        "left".to_owned()
    }

    #[tool(description = "Asks for a text.")]
    async fn asks(&self, ask: Ask) -> ToolResult {
        let text = match ask.text("name", "Your name?").await? {
            Asked::Answer(name) => name,
            Asked::Later(later) => return Ok(later),
            Asked::Declined => "declined".to_owned(),
            Asked::Unable => "unable".to_owned(),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

#[tool_handler]
impl ServerHandler for Server {}

async fn seen(what: &str, semaphore: &Semaphore) {
    let seen = tokio::time::timeout(Duration::from_secs(20), semaphore.acquire()).await;
    seen.unwrap_or_else(|_| panic!("not {what}")).unwrap().forget();
}

/// The messages of a stream.
async fn messages(response: reqwest::Response) -> Vec<Value> {
    let text = response.text().await.unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_goes_to_those_that_asked_for_it() {
    let site = HttpServer::start(Server::new(), json!({})).await;
    for era in ERAS {
        // `ask` gives the last message: without a token, there is no other.
        let answer = site.ask(era, "o", "tools/call", json!({ "name": "reports", "arguments": {} })).await;
        assert_eq!(answer["result"]["content"][0]["text"], "wanted: false", "{answer}");
    }
    let session = site.session("o", "2025-11-25", json!({})).await;
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let call = |meta: Value| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": "reports", "arguments": {}, "_meta": meta } })
        .to_string()
    };
    let quiet = site.open("o", &headers, call(json!({}))).await;
    assert_eq!(quiet.headers()["content-type"], "application/json");
    let sent = messages(site.open("o", &headers, call(json!({ "progressToken": "p" }))).await).await;
    let params: Vec<&Value> = sent.iter().map(|message| &message["params"]).collect();
    assert_eq!(*params[0], json!({ "progressToken": "p", "progress": 1.0, "total": 2.0 }), "{sent:?}");
    assert_eq!(*params[1], json!({ "progressToken": "p", "progress": 2.0, "message": "nearly" }));
    assert_eq!(sent[2]["result"]["content"][0]["text"], "wanted: true");
    assert_eq!(sent.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_who_the_request_is_from() {
    let site = HttpServer::start(Server::new(), json!({})).await;
    for era in ERAS {
        for organisation in ["one", "two"] {
            let params = json!({ "name": "who", "arguments": {} });
            let answer = site.ask(era, organisation, "tools/call", params).await;
            let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"));
            assert_eq!(text, format!("local of {organisation}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_in_a_thread_sees_that_the_client_cancels() {
    let server = Server::new();
    let site = Arc::new(HttpServer::start(server.clone(), json!({})).await);
    let session = site.session("o", "2025-11-25", json!({})).await;
    let (caller, name) = (site.clone(), session.clone());
    let call = tokio::spawn(async move {
        let headers = [("mcp-session-id", name.as_str()), ("mcp-protocol-version", "2025-11-25")];
        let body =
            json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "works" } });
        messages(caller.open("o", &headers, body.to_string()).await).await
    });
    seen("started", &server.started).await;
    assert_eq!(server.cancelled.available_permits(), 0);
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let params = json!({ "requestId": 7 });
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    assert_eq!(site.post("o", &headers, body.to_string()).await.0, 202);
    seen("cancelled", &server.cancelled).await;
    let answer = call.await.unwrap();
    assert!(answer.iter().all(|message| message.get("result").is_none()), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_leaves_behind_sees_that_it_has_ended() {
    let server = Server::new();
    let site = HttpServer::start(server.clone(), json!({})).await;
    let answer = site.ask(Era::Stateless, "o", "tools/call", json!({ "name": "leaves" })).await;
    assert_eq!(answer["result"]["content"][0]["text"], "left", "{answer}");
    seen("cancelled", &server.cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_for_one_text_is_answered_with_it() {
    let site = HttpServer::start(Server::new(), json!({})).await;
    let answer = site.ask(Era::Stateless, "o", "tools/call", json!({ "name": "asks" })).await;
    assert_eq!(answer["result"]["content"][0]["text"], "unable", "{answer}");
    let call = async |more: Value| {
        let mut params = json!({ "name": "asks", "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
        } });
        params.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let headers =
            [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "asks")];
        site.post("o", &headers, body.to_string()).await.1["result"].take()
    };
    for (content, text) in [
        (json!({ "action": "accept", "content": { "name": "Freya" } }), "Freya"),
        (json!({ "action": "decline" }), "declined"),
    ] {
        let asked = call(json!({})).await;
        let schema = &asked["inputRequests"]["name"]["params"]["requestedSchema"];
        assert_eq!(schema["properties"]["name"]["type"], "string", "{asked}");
        let more = json!({ "requestState": asked["requestState"], "inputResponses": { "name": content } });
        let answer = call(more).await;
        assert_eq!(answer["content"][0]["text"], text, "{answer}");
    }
}
