//! Clients that begin tasks, and ask until these are over.

use std::time::{Duration, Instant};

use e2e::Exchange;
use e2e::random::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::calls::{Call, Ending, Tool};
use crate::clients::{pause, seat};
use crate::ledger::Evil;
use crate::world::World;

/// How long a task may take beyond what its tool needs. No connection waits for it: rounds have their own queue.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many tasks one client may begin. A principal has at most 200 tasks, those that are over included until they
/// expire after an hour.
const TASKS: u32 = 90;

/// A client that knows tasks.
pub(crate) async fn client(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("tasks {entry_point:?}");
    let mut next = Instant::now();
    while world.goes_on() {
        tokio::time::sleep_until(next.into()).await;
        next = Instant::now() + world.length() / TASKS;
        pause(&mut random).await;
        let client = world.client(entry_point, person).with_tasks();
        let call = Call { tool: Tool::Count, ..Call::draw(world, person, &mut random) };
        world.ledger.once(&call);
        let started = Instant::now();
        let id = 1_000 + world.number();
        let request = client.build(id, "tools/call", call.params(id));
        let work = async { Exchange::of(request, id).await.to_end().await };
        let Some(exchange) = world.in_time(started, Duration::ZERO, work).await else {
            world.ledger.ended(world, &name, &call, started, Err((Evil::Hung, "no handle".to_owned())), None);
            continue;
        };
        let task = exchange.result().and_then(|result| result["taskId"].as_str().map(str::to_owned));
        let Some(task) = task else {
            let judged = call.judge(&exchange, true);
            world.ledger.ended(world, &name, &call, started, judged, Some(&exchange));
            continue;
        };
        let cancels = random.random_bool(0.1);
        let judged = follow(world, &client, &call, &task, cancels).await;
        world.ledger.ended(world, &name, &call, started, judged, None);
    }
}

/// Asks until the task is over.
async fn follow(
    world: &World,
    client: &e2e::Client,
    call: &Call,
    task: &str,
    cancels: bool,
) -> Result<Ending, (Evil, String)> {
    let started = Instant::now();
    let mut cancelled = false;
    loop {
        if started.elapsed() > call.budget() + PATIENCE {
            return Err((Evil::Hung, format!("task {task} is not over")));
        }
        let asked = Instant::now();
        let (id, method) =
            (1_000 + world.number(), if cancels && !cancelled { "tasks/cancel" } else { "tasks/get" });
        let request = client.build(id, method, json!({"taskId": task}));
        let work = async { Exchange::of(request, id).await.to_end().await };
        let Some(exchange) = world.in_time(asked, Duration::ZERO, work).await else {
            return Err((Evil::Hung, format!("{method} of {task}")));
        };
        if let Some(error) = exchange.error().filter(|error| error["code"] == -32602) {
            return Err((Evil::Wrong, format!("task {task} is unknown: {error}")));
        }
        if let Some(result) = exchange.result() {
            cancelled |= method == "tasks/cancel";
            if method == "tasks/get" {
                if result["taskId"] != task {
                    return Err((Evil::Foreign, format!("asked for {task}: {result}")));
                }
                match result["status"].as_str() {
                    Some("working") => {}
                    Some("completed") => return call.judge_answer(&json!({"result": result["result"]})),
                    Some("failed") => return call.judge_answer(&json!({"error": result["error"]})),
                    Some("cancelled") if cancelled => return Ok(Ending::Whole),
                    _ => return Err((Evil::Wrong, format!("task {task}: {}", Value::clone(result)))),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
