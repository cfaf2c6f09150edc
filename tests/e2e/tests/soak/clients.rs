//! Clients of the modern and of the stateful eras.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::exchange::End;
use e2e::random::RngExt;
use e2e::{Client, EntryPoint, Exchange, Form};
use rand::rngs::StdRng;
use serde_json::json;

use crate::calls::{Call, Ending};
use crate::ledger::Evil;
use crate::world::{PEOPLE, Person, World};

/// How long a client tries again with its key, or resumes a stream.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often one stream is resumed, at most.
const RESUMPTIONS: u32 = 40;

/// An entry point and a person, by the client's number.
pub(crate) fn seat(number: usize) -> (EntryPoint, Person) {
    (EntryPoint::BOTH[number % 2], PEOPLE[(number / 2) % PEOPLE.len()])
}

/// Waits a little between two calls.
pub(crate) async fn pause(random: &mut StdRng) {
    tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
}

/// Reads an exchange to its end, or until it hangs.
async fn read(world: &World, exchange: &mut Exchange, since: Instant, budget: Duration) -> bool {
    world.in_time(since, budget, async { while exchange.more().await {} }).await.is_some()
}

fn hung(what: &str) -> (Evil, String) {
    (Evil::Hung, what.to_owned())
}

/// The id of a request: mostly one that nothing else has; else one that many have at once.
fn id(world: &World, random: &mut StdRng) -> u64 {
    if random.random_bool(0.2) { 7 } else { 1_000 + world.number() }
}

/// A client of the stateless era: calls, and now and then leaves before the answer.
pub(crate) async fn modern(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("modern {entry_point:?}");
    while world.goes_on() {
        let client = world.client(entry_point, person);
        for _ in 0..random.random_range(1..20) {
            pause(&mut random).await;
            if !world.goes_on() {
                return;
            }
            let call = Call::draw(world, person, &mut random);
            world.ledger.once(&call);
            let id = id(world, &mut random);
            let started = Instant::now();
            let request = client.build(id, "tools/call", call.params(id));
            if random.random_bool(0.07) {
                // Leaves: whatever ran is to be stopped.
                let leaves = Duration::from_millis(random.random_range(0..call.total_ms + 200));
                let work = async { Exchange::of(request, id).await.to_end().await };
                let _ = tokio::time::timeout(leaves, work).await;
                world.ledger.count(&name, "left");
                continue;
            }
            let Some(mut exchange) = world.in_time(started, call.budget(), Exchange::of(request, id)).await
            else {
                world.ledger.ended(world, &name, &call, started, Err(hung("no head")), None);
                continue;
            };
            let judged = if read(world, &mut exchange, started, call.budget()).await {
                judge_modern(world, entry_point, &call, &exchange)
            } else {
                Err(hung("no end"))
            };
            world.ledger.ended(world, &name, &call, started, judged, Some(&exchange));
        }
    }
}

/// In the stateless era a stream never ends well without an answer. But when the gateway or a backend dies that writes
/// a stream by itself, Pushpin ends it in order, one second later (docs/calls.md).
fn judge_modern(
    world: &World,
    entry_point: EntryPoint,
    call: &Call,
    exchange: &Exchange,
) -> Result<Ending, (Evil, String)> {
    match call.judge(exchange, true)? {
        Ending::Closed
            if entry_point == EntryPoint::Hermod && world.blows.killed_a_writer(exchange.started) =>
        {
            Ok(Ending::Cut)
        }
        Ending::Closed => Err((Evil::Wrong, "a stream that ended without an answer".to_owned())),
        ending => Ok(ending),
    }
}

/// A client of the stateless era that sends each request again, under its key, until it is answered.
pub(crate) async fn keyed(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("keyed {entry_point:?}");
    while world.goes_on() {
        pause(&mut random).await;
        let mut client = world.client(entry_point, person);
        let call = Call::draw(world, person, &mut random);
        world.ledger.once(&call);
        let first = Instant::now();
        loop {
            let id = 1_000 + world.number();
            let started = Instant::now();
            let request =
                client.build(id, "tools/call", call.params(id)).header("idempotency-key", &call.text);
            let leaves = random.random_bool(0.1).then(|| random.random_range(0..call.total_ms + 100));
            let exchange = async {
                let mut exchange = Exchange::of(request, id).await;
                while exchange.more().await {}
                exchange
            };
            let exchange = match leaves {
                Some(after) => match tokio::time::timeout(Duration::from_millis(after), exchange).await {
                    Ok(exchange) => Some(exchange),
                    Err(_) => continue,
                },
                None => world.in_time(started, call.budget(), exchange).await,
            };
            let judged = exchange.as_ref().map_or_else(
                || Err(hung("no end")),
                |exchange| judge_modern(world, entry_point, &call, exchange),
            );
            let exchange = exchange.as_ref();
            match judged {
                Ok(Ending::Whole | Ending::Gaps) => {
                    world.ledger.count(&name, "Whole");
                    break;
                }
                // What is known for good.
                Ok(Ending::Error(text)) if text.contains("outcome is unknown") || text.starts_with("409") => {
                    world.ledger.ended(world, &name, &call, first, Ok(Ending::Error(text)), exchange);
                    break;
                }
                Err(evil) => {
                    world.ledger.ended(world, &name, &call, started, Err(evil), exchange);
                    break;
                }
                Ok(_) if first.elapsed() > PATIENCE => {
                    let why = hung("not answered under its key for a minute");
                    world.ledger.ended(world, &name, &call, first, Err(why), exchange);
                    break;
                }
                Ok(_) => {
                    world.ledger.count(&name, "again");
                    tokio::time::sleep(Duration::from_millis(random.random_range(100..500))).await;
                    if random.random_bool(0.5) {
                        // On a connection of its own, with any backend.
                        client = world.client(entry_point, person);
                    }
                }
            }
        }
    }
}

/// Begins a session; none when it did not work, which is judged.
pub(crate) async fn begin(
    world: &World,
    name: &str,
    entry_point: EntryPoint,
    person: Person,
) -> Option<Client> {
    let mut client = world.client(entry_point, person);
    let started = Instant::now();
    let call = Call { tool: crate::calls::Tool::Echo, text: "initialize".to_owned(), total_ms: 0, events: 0 };
    let ended = |judged, exchange: Option<&Exchange>| {
        world.ledger.ended(world, name, &call, started, judged, exchange);
    };
    let Some(exchange) = world.in_time(started, Duration::ZERO, client.initialize()).await else {
        ended(Err(hung("initialize")), None);
        return None;
    };
    let session = exchange.header("mcp-session-id").map(str::to_owned);
    let good = exchange.result().is_some_and(|result| result["protocolVersion"] == "2025-11-25");
    if !good || session.is_none() {
        let judged = match call.judge(&exchange, false) {
            Ok(Ending::Whole) | Err(_) if exchange.form() != Form::Error => {
                Err((Evil::Wrong, "initialize".to_owned()))
            }
            other => other,
        };
        ended(judged, Some(&exchange));
        return None;
    }
    client.session = session;
    let message = json!({"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}}).to_string();
    let started = Instant::now();
    match world.in_time(started, Duration::ZERO, client.post().body(message).send()).await {
        None => ended(Err(hung("notifications/initialized")), None),
        Some(Ok(response)) if response.status().as_u16() == 202 => return Some(client),
        Some(Ok(response)) => {
            ended(Ok(Ending::Error(format!("{} initialized", response.status().as_u16()))), None)
        }
        Some(Err(_)) => ended(Ok(Ending::Cut), None),
    }
    None
}

/// A client of the stateful era: calls, also several at once; resumes streams; cancels.
pub(crate) async fn session(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("session {entry_point:?}");
    while world.goes_on() {
        pause(&mut random).await;
        let Some(mut client) = begin(world, &name, entry_point, person).await else { continue };
        for _ in 0..random.random_range(3..15) {
            pause(&mut random).await;
            if !world.goes_on() {
                break;
            }
            client.token = world.token(person);
            let together = random.random_range(1..=3);
            let draws: Vec<_> = (0..together)
                .map(|_| (Call::draw(world, person, &mut random), Habit::draw(&mut random)))
                .collect();
            let calls = draws.into_iter().map(|(call, habit)| one(world, &name, &client, call, habit));
            futures::future::join_all(calls).await;
        }
        if random.random_bool(0.5) {
            let started = Instant::now();
            let delete = client.end().send();
            match world.in_time(started, Duration::ZERO, delete).await {
                None => {
                    world.ledger.evil(Evil::Hung, format!("DELETE at {:.2} s, {name}", world.at(started)))
                }
                Some(_) => world.ledger.count(&name, "session ended"),
            }
        }
    }
}

/// What a client does beside reading.
struct Habit {
    /// Cuts its connection after so many messages, and resumes the stream.
    cuts: Vec<usize>,
    /// Cancels after that time.
    cancels: Option<Duration>,
}

impl Habit {
    fn draw(random: &mut StdRng) -> Self {
        let mut cuts: Vec<usize> =
            (0..random.random_range(0..3)).map(|_| random.random_range(0..12)).collect();
        cuts.sort_unstable_by(|a, b| b.cmp(a));
        let cancels = random.random_bool(0.08).then(|| Duration::from_millis(random.random_range(0..2_000)));
        Self { cuts, cancels }
    }
}

async fn one(world: &World, name: &str, client: &Client, call: Call, mut habit: Habit) {
    world.ledger.once(&call);
    let id = 1_000 + world.number();
    let first = Instant::now();
    let cancelled = AtomicBool::new(false);
    let cancel = async {
        match habit.cancels.take() {
            None => std::future::pending::<()>().await,
            Some(after) => {
                tokio::time::sleep(after).await;
                let params = json!({"requestId": id, "reason": "enough"});
                let message =
                    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
                // It may be lost with a part that dies: then the call goes on, and its answer is right.
                cancelled.store(true, Ordering::Relaxed);
                let _ = client.post().body(message.to_string()).send().await;
                std::future::pending::<()>().await;
            }
        }
    };
    let (judged, exchange) = tokio::select! {
        outcome = to_answer(world, client, &call, id, &mut habit.cuts) => outcome,
        () = cancel => unreachable!("it waits"),
    };
    // Then the stream ends without an answer, and can't be resumed; or the answer was quicker.
    let judged = match judged {
        // From an event on it could have been resumed.
        Ok(Ending::Closed) if !cancelled.load(Ordering::Relaxed) => {
            Err((Evil::Wrong, "a stream that ended without an answer and without an id".to_owned()))
        }
        judged => judged,
    };
    let unanswered = matches!(judged, Ok(Ending::Closed | Ending::Cut | Ending::Error(_)));
    if unanswered && cancelled.load(Ordering::Relaxed) {
        world.ledger.count(name, "cancelled");
        return;
    }
    world.ledger.ended(world, name, &call, first, judged, exchange.as_ref());
}

/// Reads on, and resumes the stream when it ends, until the answer is there.
async fn to_answer(
    world: &World,
    client: &Client,
    call: &Call,
    id: u64,
    cuts: &mut Vec<usize>,
) -> (Result<Ending, (Evil, String)>, Option<Exchange>) {
    let mut started = Instant::now();
    let first = started;
    let request = client.build(id, "tools/call", call.params(id));
    let Some(mut exchange) = world.in_time(started, call.budget(), Exchange::of(request, id)).await else {
        return (Err(hung("no head")), None);
    };
    for _ in 0..RESUMPTIONS {
        let reading = async {
            while exchange.end.is_none() {
                let due = cuts.last().is_some_and(|cut| exchange.messages.len() >= *cut);
                if due && exchange.last_id.is_some() && exchange.answer().is_none() {
                    cuts.pop();
                    exchange.cut();
                    return;
                }
                exchange.more().await;
            }
        };
        if world.in_time(started, call.budget(), reading).await.is_none() {
            return (Err(hung("no end")), Some(exchange));
        }
        if exchange.form() != Form::Stream || exchange.answer().is_some() || exchange.last_id.is_none() {
            return (call.judge(&exchange, false), Some(exchange));
        }
        // The stream has ended, or was cut: on with it, on any backend.
        world
            .ledger
            .count("resumed", if matches!(exchange.end, Some((End::Cut(_), _))) { "cut" } else { "closed" });
        let last = exchange.last_id.clone();
        exchange = loop {
            if first.elapsed() > call.budget() + PATIENCE {
                return (Err(hung("can't be resumed")), Some(exchange));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            started = Instant::now();
            let Some(next) =
                world.in_time(started, call.budget(), Exchange::of(client.get(last.as_deref()), id)).await
            else {
                return (Err(hung("no head of a resumed stream")), Some(exchange));
            };
            if next.form() == Form::Stream {
                break next.after(exchange);
            }
            let next = next.to_end().await;
            match next.status() {
                // Nobody is there, or it is busy.
                0 | 429 | 500.. => world.ledger.count("resumed", &format!("refused {}", next.status())),
                _ => {
                    let next = next.after(exchange);
                    return (call.judge(&next, false), Some(next));
                }
            }
        };
    }
    (Err(hung("resumed and again")), Some(exchange))
}
