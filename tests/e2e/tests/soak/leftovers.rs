//! What is left when everybody has gone: nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use asgard::supervisor::part::Kind;
use e2e::Stack;
use e2e::journal::Journal;
use e2e::leftovers;
use e2e::stack::wait;

/// How long it may take until nothing is left: leases run out, streams that nobody answers for are ended.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until nothing is left.
pub(crate) async fn none(stack: &Stack, journal: &Journal) {
    wait("no request waits at a backend", LIMIT, async || {
        let waiting = waiting(stack).await;
        waiting.values().all(|count| *count == Some(0)).then_some(())
    })
    .await;
    let mut redis = leftovers::connect(stack).await;
    let mut seen = Vec::new();
    let started = std::time::Instant::now();
    loop {
        let left = leftovers::work(&mut redis).await;
        if left.is_empty() {
            break;
        }
        if started.elapsed() > LIMIT {
            panic!("left in Redis: {left:#?}");
        }
        seen = left;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("queues and leases are empty after {} ms (last: {seen:?})", started.elapsed().as_millis());
    let eternal = leftovers::eternal(&mut redis).await;
    assert!(eternal.is_empty(), "keys that never expire: {eternal:#?}");
    // Whatever has begun has ended, unless its worker died.
    let alive: Vec<u32> = stack.pids(&[Kind::Worker]).await.into_values().collect();
    wait("every tool has ended", LIMIT, async || {
        let open = open(journal);
        open.iter().all(|(_, pid)| !alive.contains(pid)).then_some(())
    })
    .await;
}

/// Requests that wait, by backend.
async fn waiting(stack: &Stack) -> BTreeMap<String, Option<u64>> {
    let mut all = BTreeMap::new();
    for part in stack.of_kind(Kind::Backend).await {
        all.insert(part.name, e2e::stack::statz(&part.address).await["waiting"].as_u64());
    }
    all
}

/// Runs that have begun and not ended, with their processes.
fn open(journal: &Journal) -> Vec<(String, u32)> {
    let mut open = BTreeMap::new();
    for line in journal.lines() {
        match line.event.as_str() {
            "start" => *open.entry((line.call, line.pid)).or_insert(0) += 1,
            "step" => {}
            _ => *open.entry((line.call, line.pid)).or_insert(0) -= 1,
        }
    }
    open.into_iter().filter(|(_, count)| *count > 0).map(|(run, _)| run).collect()
}
