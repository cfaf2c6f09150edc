//! Requests of the server to its client, in the stateful era: ids that name their call, answers that find it.

use std::sync::Arc;

use odin::worker::Inbound;
use serde_json::{Value, json};

use super::support::{CALL, Running, modern, raw, run, runner, session, tool};

fn reply(id: &str, body: Value) -> Inbound {
    let mut answer = json!({ "jsonrpc": "2.0", "id": id });
    for (key, value) in body.as_object().unwrap() {
        answer[key] = value.clone();
    }
    Inbound::Response(raw(&answer))
}

#[tokio::test]
async fn a_request_to_the_client_names_its_call_and_its_answer_comes_back() {
    let (runner, counts) = runner();
    let running = Running::start(&runner, session(json!(1), "tools/call", tool("asks-model", json!({}))));
    let (id, request) = running.outbox.request(0).await;
    assert_eq!(id, format!("{CALL}:0"));
    assert_eq!(request["id"], id);
    assert_eq!(request["method"], "sampling/createMessage");
    assert_eq!(request["params"]["maxTokens"], 10);
    let token = request["params"]["_meta"]["progressToken"].as_str().unwrap().to_owned();
    assert!(token.starts_with(&format!("{CALL}:")), "{request}");

    // Progress of the client about it reaches the handler; about something else it does not.
    for token in [&token, "another:0", "0"] {
        let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
            "params": { "progressToken": token, "progress": 1 } });
        running.inbox.send(Inbound::Notification(raw(&progress))).await.unwrap();
    }
    counts.wait(|counts| &counts.progress, 1).await;

    let result = json!({ "model": "m-1", "role": "assistant", "content": { "type": "text", "text": "!" } });
    running.inbox.send(reply(&id, json!({ "result": result }))).await.unwrap();
    let answer = running.answer().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "model: m-1");
    assert_eq!(counts.progress.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_refusal_or_a_broken_answer_reaches_the_handler_as_an_error() {
    let (runner, _) = runner();
    let bodies = [
        json!({ "error": { "code": -1, "message": "user said no" } }),
        json!({ "error": { "message": 7 } }),
        json!({ "result": null }),
        json!({}),
        json!({ "result": { "something": "else" } }),
    ];
    for body in bodies {
        let running = Running::start(&runner, session(json!(1), "tools/call", tool("asks-model", json!({}))));
        let (id, _) = running.outbox.request(0).await;
        running.inbox.send(reply(&id, body.clone())).await.unwrap();
        let answer = running.answer().await.unwrap();
        assert_eq!(answer["error"]["code"], -32603, "{body}: {answer}");
    }
}

#[tokio::test]
async fn giving_up_a_request_cancels_it_under_its_outer_id() {
    let (runner, _) = runner();
    let running = Running::start(&runner, session(json!(1), "tools/call", tool("asks-briefly", json!({}))));
    let outbox = Arc::clone(&running.outbox);
    let answer = running.answer().await.unwrap();
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().starts_with("gave up"), "{answer}");
    assert_eq!(outbox.methods(), ["roots/list", "notifications/cancelled"]);
    assert_eq!(outbox.all()[1]["params"]["requestId"], format!("{CALL}:0"));
}

#[tokio::test]
async fn the_modern_era_has_no_requests_to_the_client() {
    let (runner, _) = runner();
    for name in ["asks-model", "asks-from-a-task"] {
        let (answer, emitted) = run(&runner, modern(json!(1), "tools/call", tool(name, json!({})))).await;
        assert!(emitted.is_empty(), "{name}: {emitted:?}");
        assert!(answer.to_string().contains("not allowed on protocol 2026-07-28"), "{name}: {answer}");
    }
    // The same tool may ask in a session, also from a task of its own.
    let running =
        Running::start(&runner, session(json!(1), "tools/call", tool("asks-from-a-task", json!({}))));
    let (id, _) = running.outbox.request(0).await;
    running.inbox.send(reply(&id, json!({ "result": { "roots": [] } }))).await.unwrap();
    assert_eq!(running.answer().await.unwrap()["result"]["content"][0]["text"], "0 roots");
}

#[tokio::test]
async fn two_calls_at_once_keep_their_answers_apart() {
    let (runner, _) = runner();
    let call = |call: &str| {
        let mut job = session(json!(1), "tools/call", tool("asks-model", json!({})));
        job.call = call.into();
        Running::start(&runner, job)
    };
    let (one, two) = (call("aa"), call("bb"));
    let (first, _) = one.outbox.request(0).await;
    let (second, _) = two.outbox.request(0).await;
    assert_eq!((first.as_str(), second.as_str()), ("aa:0", "bb:0"));
    let result = |model: &str| json!({ "result": { "model": model, "role": "assistant", "content": { "type": "text", "text": "" } } });
    // Crossed: each gets the other's first.
    one.inbox.send(reply(&second, result("two"))).await.unwrap();
    two.inbox.send(reply(&first, result("one"))).await.unwrap();
    one.inbox.send(reply(&first, result("one"))).await.unwrap();
    two.inbox.send(reply(&second, result("two"))).await.unwrap();
    assert_eq!(one.answer().await.unwrap()["result"]["content"][0]["text"], "model: one");
    assert_eq!(two.answer().await.unwrap()["result"]["content"][0]["text"], "model: two");
}
