//! Requests that are repeated with their `Idempotency-Key`: the tool runs once, and each request is answered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use asgard::supervisor::part::Kind;
use e2e::random::{self, RngExt};
use e2e::{Client, EntryPoint, Era, Exchange, Form, Stack};
use futures::future::join_all;
use serde_json::{Value, json};

/// How long a client goes on asking.
const PATIENCE: Duration = Duration::from_secs(60);

fn keyed(client: &Client, id: u64, key: &str, tool: &str, arguments: Value) -> reqwest::RequestBuilder {
    client
        .build(id, "tools/call", json!({"name": tool, "arguments": arguments}))
        .header("idempotency-key", key)
}

fn unique(what: &str) -> String {
    format!("{what}-{:016x}", rand::random::<u64>())
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test retries"]
async fn a_finished_call_is_answered_again_under_the_new_id() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let key = unique("done");
            let journal = stack.journal();
            for id in [1_u64, 2, 2, 900] {
                let call = keyed(&client, id, &key, "slow_count", json!({"total_ms": 60, "events": 0}));
                let exchange = Exchange::of(call, id).await.to_end().await;
                assert!(exchange.result().is_some(), "{entry_point:?} {era:?}: {}", exchange.outline());
            }
            assert_eq!(journal.runs().len(), 1, "{entry_point:?} {era:?}");
            // Other parameters under the same key are an error, and run nothing.
            let call = keyed(&client, 3, &key, "slow_count", json!({"total_ms": 61, "events": 0}));
            let exchange = Exchange::of(call, 3).await.to_end().await;
            assert_eq!(exchange.refused(), Some(422), "{}", exchange.outline());
            assert_eq!(exchange.status(), if era == Era::Stateless { 422 } else { 200 });
            assert_eq!(exchange.error().unwrap()["code"], -32602);
            assert_eq!(journal.runs().len(), 1);
            // A key is its principal's own.
            for (user, organisation) in [("freya", "org-1"), ("freya", "org-2")] {
                let other = Client::of(era, &stack, entry_point, user, organisation).await;
                let call = keyed(&other, 1, &key, "slow_count", json!({"total_ms": 60, "events": 0}));
                assert!(Exchange::of(call, 1).await.to_end().await.result().is_some());
            }
            assert_eq!(journal.runs().len(), 3);
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test retries"]
async fn a_client_that_lost_its_connection_joins_the_running_call() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        for era in [Era::Stateless, Era::Stateful] {
            let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
            let key = unique("join");
            let journal = stack.journal();
            let arguments = json!({"total_ms": 1_500, "events": 3});
            let mut first = Exchange::of(keyed(&client, 1, &key, "slow_count", arguments.clone()), 1).await;
            assert_eq!(first.form(), Form::Stream, "{}", first.outline());
            first.cut();
            journal.wait_for("the tool runs", Duration::from_secs(10), |run| !run.starts.is_empty()).await;
            // Two at once: the later one takes the place of the earlier, and a third finds the stored answer.
            let again = |id| Exchange::of(keyed(&client, id, &key, "slow_count", arguments.clone()), id);
            let second = again(2).await.to_end().await;
            assert!(second.result().is_some(), "{entry_point:?} {era:?}: {}", second.outline());
            let third = again(3).await.to_end().await;
            assert_eq!(third.result(), second.result());
            let runs = journal.runs();
            assert_eq!(runs.len(), 1);
            assert!(
                runs.values().all(|run| run.starts.len() == 1 && run.ends == 1 && run.drops == 0),
                "{runs:?}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test retries"]
async fn a_cancelled_call_stays_cancelled() {
    let stack = Stack::claim().await;
    let client = Client::session(&stack, EntryPoint::Bifrost, "thor", "org-1").await;
    let key = unique("cancelled");
    let journal = stack.journal();
    let arguments = json!({"total_ms": 20_000, "events": 100});
    let first = Exchange::of(keyed(&client, 1, &key, "slow_count", arguments.clone()), 1).await;
    assert_eq!(client.notify("notifications/cancelled", json!({"requestId": 1})).await, 202);
    first.to_end().await;
    journal.wait_for("the tool is dropped", Duration::from_secs(2), |run| run.drops > 0).await;
    let again = Exchange::of(keyed(&client, 2, &key, "slow_count", arguments), 2).await.to_end().await;
    assert_eq!((again.status(), again.refused()), (200, Some(409)), "{}", again.outline());
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test retries"]
async fn keys_that_are_none_are_refused() {
    let stack = Stack::claim().await;
    let client = Client::modern(&stack, EntryPoint::Bifrost, "thor", "org-1").await;
    for key in ["", "a b", &"k".repeat(256)] {
        let exchange =
            Exchange::of(keyed(&client, 1, key, "echo", json!({"text": "x"})), 1).await.to_end().await;
        assert_eq!(exchange.status(), 400, "{key:?}: {}", exchange.outline());
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test retries"]
async fn nothing_runs_twice_when_gateway_and_backends_die() {
    let stack = Stack::claim().await;
    let mut random = random::generator(random::seed(42));
    for entry_point in EntryPoint::BOTH {
        for kinds in [&[Kind::Gateway][..], &[Kind::Backend][..], &[Kind::Gateway, Kind::Backend][..]] {
            let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
            let journal = stack.journal();
            let calls = (0..20_u64).map(|id| {
                let client = &client;
                let arguments = json!({"total_ms": 150 + id * 30, "events": 0});
                let key = unique("kill");
                async move {
                    let started = Instant::now();
                    loop {
                        let call = keyed(client, id, &key, "slow_count", arguments.clone());
                        let exchange = Exchange::of(call, id).await.to_end().await;
                        if exchange.result().is_some() {
                            return;
                        }
                        assert!(started.elapsed() < PATIENCE, "{}", exchange.outline());
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            });
            let pids = stack.pids(kinds).await;
            let moment = Duration::from_millis(random.random_range(20..500));
            let kill = async {
                tokio::time::sleep(moment).await;
                Stack::kill(pids.values().copied());
                let gone: Vec<u32> = pids.values().copied().collect();
                stack.kinds_back(Some(kinds), &gone).await;
            };
            tokio::join!(join_all(calls), kill);
            let runs = journal.runs();
            assert!(runs.values().all(|run| run.starts.len() == 1), "{runs:?}");
            assert_eq!(runs.len(), 20, "{entry_point:?}, {kinds:?} killed after {moment:?}");
            println!(
                "{entry_point:?}, {kinds:?} killed after {} ms: 20 calls, each ran once",
                moment.as_millis()
            );
            stack.serving().await;
        }
    }
}
