//! Whatever a client sends: no panic, no 5xx, and an answer that the protocol names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use http::StatusCode;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cases::case;
use crate::client::{Ask, HEAD, Said, events};
use crate::server::{Server, count_panics, panics};

/// JSON-RPC 2.0, section 5.1, and MCP's own (2026-07-28, error codes).
const CODES: [i64; 8] = [-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022];
/// "Resource not found" of the session revisions (2025-11-25, resources); gone in 2026-07-28.
const NOT_FOUND: i64 = -32002;
/// What the transport, or HTTP itself, says to a request that it does not take.
const STATUSES: [u16; 13] = [200, 202, 204, 400, 403, 404, 405, 406, 409, 413, 415, 422, 431];

/// What is wrong with an answer.
fn fault(said: &Said, modern: bool) -> Option<String> {
    let wrong = |message: &Value| wrong(message, said.status, modern);
    let status = said.status.as_u16();
    if !STATUSES.contains(&status) {
        return Some(format!("status {status}"));
    }
    let kind = said.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind {
        "application/json" => match serde_json::from_str::<Value>(&said.body) {
            Err(error) => Some(format!("the body is no JSON: {error}")),
            Ok(Value::Array(messages)) => messages.iter().find_map(wrong),
            // DELETE has nothing to say.
            Ok(message) if message == json!({}) && status == 200 => None,
            Ok(message) => wrong(&message),
        },
        "text/event-stream" if status == 200 => {
            events(&said.body).iter().find_map(|data| match serde_json::from_str::<Value>(data) {
                Ok(message) if message.get("method").is_some() => {
                    (message["jsonrpc"] != "2.0").then(|| format!("no JSON-RPC: {message}"))
                }
                Ok(message) => wrong(&message),
                Err(_) if data.starts_with('/') => None,
                Err(error) => Some(format!("an event is no JSON: {error}: {data}")),
            })
        }
        "" if said.body.is_empty() && (status == 202 || status == 204 || status >= 400) => None,
        other => Some(format!("status {status} with {other:?}: {:?}", said.body)),
    }
}

fn wrong(message: &Value, status: StatusCode, modern: bool) -> Option<String> {
    let fault = |what: &str| Some(format!("{what}: {status} {message}"));
    if message["jsonrpc"] != "2.0" {
        return fault("no JSON-RPC");
    }
    match (message.get("result"), message.get("error")) {
        (Some(Value::Object(_)), None) if status == StatusCode::OK => {}
        (None, Some(error)) => {
            let named = |code: i64| CODES.contains(&code) || (!modern && code == NOT_FOUND);
            if !error["code"].as_i64().is_some_and(named) {
                return fault("a code that nobody names");
            }
            if error["message"].as_str().is_none_or(str::is_empty) {
                return fault("an error without a word");
            }
        }
        _ => return fault("neither result nor error"),
    }
    match message.get("id") {
        None | Some(Value::String(_) | Value::Number(_)) => None,
        Some(_) => fault("an id that nobody can have sent"),
    }
}

async fn session(server: &Server) -> String {
    let params = json!({"protocolVersion": "2025-03-26", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "edges", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let said = Ask::post(&body).send(server.address).await;
    said.headers["mcp-session-id"].to_str().unwrap().to_owned()
}

#[test]
fn any_request_gets_an_answer_that_the_protocol_names() {
    count_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(Server::in_memory());
    // Some at a time: the time goes into waiting for streams.
    let many = proptest::collection::vec(case(), 1..24);
    let mut runner = TestRunner::new(Config {
        cases: 150,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let before = panics();
    let statuses = Mutex::new(BTreeMap::<u16, usize>::new());
    let outcome = runner.run(&many, |cases| {
        // A new one each time: some of the requests end it.
        let id = runtime.block_on(session(&server));
        let said = runtime.block_on(futures::future::join_all(
            cases.iter().map(|case| async { case.ask(&id).send(server.address).await }),
        ));
        for (case, said) in cases.iter().zip(&said) {
            *statuses.lock().unwrap().entry(said.status.as_u16()).or_default() += 1;
            let asked = case.ask(&id);
            let modern =
                String::from_utf8_lossy(&asked.body).contains("io.modelcontextprotocol/protocolVersion");
            if let Some(fault) = fault(said, modern) {
                return Err(TestCaseError::fail(format!("{fault}\n{asked:?}")));
            }
        }
        prop_assert_eq!(panics(), before, "a panic");
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let statuses = statuses.into_inner().unwrap();
    println!("answers by status: {statuses:?}");
    // Both what is right and what is wrong came up.
    assert!([200, 202, 400, 404].iter().all(|status| statuses.contains_key(status)), "{statuses:?}");
    // It serves as before.
    let said = runtime.block_on(
        Ask::modern("tools/call", json!({"name": "test_simple_text"}), &json!({})).send(server.address),
    );
    assert_eq!(said.status, StatusCode::OK, "{said:?}");
}

/// Sends bytes that need not be HTTP; what came back.
async fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A connection that is cut, also before all of it was read, is an answer as well.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(HEAD, stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_http_is_refused_by_http() {
    count_panics();
    let server = Server::in_memory().await;
    let before = panics();
    let path = crate::client::PATH;
    let body = "x".repeat(5 * 1024 * 1024);
    let many = "a: b\r\n".repeat(200);
    let long = "y".repeat(600_000);
    for (what, bytes, statuses) in [
        ("nothing", String::new(), &[][..]),
        ("no HTTP", "\0\u{1}\u{2}\r\n\r\n".into(), &[400]),
        ("no host", format!("POST {path} HTTP/1.1\r\ncontent-length: 0\r\n\r\n"), &[400, 403, 415]),
        (
            "two hosts",
            format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\ncontent-length: 0\r\n\r\n"
            ),
            &[400, 403],
        ),
        (
            "a length that is none",
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n"),
            &[400],
        ),
        (
            "two lengths",
            format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
            ),
            &[400],
        ),
        (
            "a chunk that is none",
            format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\naccept: */*\r\n\r\nzz\r\n"
            ),
            &[400, 413],
        ),
        (
            "less than promised",
            format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\ncontent-type: application/json\r\n\r\n{{"
            ),
            &[400, 413],
        ),
        (
            "too much",
            format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\ncontent-type: application/json\r\naccept: */*\r\nconnection: close\r\n\r\n{body}",
                body.len()
            ),
            &[413],
        ),
        ("too many headers", format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), &[400, 431]),
        (
            "a header too long",
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\na: {long}\r\n\r\n"),
            &[400, 431],
        ),
        (
            "a path too long",
            format!("POST /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
            &[400, 404, 414, 431],
        ),
    ] {
        let answer = raw(server.address, bytes.as_bytes()).await;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        assert!(status.is_none_or(|status| statuses.contains(&status)), "{what}: {answer}");
    }
    assert_eq!(panics(), before);
    let said = Ask::modern("tools/list", json!({}), &json!({})).send(server.address).await;
    assert_eq!(said.status, StatusCode::OK, "{said:?}");
}
