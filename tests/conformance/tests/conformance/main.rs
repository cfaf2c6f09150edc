//! The MCP conformance suite against the fixture: at both entry points of a whole stack (gateway, Pushpin, two backends,
//! two workers, real tokens), and in one process with nothing else.
//!
//! `ASGARD_NODE` and `ASGARD_CONFORMANCE` name Node.js and the suite's script; `./asgard test conformance` sets
//! them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod proxy;
mod suite;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use asgard::stack::{Options, Stack};
use asgard::supervisor::part::Kind;
use proxy::Proxy;
use suite::{REVISIONS, Report};
use tokio::process::Command;

const SERVER: &str = env!("CARGO_BIN_EXE_conformance-server");

/// Runs the suite for every revision and prints what came of it.
async fn all(place: &str, url: &str) {
    let mut failed = Vec::new();
    // The test runner has begun a line.
    println!();
    for revision in REVISIONS {
        let report = Report::of(url, revision).await;
        println!("{place} {report}");
        failed.extend(report.faults().into_iter().map(|fault| format!("{place} {fault}")));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[tokio::test]
#[ignore = "needs the conformance suite and the programs of a stack: ./asgard test conformance"]
async fn in_one_process() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _server = Command::new(SERVER)
        .env("ASGARD_LISTEN", format!("127.0.0.1:{port}"))
        .env("ASGARD_LOG", "warn")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ready = format!("http://127.0.0.1:{port}/readyz");
    e2e::stack::wait("the server is ready", Duration::from_secs(20), async || {
        let answer = e2e::client::http().get(&ready).send().await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    all("Memory", &format!("http://127.0.0.1:{port}/api/v1/mcp/org-1")).await;
}

#[tokio::test]
#[ignore = "needs the conformance suite and the programs of a stack: ./asgard test conformance"]
async fn on_both_entry_points_of_a_stack() {
    let options = Options {
        backends: 2,
        workers: 2,
        programs: [(Kind::Worker, PathBuf::from(SERVER))].into(),
        ..Options::default()
    };
    let stack = Stack::up(options).await.unwrap();
    let mut failed = Vec::new();
    for (entry_point, endpoint) in [("Bifrost", stack.bifrost("org-1")), ("Hermod", stack.hermod("org-1"))] {
        let before = requests(&stack).await;
        let token = stack.token("thor", Some("org-1")).await.unwrap();
        // In the place of the Inspector, which does not run here: its origin may call.
        let proxy = Proxy::start(stack.state().ports.inspector, &endpoint, &token).await;
        // One entry point's fault must not hide the other's.
        let entry_point_failed = {
            let url = proxy.url.clone();
            let run = tokio::spawn(async move { all(entry_point, &url).await });
            run.await.err()
        };
        failed.extend(entry_point_failed.map(|_| entry_point));
        let after = requests(&stack).await;
        let shares: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        println!("{entry_point} requests by backend: {shares:?}");
        let all: u64 = shares.iter().sum();
        assert!(
            shares.len() == 2 && shares.iter().all(|share| share * 4 >= all),
            "they took turns: {shares:?}"
        );
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
    stack.down().await.unwrap();
}

/// Requests that each backend has answered.
async fn requests(stack: &Stack) -> Vec<u64> {
    let mut counts = Vec::new();
    for name in stack.names(Kind::Backend).await.unwrap() {
        let address = stack.part(&name).await.unwrap().address;
        let answer = e2e::client::http().get(format!("http://{address}/statz")).send().await.unwrap();
        let statz: serde_json::Value = answer.json().await.unwrap();
        let answered = ["json", "held", "streamed", "errors"].iter().filter_map(|name| statz[name].as_u64());
        counts.push(answered.sum());
    }
    counts
}
