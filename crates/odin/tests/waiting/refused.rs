//! What a refused request costs its client: in a session that request alone, on the stream of HTTP+SSE a message there.

use std::time::Duration;

use kit::Events;

use crate::front_end::FrontEnd;
use identity::EntryPoint;
use odin::front::FrontLimits;
use odin::protocol::Limits;
use serde_json::{Value, json};

const REVISION: &str = "2025-11-25";
const PATH: &str = "/api/v1/mcp/org-1";

fn note(id: &Value, text: &str) -> Value {
    let params = json!({ "name": "note", "arguments": { "text": text } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

fn small() -> FrontLimits {
    FrontLimits::default().with_request(Limits::default().with_body_bytes(2_000))
}

/// The error of a request that was refused alone, with what it would have been elsewhere.
async fn in_session(response: reqwest::Response, id: &Value, data: &Value) -> String {
    assert_eq!((response.status().as_u16(), response.headers().get("retry-after")), (200, None));
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["id"], &body["error"]["data"]), (id, data), "{body}");
    assert_eq!(body["error"]["code"], -32603, "{body}");
    body["error"]["message"].as_str().unwrap().to_owned()
}

async fn elsewhere(response: reqwest::Response, status: u16) -> Value {
    let seen = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(seen, status, "{body}");
    assert_eq!(body["error"].get("data"), None, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_calls_cost_only_the_last() {
    let site = FrontEnd::with_limits(FrontLimits::default().with_calls_of_principal(1)).await;
    let worker = site.worker();
    let session = site.session(REVISION).await;
    site.end(worker).await;
    let first = note(&json!(1), "first");
    let first = site.post(EntryPoint::Direct, &session, REVISION, &first);
    tokio::pin!(first);
    tokio::select! {
        early = &mut first => panic!("the first call is answered: {early:?}"),
        () = site.waits() => {}
    }
    let second = site.post(EntryPoint::Direct, &session, REVISION, &note(&json!("b"), "second")).await;
    let why = in_session(second, &json!("b"), &json!({ "httpStatus": 429, "retryAfter": 1 })).await;
    assert!(why.contains("too many requests that wait"), "{why}");
    let stateless = site.call(EntryPoint::Direct, "stateless").await;
    assert!(stateless.headers().contains_key("retry-after"));
    elsewhere(stateless, 429).await;
    assert_eq!(site.statz().await["refused"], json!({ "429": 2 }));
    let _worker = site.worker();
    let answer: Value = first.await.json().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "noted first", "{answer}");
    assert_eq!(site.journal(), ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_under_its_id() {
    let site = FrontEnd::with_limits(small()).await;
    let _worker = site.worker();
    let session = site.session(REVISION).await;
    let data = json!({ "httpStatus": 413 });
    for id in [json!(7), json!("last \"one\"")] {
        let large = note(&id, &"x".repeat(3_000));
        let why =
            in_session(site.post(EntryPoint::Direct, &session, REVISION, &large).await, &id, &data).await;
        assert!(why.contains("larger than 2000 bytes"), "{why}");
    }
    // The session goes on.
    let answer: Value = site
        .post(EntryPoint::Direct, &session, REVISION, &note(&json!(8), "small"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "noted small", "{answer}");

    // No request, longer than is read on for, another era: the exchange is refused.
    let notification = json!({ "jsonrpc": "2.0", "method": "n", "params": { "text": "x".repeat(3_000) } });
    elsewhere(site.post(EntryPoint::Direct, &session, REVISION, &notification).await, 413).await;
    let huge = note(&json!(9), &"x".repeat(40_000));
    elsewhere(site.post(EntryPoint::Direct, &session, REVISION, &huge).await, 413).await;
    let body = elsewhere(site.call(EntryPoint::Direct, &"x".repeat(3_000)).await, 413).await;
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-32600)), "{body}");
    assert_eq!(site.statz().await["refused"], json!({ "413": 5 }));
    assert_eq!(site.journal(), ["small"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_room_are_refused_under_their_id() {
    let site = FrontEnd::with_limits(FrontLimits::default().with_bodies(4_000)).await;
    let _worker = site.worker();
    let session = site.session(REVISION).await;
    let large = note(&json!(1), &"x".repeat(2_000));
    let data = json!({ "httpStatus": 429, "retryAfter": 1 });
    let why =
        in_session(site.post(EntryPoint::Direct, &session, REVISION, &large).await, &json!(1), &data).await;
    assert!(why.starts_with("You have too many bytes"), "{why}");
    elsewhere(site.call(EntryPoint::Direct, &"x".repeat(2_000)).await, 429).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_denies_costs_that_request() {
    let site = FrontEnd::start().await;
    let _worker = site.worker();
    let denied = |id: u32| {
        let params = json!({ "name": "drop_all", "arguments": {} });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    let [new, old] = [site.session(REVISION).await, site.session("2025-03-26").await];
    let data = json!({ "httpStatus": 403 });
    let why =
        in_session(site.post(EntryPoint::Direct, &new, REVISION, &denied(2)).await, &json!(2), &data).await;
    assert!(why.contains("policy"), "{why}");
    let batch = json!([denied(3), note(&json!(4), "batch")]);
    let answers: Value =
        site.post(EntryPoint::Direct, &old, "2025-03-26", &batch).await.json().await.unwrap();
    assert_eq!((&answers[0]["id"], &answers[0]["error"]["data"]), (&json!(3), &data), "{answers}");
    assert_eq!(answers[1]["result"]["content"][0]["text"], "noted batch", "{answers}");
    let stateless = site.stateless(EntryPoint::Direct, "tools/call", json!({ "name": "drop_all" })).await;
    elsewhere(stateless, 403).await;
    assert_eq!(site.statz().await["refused"], json!({ "403": 3 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_session_and_what_is_no_request_stay_http_errors() {
    let site = FrontEnd::start().await;
    let worker = site.worker();
    let session = site.session(REVISION).await;
    let text = |body: &'static str| async {
        let response = site.post_text(PATH, body.to_owned()).await;
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"]["code"].clone())
    };
    assert_eq!(text("{").await, (400, json!(-32700)));
    assert_eq!(text(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await, (400, json!(-32600)));
    let unknown = site.post(EntryPoint::Direct, "made-up", REVISION, &note(&json!(1), "x")).await;
    assert_eq!(unknown.status().as_u16(), 404);
    let other = site.post(EntryPoint::Direct, &session, "1999-01-01", &note(&json!(1), "x")).await;
    assert_eq!(other.status().as_u16(), 400);
    site.end(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_too_many_is_told_with_the_right_address() {
    let site = FrontEnd::start().await;
    for path in ["/api/v1/mcp/org-1/", "//api/v1/mcp/org-1", "/api/v1//mcp/org-1"] {
        let body = elsewhere(site.post_text(path, "{}".into()).await, 404).await;
        let said = body["error"]["message"].as_str().unwrap();
        assert_eq!(said, "There is a slash too many in the path: use /api/v1/mcp/org-1.", "{path}");
    }
    let body = elsewhere(site.post_text("/api/v1/mcp", "{}".into()).await, 404).await;
    assert!(body["error"]["message"].as_str().unwrap().contains("/api/v1/mcp/{organisation}"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_stops_refuses_the_requests_that_wait() {
    let site = FrontEnd::with_limits(FrontLimits::default()).await;
    let worker = site.worker();
    let session = site.session(REVISION).await;
    site.end(worker).await;
    let message = note(&json!(5), "late");
    let waits = site.post(EntryPoint::Direct, &session, REVISION, &message);
    let stops = async {
        site.waits().await;
        site.parts.fronts[0].shut_down(Duration::ZERO).await;
    };
    let (response, ()) = tokio::join!(waits, stops);
    if response.headers()["content-type"] == "application/json" {
        let data = json!({ "httpStatus": 503, "retryAfter": 1 });
        let why = in_session(response, &json!(5), &data).await;
        assert!(why.contains("The server stops"), "{why}");
    } else {
        panic!("it is a stream already: {response:?}");
    }
}

/// A session of HTTP+SSE that is not initialized.
async fn http_sse(site: &FrontEnd) -> (Events, String) {
    let mut stream = Events::new(site.open_sse().await);
    let endpoint = stream.next().await;
    (stream, endpoint)
}

async fn initialize(site: &FrontEnd, stream: &mut Events, endpoint: &str) {
    let params = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    let message = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    assert_eq!(site.post_to(endpoint, &message).await.status().as_u16(), 202);
    assert_eq!(stream.json().await["id"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_http_sse_says_what_is_refused() {
    let site = FrontEnd::with_limits(small()).await;
    let _worker = site.worker();
    let (mut stream, endpoint) = http_sse(&site).await;
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let probe =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": { "_meta": meta } });
    let request = |method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    for (message, code) in [(probe, -32601), (note(&json!(1), "early"), -32600)] {
        assert_eq!(site.post_to(&endpoint, &message).await.status().as_u16(), 202, "{message}");
        let said = stream.json().await;
        assert_eq!((&said["id"], &said["error"]["code"]), (&json!(1), &json!(code)), "{said}");
    }
    initialize(&site, &mut stream, &endpoint).await;
    let too_large = note(&json!(1), &"x".repeat(3_000));
    for (message, code, data) in [
        (request("logging/setLevel", json!({ "level": "loud" })), -32602, None),
        (request("tools/call", json!({ "name": "drop_all" })), -32603, Some(json!({ "httpStatus": 403 }))),
        (request("resources/subscribe", json!({ "uri": "x".repeat(1_900) })), -32601, None),
        (request("tools/call", json!([])), -32602, Some(json!({ "httpStatus": 400 }))),
        (json!({ "id": 1, "method": "ping" }), -32600, None),
        (too_large, -32603, Some(json!({ "httpStatus": 413 }))),
    ] {
        assert_eq!(site.post_to(&endpoint, &message).await.status().as_u16(), 202, "{message}");
        let said = stream.json().await;
        assert_eq!((&said["id"], &said["error"]["code"]), (&json!(1), &json!(code)), "{message} {said}");
        assert_eq!(said["error"].get("data"), data.as_ref(), "{message} {said}");
    }
    // What is no request has no answer but the HTTP one.
    assert_eq!(site.post_text(&endpoint, "{".into()).await.status().as_u16(), 400);
    // One of several that is refused costs the others nothing.
    let several = json!([request("no/such", json!([])), note(&json!(2), "after")]);
    let several = json!([request("logging/setLevel", json!({ "level": 1 })), several[1]]);
    assert_eq!(site.post_to(&endpoint, &several).await.status().as_u16(), 202);
    let mut said = [stream.json().await, stream.json().await];
    said.sort_by_key(|said| said["id"].as_u64());
    assert_eq!(said[0]["error"]["code"], -32602, "{said:?}");
    assert_eq!(said[1]["result"]["content"][0]["text"], "noted after", "{said:?}");
    assert_eq!(site.journal(), ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_stream_a_post_of_http_sse_does_nothing() {
    let site = FrontEnd::start().await;
    let _worker = site.worker();
    let (mut stream, endpoint) = http_sse(&site).await;
    initialize(&site, &mut stream, &endpoint).await;
    assert_eq!(site.post_to(&endpoint, &note(&json!(1), "heard")).await.status().as_u16(), 202);
    assert_eq!(stream.json().await["result"]["content"][0]["text"], "noted heard");
    drop(stream);
    // Until the backend knows that the client is gone.
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let gone = tokio::time::timeout(Duration::from_secs(10), async {
        while site.post_to(&endpoint, &ping).await.status().as_u16() != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("the stream is gone");
    let refused = site.post_to(&endpoint, &note(&json!(3), "unheard")).await;
    assert_eq!(refused.status().as_u16(), 404);
    let body: Value = refused.json().await.unwrap();
    assert!(
        body["error"]["message"].as_str().unwrap().contains("The stream of this session has ended"),
        "{body}"
    );
    // Another session's call comes after it in the queue.
    let answer: Value = site.call(EntryPoint::Direct, "later").await.json().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "noted later", "{answer}");
    assert_eq!(site.journal(), ["heard", "later"]);
}
