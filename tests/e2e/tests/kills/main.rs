//! Parts die with SIGKILL while calls run. A stream that Pushpin holds outlives every backend; no tool runs
//! twice that must not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod links;
mod relayed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use asgard::supervisor::part::Kind;
use e2e::exchange::End;
use e2e::random::{self, RngExt};
use e2e::{Breaks, Client, EntryPoint, Era, Exchange, Form, Stack};
use serde_json::json;

/// Calls in each run.
const CALLS: u64 = 6;
/// How soon a call that was not held yet must fail.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test kills"]
async fn held_streams_outlive_every_backend_on_the_bifrost_entry_point() {
    runs(EntryPoint::Bifrost, &[Kind::Backend], random::seed(1)).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test kills"]
async fn held_streams_outlive_every_backend_and_the_gateway_on_the_hermod_entry_point() {
    runs(EntryPoint::Hermod, &[Kind::Backend, Kind::Gateway], random::seed(2)).await;
}

/// What the calls of all runs came to.
#[derive(Debug, Default)]
struct Sum {
    held_before: u32,
    held_after: u32,
    json: u32,
    errors: u32,
    slowest_error: Duration,
    tool_starts: usize,
}

struct Call {
    client: Client,
    tool: &'static str,
    total_ms: u64,
    events: u64,
    offset: Duration,
}

impl Call {
    /// Makes the call when its time has come, and reads to the end.
    fn spawn(self) -> tokio::task::JoinHandle<(Exchange, Self)> {
        tokio::spawn(async move {
            tokio::time::sleep(self.offset).await;
            let arguments = json!({"total_ms": self.total_ms, "events": self.events});
            (self.client.tool_with_progress(self.tool, arguments).await, self)
        })
    }
}

/// The calls of a run: of both eras, some that may run again and some that may not.
async fn draw(stack: &Stack, entry_point: EntryPoint, run: u64, generator: &mut impl RngExt) -> Vec<Call> {
    let mut calls = Vec::new();
    for number in 0..CALLS {
        let era = if (run + number).is_multiple_of(2) { Era::Stateless } else { Era::Stateful };
        calls.push(Call {
            client: Client::of(era, stack, entry_point, "thor", "org-1").await,
            tool: if generator.random_bool(0.5) { "slow_echo" } else { "slow_count" },
            total_ms: generator.random_range(30..1_200),
            events: generator.random_range(0..=8),
            offset: Duration::from_millis(generator.random_range(0..300)),
        });
    }
    calls
}

async fn runs(entry_point: EntryPoint, victims: &[Kind], seed: u64) {
    let stack = Stack::claim().await;
    let mut generator = random::generator(seed);
    let (mut sum, mut faults) = (Sum::default(), Vec::new());
    let mut breaks = Breaks::from_now(&stack);
    let runs = random::times("E2E_KILLS", 20);
    for run in 0..runs {
        let calls = draw(&stack, entry_point, run, &mut generator).await;
        // From a call's request to its result; in every second run about when the call is handed over.
        let victim = &calls[generator.random_range(0..calls.len())];
        let most = if run % 2 == 0 { victim.total_ms } else { victim.total_ms.min(200) };
        let moment = victim.offset + Duration::from_millis(generator.random_range(0..most));
        let (journal, pids) = (stack.journal(), stack.pids(victims).await);
        let tasks: Vec<_> = calls.into_iter().map(Call::spawn).collect();
        tokio::time::sleep(moment).await;
        let killed = Stack::kill(pids.values().copied());
        for task in tasks {
            let (exchange, call) = task.await.unwrap();
            if let Err(fault) = judge(&exchange, call.events, killed, &mut sum)
                && !breaks.excuses(&exchange)
            {
                faults.push(format!("run {run}, killed after {} ms: {fault}", moment.as_millis()));
            }
        }
        stack.back(&pids.into_values().collect::<Vec<_>>()).await;
        let tools = journal.runs();
        let starts: usize =
            tools.values().filter(|run| run.tool.starts_with("slow")).map(|run| run.starts.len()).sum();
        sum.tool_starts += starts;
        if starts > CALLS as usize || tools.values().any(|run| run.starts.len() > 1) {
            faults.push(format!("run {run}: a tool ran twice: {tools:#?}"));
        }
        stack.holds(entry_point, Duration::from_secs(30)).await;
    }
    println!("{entry_point:?}, {runs} runs of {CALLS} calls: {sum:?}");
    assert!(breaks.excused() <= 3);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(u64::from(sum.held_before) >= runs, "too few streams were held when the servers died");
}

/// A stream must be whole once it is held; what was not held may fail, but soon.
fn judge(exchange: &Exchange, events: u64, killed: Instant, sum: &mut Sum) -> Result<(), String> {
    match exchange.form() {
        Form::Stream => {
            let head = exchange.head.as_ref().map(|head| head.at);
            *(if head < Some(killed) { &mut sum.held_before } else { &mut sum.held_after }) += 1;
            exchange.check_whole(events)
        }
        Form::Json => {
            sum.json += 1;
            // Of several messages a JSON document can only carry the last.
            if exchange.answer().is_some() { Ok(()) } else { Err(exchange.outline()) }
        }
        Form::Error => {
            sum.errors += 1;
            let end = exchange.end.as_ref().map_or_else(Instant::now, |(_, at)| *at);
            let took = end.saturating_duration_since(killed.max(exchange.started));
            sum.slowest_error = sum.slowest_error.max(took);
            if end < killed {
                Err(format!("an error before anything died: {}", exchange.outline()))
            } else if took > SOON {
                Err(format!("an error only after {took:?}: {}", exchange.outline()))
            } else {
                Ok(())
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test kills"]
async fn workers_die_while_calls_run() {
    let stack = Stack::claim().await;
    let mut generator = random::generator(random::seed(5));
    let (mut outcomes, mut faults, mut breaks) = (BTreeMap::new(), Vec::new(), Breaks::from_now(&stack));
    let runs = random::times("E2E_KILLS", 10);
    for run in 0..runs {
        let entry_point = EntryPoint::BOTH[generator.random_range(0..2)];
        let calls = draw(&stack, entry_point, run, &mut generator).await;
        let victim = &calls[generator.random_range(0..calls.len())];
        let moment = victim.offset + Duration::from_millis(generator.random_range(0..victim.total_ms));
        let journal = stack.journal();
        let mut pids: Vec<u32> = stack.pids(&[Kind::Worker]).await.into_values().collect();
        // One worker, and every third time all of them.
        if run % 3 != 2 {
            pids.swap_remove(generator.random_range(0..pids.len()));
        }
        let tasks: Vec<_> = calls.into_iter().map(Call::spawn).collect();
        tokio::time::sleep(moment).await;
        Stack::kill(pids.iter().copied());
        // While the others wait for the dead one's lease to run out.
        stack.back(&pids).await;
        for task in tasks {
            let (exchange, call) = task.await.unwrap();
            let outcome = judge_without_worker(&exchange, &call);
            match outcome {
                Ok(outcome) => *outcomes.entry(outcome).or_insert(0) += 1,
                Err(_) if breaks.excuses(&exchange) => {}
                Err(fault) => faults.push(format!(
                    "run {run}, {entry_point:?}, {} {}, killed after {} ms: {fault}",
                    call.tool,
                    if call.client.session.is_some() { "session" } else { "modern" },
                    moment.as_millis()
                )),
            }
        }
        let tools = journal.runs();
        if tools.values().any(|run| run.starts.len() > if run.tool == "slow_count" { 1 } else { 2 }) {
            faults.push(format!("run {run}: a tool ran too often: {tools:#?}"));
        }
    }
    println!("{runs} runs of {CALLS} calls: {outcomes:?}");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// A call that may run again is whole all the same; but in the stateless era, which keeps no events, steps that were
/// on their way die with the worker (docs/calls.md). One that may not ends with an error. A session's stream that
/// had begun is closed: the client resumes it with `Last-Event-ID`.
fn judge_without_worker(exchange: &Exchange, call: &Call) -> Result<&'static str, String> {
    let whole = exchange.check_whole(if exchange.form() == Form::Json { 0 } else { call.events });
    if exchange.took() > Duration::from_millis(call.total_ms) + Duration::from_secs(15) {
        return Err(format!("too late: {}", exchange.outline()));
    }
    let steps = exchange.steps();
    let modern = call.client.session.is_none();
    let in_order = if modern {
        steps.is_sorted_by(|one, next| one < next)
    } else {
        steps == (1..=steps.len() as u64).collect::<Vec<_>>()
    };
    let ended = matches!(exchange.end, Some((End::Whole, _))) && exchange.form() != Form::Error;
    let error = exchange.error().and_then(|error| error["message"].as_str()).unwrap_or_default();
    match whole {
        Ok(()) => Ok("whole"),
        Err(fault) if !in_order || !ended => Err(fault),
        Err(_) if call.tool == "slow_count" && error.contains("outcome is unknown") => Ok("outcome unknown"),
        Err(_) if modern && call.tool != "slow_count" && exchange.result().is_some() => {
            Ok("whole but for steps")
        }
        Err(_) if !modern && exchange.answer().is_none() => Ok("closed"),
        Err(fault) => Err(fault),
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test kills"]
async fn a_tool_that_may_run_again_does_when_its_worker_dies() {
    let stack = Stack::claim().await;
    for (entry_point, steps_before) in
        [(EntryPoint::Bifrost, 0), (EntryPoint::Hermod, 0), (EntryPoint::Bifrost, 3), (EntryPoint::Hermod, 3)]
    {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let arguments = json!({"text": "again", "total_ms": 2_000, "events": 8});
        let (exchange, killed, journal) =
            kill_the_worker(&stack, client, "slow_echo", arguments, steps_before).await;
        exchange.check_whole(8).unwrap_or_else(|fault| panic!("{entry_point:?}: {fault}"));
        let runs = journal.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        let starts = &runs.values().next().unwrap().starts;
        assert!(starts.len() == 2 && starts[0] == killed && starts[1] != killed, "{starts:?}");
        let result = &exchange.result().unwrap()["structuredContent"];
        assert_eq!((&result["text"], &result["worker"]), (&json!("again"), &json!(starts[1])));
        println!(
            "{entry_point:?}: killed after {steps_before} steps, whole after {} ms",
            exchange.took().as_millis()
        );
        stack.back(&[killed]).await;
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test kills"]
async fn a_tool_that_must_not_run_again_does_not_and_the_client_is_told() {
    let stack = Stack::claim().await;
    for (entry_point, steps_before) in
        [(EntryPoint::Bifrost, 0), (EntryPoint::Hermod, 0), (EntryPoint::Bifrost, 3), (EntryPoint::Hermod, 3)]
    {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let arguments = json!({"total_ms": 2_000, "events": 8});
        let (exchange, killed, journal) =
            kill_the_worker(&stack, client, "slow_count", arguments, steps_before).await;
        let error = exchange.error().unwrap_or_else(|| panic!("{entry_point:?}: {}", exchange.outline()));
        assert_eq!(error["code"], -32603);
        assert!(error["message"].as_str().unwrap().contains("outcome is unknown"), "{error}");
        let steps = exchange.steps();
        assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "{}", exchange.outline());
        assert!(steps.len() >= steps_before && steps.len() < 8);
        println!(
            "{entry_point:?}: killed after {steps_before} steps, error after {} ms",
            exchange.took().as_millis()
        );
        stack.back(&[killed]).await;
        let runs = journal.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        assert_eq!(runs.values().next().unwrap().starts, [killed]);
    }
}

/// Calls a tool, kills its worker once it has begun and the client has got that many steps, and reads on.
async fn kill_the_worker(
    stack: &Stack,
    client: Client,
    tool: &'static str,
    arguments: serde_json::Value,
    steps: usize,
) -> (Exchange, u32, e2e::Journal) {
    let journal = stack.journal();
    let (seen, mut heard) = tokio::sync::watch::channel(0);
    let task = tokio::spawn(async move {
        let mut exchange = client.open_tool(tool, arguments, true).await;
        while exchange.more().await {
            seen.send_replace(exchange.messages.len());
        }
        exchange
    });
    let started = |run: &e2e::journal::Run| run.tool == tool && !run.starts.is_empty();
    let (_, run) = journal.wait_for("the tool begins", Duration::from_secs(10), started).await;
    heard.wait_for(|messages| *messages >= steps).await.expect("the steps come");
    Stack::kill([run.starts[0]]);
    (task.await.unwrap(), run.starts[0], journal)
}
