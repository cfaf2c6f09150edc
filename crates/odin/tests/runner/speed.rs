//! What a job costs. By hand: `cargo test --release -p asgard-odin --test runner -- --ignored --nocapture speed`

use std::{sync::Arc, time::Instant};

use odin::worker::Runner;
use serde_json::json;
use tokio::sync::mpsc;

use super::support::{Recorder, modern, modern_meta, runner, session, tool};

#[tokio::test]
#[ignore = "a measurement"]
async fn speed() {
    let (runner, _) = runner();
    let info = json!({ "io.modelcontextprotocol/logLevel": "info" });
    let jobs = [
        ("modern tools/call", modern(json!(1), "tools/call", tool("reads", json!({})))),
        ("session tools/call", session(json!(1), "tools/call", tool("reads", json!({})))),
        (
            "modern tools/call, 4 events",
            modern_meta(json!(1), "tools/call", tool("floods", json!({ "count": 4 })), info),
        ),
        ("modern tools/list", modern(json!(1), "tools/list", json!({}))),
    ];
    const ROUNDS: u32 = 20_000;
    for (name, job) in jobs {
        let started = Instant::now();
        for _ in 0..ROUNDS {
            let (_inbox, received) = mpsc::channel(16);
            let outbox = Arc::new(Recorder::default());
            assert!(runner.run(job.clone(), outbox, received, Default::default()).await.is_some());
        }
        println!("{name}: {:.1} µs", (started.elapsed() / ROUNDS).as_secs_f64() * 1e6);
    }
}
