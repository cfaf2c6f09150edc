//! The work spreads by itself: over the backends by the gateway's balancing, over the workers by the queue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use asgard::supervisor::part::Kind;
use e2e::{Client, EntryPoint, Stack};
use futures::StreamExt;
use serde_json::json;

const CALLS: usize = 300;

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test balance"]
async fn both_backends_and_both_workers_get_their_share() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Arc::new(Client::modern(&stack, entry_point, "thor", "org-1").await);
        let (before, journal) = (stack.served().await, stack.journal());
        let calls = futures::stream::iter(0..CALLS).map(|number| {
            let client = client.clone();
            async move {
                let total_ms = if number % 3 == 0 { 150 } else { 10 };
                let exchange = client.tool("slow_echo", json!({"total_ms": total_ms})).await;
                exchange.check_whole(0).unwrap();
            }
        });
        calls.buffer_unordered(16).collect::<()>().await;

        let backends: Vec<u64> =
            stack.served().await.iter().map(|(name, count)| count - before.get(name).unwrap_or(&0)).collect();
        let mut workers = BTreeMap::<u32, u64>::new();
        for run in journal.runs().values() {
            for pid in &run.starts {
                *workers.entry(*pid).or_default() += 1;
            }
        }
        println!("{entry_point:?}: {CALLS} calls; backends {backends:?}, workers {workers:?}");
        assert_eq!(workers.keys().copied().collect::<std::collections::BTreeSet<_>>(), {
            stack.pids(&[Kind::Worker]).await.into_values().collect()
        });
        for shares in [backends, workers.into_values().collect()] {
            assert_eq!(shares.iter().sum::<u64>(), CALLS as u64, "{shares:?}");
            assert_eq!(shares.len(), 2);
            assert!(
                shares.iter().all(|share| *share * 10 >= CALLS as u64 * 3),
                "at least 30 % each: {shares:?}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test balance"]
async fn a_session_goes_on_at_every_backend() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let before = stack.served().await;
        let started = Client::session(&stack, entry_point, "thor", "org-1").await;
        for number in 0..12 {
            // Connections of its own: whatever balances by connection has to choose again.
            let client = started.moved(started.endpoint.clone());
            let exchange = client.tool("echo", json!({"text": format!("{number}")})).await;
            assert_eq!(exchange.result().unwrap()["content"][0]["text"], format!("{number}"));
        }
        let served = stack.served().await;
        let shares: Vec<u64> = served.iter().map(|(name, count)| count - before[name]).collect();
        println!("{entry_point:?}: one session, requests by backend {shares:?}");
        assert!(shares.len() == 2 && shares.iter().all(|share| *share >= 3), "{shares:?}");
    }
}
