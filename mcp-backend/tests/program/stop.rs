//! The end of a backend: bounded, whatever is open, and so that clients know what to do.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::process::{Backend, PATH, PATIENCE, free_address, http, wait};

/// More than the bound of 4 s, and less than the 5 s after which a process is ended by force.
const BOUND: Duration = Duration::from_secs(30);

fn terminate(backend: &Backend) {
    let pid = backend.child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
}

/// All that still comes on a stream.
async fn rest(answer: reqwest::Response) -> String {
    assert_eq!(answer.status(), 200);
    let text = tokio::time::timeout(PATIENCE, answer.text()).await.expect("the stream ends");
    text.expect("it ends in order, not with its connection")
}

#[tokio::test(flavor = "multi_thread")]
async fn its_end_is_bounded_and_tells_every_stream() {
    let admin = free_address().to_string();
    let token = "0123456789012345678901234567890123456789";
    let env = [("ASGARD_ADMIN_LISTEN", &*admin), ("ASGARD_ADMIN_TOKEN", token)];
    let mut backend = Backend::start(&[], &env).await;

    // A session, with a stream of its own and a call's.
    let client = json!({"name": "t", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = backend.post("a", None, &initialize).send().await.unwrap();
    let session = answer.headers()["mcp-session-id"].clone();
    let in_session = |request: reqwest::RequestBuilder| {
        request.header("mcp-session-id", session.clone()).header("mcp-protocol-version", "2025-11-25")
    };
    let own = in_session(backend.get("a", PATH)).send().await.unwrap();
    let arguments = json!({"total_ms": 60_000, "events": 600});
    let slow = json!({
        "jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "slow_echo", "arguments": arguments, "_meta": {"progressToken": "p"}},
    });
    let of_session = in_session(backend.post("a", None, &slow)).send().await.unwrap();
    // Modern ones: a call's, and one that listens. And HTTP+SSE.
    let of_call = backend.call("a", "slow_echo", arguments).send().await.unwrap();
    let filter = json!({"notifications": {"toolsListChanged": true}});
    let listening = backend.modern("a", "subscriptions/listen", "", filter).send().await.unwrap();
    let sse = backend.get("a", &format!("{PATH}/sse")).send().await.unwrap();
    // One that waits for its answer: it ends in time, and is answered.
    let brief = backend.call("a", "slow_echo", json!({"total_ms": 1_000, "events": 0}));
    let brief = tokio::spawn(async move { brief.send().await.unwrap().text().await.unwrap() });
    // Connections that hang: half a head, half a body, at rest; here and at the admin listener.
    let mut head = TcpStream::connect(backend.address).await.unwrap();
    head.write_all(b"POST /api").await.unwrap();
    let body = backend.upload("b", 4_000, b" ").await;
    let mut other = TcpStream::connect(&admin).await.unwrap();
    other.write_all(b"POST /notify HTTP/1.1\r\nhost: x\r\ncontent-le").await.unwrap();
    let started = |what: &str, count| {
        let journal = backend.journal();
        journal.iter().filter(|line| line["event"] == what).count() >= count
    };
    wait("all calls run", async || started("start", 3) && started("step", 4)).await;

    terminate(&backend);
    let rests = tokio::join!(rest(own), rest(of_session), rest(of_call), rest(listening), rest(sse));
    let (own, of_session, of_call, listening, sse) = rests;
    // The session's client takes its streams up elsewhere.
    assert!(own.ends_with("retry: 500\n\n"), "{own}");
    assert!(
        of_session.contains("notifications/progress") && of_session.ends_with("retry: 500\n\n"),
        "{of_session}"
    );
    // A modern client gets an error that says what became of its call, and that its subscription is over.
    let last = |text: &str| -> Value {
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let data = last.lines().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str(data.unwrap_or_else(|| panic!("{text}"))).unwrap()
    };
    let error = last(&of_call);
    assert_eq!(error["id"], 7, "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("The server stops"), "{error}");
    let complete = last(&listening);
    assert!(complete["id"] == 7 && complete["result"].is_object(), "{complete}");
    assert!(sse.starts_with("event: endpoint"), "{sse}");
    let brief = brief.await.unwrap();
    assert!(brief.contains(r#""result""#), "{brief}");

    let status = tokio::time::timeout(BOUND, backend.child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "it was ended by force: {status}; {}", backend.log());
    assert!(http().get(format!("http://{admin}/")).send().await.is_err());
    drop((head, body, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_at_rest_ends_at_once_and_cleanly() {
    let mut backend = Backend::start(&[], &[]).await;
    let resting = http();
    resting.get(format!("http://{}/livez", backend.address)).send().await.unwrap();
    terminate(&backend);
    let status = tokio::time::timeout(BOUND, backend.child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
    assert!(!backend.log().contains("ended with the process"), "{}", backend.log());
}
