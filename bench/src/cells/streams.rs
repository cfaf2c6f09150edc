//! Streams that Pushpin holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::Path;
use grip::{Hold, Item, KeepAlive, Publisher, PublisherOptions};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;

use super::store::part_of;
use super::{Context, Found};
use crate::mcp::Endpoint;
use crate::report::{Figure, Goal};
use crate::site::stack::Stack;
use crate::site::streams::Streams;
use crate::wire::Connection;
use crate::{Result, progress, stats};

/// Files that are open beside the streams.
const SPARE: usize = 1_000;

/// As many streams as there may be open files, at most `wanted`.
fn possible(wanted: usize) -> Result<usize> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Pushpin has a file for each stream, and so have we.
    Ok(wanted.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(SPARE)))
}

fn listen(endpoint: &Endpoint) -> Vec<u8> {
    endpoint.modern("subscriptions/listen", None, json!({"notifications": {"toolsListChanged": true}}))
}

/// How the channels of `publish` begin.
const CHANNEL: &str = "bench-";
/// How long Pushpin may take to hold a stream.
const PATIENCE: Duration = Duration::from_secs(10);

const ACKNOWLEDGED: &str = "subscriptions/acknowledged";
const CHANGED: &str = "tools/list_changed";

/// All users that may listen, at Pushpin: a file less for each stream than through the gateway.
async fn callers(stack: &Stack) -> Result<Vec<Endpoint>> {
    let mut all = Vec::new();
    for (user, organisation) in [("thor", "org-1"), ("hel", "org-2"), ("freya", "org-1"), ("freya", "org-2")]
    {
        all.push(stack.hermod_of(user, organisation).await?);
    }
    Ok(all)
}

/// The cell `held`: what streams cost a backend while nothing happens.
pub async fn held(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    // One backend has them all.
    stack.stop("backend-2").await?;
    let outcome = held_by_one(context, stack).await;
    stack.restart("backend-2").await?;
    outcome
}

async fn held_by_one(context: &Context, stack: &Stack) -> Result<Found> {
    let callers = callers(stack).await?;
    let wanted = context.options.sized(10_000, 100);
    let count = possible(wanted)?;
    // What the first ones make it allocate once is no stream's.
    drop(Streams::open(&callers, listen, count / 20, &[ACKNOWLEDGED]).await?);
    let backend = part_of(stack, "backend").await?;
    let pushpin = part_of(stack, "pushpin").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, pushpin_before) = (backend.resident_kib(), pushpin.resident_kib());
    progress(&format!("{count} streams are opened"));
    let started = Instant::now();
    let streams = Streams::open(&callers, listen, count, &[ACKNOWLEDGED]).await?;
    let opened = started.elapsed().as_secs_f64();
    let mib = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1024.0;
    let grown = mib(backend.resident_kib(), before);
    let of_pushpin = mib(pushpin.resident_kib(), pushpin_before);
    progress("and idle");
    let idle = Duration::from_secs(context.options.sized(30, 1));
    let (usage, pushpin_usage) = (backend.usage(), pushpin.usage());
    tokio::time::sleep(idle).await;
    let share = |used: Duration| 100.0 * used.as_secs_f64() / idle.as_secs_f64();
    let (busy, pushpin_busy) =
        (share(backend.usage().since(&usage)), share(pushpin.usage().since(&pushpin_usage)));
    let mut found = Found::default();
    let what = format!("memory of a backend, 0 to {count} held streams");
    found.figure(Figure::single(&what, "MiB", grown).with_goal(Goal::AtMost(10.0)));
    found.figure(Figure::single("its CPU while they idle", "% of a core", busy).with_goal(Goal::AtMost(1.0)));
    found.figure(Figure::single("memory of Pushpin for them", "MiB", of_pushpin));
    found.figure(Figure::single("CPU of Pushpin while they idle", "% of a core", pushpin_busy));
    found.figure(Figure::single("streams opened", "a second", count as f64 / opened));
    found.figure(
        Figure::single("streams that ended", "", streams.ended() as f64).with_goal(Goal::AtMost(0.0)),
    );
    if count < wanted {
        found.figure(Figure::single(
            "streams, fewer than wanted: raise the limit of open files",
            "",
            count as f64,
        ));
    }
    Ok(found)
}

/// The cell `broadcast`: one notice for all.
pub async fn broadcast(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let callers = callers(stack).await?;
    let count = possible(context.options.sized(5_000, 100))?;
    let rounds = context.options.sized(5, 1);
    let texts: Vec<&str> =
        std::iter::once(ACKNOWLEDGED).chain(std::iter::repeat_n(CHANGED, rounds)).collect();
    progress(&format!("{count} listeners"));
    let mut streams = Streams::open(&callers, listen, count, &texts).await?;
    let (mut times, mut sends) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let before = received(stack).await?;
        let started = Instant::now();
        stack.ask(&["notify", "tools"]).await?;
        streams.all(round).await?;
        times.push(started.elapsed().as_secs_f64());
        sends.push((received(stack).await? - before) as f64);
    }
    let mut found = Found::default();
    let what = format!("a notice to {count} listeners: items sent to Pushpin");
    found.figure(Figure::median(&what, "", &sends).with_goal(Goal::AtMost(10.0)));
    let what = "from the command's start to the last listener";
    found.figure(Figure::median(what, "s", &times).with_goal(Goal::AtMost(0.5)));
    Ok(found)
}

/// Items that Pushpin has received. It counts them some tenths of a second late.
async fn received(stack: &Stack) -> Result<u64> {
    let host = format!("localhost:{}", stack.port("pushpin_metrics")?);
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let mut last = (u64::MAX, Instant::now());
    loop {
        let mut body = Vec::new();
        Connection::open(&host).await?.exchange(request.as_bytes(), &mut body).await?;
        let text = String::from_utf8_lossy(&body);
        let count = text.lines().find_map(|line| line.strip_prefix("message_received ")?.trim().parse().ok());
        let count: u64 = count.ok_or("Pushpin does not count what it receives")?;
        if count != last.0 {
            last = (count, Instant::now());
        } else if last.1.elapsed() > Duration::from_millis(1_500) {
            return Ok(count);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The cell `publish`: many items a second, each for one of many streams, from our publisher through Pushpin.
pub async fn publish(context: &Context) -> Result<Found> {
    let root = std::env::var_os("ASGARD_ROOT").ok_or("run this by ./asgard bench")?;
    let stack = Stack::pushpin_alone(root.as_ref()).await?;
    origin(stack.port("gateway")?).await?;
    let endpoint: grip::Endpoint =
        format!("ipc://{}", stack.run_folder().join("pushpin/sub").display()).parse()?;
    let (publisher, events) =
        Publisher::start(vec![endpoint], PublisherOptions::default().with_watch(CHANNEL));
    drop(events);
    while !publisher.all_settled() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let streams = possible(context.options.sized(1_000, 50))?;
    let seconds = context.options.sized(10, 1);
    let host = format!("localhost:{}", stack.port("pushpin")?);
    let clock = Instant::now();
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..streams {
        let request = format!("GET /hold/{CHANNEL}{number} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let mut connection = Connection::open(&host).await?;
        let head = connection.begin(request.as_bytes()).await?;
        if head.status != 200 {
            return Err(format!("Pushpin answered {}", head.status).into());
        }
        let heard = heard.clone();
        readers.spawn(async move { read(connection, clock, &heard).await });
        let channel = format!("{CHANNEL}{number}");
        let held = tokio::time::timeout(PATIENCE, publisher.wait_held(&channel)).await;
        held.map_err(|_| format!("Pushpin does not say that it holds {channel}"))?;
    }
    progress(&format!("{streams} streams, 5,000 items a second"));
    let sent = send(&publisher, streams, clock, Duration::from_secs(seconds)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut times = std::mem::take(&mut *heard.lock().map_err(|_| "a reader failed")?);
    stack.down().await?;
    times.sort_by(f64::total_cmp);
    let mut found = Found::default();
    found.figure(Figure::single("items sent in a second", "", sent as f64 / seconds as f64));
    let lost = sent as f64 - times.len() as f64;
    found.figure(Figure::single("items lost", "", lost).with_goal(Goal::AtMost(0.0)));
    let p99 = Figure::single("from publish to client: p99", "ms", stats::quantile(&times, 0.99));
    found.figure(p99.with_goal(Goal::AtMost(20.0)));
    found.figure(Figure::single("from publish to client: p50", "ms", stats::quantile(&times, 0.5)));
    Ok(found)
}

/// What Pushpin asks: it holds each request on the channel that its path names.
async fn origin(port: u16) -> Result<()> {
    let hold = axum::routing::any(|Path(channel): Path<String>| async move {
        let keep_alive = KeepAlive::sse(Duration::from_secs(20));
        Hold::stream(channel.as_str()).keep_alive(keep_alive).headers().map_err(|error| error.to_string())
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let app = axum::Router::new().route("/hold/{channel}", hold);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

/// Sends 5 items in each millisecond, to one stream after the other; how many.
async fn send(publisher: &Publisher, streams: usize, clock: Instant, time: Duration) -> Result<u64> {
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let next = AtomicU64::new(0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        tick.tick().await;
        let items = (0..5).map(|_| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let content = format!("data: {}\n\n", clock.elapsed().as_micros());
            Item::content(format!("{CHANNEL}{}", number as usize % streams), content)
        });
        publisher.send(0, items.collect()).await?;
    }
    Ok(next.into_inner())
}

/// Notes how long each item took, in ms.
async fn read(mut connection: Connection, clock: Instant, heard: &std::sync::Mutex<Vec<f64>>) -> Result<()> {
    let mut text = Vec::new();
    while connection.more(&mut text).await? {
        let now = clock.elapsed().as_micros() as f64;
        let Some(whole) = text.windows(2).rposition(|two| two == b"\n\n") else { continue };
        let items = String::from_utf8_lossy(&text[..whole]);
        let sent = items.lines().filter_map(|line| line.strip_prefix("data: ")?.parse::<f64>().ok());
        let times: Vec<f64> = sent.map(|sent| (now - sent) / 1e3).collect();
        heard.lock().map_err(|_| "another reader failed")?.extend(times);
        text.drain(..whole + 2);
    }
    Ok(())
}
