//! One organisation's flood of long calls leaves the others as they were.
//!
//! `FLOOD_CALLS` (calls of the flood) makes it longer, such as 10000.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use asgard::supervisor::part::Kind;
use e2e::stack::wait;
use e2e::{Client, EntryPoint, Form, Journal, Stack};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Sleeping calls of the flood, unless the environment says otherwise.
const FLOOD: usize = 1_000;
/// Requests of the flood on their way at once, those that are held aside.
const AT_ONCE: usize = 64;
/// Quick calls that are measured.
const QUICK: usize = 300;
/// Seconds that each call of the flood sleeps: longer than the test lasts.
const SLEEP: u64 = 600;
/// What one principal may have open, and one worker's slots: the defaults.
const OPEN: usize = 256;
const SLOTS: usize = 64;

/// What the flood's calls came to so far.
#[derive(Default)]
struct Flood {
    refused: AtomicUsize,
    held: AtomicUsize,
    other: AtomicUsize,
}

impl Flood {
    fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    fn counts(&self) -> [usize; 3] {
        [&self.refused, &self.held, &self.other].map(|counter| counter.load(Ordering::Relaxed))
    }

    async fn call(&self, client: &Client, way: &Semaphore) {
        let permit = way.acquire().await.unwrap();
        let opening = client.open_tool("wait", json!({"seconds": SLEEP}), false);
        tokio::pin!(opening);
        // A call that waits in the queue has no answer yet, and must not keep the next ones from coming.
        let soon = tokio::time::timeout(Duration::from_secs(2), &mut opening).await;
        drop(permit);
        let opened = match soon {
            Ok(opened) => opened,
            Err(_) => opening.await,
        };
        match (opened.status(), opened.form()) {
            (429, _) => {
                assert!(opened.header("retry-after").is_some(), "{}", opened.outline());
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            (200, Form::Stream) => {
                self.held.fetch_add(1, Ordering::Relaxed);
                opened.to_end().await;
            }
            _ => drop(self.other.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Quick calls one after another: their times, in order of length.
async fn quick(client: &Client) -> Vec<Duration> {
    let mut times = Vec::new();
    for number in 0..QUICK {
        let (text, started) = (format!("quick {number}"), Instant::now());
        let exchange = client.tool("echo", json!({"text": text})).await;
        times.push(started.elapsed());
        assert_eq!(exchange.status(), 200, "call {number}: {}", exchange.outline());
        let said = exchange.result().map(|result| result["content"][0]["text"].clone());
        assert_eq!(said, Some(json!(text)), "call {number}: {}", exchange.outline());
    }
    times.sort();
    times
}

fn p99(times: &[Duration]) -> f64 {
    times[times.len() * 99 / 100].as_secs_f64() * 1000.0
}

/// Sleeping calls that each worker runs.
fn sleeping(journal: &Journal) -> BTreeMap<u32, usize> {
    let mut running = BTreeMap::new();
    for run in journal.runs().values().filter(|run| run.tool == "wait" && run.ends + run.drops == 0) {
        for pid in &run.starts {
            *running.entry(*pid).or_default() += 1;
        }
    }
    running
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test fairness"]
async fn a_flood_of_one_organisation_leaves_the_other_as_it_was() {
    let calls = std::env::var("FLOOD_CALLS").map_or(FLOOD, |calls| calls.parse().unwrap());
    let stack = Stack::claim().await;
    let workers = stack.of_kind(Kind::Worker).await.len();
    let other = Client::modern(&stack, EntryPoint::Bifrost, "hel", "org-2").await;
    quick(&other).await;
    let without = quick(&other).await;

    let (journal, flood) = (stack.journal(), Arc::new(Flood::default()));
    let way = Arc::new(Semaphore::new(AT_ONCE));
    let mut flooding = JoinSet::new();
    let mut clients = Vec::new();
    for user in ["thor", "freya"] {
        clients.push(Arc::new(Client::modern(&stack, EntryPoint::Bifrost, user, "org-1").await));
    }
    for number in 0..calls {
        let (flood, way, client) = (flood.clone(), way.clone(), clients[number % clients.len()].clone());
        flooding.spawn(async move { flood.call(&client, &way).await });
    }
    // Two principals have their bound, and the workers what they may run of one organisation.
    let most = OPEN * clients.len();
    let share = SLOTS * 3 / 4;
    wait("the flood is there", Duration::from_secs(120), async || {
        let running: usize = sleeping(&journal).values().sum();
        (flood.refused() >= calls - most && running >= share * workers).then_some(())
    })
    .await;
    let with = quick(&other).await;
    let (running, [refused, held, failed]) = (sleeping(&journal), flood.counts());
    println!(
        "{calls} sleeping calls of org-1: {refused} got 429, {held} held, {failed} ended otherwise; {running:?} run. \
         org-2's {QUICK} quick calls, 0 errors: p99 {:.1} ms without the flood, {:.1} ms with it: {:.2} times",
        p99(&without),
        p99(&with),
        p99(&with) / p99(&without)
    );
    assert!(refused >= calls - most, "a principal has at most {OPEN} calls");
    // All of org-2's calls ran while hundreds of org-1's, which came before them, went on waiting.
    assert_eq!(running.len(), workers);
    assert!(running.values().all(|running| *running <= share), "{running:?}, with a share of {share}");

    // Nothing of the flood counts any more when its clients are gone.
    flooding.shutdown().await;
    wait("the flood has ended", Duration::from_secs(60), async || {
        sleeping(&journal).values().all(|running| *running == 0).then_some(())
    })
    .await;
    for client in &clients {
        let again = wait("a call of the flood's user", Duration::from_secs(30), async || {
            let exchange = client.tool("echo", json!({"text": "again"})).await;
            (exchange.status() == 200).then_some(exchange)
        })
        .await;
        assert_eq!(again.form(), Form::Json);
    }
}
