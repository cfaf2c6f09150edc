//! A deterministic simulation of the life of calls: the real transitions (`MemoryStore`), the real worker
//! side (`Delivery`), and models of backends, gateway, Pushpin and clients, with crashes, pauses, lost links
//! and restarts between any two steps. A seed repeats a run exactly.
//!
//! `SIMULATION_SEED=n cargo test -p asgard-odin --test simulation` prints the trace of one seed;
//! `SIMULATION_RUNS=n` runs more, or fewer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)] // a test: a panic is a finding

mod world;

use world::{Faults, World};

/// Runs of each test, if `SIMULATION_RUNS` says nothing else.
const RUNS: u64 = 40_000;

fn explore(name: &str, faults: Faults, most: u32) {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        let mut world = World::new(seed.parse().unwrap(), faults, most);
        let outcome = world.run();
        println!("{}", world.trace.join("\n"));
        outcome.unwrap_or_else(|why| panic!("{name}: {why}"));
        return;
    }
    let runs = std::env::var("SIMULATION_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    let mut answered = 0;
    for seed in 0..runs {
        let mut world = World::new(seed, faults, most);
        if let Err(why) = world.run() {
            let tail = world.trace.len().saturating_sub(60);
            panic!("{name}, seed {seed}: {why}\n{}", world.trace[tail..].join("\n"));
        }
        answered += world.answered();
    }
    println!("{name}: {runs} runs, {answered} calls answered");
    assert!(answered > runs, "{name}: the simulation does hardly anything");
}

#[test]
fn without_faults_every_client_gets_everything() {
    explore("no faults", Faults::default(), 0);
}

#[test]
fn workers_crash_and_pause() {
    explore("workers", Faults { worker_crash: true, worker_pause: true, ..Faults::default() }, 3);
}

#[test]
fn backends_crash() {
    explore("backends", Faults { backend_crash: true, hold_lost: true, ..Faults::default() }, 3);
}

#[test]
fn the_gateway_repeats_the_hold_request() {
    explore("repeated holds", Faults { hold_repeated: true, worker_crash: true, ..Faults::default() }, 3);
}

#[test]
fn clients_disconnect() {
    explore("clients", Faults { disconnect: true, worker_crash: true, ..Faults::default() }, 3);
}

#[test]
fn links_break_and_pushpin_restarts() {
    explore("links", Faults { link: true, pushpin: true, worker_crash: true, ..Faults::default() }, 3);
}

#[test]
fn the_store_loses_its_memory() {
    explore("memory", Faults { store: true, worker_crash: true, ..Faults::default() }, 2);
}

#[test]
fn replies_are_lost() {
    explore("replies", Faults { reply: true, ..Faults::default() }, 3);
}

#[test]
fn replies_are_lost_and_workers_crash() {
    explore("replies and workers", Faults { reply: true, worker_crash: true, ..Faults::default() }, 3);
}

#[test]
fn clients_cancel_and_repeat_their_requests() {
    let faults = Faults { client: true, reply: true, worker_crash: true, ..Faults::default() };
    explore("repeated and cancelled", faults, 4);
}

#[test]
fn direct_calls_without_faults() {
    explore("direct", Faults { direct: true, ..Faults::default() }, 0);
}

#[test]
fn links_of_direct_calls_break() {
    explore("broken links", Faults { direct: true, wire: true, reply: true, ..Faults::default() }, 3);
}

#[test]
fn links_break_and_workers_crash_and_pause() {
    let faults =
        Faults { direct: true, wire: true, worker_crash: true, worker_pause: true, ..Faults::default() };
    explore("broken links and workers", faults, 3);
}

#[test]
fn clients_of_direct_calls_cancel_and_disconnect() {
    let faults = Faults {
        direct: true,
        wire: true,
        client: true,
        disconnect: true,
        reply: true,
        backend_crash: true,
        ..Faults::default()
    };
    explore("clients of direct calls", faults, 4);
}

#[test]
fn the_store_loses_direct_calls() {
    let faults = Faults {
        direct: true,
        wire: true,
        store: true,
        reply: true,
        worker_crash: true,
        ..Faults::default()
    };
    explore("memory and direct calls", faults, 4);
}

#[test]
fn everything_at_once() {
    explore("everything", Faults::all(), 4);
}
