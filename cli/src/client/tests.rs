//! The client against a server of a few lines that plays answers back.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers one request with what `answer` makes of its id; returns the request's text.
async fn play(answer: impl Fn(&str) -> String + Send + 'static) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        let mut buffer = [0_u8; 4096];
        while !request.ends_with("}}") {
            let read = stream.read(&mut buffer).await.unwrap();
            request.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        stream.write_all(answer(body["id"].as_str().unwrap()).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        request
    });
    (url, task)
}

fn http(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn one_document() {
    let (url, served) = play(|id| {
        http(
            "200 OK",
            "application/json",
            &json!({"jsonrpc": "2.0", "id": id, "result": {"ok": 1}}).to_string(),
        )
    })
    .await;
    let client = Client::new(url, "tok").unwrap();
    let params = json!({"name": "wörld", "arguments": {}});
    let answer =
        client.request("tools/call", params, &[("Mcp-Param-A".into(), "x".into())], |_, _| {}).await.unwrap();
    assert_eq!((answer.result, answer.form), (json!({"ok": 1}), Form::Json));
    let request = served.await.unwrap().to_lowercase();
    for expected in [
        "authorization: bearer tok",
        "mcp-protocol-version: 2026-07-28",
        "mcp-method: tools/call",
        "mcp-name: =?base64?d8o2cmxk?=",
        "mcp-param-a: x",
        "\"progresstoken\":\"asgard-",
        "io.modelcontextprotocol/protocolversion\":\"2026-07-28",
    ] {
        assert!(request.contains(&expected.to_lowercase()), "{expected} in {request}");
    }
}

#[tokio::test]
async fn a_stream_with_progress() {
    let (url, _) = play(|id| {
        let progress =
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}});
        let result = json!({"jsonrpc": "2.0", "id": id, "result": {"ok": 2}});
        http(
            "200 OK",
            "text/event-stream; charset=utf-8",
            &format!(":\n\ndata: {progress}\n\ndata: {result}\n\n"),
        )
    })
    .await;
    let mut seen = Vec::new();
    let client = Client::new(url, "t").unwrap();
    let answer = client
        .request("tools/call", json!({"name": "a"}), &[], |method, params| {
            seen.push(format!("{method} {params}"))
        })
        .await
        .unwrap();
    assert_eq!((answer.result, answer.form), (json!({"ok": 2}), Form::Stream));
    assert_eq!(seen, ["notifications/progress {\"progress\":1}"]);
}

#[tokio::test]
async fn failures_are_clear() {
    let error =
        |id: &str| json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "bad\nthing"}});
    type Play = Box<dyn Fn(&str) -> String + Send>;
    let cases: Vec<(Play, &str)> = vec![
        (
            Box::new(move |id| http("400 Bad Request", "application/json", &error(id).to_string())),
            "error -32602: bad thing",
        ),
        (
            Box::new(|_| {
                http("401 Unauthorized", "application/json", r#"{"error":"x","message":"no token"}"#)
            }),
            "401: no token",
        ),
        (Box::new(|_| http("503 Service Unavailable", "text/plain", "none\nthere")), "503: none there"),
        (
            Box::new(|_| http("200 OK", "text/event-stream", ": nothing\n\n")),
            "the stream ended before the result",
        ),
        (Box::new(|_| "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned()), "the connection broke"),
    ];
    for (answer, expected) in cases {
        let (url, _) = play(answer).await;
        let problem =
            Client::new(url, "t").unwrap().request("ping", json!({}), &[], |_, _| {}).await.unwrap_err();
        assert!(problem.to_string().contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn header_values() {
    for (value, header) in [
        ("report", "report"),
        (" a", "=?base64?IGE=?="),
        ("", "=?base64??="),
        ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
    ] {
        assert_eq!(header_value(value), header);
    }
}
