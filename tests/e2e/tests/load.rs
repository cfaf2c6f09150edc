//! Many calls at once, short and long, with and without progress: each is answered, once, in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::random::{self, RngExt};
use e2e::{Breaks, Client, EntryPoint, Era, Exchange, Form, Stack};
use futures::StreamExt;
use serde_json::json;

/// Calls at each entry point.
const CALLS: usize = 2_000;
/// Calls at once.
const CONCURRENCY: usize = 50;
/// How many must come up on either side of `hold_after`.
const EACH_SIDE: usize = 500;

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test load"]
async fn two_thousand_calls_on_the_bifrost_entry_point() {
    load(EntryPoint::Bifrost, random::seed(3)).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test load"]
async fn two_thousand_calls_on_the_hermod_entry_point() {
    load(EntryPoint::Hermod, random::seed(4)).await;
}

struct Plan {
    number: usize,
    total_ms: u64,
    events: u64,
}

async fn load(entry_point: EntryPoint, seed: u64) {
    let stack = Stack::claim().await;
    let mut generator = random::generator(seed);
    let mut clients = Vec::new();
    for number in 0..CONCURRENCY {
        let era = if number % 2 == 0 { Era::Stateless } else { Era::Stateful };
        clients.push(Arc::new(Client::of(era, &stack, entry_point, "thor", "org-1").await));
    }
    let plans: Vec<Plan> = (0..CALLS)
        .map(|number| Plan {
            number,
            // From 20 to 400 ms, two thirds of them below hold_after: half of all calls have no events and are
            // that short, so that both sides come up often on a slow machine too.
            total_ms: (20.0 * 20_f64.powf(generator.random_range(0.0..1.0_f64).powf(1.6))) as u64,
            events: if generator.random_bool(0.75) { 0 } else { generator.random_range(1..=5) },
        })
        .collect();
    let (journal, mut breaks) = (stack.journal(), Breaks::from_now(&stack));
    let started = Instant::now();
    let calls = futures::stream::iter(plans).map(|plan| {
        let client = clients[plan.number % CONCURRENCY].clone();
        async move {
            let text = format!("call {}", plan.number);
            let arguments = json!({"text": text, "total_ms": plan.total_ms, "events": plan.events});
            let exchange = client.tool_with_progress("slow_echo", arguments).await;
            let verdict = judge(&exchange, &plan, &text);
            (exchange, verdict, plan.total_ms)
        }
    });
    let outcomes: Vec<_> = calls.buffer_unordered(CONCURRENCY).collect().await;
    let took = started.elapsed();

    let count = |form: Form| outcomes.iter().filter(|(exchange, ..)| exchange.form() == form).count();
    let (json, held, errors) = (count(Form::Json), count(Form::Stream), count(Form::Error));
    let mut late: Vec<Duration> = outcomes
        .iter()
        .map(|(exchange, _, total)| exchange.took().saturating_sub(Duration::from_millis(*total)))
        .collect();
    late.sort();
    println!(
        "{entry_point:?}: {CALLS} calls at concurrency {CONCURRENCY} in {:.1} s: {json} JSON, {held} held, {errors} errors; \
         time beyond the tool's own: p50 {} ms, p99 {} ms, most {} ms",
        took.as_secs_f64(),
        late[CALLS / 2].as_millis(),
        late[CALLS * 99 / 100].as_millis(),
        late[CALLS - 1].as_millis()
    );
    let faults: Vec<&String> = outcomes
        .iter()
        .filter(|(exchange, verdict, _)| verdict.is_err() && !breaks.excuses(exchange))
        .filter_map(|(_, verdict, _)| verdict.as_ref().err())
        .collect();
    assert!(faults.is_empty(), "{} faults, such as:\n{:#?}", faults.len(), &faults[..faults.len().min(10)]);
    assert!(breaks.excused() <= 10);
    let runs = journal.runs();
    assert_eq!(runs.len(), CALLS);
    assert!(runs.values().all(|run| run.starts.len() == 1 && run.ends + run.drops == 1));
    assert!(runs.values().filter(|run| run.drops > 0).count() <= breaks.excused());
    assert!(
        json >= EACH_SIDE && held >= EACH_SIDE,
        "both sides of hold_after have to come up {EACH_SIDE} times"
    );
}

fn judge(exchange: &Exchange, plan: &Plan, text: &str) -> Result<(), String> {
    exchange.check_whole(plan.events)?;
    let said = exchange.result().map(|result| &result["structuredContent"]["text"]);
    if said == Some(&json!(text)) { Ok(()) } else { Err(format!("another's answer: {}", exchange.outline())) }
}
