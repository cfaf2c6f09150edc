//! Workers: how a second one helps, and how soon a process is ready.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::store::part_of;
use super::{Context, Found};
use crate::load::{self, Shape};
use crate::mcp::{Call, Endpoint};
use crate::report::{Figure, Goal};
use crate::site::paused::Held;
use crate::site::process::{Process, free_address};
use crate::site::stack::Stack;
use crate::wire::Connection;
use crate::{Result, progress};

/// Calls at once.
const CONNECTIONS: usize = 6;
/// Steps of the call by which the cost of a step is found out.
const TRIAL: u64 = 5_000;
/// CPU time that a call is to take.
const OF_A_CALL: Duration = Duration::from_millis(2);

/// The cell `workers`: a tool that only computes, with one worker and with two, each held to half a core.
pub async fn scale(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let endpoint = stack.bifrost().await?;
    let call = computing(stack, &endpoint).await?;
    let time = context.options.round_time() * 2;
    let shape = Shape::new(CONNECTIONS, time);
    let (mut one, mut two, mut failures, mut why) = (Vec::new(), Vec::new(), 0, String::new());
    let rounds = context.options.sized(5, 3);
    for number in 1..=rounds {
        progress(&format!("round {number} of {rounds}"));
        let first = Held::new(stack.pid("worker-1").await?, 0.5);
        let second = Held::new(stack.pid("worker-2").await?, 0.5);
        let both = load::tolerant(&endpoint, &call, &shape).await?;
        drop(second);
        stack.stop("worker-2").await?;
        let alone = load::tolerant(&endpoint, &call, &shape).await;
        drop(first);
        stack.restart("worker-2").await?;
        let alone = alone?;
        one.push(alone.rate());
        two.push(both.rate());
        for round in [alone, both] {
            failures += round.failures;
            if why.is_empty() && !round.why.is_empty() {
                why = format!(" ({})", round.why);
            }
        }
    }
    let mut found = Found::default();
    found.figure(Figure::median("one worker at half a core", "calls/s", &one));
    found.figure(Figure::median("two workers at half a core each", "calls/s", &two));
    found.figure(Figure::ratio("two workers, of one", &two, &one).with_goal(Goal::AtLeast(1.9)));
    let failed = Figure::single(&format!("calls that failed{why}"), "", failures as f64);
    found.figure(failed.with_goal(Goal::AtMost(0.0)));
    Ok(found)
}

/// A call that takes about [`OF_A_CALL`] of a worker.
async fn computing(stack: &Stack, endpoint: &Endpoint) -> Result<Call> {
    let call = |steps: u64| Call::new("report", json!({"steps": steps}), "\"result\"");
    let workers = part_of(stack, "worker").await?;
    let mut connection = Connection::open(&endpoint.host).await?;
    let before = workers.usage();
    let head = connection.exchange(&call(TRIAL).modern(endpoint), &mut Vec::new()).await?;
    if head.status != 200 {
        return Err(format!("the tool report answered {}", head.status).into());
    }
    let step = workers.usage().since(&before).div_f64(TRIAL as f64);
    let steps = OF_A_CALL.as_secs_f64() / step.as_secs_f64().max(1e-9);
    Ok(call((steps as u64).clamp(1, 10_000)))
}

/// The cell `start`: from exec to ready.
pub async fn cold(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let times = context.options.sized(15, 3);
    let mut found = Found::default();
    for part in ["backend", "worker"] {
        let mut all = Vec::new();
        for number in 1..=times {
            progress(&format!("{part}: start {number} of {times}"));
            all.push(start(stack, part).await?.as_secs_f64() * 1e3);
        }
        let figure = Figure::median(&format!("a {part}, from exec to ready"), "ms", &all);
        found.figure(figure.with_goal(Goal::AtMost(100.0)));
    }
    // The site forgets them.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(found)
}

/// Starts one more of a kind, as the first one was started, at an address of its own; how long until it is ready.
async fn start(stack: &Stack, kind: &str) -> Result<Duration> {
    let part = format!("{kind}-1");
    let (program, pid): (PathBuf, u32) = (stack.program(&part).await?, stack.pid(&part).await?);
    let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
    let address = free_address()?;
    let variables = environment.split(|byte| *byte == 0).filter_map(|variable| {
        let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
        let value = match name {
            "ASGARD_LISTEN" => address.clone(),
            "ASGARD_NODE" | "ASGARD_WORKER" => format!("bench-{kind}"),
            // Not the first one's socket.
            "ASGARD_LINKS" => "127.0.0.1:0".to_owned(),
            "ASGARD_ADMIN_LISTEN" | "ASGARD_ADMIN_TOKEN" => return None,
            _ => value.to_owned(),
        };
        Some((name.to_owned(), value))
    });
    let variables: Vec<_> = variables.chain([("ASGARD_LOG".to_owned(), "warn".to_owned())]).collect();
    let started = Instant::now();
    let mut process = Process::spawn(&program, [""; 0], variables, address)?;
    process.ready(Some("/readyz")).await?;
    Ok(started.elapsed())
}
