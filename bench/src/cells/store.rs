//! What a call costs in Redis, and what is left there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::quick::MANY;
use super::{Contestant, Context, Found, each};
use crate::cpu::Part;
use crate::load::{self, Round, Shape};
use crate::mcp::{Call, Endpoint};
use crate::report::{Figure, Goal};
use crate::site::paused::Paused;
use crate::site::stack::Stack;
use crate::site::store::{Store, bytes_of_new};
use crate::wire::Connection;
use crate::{Result, progress};

/// Fewer commands a call than this are none: what others do in the background is not quite even.
const NONE: f64 = 0.005;

/// Redis commands of each call, those of scripts included: what is more while there are calls than while there are
/// none, and more than in a round with one call on each connection, which begins sessions too. Every name with at
/// least a hundredth.
async fn commands(
    store: &mut Store,
    endpoint: &Endpoint,
    shape: &Shape,
) -> Result<(f64, BTreeMap<String, f64>)> {
    let least = Shape { time: Duration::from_millis(1), ..shape.clone() };
    load::round(endpoint, &Call::echo(), &least).await?;
    let mut at = vec![store.commands()?];
    tokio::time::sleep(shape.time).await;
    at.push(store.commands()?);
    let few = load::round(endpoint, &Call::echo(), &least).await?;
    at.push(store.commands()?);
    let many = load::round(endpoint, &Call::echo(), shape).await?;
    at.push(store.commands()?);
    let longer = (many.elapsed.as_secs_f64() - few.elapsed.as_secs_f64()) / shape.time.as_secs_f64();
    let calls = many.calls.saturating_sub(few.calls).max(1) as f64;
    let step = |step: usize, name: &str| {
        let of = |index: usize| at[index].get(name).copied().unwrap_or(0) as f64;
        of(step) - of(step - 1)
    };
    let each = |name: &String| {
        let more = step(3, name) - step(2, name) - step(1, name) * longer;
        (name.clone(), more / calls)
    };
    let mut by_name: BTreeMap<String, f64> = at[3].keys().map(each).collect();
    let all = by_name.values().sum::<f64>().max(0.0);
    by_name.retain(|_, count| *count >= 0.01);
    Ok((all, by_name))
}

fn names(commands: &BTreeMap<String, f64>) -> String {
    let names: Vec<String> = commands.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

async fn redis_pid(stack: &Stack) -> Result<u32> {
    stack.pid("redis").await
}

/// The cell `stateless`.
pub async fn stateless(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let endpoint = stack.bifrost().await?;
    let mut store = Store::open(stack).await?;
    let shape = Shape::new(MANY, context.options.round_time());
    let mut found = Found::default();
    let before = store.keys()?;
    let (count, by_name) = commands(&mut store, &endpoint, &shape).await?;
    let what = format!("Redis commands of a stateless quick call{}", names(&by_name));
    found.figure(Figure::single(&what, "", count).with_goal(Goal::AtMost(NONE)));
    let left = bytes_of_new(&store.keys()?, &before);
    found.figure(
        Figure::single("left in Redis by all of them", "bytes", left as f64).with_goal(Goal::AtMost(0.0)),
    );
    progress("Redis is stopped");
    let paused = Paused::new(redis_pid(stack).await?)?;
    let away = load::tolerant(&endpoint, &Call::echo(), &shape).await;
    drop(paused);
    let away = away?;
    found.figure(Figure::single("calls answered while Redis is stopped", "", away.calls as f64));
    let why = if away.why.is_empty() { String::new() } else { format!(" ({})", away.why) };
    let what = format!("calls not answered while Redis is stopped{why}");
    found.figure(Figure::single(&what, "", away.failures as f64).with_goal(Goal::AtMost(0.0)));
    Ok(found)
}

/// The cell `session`.
pub async fn session(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let endpoint = stack.bifrost().await?;
    let mut store = Store::open(stack).await?;
    let shape = Shape::new(MANY, context.options.round_time());
    let mut found = Found::default();
    let (count, by_name) = commands(&mut store, &endpoint, &shape.clone().in_sessions()).await?;
    let what = format!("Redis commands of a quick call of a session{}", names(&by_name));
    found.figure(Figure::single(&what, "", count).with_goal(Goal::AtMost(1.0 + NONE)));
    let named = |name: &str| Endpoint { name: name.to_owned(), ..endpoint.clone() };
    let all = [
        Contestant::quick(named("stateless"), shape.clone()),
        Contestant::quick(named("session"), shape.in_sessions()),
    ];
    let rounds = context.in_turns(&all).await?;
    found.paths = all.iter().zip(&rounds).map(|(contestant, rounds)| contestant.path(rounds)).collect();
    let cpu = |index: usize| each(&rounds[index], Round::cpu);
    let ratio = Figure::ratio("CPU of a call of a session, of a stateless one", &cpu(1), &cpu(0));
    found.figure(ratio.with_goal(Goal::AtMost(1.25)));
    away(&mut found, stack, &endpoint).await?;
    Ok(found)
}

/// A call of a session while Redis is stopped.
async fn away(found: &mut Found, stack: &Stack, endpoint: &Endpoint) -> Result<()> {
    let mut connection = Connection::open(&endpoint.host).await?;
    let session = endpoint.session(&mut connection).await?;
    let (request, mut body) = (Call::echo().of_session(endpoint, session.as_deref()), Vec::new());
    progress("Redis is stopped");
    let paused = Paused::new(redis_pid(stack).await?)?;
    let started = std::time::Instant::now();
    let answer =
        tokio::time::timeout(Duration::from_secs(20), connection.exchange(&request, &mut body)).await;
    let took = started.elapsed().as_secs_f64();
    drop(paused);
    let said: String = String::from_utf8_lossy(&body).chars().take(160).collect();
    let clear = matches!(&answer, Ok(Ok(_))) && (said.contains("\"error\"") || said.contains("\"result\""));
    let what = format!("answer to a call of a session while Redis is stopped: {said}");
    found.figure(
        Figure::single(&what.replace('|', "/"), "", f64::from(u8::from(clear))).with_goal(Goal::AtLeast(1.0)),
    );
    found.figure(Figure::single("it comes after", "s", took));
    Ok(())
}

/// The cell `rest`: sessions at rest.
pub async fn rest(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let endpoint = stack.bifrost().await?;
    let mut store = Store::open(stack).await?;
    let parts = stack.of_calls().await?;
    let backends = parts.into_iter().find(|part| part.name == "backend").ok_or("the stack has no backend")?;
    let count = context.options.sized(2_000, 50);
    // What the first ones make the backends allocate once is no session's.
    begin(&endpoint, count).await?;
    settled(&mut store).await?;
    let (keys, memory) = (store.keys()?, backends.resident_kib());
    begin(&endpoint, count).await?;
    settled(&mut store).await?;
    let each = |bytes: f64| bytes / count as f64;
    let mut found = Found::default();
    let bytes = each(bytes_of_new(&store.keys()?, &keys) as f64);
    found.figure(Figure::single("a session at rest: Redis", "bytes", bytes).with_goal(Goal::AtMost(1000.0)));
    let grown = each(backends.resident_kib().saturating_sub(memory) as f64 * 1024.0);
    let what = "a session at rest: backends (less than 64 bytes are noise)";
    found.figure(Figure::single(what, "bytes", grown).with_goal(Goal::AtMost(64.0)));
    Ok(found)
}

async fn begin(endpoint: &Endpoint, sessions: usize) -> Result<()> {
    progress(&format!("{sessions} sessions, each with one call"));
    let mut connection = Connection::open(&endpoint.host).await?;
    let mut body = Vec::new();
    for _ in 0..sessions {
        let session = endpoint.session(&mut connection).await?;
        let ping = endpoint.of_session(session.as_deref(), Some(3), "ping", json!({}));
        connection.exchange(&ping, &mut body).await?;
    }
    Ok(())
}

/// Waits until no more keys go.
async fn settled(store: &mut Store) -> Result<()> {
    let mut last = usize::MAX;
    for _ in 0..40 {
        let now = store.keys()?.len();
        if now >= last {
            return Ok(());
        }
        last = now;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// The processes of a kind.
pub async fn part_of(stack: &Stack, kind: &str) -> Result<Part> {
    let parts = stack.of_calls().await?;
    parts.into_iter().find(|part| part.name == kind).ok_or_else(|| format!("the stack has no {kind}").into())
}
