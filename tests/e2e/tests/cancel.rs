//! A call ends when its client does not want it any more: modern, by closing the stream; in a session, by
//! `notifications/cancelled`, and only by that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use e2e::exchange::End;
use e2e::journal::Run;
use e2e::{Client, EntryPoint, Form, Journal, Stack};
use serde_json::json;

/// How soon the tool must be gone.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test cancel"]
async fn a_modern_client_that_goes_ends_its_call() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for messages in [0, 1, 5] {
            let journal = stack.journal();
            let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
            let mut exchange =
                client.open_tool("slow_echo", json!({"total_ms": 20_000, "events": 400}), true).await;
            assert_eq!(exchange.form(), Form::Stream, "{}", exchange.outline());
            exchange.read_messages(messages).await;
            drop((exchange, client));
            println!(
                "{entry_point:?}, after {messages} messages: the tool ended {} ms later",
                ended(&journal).await
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test cancel"]
async fn a_modern_client_that_goes_before_its_call_is_held_ends_it() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let journal = stack.journal();
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let call = tokio::spawn(async move {
            client.open_tool("slow_echo", json!({"total_ms": 20_000, "events": 400}), false).await
        });
        journal.wait_for("the tool begins", Duration::from_secs(10), |run| !run.starts.is_empty()).await;
        call.abort();
        println!("{entry_point:?}, not held yet: the tool ended {} ms later", ended(&journal).await);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test cancel"]
async fn a_session_cancels_by_notification_from_anywhere() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let journal = stack.journal();
        let client = Client::session(&stack, entry_point, "thor", "org-1").await;
        let mut exchange =
            client.open_tool("slow_echo", json!({"total_ms": 20_000, "events": 400}), true).await;
        exchange.read_messages(2).await;
        // Any backend takes it.
        let elsewhere = client.moved(client.endpoint.clone());
        let params = json!({"requestId": exchange.id, "reason": "enough"});
        assert_eq!(elsewhere.notify("notifications/cancelled", params).await, 202);
        let took = ended(&journal).await;
        let exchange = exchange.to_end().await;
        assert_eq!(exchange.end.as_ref().map(|(end, _)| end), Some(&End::Whole), "{}", exchange.outline());
        assert!(exchange.answer().is_none(), "a cancelled request has no answer: {}", exchange.outline());
        println!("{entry_point:?}, session: the tool ended {took} ms later");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test cancel"]
async fn a_session_whose_connection_breaks_goes_on() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let journal = stack.journal();
        let client = Client::session(&stack, entry_point, "thor", "org-1").await;
        let mut exchange =
            client.open_tool("slow_echo", json!({"total_ms": 2_000, "events": 20}), true).await;
        exchange.read_messages(2).await;
        drop((exchange, client));
        let (_, run) =
            journal.wait_for("the tool ends", Duration::from_secs(10), |run| run.ends + run.drops > 0).await;
        assert_eq!((run.starts.len(), run.steps.len(), run.ends, run.drops), (1, 20, 1, 0), "{run:?}");
    }
}

/// Waits until the tool was dropped, and sees to it that nothing follows; the milliseconds that it took.
async fn ended(journal: &Journal) -> u128 {
    let started = Instant::now();
    let dropped = |run: &Run| run.drops > 0;
    let (call, run) = journal.wait_for("the tool is dropped", SOON, dropped).await;
    let took = started.elapsed().as_millis();
    assert_eq!((run.starts.len(), run.ends), (1, 0));
    // Some steps' time: nothing more comes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(journal.runs()[&call].steps, run.steps);
    took
}
