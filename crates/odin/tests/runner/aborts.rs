//! Cancelling, aborting, panicking: every request ends, and in time.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use odin::protocol::Era;
use odin::runner::CANCEL_GRACE;
use odin::worker::Inbound;
use serde_json::json;

use super::support::{CALL, Recorder, Running, modern, raw, run, runner, session, text_job, tool};

fn cancelled(id: serde_json::Value) -> Inbound {
    Inbound::Notification(raw(
        &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id, "reason": "enough" } }),
    ))
}

#[tokio::test]
async fn a_panic_is_an_internal_error_without_its_text() {
    let (runner, counts) = runner();
    for name in ["panics", "panics-late"] {
        let (answer, _) = run(&runner, modern(json!(7), "tools/call", tool(name, json!({})))).await;
        assert_eq!(answer["id"], 7);
        assert_eq!(answer["error"]["code"], -32603);
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
    // The handler lives on.
    let (answer, _) = run(&runner, session(json!(8), "tools/call", tool("reads", json!({})))).await;
    assert_eq!(answer["result"]["content"][0]["text"], "read");
    assert_eq!(counts.ended.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn abort_drops_a_deaf_handler_at_once() {
    let (runner, counts) = runner();
    let running = Running::start(&runner, modern(json!(1), "tools/call", tool("deaf", json!({}))));
    counts.wait(|counts| &counts.started, 1).await;
    let asked = Instant::now();
    running.abort.cancel();
    assert!(running.answer().await.is_none());
    counts.wait(|counts| &counts.ended, 1).await;
    assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn dropping_the_run_drops_the_work() {
    let (runner, counts) = runner();
    let (_inbox, received) = tokio::sync::mpsc::channel(1);
    let job = modern(json!(1), "tools/call", tool("deaf", json!({})));
    let run =
        odin::worker::Runner::run(&*runner, job, Arc::new(Recorder::default()), received, Default::default());
    assert!(tokio::time::timeout(Duration::from_millis(50), run).await.is_err());
    assert_eq!(counts.ended.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_cancelled_request_gets_no_answer_and_sends_nothing_more() {
    let (runner, counts) = runner();
    for id in [json!(5), json!("five"), json!(5.5)] {
        let ended = counts.ended.load(Ordering::SeqCst);
        let running = Running::start(&runner, session(id.clone(), "tools/call", tool("listens", json!({}))));
        counts.wait(|counts| &counts.started, ended + 1).await;
        let outbox = Arc::clone(&running.outbox);
        running.inbox.send(cancelled(id)).await.unwrap();
        assert!(running.answer().await.is_none());
        counts.wait(|counts| &counts.ended, ended + 1).await;
        assert_eq!(counts.saw_cancel.load(Ordering::SeqCst), ended + 1, "the handler's token fired");
        assert!(outbox.all().is_empty(), "{:?}", outbox.all());
    }
}

#[tokio::test]
async fn a_cancelled_deaf_handler_is_dropped_after_its_grace() {
    let (runner, counts) = runner();
    let running = Running::start(&runner, session(json!(5), "tools/call", tool("deaf", json!({}))));
    counts.wait(|counts| &counts.started, 1).await;
    let asked = Instant::now();
    running.inbox.send(cancelled(json!(5))).await.unwrap();
    assert!(running.answer().await.is_none());
    assert_eq!(counts.ended.load(Ordering::SeqCst), 1);
    assert!(asked.elapsed() >= CANCEL_GRACE && asked.elapsed() < CANCEL_GRACE * 3, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_refusing_outbox_ends_the_work() {
    let (runner, counts) = runner();
    let outbox = Recorder::limited(3);
    let job = session(json!(1), "tools/call", tool("floods", json!({ "count": 100 })));
    let running = Running::start_with(&runner, job, Arc::clone(&outbox));
    assert!(running.answer().await.is_none());
    assert_eq!(outbox.all().len(), 3);
    counts.wait(|counts| &counts.ended, 1).await;
}

#[tokio::test]
async fn what_a_tool_spawned_ends_with_it_and_says_nothing_after_the_answer() {
    let (runner, counts) = runner();
    let running = Running::start(&runner, session(json!(1), "tools/call", tool("spawns", json!({}))));
    let outbox = Arc::clone(&running.outbox);
    let answer = running.answer().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "answered");
    counts.wait(|counts| &counts.saw_cancel, 1).await;
    counts.wait(|counts| &counts.spawned_refused, 1).await;
    assert!(outbox.all().is_empty());
}

#[tokio::test]
async fn a_closed_inbox_ends_nothing() {
    let (runner, _) = runner();
    let (inbox, received) = tokio::sync::mpsc::channel(1);
    drop(inbox);
    let outbox = Arc::new(Recorder::default());
    let job = session(json!(1), "tools/call", tool("floods", json!({ "count": 3 })));
    let answer = odin::worker::Runner::run(&*runner, job, outbox.clone(), received, Default::default()).await;
    assert!(answer.is_some());
    assert_eq!(outbox.all().len(), 3);
}

#[tokio::test]
async fn a_notification_ends_and_has_no_answer() {
    let (runner, counts) = runner();
    let message = |method: &str| format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
    let initialized = text_job(Era::Stateful, &message("notifications/initialized"));
    assert!(Running::start(&runner, initialized).answer().await.is_none());
    assert_eq!(counts.initialized.load(Ordering::SeqCst), 1);
    // There is no such notification in the stateless era.
    let initialized = text_job(Era::Stateless, &message("notifications/initialized"));
    assert!(Running::start(&runner, initialized).answer().await.is_none());
    assert_eq!(counts.initialized.load(Ordering::SeqCst), 1);
    // A handler that panics or hangs.
    let panics = text_job(Era::Stateful, &message("x/panic"));
    assert!(Running::start(&runner, panics).answer().await.is_none());
    let running = Running::start(&runner, text_job(Era::Stateful, &message("x/hang")));
    running.abort.cancel();
    assert!(running.answer().await.is_none());
}

#[tokio::test]
async fn a_cancellation_for_another_call_is_not_taken_for_an_answer() {
    let (runner, counts) = runner();
    let running = Running::start(&runner, session(json!(1), "tools/call", tool("asks-model", json!({}))));
    counts.wait(|counts| &counts.started, 1).await;
    let (id, _) = running.outbox.request(0).await;
    assert_eq!(id, format!("{CALL}:0"));
    for stray in [json!("another:0"), json!(0), json!(format!("{CALL}:99")), json!(format!("{CALL}:x"))] {
        let answer = json!({ "jsonrpc": "2.0", "id": stray, "result": { "model": "orphaned" } });
        running.inbox.send(Inbound::Response(raw(&answer))).await.unwrap();
    }
    let answer = json!({ "jsonrpc": "2.0", "id": id,
        "result": { "model": "right", "role": "assistant", "content": { "type": "text", "text": "!" } } });
    running.inbox.send(Inbound::Response(raw(&answer))).await.unwrap();
    assert_eq!(running.answer().await.unwrap()["result"]["content"][0]["text"], "model: right");
}
