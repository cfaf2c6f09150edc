//! A node that does not fit its site does not start.

use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::process::{Child, Command};

use super::process::{PATIENCE, command, wait, worker};
use super::secrets::refused;
use kit::RedisServer;

fn key(byte: u8) -> String {
    BASE64_URL_SAFE_NO_PAD.encode([byte; 32])
}

/// A program with all that a node of the site needs.
fn node(mut program: Command, redis: &RedisServer) -> Command {
    program
        .env("ASGARD_LISTEN", "127.0.0.1:0")
        .env("ASGARD_REDIS_URL", redis.url())
        .env("ASGARD_ASSERTION_KEYS", format!("k1:{}", key(1)))
        .env("ASGARD_SESSION_KEY", key(2))
        .env("ASGARD_GRIP_KEY", key(3))
        .env("ASGARD_BROADCAST_KEY", key(4))
        .env("ASGARD_STATE_KEY", key(5));
    program
}

/// A node that started.
struct Running {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Running {
    fn launch(program: &mut Command) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = program.stdout(Stdio::null()).stderr(log.reopen().unwrap()).spawn().unwrap();
        Self { child, log }
    }

    async fn start(program: &mut Command) -> Self {
        let running = Self::launch(program);
        wait("it listens", async || running.log().contains("listening")).await;
        running
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_that_nodes_share_none_starts() {
    let redis = RedisServer::start();
    for (name, program) in [
        ("ASGARD_ASSERTION_KEYS", command()),
        ("ASGARD_SESSION_KEY", command()),
        ("ASGARD_BROADCAST_KEY", command()),
        ("ASGARD_BROADCAST_KEY", worker()),
        ("ASGARD_STATE_KEY", worker()),
    ] {
        let error = refused(node(program, &redis).env_remove(name)).await;
        assert!(error.contains(&format!("{name} is missing")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_differs_does_not_start() {
    let redis = RedisServer::start();
    let _backend = Running::start(&mut node(command(), &redis)).await;
    let _worker = Running::start(&mut node(worker(), &redis)).await;
    let other = key(9);
    for (name, value) in [
        ("ASGARD_SERVER", "another"),
        ("ASGARD_BROADCAST_KEY", &*other),
        ("ASGARD_SESSION_KEY", &other),
        ("ASGARD_GRIP_KEY", &other),
        ("ASGARD_GRIP_ISS", "another"),
        ("ASGARD_ASSERTION_KEYS", &format!("k1:{other}")),
    ] {
        let error = refused(node(command(), &redis).env(name, value)).await;
        assert!(error.contains(&format!("{name} differs: this node has ")), "{error}");
        assert!(!error.contains(&other), "no key is shown: {error}");
    }
    for (name, value) in
        [("ASGARD_SERVER", "another"), ("ASGARD_BROADCAST_KEY", &*other), ("ASGARD_STATE_KEY", &other)]
    {
        let error = refused(node(worker(), &redis).env(name, value)).await;
        assert!(error.contains(&format!("{name} differs")) && !error.contains(&other), "{error}");
    }
    // A key is changed one node after the other: the new one beside the old, then alone.
    let both = format!("{},{}", key(8), key(2));
    let _second = Running::start(node(command(), &redis).env("ASGARD_SESSION_KEY", both)).await;
    let _third = Running::start(node(command(), &redis).env("ASGARD_SESSION_KEY", key(8))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_redis_looks_when_it_is_back() {
    let redis = RedisServer::start();
    let _backend = Running::start(&mut node(command(), &redis)).await;
    redis.freeze();
    let mut late = Running::launch(node(command(), &redis).env("ASGARD_SERVER", "another"));
    let mut fits = Running::launch(&mut node(worker(), &redis));
    for node in [&late, &fits] {
        wait("it runs without Redis", async || node.log().contains("Redis is away")).await;
    }
    assert!(late.child.try_wait().unwrap().is_none());
    redis.thaw();
    let status = tokio::time::timeout(PATIENCE, late.child.wait()).await.expect("it ends").unwrap();
    assert!(!status.success() && late.log().contains("ASGARD_SERVER differs"), "{}", late.log());
    assert!(fits.child.try_wait().unwrap().is_none(), "{}", fits.log());
}
