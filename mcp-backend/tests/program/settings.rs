//! Settings that are taken do something; those that would do nothing are refused.

use serde_json::json;

use super::process::{Backend, PATIENCE, command, wait};
use super::secrets::refused;

/// How many calls ran at the same time, at most, by the journal.
fn at_once(journal: &[serde_json::Value]) -> i32 {
    let (mut now, mut most) = (0, 0);
    for line in journal {
        match line["event"].as_str().unwrap() {
            "start" => now += 1,
            "end" | "dropped" => now -= 1,
            _ => {}
        }
        most = most.max(now);
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_the_settings_of_its_worker() {
    let settings = ["--concurrency", "2", "--task-concurrency", "3", "--worker", "loki"];
    // All slots for one user: what is counted is the worker's own number.
    let shares = [("ASGARD_ORGANISATION_SHARE", "100"), ("ASGARD_PRINCIPAL_SHARE", "100")];
    let backend = Backend::start(&settings, &shares).await;
    let wait_ms = json!({"total_ms": 300, "events": 1});
    let calls = (0..6).map(|_| async {
        let answer = backend.call("a", "slow_echo", wait_ms.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    });
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.contains(r#""result""#)), "{answers:?}");
    assert_eq!(at_once(&backend.journal()), 2);
    let log = backend.log();
    let line = log.lines().find(|line| line.contains("taking calls")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("loki-") && line.contains("task_concurrency=3"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_do_nothing_is_refused() {
    let redis = ["--redis-url", "redis://127.0.0.1:1"];
    for (args, why) in [
        (&["--concurrency", "4"][..], "--concurrency is for a worker"),
        (&["--worker", "x"], "--worker is for a worker"),
        (&["--embedded-worker", redis[0], redis[1]], "cannot be used with"),
        (&["--embedded-worker", "--concurrency", "0"], "is not in 1..="),
        (&["--embedded-worker", "--body-memory-mib", "1"], "is not in 16..="),
    ] {
        let output = tokio::time::timeout(PATIENCE, command().args(args).output()).await;
        let output = output.unwrap_or_else(|_| panic!("{args:?} is taken")).unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(why), "{args:?}: {error}");
    }
    let mut of_a_site = command();
    of_a_site.arg("--embedded-worker").env("ASGARD_REDIS_URL", redis[1]);
    assert!(refused(&mut of_a_site).await.contains("cannot be used with ASGARD_REDIS_URL"));
    // The environment may be shared by all programs of a site.
    let backend = Backend::start(&[], &[("ASGARD_CONCURRENCY", "5")]).await;
    wait("the worker has it", async || backend.log().contains("concurrency=5")).await;
}
