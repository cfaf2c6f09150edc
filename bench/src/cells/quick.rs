//! A quick call: the tool `echo`, whose answer is one JSON document.

use super::{Contestant, Context, Found, each};
use crate::Result;
use crate::cpu::Part;
use crate::load::{Round, Shape};
use crate::mcp::Endpoint;
use crate::report::{Figure, Goal};

/// Connections of the loaded rounds.
pub const MANY: usize = 32;

/// The parts behind the gateway.
const BEHIND: [&str; 3] = ["backend", "worker", "redis"];

/// The plain server, those that are asked for, and the peers.
async fn contestants(context: &Context, ours: Vec<Endpoint>, connections: usize) -> Result<Vec<Contestant>> {
    let shape = Shape::new(connections, context.options.round_time());
    let mut all = vec![Contestant::quick(context.plain().await?.clone(), shape.clone())];
    all.extend(ours.into_iter().map(|endpoint| Contestant::quick(endpoint, shape.clone())));
    for endpoint in context.peers()? {
        all.push(Contestant { endpoint, call: context.foreign_call()?, shape: shape.clone() });
    }
    Ok(all)
}

/// This stack, and the older one if there is one.
async fn stacks(context: &Context) -> Result<Vec<Endpoint>> {
    let mut all = vec![context.stack().await?.bifrost().await?];
    if let Some(before) = context.before().await? {
        all.push(before.bifrost().await?);
    }
    Ok(all)
}

/// Compares everybody with the first, the plain server.
fn compare(found: &mut Found, all: &[Contestant], rounds: &[Vec<Round>], what: &str, of: fn(&Round) -> f64) {
    let Some((plain, others)) = rounds.split_first() else { return };
    for (contestant, rounds) in all.iter().skip(1).zip(others) {
        let name = &contestant.endpoint.name;
        let ours = each(rounds, of);
        if ours.iter().all(|value| *value > 0.0) {
            found.figure(Figure::ratio(&format!("{name}: {what}, of plain rmcp"), &ours, &each(plain, of)));
        }
    }
}

/// Sets the goal of the first figure that begins so.
fn goal(found: &mut Found, begins: &str, goal: Goal) {
    if let Some(figure) = found.figures.iter_mut().find(|figure| figure.what.starts_with(begins)) {
        *figure = figure.clone().with_goal(goal);
    }
}

fn paths(found: &mut Found, all: &[Contestant], rounds: &[Vec<Round>]) {
    found.paths = all.iter().zip(rounds).map(|(contestant, rounds)| contestant.path(rounds)).collect();
}

/// 32 at once.
pub async fn loaded(context: &Context) -> Result<Found> {
    let all = contestants(context, stacks(context).await?, MANY).await?;
    let rounds = context.in_turns(&all).await?;
    let mut found = Found::default();
    paths(&mut found, &all, &rounds);
    let (plain, ours) = (&rounds[0], &rounds[1]);
    compare(&mut found, &all, &rounds, "CPU of all parts", Round::cpu);
    goal(&mut found, "Asgard: CPU", Goal::AtMost(6.0));
    let endpoint = &all[1].endpoint;
    let behind = each(ours, |round| round.cpu_of(endpoint, &BEHIND));
    let what = "Asgard: CPU behind the gateway (backend, worker, Redis), of plain rmcp";
    found.figure(Figure::ratio(what, &behind, &each(plain, Round::cpu)).with_goal(Goal::AtMost(3.8)));
    found.figure(Figure::median("Asgard: CPU of all parts", "µs a call", &each(ours, Round::cpu)));
    found.figure(Figure::median("Asgard: CPU behind the gateway", "µs a call", &behind));
    compare(&mut found, &all, &rounds, "calls a second", Round::rate);
    goal(&mut found, "Asgard: calls", Goal::AtLeast(0.18));
    if context.before().await?.is_some() {
        let what = "Asgard: CPU of all parts, of the older checkout";
        found.figure(Figure::ratio(what, &each(ours, Round::cpu), &each(&rounds[2], Round::cpu)));
    }
    Ok(found)
}

/// One at a time.
pub async fn alone(context: &Context) -> Result<Found> {
    let all = contestants(context, stacks(context).await?, 1).await?;
    let rounds = context.in_turns(&all).await?;
    let mut found = Found::default();
    paths(&mut found, &all, &rounds);
    compare(&mut found, &all, &rounds, "p50", |round| round.within(0.5));
    goal(&mut found, "Asgard: p50", Goal::AtMost(4.5));
    compare(&mut found, &all, &rounds, "CPU of all parts", Round::cpu);
    Ok(found)
}

/// At the other entry point.
pub async fn hermod(context: &Context) -> Result<Found> {
    let all = contestants(context, vec![context.stack().await?.hermod().await?], MANY).await?;
    let rounds = context.in_turns(&all).await?;
    let mut found = Found::default();
    paths(&mut found, &all, &rounds);
    compare(&mut found, &all, &rounds, "CPU of all parts", Round::cpu);
    compare(&mut found, &all, &rounds, "calls a second", Round::rate);
    Ok(found)
}

/// An endpoint of the command line.
pub async fn target(context: &Context) -> Result<Found> {
    let url = context.options.target.as_deref().unwrap_or_default();
    let mut target = Endpoint::new("target", url)?.with_token(context.options.token.clone());
    if !context.options.target_pids.is_empty() {
        target.parts = vec![Part { name: "target".to_owned(), pids: context.options.target_pids.clone() }];
    }
    let mut found = Found::default();
    for connections in [1, MANY] {
        let mut all = contestants(context, vec![target.clone()], connections).await?;
        all[1].call = context.foreign_call()?;
        let rounds = context.in_turns(&all).await?;
        let mut these = Found::default();
        paths(&mut these, &all, &rounds);
        let at = |what: &str| format!("c={connections}: {what}");
        compare(&mut these, &all, &rounds, &at("p50"), |round| round.within(0.5));
        compare(&mut these, &all, &rounds, &at("calls a second"), Round::rate);
        compare(&mut these, &all, &rounds, &at("CPU of all parts"), Round::cpu);
        found.paths.extend(these.paths);
        found.figures.extend(these.figures);
    }
    Ok(found)
}
