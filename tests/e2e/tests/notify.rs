//! What an operator tells reaches the streams of those whom it is for, at both entry points.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::ExitCode;

use asgard::args::{News, Notify};
use asgard::commands::notify;
use asgard::supervisor::part::Kind;
use e2e::exchange::End;
use e2e::{Client, EntryPoint, Exchange, Stack};
use serde_json::{Value, json};

/// `asgard notify`.
async fn tell(stack: &Stack, what: News, organisation: Option<&str>) {
    let order = Notify { what, org: organisation.map(str::to_owned), subject: None, session: None };
    let code = notify::run(&stack.paths, &order).await.unwrap();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

/// A stateless stream that wants to know when the tools change, acknowledged.
async fn listen(client: &Client) -> Exchange {
    let filter = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let mut stream = client.open("subscriptions/listen", filter).await;
    let first = next(&mut stream).await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    // The toolbox has no prompts.
    assert_eq!(first["params"]["notifications"], json!({"toolsListChanged": true}));
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], stream.id);
    stream
}

/// The next message of a stream.
async fn next(stream: &mut Exchange) -> Value {
    let count = stream.messages.len();
    stream.read_messages(count + 1).await;
    assert_eq!(stream.messages.len(), count + 1, "{}", stream.outline());
    stream.messages[count].message.clone()
}

async fn expect_change(stream: &mut Exchange) {
    let message = next(stream).await;
    assert_eq!(message["method"], "notifications/tools/list_changed", "{message}");
    assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], stream.id);
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test notify"]
async fn an_organisation_is_told_and_no_other() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let thor = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let freya = Client::modern(&stack, entry_point, "freya", "org-1").await;
        let hel = Client::modern(&stack, entry_point, "hel", "org-2").await;
        let session = Client::session(&stack, entry_point, "thor", "org-1").await;
        let mut streams = vec![listen(&thor).await, listen(&freya).await];
        let mut other = listen(&hel).await;
        let mut own = session.listen().await;

        let notified = async || {
            let counters = stack.counters().await;
            counters.values().map(|counts| counts["notified"]).sum::<u64>()
        };
        let before = notified().await;
        tell(&stack, News::Tools, Some("org-1")).await;
        // One item for all stateless streams, one for all sessions.
        assert_eq!(notified().await - before, 2);
        for stream in &mut streams {
            expect_change(stream).await;
        }
        assert_eq!(next(&mut own).await["method"], "notifications/tools/list_changed");
        tell(&stack, News::Log { text: "Ragnarök is off".into(), level: "notice".into() }, None).await;
        assert_eq!(next(&mut own).await["params"]["data"], "Ragnarök is off");

        // The other organisation's first news is its own; then its streams end, and nobody else's.
        tell(&stack, News::Tools, Some("org-2")).await;
        expect_change(&mut other).await;
        tell(&stack, News::Close, Some("org-2")).await;
        let last = next(&mut other).await;
        assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!(other.id), &json!("complete")));
        let other = other.to_end().await;
        assert!(matches!(other.end, Some((End::Whole, _))), "{}", other.outline());
        tell(&stack, News::Tools, None).await;
        for stream in &mut streams {
            expect_change(stream).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test notify"]
async fn streams_outlive_every_backend() {
    let stack = Stack::claim().await;
    let mut streams = Vec::new();
    for entry_point in EntryPoint::BOTH {
        let thor = Client::modern(&stack, entry_point, "thor", "org-1").await;
        streams.push(listen(&thor).await);
    }
    let pids: Vec<u32> = stack.pids(&[Kind::Backend]).await.into_values().collect();
    Stack::kill(pids.iter().copied());
    stack.back(&pids).await;
    tell(&stack, News::Tools, Some("org-1")).await;
    for stream in &mut streams {
        expect_change(stream).await;
    }
}
