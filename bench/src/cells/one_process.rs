//! A backend with an embedded worker: one process and no Redis.

use serde_json::json;

use super::quick::MANY;
use super::{Contestant, Context, Found, each};
use crate::Result;
use crate::cpu::Part;
use crate::filter::{ASSERTION_KEYS, Around, Envoy, Kind};
use crate::load::{Round, Shape};
use crate::mcp::Endpoint;
use crate::report::{Figure, Goal};
use crate::site::process::{Process, free_address};

/// Starts one; with keys it believes what a gateway says with them, without it serves whoever comes.
async fn start(context: &Context, keys: Option<&str>) -> Result<Process> {
    let program = context.stack().await?.program("backend-1").await?;
    let address = free_address()?;
    let env = [("ASGARD_LISTEN", address.clone()), ("ASGARD_LOG", "warn".to_owned())].into_iter();
    let env = env.chain(keys.map(|keys| ("ASGARD_ASSERTION_KEYS", keys.to_owned())));
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let mut process = Process::spawn(&program, ["--embedded-worker"], env, address)?;
    process.ready(Some("/readyz")).await?;
    Ok(process)
}

/// Alone and behind Envoy.
pub async fn run(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let alone = start(context, None).await?;
    let behind = start(context, Some(ASSERTION_KEYS)).await?;
    let around = Around::start().await?;
    let (program, wasm) = (stack.program("gateway").await?, stack.filter());
    let port = behind.address.rsplit_once(':').ok_or("an address has a port")?.1.parse()?;
    let envoy = Envoy::start(Kind::Ours, &around.site(&program, &wasm, port, json!({}))).await?;
    let url = |address: &str| format!("http://{address}/api/v1/mcp/org-1");
    let own = Endpoint::new("one process", &url(&alone.address))?
        .with_parts(vec![Part::new("backend with worker", alone.pid)]);
    let gated = Endpoint::new("one process behind Envoy", &url(&format!("localhost:{}", envoy.port)))?
        .with_token(Some(around.token()))
        .with_parts(vec![Part::new("gateway", envoy.pid), Part::new("backend with worker", behind.pid)]);
    let shape = Shape::new(MANY, context.options.round_time());
    let all: Vec<Contestant> = [context.plain().await?.clone(), own, gated]
        .map(|endpoint| Contestant::quick(endpoint, shape.clone()))
        .into();
    let rounds = context.in_turns(&all).await?;
    let plain = |of: fn(&Round) -> f64| each(&rounds[0], of);
    let mut found = Found {
        paths: all.iter().zip(&rounds).map(|(contestant, rounds)| contestant.path(rounds)).collect(),
        figures: Vec::new(),
    };
    let rate = Figure::ratio(
        "one process: calls a second, of plain rmcp",
        &each(&rounds[1], Round::rate),
        &plain(Round::rate),
    );
    found.figure(rate.with_goal(Goal::AtLeast(0.6)));
    let what = "one process behind Envoy with the filter: CPU of both, of plain rmcp";
    let cpu = Figure::ratio(what, &each(&rounds[2], Round::cpu), &plain(Round::cpu));
    found.figure(cpu.with_goal(Goal::AtMost(4.5)));
    Ok(found)
}
