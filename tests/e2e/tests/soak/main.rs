//! Clients of all eras at both entry points, while each part is killed and stopped, again and again. Every answer belongs
//! to its call; nothing comes twice; every client has an answer, a clear error or a cut connection in time; no tool
//! that must not runs twice, or after its client got an error that says to try again; and at the end nothing is left.
//!
//! `E2E_SOAK_S`: seconds of it (90). `E2E_SOAK_VICTIMS`: who is hit, `none` or some of
//! gateway,pushpin,pushpinprocess,redis,backend,backends,worker,workers,keycloak (all). `E2E_SEED` chooses the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod calls;
mod clients;
mod faults;
mod ledger;
mod leftovers;
mod notices;
mod sse;
mod tasks;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::random::{self, RngExt};
use e2e::{Breaks, Stack};
use faults::{Deck, Victim};
use ledger::Evil;
use rand::rngs::StdRng;
use world::World;

/// Without faults, at the start: everything must be whole.
const CALM: Duration = Duration::from_secs(8);
/// Without faults, at the end.
const REST: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a running stack: ./asgard test soak"]
async fn nothing_is_wrong_doubled_hung_or_foreign_whatever_dies() {
    let stack = Stack::claim().await;
    let seed = random::seed(6);
    let length = Duration::from_secs(random::times("E2E_SOAK_S", 90));
    let journal = stack.journal();
    let breaks = Breaks::from_now(&stack);
    let world = Arc::new(World::new(stack, length).await);
    let of = world.clone();
    let tokens = tokio::spawn(async move { of.keep_tokens().await });
    let mut all = clients(&world, seed);
    let mut generator = random::generator(seed);
    let victims = victims();
    let end = world.until - REST;
    tokio::time::sleep(CALM).await;
    let of_calls: Vec<Victim> =
        Victim::OF_CALLS.into_iter().filter(|victim| victims.contains(victim)).collect();
    // Keycloak takes long to be back, and no call waits for it: it is hit at the same time as others.
    let keycloak = if victims.contains(&Victim::Keycloak) { Deck::keycloak() } else { Deck::new(Vec::new()) };
    let mut strike = |deck, pause| {
        let random = random::generator(generator.random());
        faults::strike(&world, deck, random, end, pause)
    };
    let of_calls = strike(Deck::new(of_calls), Duration::from_millis(1_200));
    let keycloak = strike(keycloak, length / 4);
    let (of_calls, keycloak) = tokio::join!(of_calls, keycloak);
    let count = of_calls + keycloak;
    tokio::time::sleep(world.until.saturating_duration_since(Instant::now())).await;
    // Every client ends by itself: nothing it waits for takes longer.
    let late = Instant::now() + Duration::from_secs(90);
    while let Some((name, task)) = all.pop() {
        let ended = tokio::time::timeout_at(late.into(), task).await;
        ended
            .unwrap_or_else(|_| panic!("{name} has not ended"))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    tokens.abort();
    let _ = tokens.await;
    world.ledger.print();
    println!("{count} faults in {} s, seed {seed}", length.as_secs());
    world.stack.back(&[]).await;
    judge(&world, &journal, &breaks);
    leftovers::none(&world.stack, &journal).await;
    let evils = world.ledger.evils();
    let mut kinds = BTreeMap::<Evil, u32>::new();
    evils.iter().for_each(|(evil, _)| *kinds.entry(*evil).or_default() += 1);
    println!(
        "Stateless and stateful, both entry points, {count} faults in {} s: {kinds:?}",
        length.as_secs()
    );
    assert!(evils.is_empty(), "{} evils, seed {seed}:\n{evils:#?}", evils.len());
}

/// What can only be seen when all is over.
fn judge(world: &World, journal: &e2e::Journal, breaks: &Breaks) {
    let mut starts = BTreeMap::<String, Vec<u64>>::new();
    for line in journal.lines().into_iter().filter(|line| line.event == "start") {
        starts.entry(line.label.unwrap_or_default()).or_default().push(line.at_ms);
    }
    let once = world.ledger.all_once();
    for text in &once {
        if starts.get(text).is_some_and(|starts| starts.len() > 1) {
            world
                .ledger
                .evil(Evil::Doubled, format!("{text} ran {} times: {:?}", starts[text].len(), starts[text]));
        }
    }
    for (text, error) in world.ledger.refused() {
        if starts.contains_key(&text) {
            world.ledger.evil(Evil::Wrong, format!("{text} ran, and its client got the error: {error}"));
        }
    }
    let ran = once.iter().filter(|text| starts.contains_key(*text)).count();
    println!("{} calls that must run at most once, of which {ran} ran", once.len());
    let (missed, looked) = world.notices.missed(world);
    println!("{looked} notices that had to be heard");
    missed
        .into_iter()
        .for_each(|what| world.ledger.evil(Evil::Wrong, format!("a notice was missed: {what}")));
    // Pushpin before 1.41 cuts streams by itself, and says so (docs/calls.md).
    let (cuts, logged) = (world.ledger.cuts(), breaks.logged());
    println!("{} streams were cut without a fault; Pushpin has logged {logged}", cuts.len());
    for cut in cuts.into_iter().skip(logged) {
        world.ledger.evil(Evil::Unexplained, format!("cut: {cut}"));
    }
}

type Task = tokio::task::JoinHandle<()>;

/// Starts all clients; each has its own randomness.
fn clients(world: &Arc<World>, seed: u64) -> Vec<(String, Task)> {
    let mut all = Vec::new();
    let mut add = |name: &str, count: usize, start: &dyn Fn(Arc<World>, usize, StdRng) -> Task| {
        for number in 0..count {
            let random = random::generator(seed.wrapping_mul(1_000).wrapping_add(all.len() as u64));
            all.push((format!("{name} {number}"), start(world.clone(), number, random)));
        }
    };
    add("modern", 8, &|world, number, random| {
        tokio::spawn(async move { clients::modern(&world, number, random).await })
    });
    add("session", 8, &|world, number, random| {
        tokio::spawn(async move { clients::session(&world, number, random).await })
    });
    add("keyed", 4, &|world, number, random| {
        tokio::spawn(async move { clients::keyed(&world, number, random).await })
    });
    add("http+sse", 4, &|world, number, random| {
        tokio::spawn(async move { sse::client(&world, number, random).await })
    });
    add("tasks", 4, &|world, number, random| {
        tokio::spawn(async move { tasks::client(&world, number, random).await })
    });
    add("listener", 4, &|world, number, random| {
        tokio::spawn(async move { notices::listener(&world, number, random).await })
    });
    add("subscriber", 4, &|world, number, random| {
        tokio::spawn(async move { notices::subscriber(&world, number, random).await })
    });
    add("operator", 1, &|world, _, random| tokio::spawn(async move { notices::tell(&world, random).await }));
    all
}

/// Who is to be hit.
fn victims() -> Vec<Victim> {
    let all = Victim::OF_CALLS.into_iter().chain([Victim::Keycloak]);
    let Ok(named) = std::env::var("E2E_SOAK_VICTIMS") else { return all.collect() };
    let named: Vec<&str> = named.split(',').collect();
    all.filter(|victim| named.contains(&format!("{victim:?}").to_lowercase().as_str())).collect()
}
