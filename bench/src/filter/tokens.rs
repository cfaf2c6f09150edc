//! Many different tokens: memory, and the cache's hit rate.

use std::sync::Arc;

use clap::Args;
use rand::RngExt as _;

use super::envoy::{Envoy, Kind};
use super::issuer::Algorithm;
use super::{Around, Programs, issuer, wire};
use crate::{Result, cpu};

/// Measures memory and hit rate.
#[derive(Args)]
pub struct Tokens {
    #[command(flatten)]
    programs: Programs,
    /// How many different tokens, one after the other.
    #[arg(long, default_value_t = 100_000)]
    tokens: usize,
    /// Fail when Envoy's memory grows by more than so many MiB from the first tenth of the tokens to the last.
    #[arg(long, default_value_t = 48)]
    at_most_mib: u64,
    /// Users of the mix.
    #[arg(long, default_value_t = 20_000)]
    users: usize,
    /// Requests of the mix.
    #[arg(long, default_value_t = 40_000)]
    requests: usize,
    /// Exponent of the Zipf mix: the n-th user calls 1/n^s times as often as the first.
    #[arg(long, default_value_t = 1.0)]
    exponent: f64,
}

/// Requests in a stretch whose cost or memory is taken.
const STRETCH: usize = 2000;

/// Runs both measurements and prints them.
pub async fn tokens(options: &Tokens) -> Result<()> {
    let wasm = std::fs::canonicalize(&options.programs.wasm)?;
    let around = Arc::new(Around::start().await?);
    let site = around.site(&options.programs, &wasm);
    let envoy = Envoy::start(Kind::Ours, &site).await?;
    let memory = many(options, &around, &envoy).await?;
    mix(options, &around).await?;
    if memory > i64::try_from(options.at_most_mib)? * 1024 {
        return Err(format!("Envoy grew by {memory} KiB, more than {} MiB", options.at_most_mib).into());
    }
    Ok(())
}

/// A request with a token of its own for each number from `from` on.
fn each(around: &Arc<Around>, from: usize) -> Arc<dyn Fn(usize) -> Arc<[u8]> + Send + Sync> {
    let around = around.clone();
    Arc::new(move |number| issuer::request(&around.issuer.token(Algorithm::Ec, from + number)).into())
}

/// Sends all tokens, once each; gives by how many KiB Envoy grew from the first tenth on.
async fn many(options: &Tokens, around: &Arc<Around>, envoy: &Envoy) -> Result<i64> {
    let start = cpu::resident_kib(envoy.pid);
    let (tenth, mut sent, mut sizes) = (options.tokens.div_ceil(10), 0, Vec::new());
    while sent < options.tokens {
        let now = tenth.min(options.tokens - sent);
        wire::run(envoy.port, now, 4, each(around, sent)).await?;
        sent += now;
        sizes.push(cpu::resident_kib(envoy.pid));
    }
    let shown: Vec<String> = sizes.iter().map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).collect();
    println!(
        "{sent} different tokens. Envoy's memory at the start {:.1} MiB, after each tenth: {}",
        start as f64 / 1024.0,
        shown.join(", ")
    );
    let first = sizes.first().copied().unwrap_or(start);
    let last = sizes.last().copied().unwrap_or(start);
    Ok(i64::try_from(last)? - i64::try_from(first)?)
}

/// CPU time of requests, µs each.
async fn cpu_of(
    envoy: &Envoy,
    requests: usize,
    next: Arc<dyn Fn(usize) -> Arc<[u8]> + Send + Sync>,
) -> Result<f64> {
    let before = cpu::precise(envoy.pid);
    wire::run(envoy.port, requests, 4, next).await?;
    Ok((cpu::precise(envoy.pid) - before).as_secs_f64() * 1e6 / requests as f64)
}

/// The Zipf mix. The filter counts nothing for us: how many requests it had to verify follows from what a
/// known token costs, what a new one costs, and what the mix cost. Beside it, what a cache of that many
/// entries that forgets the least recently used would know of the same sequence.
async fn mix(options: &Tokens, around: &Arc<Around>) -> Result<()> {
    let wasm = std::fs::canonicalize(&options.programs.wasm)?;
    let envoy = Envoy::start(Kind::Ours, &around.site(&options.programs, &wasm)).await?;
    let known: Arc<[u8]> = issuer::request(&around.issuer.token(Algorithm::Ec, 0)).into();
    let same = {
        let known = known.clone();
        Arc::new(move |_| known.clone())
    };
    cpu_of(&envoy, STRETCH, same.clone()).await?;
    let hit = cpu_of(&envoy, STRETCH, same).await?;
    // Users from beyond the mix, so that these tokens are new.
    let miss = cpu_of(&envoy, STRETCH, each(around, options.users + 1)).await?;

    let sequence = Arc::new(zipf(options.users, options.exponent, options.requests));
    // A user has one token, and so all requests of a user are the same bytes.
    let requests: Arc<Vec<std::sync::OnceLock<Arc<[u8]>>>> =
        Arc::new((0..=options.users).map(|_| std::sync::OnceLock::new()).collect());
    let next = {
        let (around, sequence) = (around.clone(), sequence.clone());
        Arc::new(move |number: usize| {
            let user = sequence[number];
            requests[user]
                .get_or_init(|| issuer::request(&around.issuer.token(Algorithm::Ec, user)).into())
                .clone()
        })
    };
    let cost = cpu_of(&envoy, options.requests, next).await?;
    let rate = (1.0 - (cost - hit) / (miss - hit)).clamp(0.0, 1.0);
    println!(
        "Zipf mix of {} users, exponent {}, {} requests: {cost:.1} µs of CPU each; a known token {hit:.1}, a new one \
         {miss:.1}: the cache knew {:.0} %",
        options.users,
        options.exponent,
        options.requests,
        rate * 100.0
    );
    for entries in [1024, 2048, 4096] {
        println!(
            "    (a list of the {entries} most recent tokens would know {:.0} %)",
            lru(&sequence, entries) * 100.0
        );
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
