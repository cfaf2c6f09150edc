//! Many different tokens: the filter's memory, and how often its cache knows a token when some users call much more
//! than others.

use std::sync::{Arc, OnceLock};

use rand::RngExt as _;
use serde_json::json;

use super::envoy::{Envoy, Kind};
use super::issuer::Algorithm;
use super::requests::{self, Next};
use super::{Around, cpu_each};
use crate::cells::{Context, Found};
use crate::cpu::{self, Part};
use crate::report::{Figure, Goal};
use crate::{Result, progress};

/// Requests in a stretch whose cost is taken.
const STRETCH: usize = 2000;
/// The n-th user of the mix calls 1/n^s times as often as the first, with this s.
const EXPONENT: f64 = 1.0;
/// Connections at once.
const CONNECTIONS: usize = 4;

/// The cell `tokens`.
pub async fn run(context: &Context) -> Result<Found> {
    let around = Arc::new(Around::start().await?);
    let stack = context.stack().await?;
    let (program, wasm) = (stack.program("gateway").await?, stack.filter());
    let start = async || {
        Envoy::start(Kind::Ours, &around.site(&program, &wasm, around.backend_port, json!({}))).await
    };
    let mut found = Found::default();
    memory(&mut found, &around, &start().await?, context.options.sized(100_000, 2_000)).await?;
    mix(&mut found, &around, &start().await?, context.options.sized((20_000, 40_000), (500, 1_000))).await?;
    Ok(found)
}

/// A request with a token of its own for each number from `from` on.
fn each(around: &Arc<Around>, from: usize) -> Next {
    let around = around.clone();
    Arc::new(move |number| Ok(around.request(around.issuer.token(Algorithm::Ec, from + number))?.into()))
}

/// Sends so many tokens, once each.
async fn memory(found: &mut Found, around: &Arc<Around>, envoy: &Envoy, tokens: usize) -> Result<()> {
    let mib = || cpu::resident_kib(envoy.pid) as f64 / 1024.0;
    let tenth = tokens / 10;
    let mut first = mib();
    for number in 0..10 {
        progress(&format!("{} different tokens", tenth * (number + 1)));
        requests::run(envoy.port, tenth, CONNECTIONS, each(around, number * tenth)).await?;
        if number == 0 {
            first = mib();
        }
    }
    let what = format!("Envoy's memory after {tenth} different tokens");
    found.figures.push(Figure::single(&what, "MiB", first));
    let what = format!("its growth up to {tokens} tokens");
    found.figures.push(Figure::single(&what, "MiB", mib() - first).with_goal(Goal::AtMost(48.0)));
    Ok(())
}

/// CPU time of requests, µs each.
async fn cpu_of(envoy: &Envoy, requests: usize, next: Next) -> Result<f64> {
    let part = Part::new("envoy", envoy.pid);
    let before = part.usage();
    requests::run(envoy.port, requests, CONNECTIONS, next).await?;
    Ok(cpu_each(&part, &before, requests))
}

/// The Zipf mix. The filter counts nothing for us: how many requests it had to verify follows from what a
/// known token costs, what a new one costs, and what the mix cost. Beside it, what a cache of that many
/// entries that forgets the least recently used would know of the same sequence.
async fn mix(
    found: &mut Found,
    around: &Arc<Around>,
    envoy: &Envoy,
    (users, requests): (usize, usize),
) -> Result<()> {
    progress("a mix of users");
    let known: Arc<[u8]> = around.request(around.issuer.token(Algorithm::Ec, 0))?.into();
    let same: Next = Arc::new(move |_| Ok(known.clone()));
    cpu_of(envoy, STRETCH, same.clone()).await?;
    let hit = cpu_of(envoy, STRETCH, same).await?;
    // Users from beyond the mix, so that these tokens are new.
    let miss = cpu_of(envoy, STRETCH, each(around, users + 1)).await?;
    let sequence = Arc::new(zipf(users, EXPONENT, requests));
    // A user has one token, and so all requests of a user are the same bytes.
    let made: Arc<Vec<OnceLock<Arc<[u8]>>>> = Arc::new((0..=users).map(|_| OnceLock::new()).collect());
    let next: Next = {
        let (around, sequence) = (around.clone(), sequence.clone());
        Arc::new(move |number| {
            let user = sequence[number];
            if let Some(request) = made[user].get() {
                return Ok(request.clone());
            }
            let request = around.request(around.issuer.token(Algorithm::Ec, user))?;
            Ok(made[user].get_or_init(|| request.into()).clone())
        })
    };
    let cost = cpu_of(envoy, requests, next).await?;
    let rate = (1.0 - (cost - hit) / (miss - hit)).clamp(0.0, 1.0);
    found.figures.extend([
        Figure::single("CPU of a request with a known token", "µs", hit),
        Figure::single("CPU of a request with a new token", "µs", miss),
        Figure::single(&format!("Zipf mix of {users} users: the cache knew"), "%", rate * 100.0),
    ]);
    for entries in [1024, 2048] {
        let what = format!("a list of the {entries} most recent tokens would know");
        found.figures.push(Figure::single(&what, "%", lru(&sequence, entries) * 100.0));
    }
    Ok(())
}

/// Users by their rank, drawn by Zipf's law.
fn zipf(users: usize, exponent: f64, count: usize) -> Vec<usize> {
    let mut sum = 0.0;
    let upto: Vec<f64> = (1..=users)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut random = rand::rng();
    (0..count)
        .map(|_| {
            let at = random.random_range(0.0..sum);
            upto.partition_point(|upto| *upto <= at).min(users - 1)
        })
        .collect()
}

/// Share of a sequence that a cache of so many entries knows.
fn lru(sequence: &[usize], entries: usize) -> f64 {
    let mut last = std::collections::HashMap::new();
    let mut order = std::collections::BTreeMap::new();
    let mut hits = 0_usize;
    for (time, user) in sequence.iter().enumerate() {
        if let Some(before) = last.insert(*user, time) {
            order.remove(&before);
            hits += 1;
        } else if order.len() >= entries
            && let Some((_, oldest)) = order.pop_first()
        {
            last.remove(&oldest);
        }
        order.insert(time, *user);
    }
    hits as f64 / sequence.len() as f64
}
