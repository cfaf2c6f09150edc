//! A call that no worker takes: however its client waits, it gets an error in time, and the tool never runs afterwards.
//! And what is refused in other ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)] // a test may fail

mod front_end;
mod refused;

use identity::EntryPoint;
use serde_json::{Value, json};

use front_end::FrontEnd;
use kit::Events;

const SAID: &str = "No worker took the call in time, and it will not run.";

/// The error, whether it came as a document or as the last event of a stream.
async fn refused(response: reqwest::Response, id: &Value) {
    assert_eq!(response.status().as_u16(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    assert_refusal(&body, id);
    assert_eq!(body["error"].get("data"), None, "{body}");
}

/// The same in a session, where it is the request that is refused and not the HTTP exchange.
async fn refused_in_session(response: reqwest::Response, id: &Value) {
    assert_eq!(response.status().as_u16(), 200);
    assert_in_session(&response.json().await.unwrap(), id);
}

fn assert_in_session(body: &Value, id: &Value) {
    assert_refusal(body, id);
    assert_eq!(body["error"]["data"], json!({ "httpStatus": 503, "retryAfter": 5 }), "{body}");
}

fn assert_refusal(body: &Value, id: &Value) {
    assert_eq!((&body["id"], &body["error"]["code"]), (id, &json!(-32603)), "{body}");
    assert!(body["error"]["message"].as_str().unwrap().starts_with(SAID), "{body}");
}

/// Starts a worker, and demands that only what is asked from now on runs.
async fn nothing_runs_afterwards(site: &FrontEnd) {
    let _worker = site.worker();
    let answer: Value = site.call(EntryPoint::Direct, "fresh").await.json().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "noted fresh", "{answer}");
    assert_eq!(site.journal(), ["fresh"], "a call ran after its client got the error that it will not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_no_worker_takes_never_runs() {
    let site = FrontEnd::start().await;
    // Streamed by the backend itself; handed over, and held at once, while no Pushpin is there.
    for entry_point in [EntryPoint::Direct, EntryPoint::Bifrost, EntryPoint::Hermod] {
        refused(site.call(entry_point, "stateless").await, &json!(7)).await;
    }
    nothing_runs_afterwards(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_runs_the_tool_after_all() {
    let site = FrontEnd::start().await;
    refused(site.call_with_key("k", "once").await, &json!(7)).await;
    let _worker = site.worker();
    let answer: Value = site.call_with_key("k", "once").await.json().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "noted once", "{answer}");
    assert_eq!(site.journal(), ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_subscriptions_have_the_same_patience() {
    let site = FrontEnd::start().await;
    refused(site.stateless(EntryPoint::Bifrost, "tools/list", json!({})).await, &json!(7)).await;
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    refused(site.stateless(EntryPoint::Bifrost, "subscriptions/listen", filter).await, &json!(7)).await;
    nothing_runs_afterwards(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_it_too() {
    let site = FrontEnd::start().await;
    refused_in_session(site.initialize("2025-11-25", None).await, &json!(1)).await;

    let worker = site.worker();
    let [new, old] = [site.session("2025-11-25").await, site.session("2025-03-26").await];
    site.end(worker).await;
    let note = |id: u32| {
        let params = json!({ "name": "note", "arguments": { "text": "session" } });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    for entry_point in [EntryPoint::Direct, EntryPoint::Bifrost, EntryPoint::Hermod] {
        refused_in_session(site.post(entry_point, &new, "2025-11-25", &note(2)).await, &json!(2)).await;
    }
    let batch = site.post(EntryPoint::Direct, &old, "2025-03-26", &json!([note(3), note(4)])).await;
    let answers: Value = batch.json().await.unwrap();
    for (answer, id) in answers.as_array().unwrap().iter().zip([3, 4]) {
        assert_in_session(answer, &json!(id));
    }
    nothing_runs_afterwards(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_http_sse_the_stream_says_it() {
    let site = FrontEnd::start().await;
    let mut stream = Events::new(site.open_sse().await);
    let endpoint = stream.next().await;
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } },
    });
    assert_eq!(site.post_to(&endpoint, &message).await.status().as_u16(), 202);
    assert_in_session(&serde_json::from_str(&stream.next().await).unwrap(), &json!(1));
    nothing_runs_afterwards(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_comes_too_late_says_so() {
    let site = FrontEnd::start().await;
    let ticket = "0023456789abcdef0123456789abcdef";
    let late = site.hold(ticket, Some(b"key"), Some("")).await;
    assert_eq!(late.status().as_u16(), 503);
    assert!(late.headers().contains_key("retry-after"));
    let body: Value = late.json().await.unwrap();
    assert!(
        body["error"]["message"].as_str().unwrap().contains("what became of the request is unknown"),
        "{body}"
    );
    // Who is not Pushpin, or brings no caller, learns nothing.
    let forged = "v1.k1.e30.AAAA";
    for (key, assertion) in [
        (None, Some("")),
        (Some(&b"another"[..]), Some("")),
        (Some(&b"key"[..]), None),
        (Some(&b"key"[..]), Some(forged)),
    ] {
        let response = site.hold(ticket, key, assertion).await;
        assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (404, 0));
    }
}
