//! What is left when everybody has gone: nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use asgard::supervisor::part::Kind;
use e2e::Stack;
use e2e::journal::Journal;
use e2e::stack::wait;
use redis::aio::MultiplexedConnection;
use redis::cmd;

/// How long it may take until nothing is left: leases run out, streams that nobody answers for are ended.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until nothing is left.
pub(crate) async fn none(stack: &Stack, journal: &Journal) {
    wait("no request waits at a backend", LIMIT, async || {
        let waiting = waiting(stack).await;
        waiting.values().all(|count| *count == Some(0)).then_some(())
    })
    .await;
    let client = redis::Client::open(format!("redis+unix://{}", stack.paths.redis().display())).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut seen = Vec::new();
    let started = std::time::Instant::now();
    loop {
        let left = left(&mut redis).await;
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
    let eternal = eternal(&mut redis).await;
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
        let get = e2e::client::http().get(format!("http://{}/statz", part.address));
        let body = async { get.send().await.ok()?.json::<serde_json::Value>().await.ok() }.await;
        all.insert(part.name, body.and_then(|body| body["waiting"].as_u64()));
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

async fn keys(redis: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    cmd("KEYS").arg(pattern).query_async(redis).await.unwrap()
}

/// Work that somebody has yet to do.
async fn left(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut left = Vec::new();
    for key in keys(redis, "*:q:*").await {
        let length: u64 = cmd("XLEN").arg(&key).query_async(redis).await.unwrap_or_default();
        let pending: redis::Value =
            cmd("XPENDING").arg(&key).arg("workers").query_async(redis).await.unwrap_or(redis::Value::Nil);
        let none = match &pending {
            redis::Value::Array(items) => matches!(items.first(), Some(redis::Value::Int(0))),
            _ => true,
        };
        if length > 0 || !none {
            left.push(format!("{key}: {length} lines, pending {pending:?}"));
        }
    }
    for key in keys(redis, "*:leases:*").await {
        let leases: u64 = cmd("ZCARD").arg(&key).query_async(redis).await.unwrap_or_default();
        if leases > 0 {
            left.push(format!("{key}: {leases}"));
        }
    }
    left
}

/// Keys without an end of their life; the name of the memory has none.
async fn eternal(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut eternal = Vec::new();
    for key in keys(redis, "*").await {
        let life: i64 = cmd("PTTL").arg(&key).query_async(redis).await.unwrap();
        if life == -1 && !key.ends_with(":generation") {
            eternal.push(key);
        }
    }
    eternal
}
