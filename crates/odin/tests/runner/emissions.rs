//! What a call sends before its answer: all of it, in order, and only what the client asked for.

use std::sync::Arc;

use odin::protocol::Era;
use serde_json::json;

use super::support::{Running, modern, modern_meta, run, runner, session, text_job, tool};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_notifications_keep_their_order() {
    let (runner, _) = runner();
    for _ in 0..200 {
        let job = session(json!(1), "tools/call", tool("floods", json!({ "count": 20 })));
        let (_, emitted) = run(&runner, job).await;
        let numbers: Vec<_> =
            emitted.iter().map(|message| message["params"]["data"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn more_than_any_buffer_of_rmcp_goes_through() {
    let (runner, _) = runner();
    let (_, emitted) = run(&runner, session(json!(1), "tools/call", tool("counts", json!({})))).await;
    assert_eq!(emitted.len(), 5000);
    assert!(emitted.iter().enumerate().all(|(n, message)| message["params"]["data"] == n));
}

#[tokio::test]
async fn progress_carries_the_clients_own_token() {
    let (runner, _) = runner();
    for token in ["0", "7", "1.0", "2.5", "1e3", "12345678901234567890123", r#""t""#, r#""\u0061""#] {
        for (era, more) in [
            (Era::Stateful, ""),
            (
                Era::Stateless,
                r#","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#,
            ),
        ] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"progress","_meta":{{"progressToken":{token}{more}}}}}}}"#
            );
            let running = Running::start(&runner, text_job(era, &text));
            let outbox = Arc::clone(&running.outbox);
            assert!(running.answer().await.unwrap()["result"].is_object());
            let texts = outbox.texts();
            // Three, and not the one under another request's token.
            assert_eq!(texts.len(), 3, "{texts:?}");
            assert!(
                texts.iter().all(|text| text.contains(&format!(r#""progressToken":{token},"#))),
                "{texts:?}"
            );
            assert_eq!(
                outbox.all()[1]["params"]["message"],
                json!("step 2"),
                "progress, total and message stay"
            );
            assert_eq!(outbox.all()[1]["params"]["total"], json!(3.0));
        }
    }
}

#[tokio::test]
async fn no_token_no_progress() {
    let (runner, _) = runner();
    let (answer, emitted) = run(&runner, modern(json!(1), "tools/call", tool("progress", json!({})))).await;
    assert_eq!(answer["result"]["content"][0]["text"], "no token");
    assert!(emitted.is_empty(), "{emitted:?}");
}

#[tokio::test]
async fn log_messages_are_filtered_by_level() {
    let (runner, _) = runner();
    let levels = |emitted: &[serde_json::Value]| {
        emitted
            .iter()
            .map(|message| message["params"]["level"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let logs = || tool("logs", json!({}));
    let (_, emitted) = run(&runner, modern(json!(1), "tools/call", logs())).await;
    assert!(emitted.is_empty(), "a stateless request that did not ask gets none: {emitted:?}");
    for (level, passed) in [("debug", 3), ("notice", 2), ("warning", 2), ("emergency", 1), ("shout", 0)] {
        let meta = json!({ "io.modelcontextprotocol/logLevel": level });
        let (_, emitted) = run(&runner, modern_meta(json!(1), "tools/call", logs(), meta)).await;
        assert_eq!(emitted.len(), passed, "{level}: {emitted:?}");
    }
    let (_, emitted) = run(&runner, session(json!(1), "tools/call", logs())).await;
    assert_eq!(levels(&emitted), ["debug", "warning", "emergency"], "a session that never said gets all");
    let mut job = session(json!(1), "tools/call", logs());
    job.log_level = Some("error".into());
    let (_, emitted) = run(&runner, job).await;
    assert_eq!(levels(&emitted), ["emergency"]);
}

#[tokio::test]
async fn a_modern_stream_carries_no_change_that_was_not_subscribed() {
    let (runner, _) = runner();
    let (_, emitted) = run(&runner, modern(json!(1), "tools/call", tool("changes", json!({})))).await;
    assert!(emitted.is_empty(), "{emitted:?}");
    let (_, emitted) = run(&runner, session(json!(1), "tools/call", tool("changes", json!({})))).await;
    assert_eq!(emitted[0]["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_subscription_is_answered_with_what_the_server_honours() {
    let (runner, _) = runner();
    for id in ["9", r#""nine""#, "9.0", "9.5", "98765432109876543210"] {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b"]}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        );
        let running = Running::start(&runner, text_job(Era::Stateless, &text));
        let outbox = Arc::clone(&running.outbox);
        let answer = running.answer().await.unwrap();
        // Of what the client wants, the server has tools that change. The stream itself is not the worker's.
        assert_eq!(answer["result"]["notifications"], json!({ "toolsListChanged": true }), "{answer}");
        assert!(outbox.methods().is_empty());
    }
}
