//! Two thousand calls, most of them handed straight to workers, while links break and stall, and workers and backends are
//! killed and stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use asgard::supervisor::part::Kind;
use e2e::exchange::End;
use e2e::random::{self, RngExt};
use e2e::{Client, EntryPoint, Era, Exchange, Form, Stack, leftovers};
use futures::StreamExt;
use nix::sys::signal::Signal;
use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::relayed::{RelayedWorker, signal};

/// Calls at once.
const CONCURRENCY: usize = 50;
/// Workers.
const WORKERS: usize = 3;
/// How long a call may take beyond its tool's time. Pauses of backends and workers, lost leases and a tool that runs again
/// are in it.
const LATE: Duration = Duration::from_secs(20);
/// How long parts are stopped: shorter than a lease (1.5 s), and longer.
const STOPS: [u64; 4] = [200, 700, 2_000, 3_500];

/// What is done to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    LinkBroken,
    LinkStalled,
    WorkerKilled,
    WorkerStopped,
    BackendKilled,
    BackendStopped,
}

const FAULTS: [Fault; 6] = [
    Fault::LinkBroken,
    Fault::LinkStalled,
    Fault::WorkerKilled,
    Fault::WorkerStopped,
    Fault::BackendKilled,
    Fault::BackendStopped,
];

struct Plan {
    number: u64,
    tool: &'static str,
    total_ms: u64,
    events: u64,
}

impl Plan {
    fn draw(number: u64, generator: &mut impl RngExt) -> Self {
        let quick = generator.random_bool(0.6);
        Self {
            number,
            tool: if generator.random_bool(0.5) { "slow_echo" } else { "slow_count" },
            total_ms: if quick { generator.random_range(0..60) } else { generator.random_range(100..600) },
            events: if quick { 0 } else { generator.random_range(0..=3) },
        }
    }

    fn name(&self) -> String {
        format!("call {}", self.number)
    }

    async fn call(&self, client: &Client) -> Exchange {
        let mut arguments = json!({"total_ms": self.total_ms, "events": self.events});
        let name = if self.tool == "slow_echo" { "text" } else { "label" };
        arguments[name] = self.name().into();
        client.tool_with_progress(self.tool, arguments).await
    }

    /// What the call came to, if that is one of the things that it may come to.
    fn judge(&self, exchange: &Exchange, backend_died: bool) -> Result<&'static str, String> {
        let fail =
            |what: &str| Err(format!("{}, {}: {what}: {}", self.name(), self.tool, exchange.outline()));
        if exchange.took() > Duration::from_millis(self.total_ms) + LATE {
            return fail("too late");
        }
        if !exchange.steps().is_sorted_by(|one, next| one < next) {
            return fail("steps twice, or out of order");
        }
        if let Some(result) = exchange.result() {
            let content = &result["structuredContent"];
            let name = if self.tool == "slow_echo" { &content["text"] } else { &content["label"] };
            return if *name == self.name() { Ok("answered") } else { fail("another's answer") };
        }
        if let Some(error) = exchange.error() {
            return match error["message"].as_str() {
                Some(why) if why.contains("outcome is unknown") => Ok("outcome unknown"),
                Some(why) if why.len() > 10 => Ok("another error that says why"),
                _ => fail("an error that says nothing"),
            };
        }
        match (exchange.form(), &exchange.end) {
            // The gateway's own word for a backend that died.
            (Form::Error, Some((End::Whole, _))) if exchange.status() >= 500 && backend_died => {
                Ok("gateway's error")
            }
            (_, Some((End::Cut(_), _))) if backend_died => Ok("cut"),
            // A session's client resumes it.
            (Form::Stream, Some((End::Whole, _))) if exchange.last_id.is_some() => Ok("to be resumed"),
            _ => fail("neither an answer nor an error"),
        }
    }
}

/// Does faults until it is to stop; how often each, and when backends died.
async fn break_things(
    stack: &Stack,
    workers: &mut [RelayedWorker],
    stop: &AtomicBool,
    generator: &mut impl RngExt,
) -> (BTreeMap<Fault, u64>, Vec<Instant>) {
    let (mut done, mut deaths, mut turn) = (BTreeMap::new(), Vec::new(), 0);
    while !stop.load(Ordering::Acquire) {
        // Each in its turn, so that all come up; at whom and for how long is drawn.
        let fault = FAULTS[turn % FAULTS.len()];
        turn += 1;
        let worker = &mut workers[generator.random_range(0..WORKERS)];
        let pause = Duration::from_millis(STOPS[generator.random_range(0..STOPS.len())]);
        match fault {
            Fault::LinkBroken => worker.relay.break_all(),
            Fault::LinkStalled => worker.relay.stall(pause),
            Fault::WorkerKilled => worker.restart(),
            Fault::WorkerStopped => stopped(worker.pid(), pause),
            Fault::BackendKilled | Fault::BackendStopped => {
                let pids: Vec<u32> = stack.pids(&[Kind::Backend]).await.into_values().collect();
                let Some(pid) = pids.get(generator.random_range(0..pids.len().max(1))).copied() else {
                    continue;
                };
                if fault == Fault::BackendKilled {
                    deaths.push(Instant::now());
                    signal(pid, Signal::SIGKILL);
                } else {
                    stopped(pid, pause);
                }
            }
        }
        *done.entry(fault).or_insert(0) += 1;
        tokio::time::sleep(Duration::from_millis(generator.random_range(100..700))).await;
    }
    (done, deaths)
}

/// Stops a process for that long.
fn stopped(pid: u32, pause: Duration) {
    signal(pid, Signal::SIGSTOP);
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        signal(pid, Signal::SIGCONT);
    });
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test kills"]
async fn links_workers_and_backends_break_and_stall_under_two_thousand_calls() {
    let stack = Stack::claim().await;
    let mut generator = random::generator(random::seed(6));
    let calls = random::times("E2E_LINK_CALLS", 2_000);
    let mut workers = RelayedWorker::in_place_of_the_stacks(&stack, WORKERS).await;
    let mut store = leftovers::connect(&stack).await;
    quick_direct_calls_leave_nothing(&stack, &mut store).await;

    let mut clients = Vec::new();
    for number in 0..CONCURRENCY {
        let era = if number % 2 == 0 { Era::Stateless } else { Era::Stateful };
        clients.push(Arc::new(Client::of(era, &stack, EntryPoint::Bifrost, "thor", "org-1").await));
    }
    let plans: Vec<Plan> = (0..calls).map(|number| Plan::draw(number, &mut generator)).collect();
    let (journal, stop, started) = (stack.journal(), AtomicBool::new(false), Instant::now());
    let all = futures::stream::iter(plans).map(|plan| {
        let client = clients[plan.number as usize % CONCURRENCY].clone();
        async move { (plan.call(&client).await, plan) }
    });
    let all = async {
        let exchanges: Vec<(Exchange, Plan)> = all.buffer_unordered(CONCURRENCY).collect().await;
        stop.store(true, Ordering::Release);
        exchanges
    };
    let faults = break_things(&stack, &mut workers, &stop, &mut generator);
    let (exchanges, (faults, deaths)) = futures::future::join(all, faults).await;
    let took = started.elapsed();

    let (mut outcomes, mut wrong) = (BTreeMap::new(), Vec::new());
    for (exchange, plan) in &exchanges {
        // It may take a while until a gateway knows that a backend is there again.
        let since = exchange.started.checked_sub(Duration::from_secs(10)).unwrap_or(started);
        let until = exchange.end.as_ref().map_or_else(Instant::now, |(_, at)| *at);
        let backend_died = deaths.iter().any(|at| (since..=until).contains(at));
        match plan.judge(exchange, backend_died) {
            Ok(outcome) => *outcomes.entry(outcome).or_insert(0) += 1,
            Err(why) => wrong.push(why),
        }
    }
    println!("{calls} calls in {:.1} s: {outcomes:?}; {faults:?}", took.as_secs_f64());
    assert!(wrong.is_empty(), "{} wrong, such as:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    assert!(faults.len() == FAULTS.len(), "too short a run: {faults:?}");
    assert!(outcomes["answered"] > calls / 2, "hardly anything was answered");
    check_starts(&exchanges, &journal);

    let ended = Instant::now();
    nothing_is_left(&stack, &mut workers, &mut store).await;
    println!("nothing is left after {} ms", ended.elapsed().as_millis());
    drop(workers);
    RelayedWorker::give_back(&stack).await;
}

/// A tool that must not run twice did not, and none began after its client had an error of ours.
fn check_starts(exchanges: &[(Exchange, Plan)], journal: &e2e::Journal) {
    let mut starts = BTreeMap::<String, Vec<u64>>::new();
    for line in journal.lines().into_iter().filter(|line| line.tool == "slow_count" && line.event == "start")
    {
        starts.entry(line.label.unwrap_or(line.call)).or_default().push(line.at_ms);
    }
    let twice: Vec<_> = starts.iter().filter(|(_, starts)| starts.len() > 1).collect();
    assert!(twice.is_empty(), "tools ran twice that must not: {twice:?}");
    for (exchange, plan) in exchanges.iter().filter(|(exchange, _)| exchange.error().is_some()) {
        let Some((_, end)) = &exchange.end else { continue };
        let ended =
            (SystemTime::now() - end.elapsed()).duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let late = starts.get(&plan.name()).into_iter().flatten().find(|start| **start > ended + 100);
        assert_eq!(late, None, "begun after {ended}, when its client had an error: {}", exchange.outline());
    }
}

/// Calls that are over before anybody but their backend and worker needs to know of them: the store never hears of them.
async fn quick_direct_calls_leave_nothing(stack: &Stack, store: &mut MultiplexedConnection) {
    let client = Client::modern(stack, EntryPoint::Bifrost, "thor", "org-1").await;
    let direct = async || -> u64 { stack.counters().await.values().map(|counts| counts["direct"]).sum() };
    e2e::stack::wait("calls go straight to the workers", Duration::from_secs(20), async || {
        let before = direct().await;
        client.tool("echo", json!({"text": "x"})).await;
        (direct().await > before).then_some(())
    })
    .await;
    let (records, before, mut long) = (leftovers::keys(store, "asgard:call:*").await, direct().await, 0);
    for number in 0..100 {
        let exchange = client.tool("echo", json!({"text": number.to_string()})).await;
        exchange.check_whole(0).unwrap();
        // On a busy machine it may outlive hold_after.
        long += usize::from(exchange.took() > Duration::from_millis(90));
    }
    let sent = usize::try_from(direct().await - before).unwrap();
    let left: Vec<_> = leftovers::keys(store, "asgard:call:*")
        .await
        .into_iter()
        .filter(|key| !records.contains(key))
        .collect();
    println!("of 100 quick calls {sent} went straight to a worker; {} records", left.len());
    assert!(sent >= 50, "{sent} calls went straight to a worker");
    assert!(left.len() <= 100 - sent + long, "direct calls that were never written down: {left:?}");
}

/// Waits until backends and workers have forgotten all calls, and looks what the store keeps.
async fn nothing_is_left(stack: &Stack, workers: &mut [RelayedWorker], store: &mut MultiplexedConnection) {
    stack.kinds_back(Some(&[Kind::Backend]), &[]).await;
    for worker in workers.iter_mut() {
        worker.up().await;
    }
    let mut seen = String::new();
    let started = Instant::now();
    loop {
        let mut tables: Vec<(String, serde_json::Value)> = Vec::new();
        for part in stack.of_kind(Kind::Backend).await {
            tables.push((part.name, e2e::stack::statz(&part.address).await));
        }
        for worker in workers.iter() {
            tables.push((worker.name.clone(), e2e::stack::statz(&worker.address).await));
        }
        let full: Vec<_> = tables
            .into_iter()
            .filter(|(_, statz)| {
                let of_links =
                    statz["links"].as_object().is_some_and(|links| links.values().any(|n| *n != 0));
                let of_worker =
                    statz["calls"].as_u64().unwrap_or(0) + statz["direct_calls"].as_u64().unwrap_or(0);
                statz.is_null() || statz["waiting"].as_u64().unwrap_or(0) + of_worker > 0 || of_links
            })
            .collect();
        let leases = leftovers::work(store).await;
        if full.is_empty() && leases.is_empty() {
            break;
        }
        // A call whose backend was killed is given up when nobody has asked for it for five seconds; all others are gone sooner.
        assert!(started.elapsed() < Duration::from_secs(7), "left: {full:#?} {leases:#?}; before: {seen}");
        seen = format!("{full:?} {leases:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let eternal = leftovers::eternal(store).await;
    assert!(eternal.is_empty(), "keys that never expire: {eternal:?}");
}
