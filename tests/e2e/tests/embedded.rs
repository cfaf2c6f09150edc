//! One process and nothing else: the backend with its own worker, and streams of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use asgard::supervisor::part::Kind;
use e2e::{Client, Era, Exchange, Form, Journal, SseClient, Stack};
use serde_json::json;
use tokio::process::{Child, Command};

struct Embedded {
    endpoint: String,
    journal: Journal,
    _process: Child,
    _folder: tempfile::TempDir,
}

/// Starts the program that the stack's backends run.
async fn start() -> Embedded {
    let stack = Stack::claim().await;
    let pids = stack.pids(&[Kind::Backend]).await;
    let program = std::fs::read_link(format!("/proc/{}/exe", pids.values().next().unwrap())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(program)
        .arg("--embedded-worker")
        .env_clear()
        .env("ASGARD_LISTEN", format!("127.0.0.1:{port}"))
        .env("ASGARD_JOURNAL", &file)
        .env("ASGARD_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ready = format!("http://127.0.0.1:{port}/readyz");
    e2e::stack::wait("the process is ready", Duration::from_secs(20), async || {
        let answer = e2e::client::http().get(&ready).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    let endpoint = format!("http://127.0.0.1:{port}/api/v1/mcp/org-1");
    Embedded { endpoint, journal: Journal::from_now(file), _process: process, _folder: folder }
}

async fn client(embedded: &Embedded, era: Era) -> Client {
    let client = Client::at(embedded.endpoint.clone(), String::new());
    if era == Era::Stateful { client.initialized().await } else { client }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test embedded"]
async fn quick_calls_are_json_and_slow_ones_its_own_stream() {
    let embedded = start().await;
    for era in [Era::Stateless, Era::Stateful] {
        let client = client(&embedded, era).await;
        let mut json = 0;
        for number in 0..50 {
            let exchange = client.tool("echo", json!({"text": format!("{number}")})).await;
            exchange.check_whole(0).unwrap();
            json += usize::from(exchange.form() == Form::Json);
        }
        assert!(json >= 40, "{json} of 50 quick calls were JSON");

        let slow = client.tool_with_progress("report", json!({"steps": 10, "step_ms": 60})).await;
        slow.check_whole(10).unwrap();
        assert_eq!(slow.form(), Form::Stream);
        let spread = slow.messages[10].at - slow.messages[0].at;
        assert!(spread > Duration::from_millis(400), "{}", slow.outline());
        println!("{era:?}: {json} of 50 quick calls JSON; a slow one streamed for {} ms", spread.as_millis());
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test embedded"]
async fn many_at_once_each_get_their_own() {
    let embedded = start().await;
    let client = client(&embedded, Era::Stateless).await;
    let calls = (0..100_u64).map(|number| {
        let client = &client;
        async move {
            let arguments =
                json!({"text": number.to_string(), "total_ms": 20 + number * 3, "events": number % 6});
            let exchange = client.tool_with_progress("slow_echo", arguments).await;
            exchange.check_whole(number % 6).unwrap();
            assert_eq!(exchange.result().unwrap()["structuredContent"]["text"], number.to_string());
        }
    });
    futures::future::join_all(calls).await;
    let runs = embedded.journal.runs();
    assert!(runs.len() == 100 && runs.values().all(|run| run.starts.len() == 1 && run.ends == 1));
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test embedded"]
async fn a_modern_client_that_goes_ends_its_call() {
    let embedded = start().await;
    let client = client(&embedded, Era::Stateless).await;
    let mut exchange = client.open_tool("slow_echo", json!({"total_ms": 20_000, "events": 400}), true).await;
    exchange.read_messages(3).await;
    drop(exchange);
    embedded.journal.wait_for("the tool is dropped", Duration::from_secs(1), |run| run.drops > 0).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test embedded"]
async fn pages_of_other_sites_are_refused() {
    let embedded = start().await;
    let client = client(&embedded, Era::Stateless).await;
    let params = json!({"name": "echo", "arguments": {"text": "x"}});
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("host", "evil.example", 403),
        ("origin", "http://localhost:1", 200),
    ] {
        let request = client.build(7, "tools/call", params.clone()).header(name, value);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name}: {value}");
    }
    // No gateway here, so no hold.
    let stray = e2e::client::http().get(embedded.endpoint.replace("/api/v1/mcp/org-1", "/_hermod/hold/x"));
    assert_eq!(stray.send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test embedded"]
async fn streams_are_resumed_and_requests_repeated() {
    let embedded = start().await;
    let client = client(&embedded, Era::Stateful).await;
    let mut exchange = client.open_tool("slow_echo", json!({"total_ms": 1_500, "events": 50}), true).await;
    for cut in [1, 10, 25] {
        exchange.read_messages(cut).await;
        exchange.cut();
        exchange = client.resume(exchange).await;
        assert_eq!(exchange.status(), 200, "{}", exchange.outline());
    }
    let exchange = exchange.to_end().await;
    exchange.check_whole(50).unwrap();
    // Nothing is left after its last event.
    let again = client.resume(exchange).await;
    assert_eq!((again.status(), again.header("allow")), (405, Some("POST, DELETE")), "{}", again.outline());

    let modern = Client::at(embedded.endpoint.clone(), String::new());
    let params = json!({"name": "slow_count", "arguments": {"total_ms": 500, "events": 0}});
    let call = |id| modern.build(id, "tools/call", params.clone()).header("idempotency-key", "k");
    let mut first = Exchange::of(call(1), 1).await;
    first.cut();
    let second = Exchange::of(call(2), 2).await.to_end().await;
    assert!(second.result().is_some(), "{}", second.outline());
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test embedded"]
async fn sessions_have_streams_of_their_own_and_http_sse_works() {
    let embedded = start().await;
    let client = client(&embedded, Era::Stateful).await;
    // Both stay, and the end of the session ends both.
    let (first, second) = (client.listen().await, client.listen().await);
    assert_eq!((first.form(), second.form()), (Form::Stream, Form::Stream));
    assert_eq!(client.delete().await, 200);
    for stream in [first, second] {
        assert!(stream.to_end().await.messages.is_empty());
    }

    let mut sse = SseClient::connect(&format!("{}/sse", embedded.endpoint), "").await;
    let params = json!({
        "name": "slow_echo", "arguments": {"text": "x", "total_ms": 300, "events": 5},
        "_meta": {"progressToken": "t"},
    });
    let from = sse.messages.len();
    let answer = sse.request("tools/call", params).await;
    assert_eq!(answer["result"]["structuredContent"]["text"], "x", "{answer}");
    let steps = |message: &&serde_json::Value| message["params"]["progressToken"] == "t";
    assert_eq!(sse.messages[from..].iter().filter(steps).count(), 5);
}
