//! `null` for "not there".

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{headers, modern_headers};
use crate::protocol::{Body, Incoming, Limits, Message, classify, read_body, without_nulls};

fn cleaned(body: &str) -> String {
    String::from_utf8(without_nulls(body.as_bytes()).into_owned()).unwrap()
}

#[test]
fn optional_members_that_are_null_are_taken_out() {
    for (body, expected) in [
        // The envelope: what is no request's is absent; `id` is not optional.
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null,"result":null,"error":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        ),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#),
        // Replies of clients.
        (
            r#"{"jsonrpc":"2.0","id":"c:0","method":null,"result":{"action":"accept","content":{"a":null},"_meta":null},"error":null}"#,
            r#"{"jsonrpc":"2.0","id":"c:0","result":{"action":"accept","content":{"a":null}}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"c:0","result":null,"error":{"code":1,"message":"m","data":null}}"#,
            r#"{"jsonrpc":"2.0","id":"c:0","error":{"code":1,"message":"m"}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":"c:0","error":{"code":1,"message":"m","data":{"a":null}}}"#,
            r#"{"jsonrpc":"2.0","id":"c:0","error":{"code":1,"message":"m","data":{"a":null}}}"#,
        ),
        (r#"{"jsonrpc":"2.0","id":"c:0","result":null}"#, r#"{"jsonrpc":"2.0","id":"c:0","result":null}"#),
        (
            r#"{"jsonrpc":"2.0","id":"c:0","result":{"roots":[{"uri":"file:///a","name":null},{"uri":"file:///b"}]}}"#,
            r#"{"jsonrpc":"2.0","id":"c:0","result":{"roots":[{"uri":"file:///a"},{"uri":"file:///b"}]}}"#,
        ),
        // Parameters, and nothing in what is the tool's own.
        (
            r#"{"method":"tools/call","params":{"name":"t","arguments":null,"requestState":null,"_meta":null}}"#,
            r#"{"method":"tools/call","params":{"name":"t"}}"#,
        ),
        (
            r#"{"method":"tools/call","params":{"name":"t","arguments":{"a":null,"_meta":null,"b":[{"c":null}]}}}"#,
            r#"{"method":"tools/call","params":{"name":"t","arguments":{"a":null,"_meta":null,"b":[{"c":null}]}}}"#,
        ),
        (
            r#"{"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p","title":null},"argument":{"name":"a","value":""},"context":{"arguments":{"x":null}}}}"#,
            r#"{"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":""},"context":{"arguments":{"x":null}}}}"#,
        ),
        (
            r#"{"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"experimental":null,"roots":{"listChanged":null}},"clientInfo":{"name":"c","version":"1","title":null}}}"#,
            r#"{"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{}},"clientInfo":{"name":"c","version":"1"}}}"#,
        ),
        (
            r#"{"method":"tasks/update","params":{"taskId":"t","inputResponses":{"a":{"action":"accept","content":{"b":null},"structuredContent":{"d":null},"_meta":null}}}}"#,
            r#"{"method":"tasks/update","params":{"taskId":"t","inputResponses":{"a":{"action":"accept","content":{"b":null},"structuredContent":{"d":null}}}}}"#,
        ),
        // `_meta`: MCP's own keys.
        (
            r#"{"method":"tools/list","params":{"cursor":null,"_meta":{"progressToken":null,"traceparent":null,"example.com/x":null,"example.com/y":{"z":null},"io.modelcontextprotocol/logLevel":null,"io.modelcontextprotocol/clientInfo":{"name":"c","icons":null}}}}"#,
            r#"{"method":"tools/list","params":{"_meta":{"example.com/x":null,"example.com/y":{"z":null},"io.modelcontextprotocol/clientInfo":{"name":"c"}}}}"#,
        ),
        // What MCP does not define is not MCP's to say.
        (
            r#"{"method":"x/own","params":{"a":null,"b":{"c":null},"_meta":null}}"#,
            r#"{"method":"x/own","params":{"a":null,"b":{"c":null}}}"#,
        ),
        // A batch, numbers and order as they were sent.
        (
            r#"[{"method":"ping","id":1.50,"params":null}, {"method":"ping","id":2e0}]"#,
            r#"[{"method":"ping","id":1.50},{"method":"ping","id":2e0}]"#,
        ),
    ] {
        assert_eq!(cleaned(body), expected);
        assert!(matches!(without_nulls(expected.as_bytes()), Cow::Borrowed(_)), "{expected}");
    }
}

#[test]
fn what_is_refused_is_refused_as_it_was_sent() {
    let deep =
        format!(r#"{{"method":"ping","params":null,"x":{}null{}}}"#, "[".repeat(9000), "]".repeat(9000));
    for body in [
        "",
        "null",
        "[null]",
        r#"{"method":"ping","params":null"#,
        // Which one counts?
        r#"{"method":"tools/list","params":null,"params":{}}"#,
        r#"{"method":"tools/list","params":{"cursor":null,"cursor":"1"}}"#,
        "\u{feff}{\"params\":null}",
    ] {
        assert_eq!(cleaned(body), body);
    }
    assert!(read_body(cleaned(&deep).as_bytes(), &Limits::default()).is_err());
    assert!(matches!(without_nulls(b"{\"params\":null,\"x\":\"\xff\"}"), Cow::Borrowed(_)));
}

#[test]
fn an_error_of_null_beside_a_result_is_a_result() {
    let read = |body: &'static str| match read_body(body.as_bytes(), &Limits::default()) {
        Ok(Body::One(Message::Reply(reply))) => reply.is_error,
        other => panic!("{body}: {other:?}"),
    };
    assert!(!read(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#));
    assert!(!read(r#"{"jsonrpc":"2.0","id":1,"result":null,"error":null}"#));
    assert!(read(r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{}}"#));
    assert!(!read(r#"{"jsonrpc":"2.0","id":1,"method":null,"result":{}}"#));
    for body in [
        r#"{"jsonrpc":"2.0","id":null,"result":{},"error":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":null}"#,
        r#"{"jsonrpc":null,"id":1,"result":{}}"#,
    ] {
        assert_eq!(read_body(body.as_bytes(), &Limits::default()).unwrap_err().code(), -32600, "{body}");
    }
}

/// A right message of each kind, with its headers.
fn message() -> impl Strategy<Value = (http::HeaderMap, Value)> {
    let own = json!({ "a": null, "b": [{ "content": null, "c": { "d": null } }] });
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {}, "extensions": { "e.com/x": {} } },
        "io.modelcontextprotocol/clientInfo": { "name": "c", "version": "1", "icons": [{ "src": "s" }] },
        "e.com/own": own,
    });
    let request = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let modern = |method: &str, name: Option<&str>, mut params: Value| {
        params["_meta"] = meta.clone();
        (modern_headers(method, name), request(method, params))
    };
    let session = |message: Value| (headers(&[("mcp-session-id", "s")]), message);
    let info = json!({ "name": "c", "version": "1" });
    let initialize =
        json!({ "protocolVersion": "2025-11-25", "capabilities": { "roots": {} }, "clientInfo": info });
    proptest::sample::select(vec![
        modern(
            "tools/call",
            Some("t"),
            json!({ "name": "t", "arguments": own, "inputResponses": { "k": { "action": "accept", "content": own } } }),
        ),
        modern("tools/list", None, json!({ "cursor": "1" })),
        modern("resources/read", Some("file:///a"), json!({ "uri": "file:///a" })),
        modern("subscriptions/listen", None, json!({ "notifications": { "toolsListChanged": true } })),
        modern(
            "tasks/update",
            Some("t"),
            json!({ "taskId": "t", "inputResponses": { "k": { "action": "cancel" } } }),
        ),
        (headers(&[]), request("initialize", initialize)),
        session(request("prompts/get", json!({ "name": "p", "arguments": { "a": "b" } }))),
        session(request(
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "p" }, "argument": { "name": "a", "value": "" }, "context": { "arguments": own } }),
        )),
        session(
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }),
        ),
        session(
            json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": "c:1", "progress": 1 } }),
        ),
        session(json!({ "jsonrpc": "2.0", "id": "c:1", "result": { "action": "accept", "content": own } })),
        session(
            json!({ "jsonrpc": "2.0", "id": "c:1", "result": { "role": "assistant", "model": "m", "content": { "type": "text", "text": "t", "annotations": null } } }),
        ),
        session(json!({ "jsonrpc": "2.0", "id": "c:1", "error": { "code": 1, "message": "m" } })),
    ])
}

/// Puts members that are `null` wherever an optional one may be, as `picks` says.
fn strew(value: &mut Value, place: &str, picks: &mut impl Iterator<Item = bool>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| strew(item, place, picks)),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let own = matches!(
                    name.as_str(),
                    "arguments" | "content" | "structuredContent" | "data" | "e.com/own"
                );
                if !own && (!place.is_empty() || matches!(name.as_str(), "params" | "result" | "error")) {
                    strew(member, name, picks);
                }
            }
            let names: &[&str] = match place {
                "" => &["params", "result", "error", "method", "x"],
                "_meta" => &["progressToken", "io.modelcontextprotocol/logLevel", "baggage"],
                "error" => &["data", "x"],
                _ => &["_meta", "title", "arguments", "structuredContent", "requestState", "name", "x"],
            };
            for name in names {
                if picks.next().unwrap_or_default() && !members.contains_key(*name) {
                    members.insert((*name).to_owned(), Value::Null);
                }
            }
        }
        _ => {}
    }
}

/// What is read, as it is compared: without the bytes.
fn shown(incoming: &Incoming<'_>) -> (String, Vec<Value>) {
    let mut raws = Vec::new();
    let text = match incoming {
        Incoming::Stateless { message: Message::Request(request), .. }
        | Incoming::Initialize { request, .. } => {
            raws.push(serde_json::from_str(request.raw.get()).unwrap());
            format!(
                "{:?}",
                (&request.method, request.id.as_json(), &request.params.name, &request.params.uri)
            )
        }
        Incoming::Stateful { body: Body::One(message), .. } => match message {
            Message::Request(request) => {
                raws.push(serde_json::from_str(request.raw.get()).unwrap());
                format!("{:?}", (&request.method, request.id.as_json(), &request.params.name))
            }
            Message::Notification(notification) => {
                raws.push(serde_json::from_str(notification.raw.get()).unwrap());
                format!("{:?}", notification.method)
            }
            Message::Reply(reply) => {
                raws.push(serde_json::from_str(reply.raw.get()).unwrap());
                format!("{:?}", (reply.id.as_json(), reply.is_error))
            }
        },
        other => panic!("{other:?}"),
    };
    (text, raws)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_with_nulls_is_the_message_without((headers, plain) in message(), picks in proptest::collection::vec(any::<bool>(), 64)) {
        let mut strewn = plain.clone();
        strew(&mut strewn, "", &mut picks.into_iter());
        let (plain, strewn) = (plain.to_string(), strewn.to_string());
        let cleaned = without_nulls(strewn.as_bytes());
        let limits = Limits::default();
        let read = |body: &[u8]| classify(&http::Method::POST, &headers, body, &limits).map(|incoming| shown(&incoming)).map_err(|refusal| refusal.to_string());
        prop_assert_eq!(read(&cleaned), read(plain.as_bytes()), "{}", strewn);
        // The scan alone sees them absent as well.
        let read_only = |body: &[u8]| classify(&http::Method::POST, &headers, body, &limits).map(|incoming| shown(&incoming).0).map_err(|refusal| refusal.to_string());
        prop_assert_eq!(read_only(strewn.as_bytes()), read_only(plain.as_bytes()), "{}", strewn);
    }
}
