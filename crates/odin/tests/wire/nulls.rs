//! `null` for "not there", half characters, batches.

use futures::StreamExt;
use serde_json::{Value, json};

use super::http_server::HttpServer;
use super::server::Server;

async fn site() -> HttpServer {
    HttpServer::start(Server::new(), json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn optional_members_may_be_null_in_either_era() {
    let site = site().await;
    let info = json!({ "name": "c", "version": "1", "title": null, "icons": null });
    let capabilities = json!({
        "experimental": null, "roots": { "listChanged": null }, "sampling": null, "elicitation": null,
        "extensions": { "example.com/x": null },
    });
    // A session.
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info, "_meta": null });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params, "result": null, "error": null });
    let response = site.open("o", &[], body.to_string()).await;
    let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    for params in [
        json!(null),
        json!({ "_meta": null }),
        json!({ "cursor": null, "_meta": { "progressToken": null, "traceparent": null } }),
    ] {
        let body =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": params, "error": null });
        let (status, answer) = site.post("o", &[("mcp-session-id", &session)], body.to_string()).await;
        assert!(status == 200 && answer["result"]["tools"].is_array(), "{params}: {answer}");
    }
    // No session.
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/logLevel": null,
        "io.modelcontextprotocol/clientInfo": null, "io.modelcontextprotocol/clientCapabilities": capabilities,
        "progressToken": null,
    });
    let params = json!({
        "name": "echo", "arguments": { "a": null, "_meta": null, "arguments": { "b": null } }, "requestState": null,
        "inputResponses": null, "_meta": meta,
    });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params, "error": null });
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    let (status, answer) = site.post("o", &headers, body.to_string()).await;
    // What is the tool's own came as it was sent.
    let echoed: Value =
        serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((status, echoed), (200, json!({ "a": null, "_meta": null, "arguments": { "b": null } })));
    // The same request without its nulls is the same request.
    let plain = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "echo", "arguments": params["arguments"], "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } },
    });
    let keyed = [&headers[..], &[("idempotency-key", "k")]].concat();
    let [first, again] =
        [site.post("o", &keyed, body.to_string()).await, site.post("o", &keyed, plain.to_string()).await];
    assert_eq!((first.0, first.1), again);
    let body = json!({ "jsonrpc": "2.0", "id": null, "method": "tools/list", "params": { "_meta": meta } });
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
    let (status, answer) = site.post("o", &headers, body.to_string()).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32600)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_may_have_an_error_of_null_beside_its_result_and_integers_with_a_point() {
    let site = site().await;
    let session = site.session("o", "2025-11-25", json!({ "elicitation": {} })).await;
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "greet", "arguments": null } });
    let response = site.open("o", &headers, call.to_string()).await;
    let (mut stream, mut text) = (response.bytes_stream(), String::new());
    let mut messages = async || loop {
        let next = text.find("\n\n").map(|end| text.drain(..end + 2).collect::<String>());
        match next
            .as_deref()
            .map(|event| event.lines().find_map(|line| line.strip_prefix("data: ").map(str::to_owned)))
        {
            Some(Some(data)) => match serde_json::from_str::<Value>(&data) {
                Ok(message) => return message,
                Err(_) => continue,
            },
            Some(None) => continue,
            None => text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap()),
        }
    };
    let asked = messages().await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    let result = json!({ "action": "accept", "content": { "name": "thor", "years": 30.0 }, "_meta": null });
    let reply =
        json!({ "jsonrpc": "2.0", "id": asked["id"], "method": null, "result": result, "error": null });
    let (status, _) = site.post("o", &headers, reply.to_string()).await;
    assert_eq!(status, 202);
    let answer = messages().await;
    assert_eq!(answer["result"]["content"][0]["text"], "hello thor None 30", "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_element_of_a_batch_costs_that_element() {
    let site = site().await;
    let session = site.session("o", "2025-03-26", json!({})).await;
    let echo = |id: u32, text: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"echo","arguments":{{"a":"{text}"}}}}}}"#
        )
    };
    let body = format!(
        r#"[{},{},17,{},{{"jsonrpc":"2.0","id":null,"method":"ping"}},{{"jsonrpc":"2.0","id":4,"method":"tools/list","params":7}}]"#,
        echo(1, "one"),
        echo(2, r"\ud83d"),
        echo(3, r"\ud83d\ude00")
    );
    let (status, answers) = site.post("o", &[("mcp-session-id", &session)], body).await;
    let answers = answers.as_array().unwrap().clone();
    assert_eq!((status, answers.len()), (200, 6), "{answers:?}");
    let of = |id: u32| answers.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!(of(1)["result"]["content"][0]["text"], r#"{"a":"one"}"#);
    assert_eq!(of(3)["result"]["content"][0]["text"], "{\"a\":\"\u{1f600}\"}");
    assert!(of(2)["error"]["message"].as_str().unwrap().contains("lone surrogate"), "{answers:?}");
    assert_eq!(of(4)["error"]["code"], -32602);
    let unnamed: Vec<_> =
        answers.iter().filter(|answer| answer.get("id").is_none_or(Value::is_null)).collect();
    assert!(
        unnamed.len() == 2 && unnamed.iter().all(|answer| answer["error"]["code"] == -32600),
        "{answers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_within_a_request_costs_that_request() {
    let site = site().await;
    let session = site.session("o", "2025-11-25", json!({})).await;
    let session = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let modern = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
    for (value, why) in [
        (r#""\ud83d""#, r"lone surrogate, \ud83d"),
        ("1e999", "number out of range"),
        (r#"{"a":1,"a":2}"#, "two members of one name"),
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{{"name":"echo","arguments":{{"v":{value}}}}}}}"#
        );
        // Clients of sessions take an HTTP error for the end of all their calls.
        for (headers, expected) in [(&session[..], 200), (&modern[..], 400)] {
            let (status, answer) = site.post("o", headers, body.clone()).await;
            assert_eq!(
                (status, &answer["id"], &answer["error"]["code"]),
                (expected, &json!("x"), &json!(-32602))
            );
            assert!(answer["error"]["message"].as_str().unwrap().contains(why), "{answer}");
        }
    }
    let (status, _) = site.post("o", &session, "{\"jsonrpc\":".to_owned()).await;
    assert_eq!(status, 400);
}
