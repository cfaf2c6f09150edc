//! The tasks extension, from HTTP to the worker and back, with the memory of one process and with a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod handler;
mod nodes;
mod once;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use odin::call::Timing;
use odin::store::{MemoryStore, RedisStore, Store, StoreLimits};
use serde_json::{Value, json};

use kit::{Events, RedisServer};
use nodes::{Nodes, THOR, Who};

const OVER: [&str; 3] = ["completed", "failed", "cancelled"];

/// The tests run over both homes of the store.
async fn sites(limits: StoreLimits) -> Vec<(Nodes, Option<RedisServer>)> {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Timing::default(), limits));
    let one = Nodes::start(memory.clone()).await;
    one.worker(memory);
    let server = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let redis: Arc<dyn Store> =
        Arc::new(RedisStore::connect(&server.url(), Timing::default(), limits).unwrap());
    let other = Nodes::start(redis.clone()).await;
    other.worker(redis);
    vec![(one, None), (other, Some(server))]
}

fn text(task: &Value) -> &str {
    task["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {task}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_its_handle_its_progress_and_its_result() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let answer = site.call(THOR, "slow", json!({ "steps": 40 }), true).await;
        let handle = answer.result();
        assert_eq!(answer.status, 200);
        assert_eq!((&handle["resultType"], &handle["status"]), (&json!("task"), &json!("working")));
        assert_eq!((&handle["ttlMs"], &handle["pollIntervalMs"]), (&json!(3_600_000), &json!(50)));
        assert_eq!(handle["createdAt"], handle["lastUpdatedAt"]);
        assert!(handle["_meta"]["io.modelcontextprotocol/serverInfo"]["name"].is_string());
        for absent in ["result", "error", "inputRequests", "requestState", "task"] {
            assert!(handle.get(absent).is_none(), "{absent}");
        }
        let id = handle["taskId"].as_str().unwrap();
        // It is there as soon as its handle is, on the other front.
        let first = site.task("tasks/get", id).await;
        assert_eq!(first.result()["status"], "working");
        assert_eq!(first.result()["resultType"], "complete");
        assert_eq!(first.result()["createdAt"], handle["createdAt"]);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let task = site.task("tasks/get", id).await;
            if task.result()["statusMessage"].as_str().is_some_and(|note| note.starts_with("step ")) {
                break;
            }
            assert!(Instant::now() < deadline && task.result()["status"] == "working", "{task:?}");
        }
        let done = site.until(id, &OVER).await;
        assert_eq!((&done["status"], text(&done)), (&json!("completed"), "did 40 in round 1"));
        assert_eq!(done["result"]["resultType"], "complete");
        assert!(done.get("error").is_none() && done.get("statusMessage").is_none());
        assert!(done["lastUpdatedAt"].as_str() > done["createdAt"].as_str());
        assert_eq!(site.counts.starts.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_declare_tasks_gets_none() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let plain = site.call(THOR, "slow", json!({ "steps": 1 }), false).await;
        assert_eq!(plain.result()["resultType"], "complete");
        assert_eq!(plain.result()["content"][0]["text"], "did 1 in round 0");
        let never = site.call(THOR, "plain", json!({}), true).await;
        assert_eq!(never.result()["content"][0]["text"], "round 0");
        let refused = site.call(THOR, "only", json!({}), false).await;
        assert_eq!((refused.status, refused.code()), (400, -32021), "{refused:?}");
        let required = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
        assert_eq!(refused.body["error"]["data"]["requiredCapabilities"], required);
        for (method, more) in [
            ("tasks/get", json!({})),
            ("tasks/cancel", json!({})),
            ("tasks/update", json!({ "inputResponses": {} })),
        ] {
            let mut params = json!({ "taskId": "x" });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let refused = site.send(THOR, method, params, false).await;
            assert_eq!((refused.status, refused.code()), (400, -32021), "{method} {refused:?}");
            assert_eq!(refused.body["error"]["data"]["requiredCapabilities"], required);
        }
        for removed in ["tasks/list", "tasks/result"] {
            let refused = site.send(THOR, removed, json!({}), true).await;
            assert_eq!((refused.status, refused.code()), (404, -32601), "{removed}");
        }
        assert_eq!(site.counts.starts.load(Ordering::SeqCst), 2, "only what was to run ran");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_failed_only_for_the_protocol() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let id = site.begin("fails", json!({})).await;
        let failed = site.until(&id, &OVER).await;
        assert_eq!((&failed["status"], &failed["statusMessage"]), (&json!("failed"), &json!("it failed")));
        let error = json!({ "code": -32603, "message": "it failed", "data": { "why": "test" } });
        assert_eq!(failed["error"], error);
        assert!(failed.get("result").is_none());
        let id = site.begin("panics", json!({})).await;
        let failed = site.until(&id, &OVER).await;
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!(-32603)));
        let required = site.begin("only", json!({})).await;
        assert_eq!(text(&site.until(&required, &OVER).await), "round 1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_asks_until_it_knows_all() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let id = site.begin("asks", json!({})).await;
        let asks = site.until(&id, &["input_required", "failed"]).await;
        let keys = |task: &Value| -> Vec<String> {
            task["inputRequests"].as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&asks), ["1:colour", "1:name"]);
        assert_eq!(asks["inputRequests"]["1:name"]["method"], "elicitation/create");
        assert!(asks.get("requestState").is_none());

        let said = |name: &str| json!({ "action": "accept", "content": { "name": name } });
        let odd = site.answer(&id, json!({ "name": said("no"), "2:name": said("no"), "x": 1 })).await;
        assert_eq!(odd.result().get("status"), None);
        assert_eq!(odd.result()["resultType"], "complete");
        assert_eq!(keys(&site.until(&id, &["input_required"]).await), ["1:colour", "1:name"]);
        site.answer(&id, json!({ "1:colour": said("red") })).await.result();
        assert_eq!(keys(&site.until(&id, &["input_required"]).await), ["1:name"]);
        site.answer(&id, json!({ "1:colour": said("blue"), "1:name": said("Luca") })).await.result();
        let again = loop {
            let task = site.until(&id, &["input_required", "failed"]).await;
            if keys(&task) != ["1:name"] {
                break task;
            }
        };
        // The tool chose the same key again, and its client sees another.
        assert_eq!(keys(&again), ["2:name"]);
        site.answer(&id, json!({ "2:name": said("Mia"), "1:name": said("late") })).await.result();
        let done = site.until(&id, &OVER).await;
        assert_eq!(text(&done), "Luca red, Mia, round 3", "{done}");
        assert_eq!(site.counts.starts.load(Ordering::SeqCst), 3);
        let late = site.answer(&id, json!({ "2:name": said("late") })).await;
        assert_eq!(late.result()["resultType"], "complete");

        for wrong in [json!(null), json!([]), json!("x")] {
            let refused = site.answer(&id, wrong).await;
            assert_eq!((refused.status, refused.code()), (400, -32602));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_may_ask_before_it_becomes_a_task_and_may_save_its_state_on_the_way() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let first = site.call(THOR, "ask-first", json!({}), true).await;
        assert_eq!(first.result()["resultType"], "input_required");
        assert!(first.result().get("taskId").is_none());
        let said = json!({ "action": "accept", "content": { "name": "Alice" } });
        let params = json!({ "name": "ask-first", "arguments": {}, "inputResponses": { "name": said } });
        let refused = site.send(THOR, "tools/call", params.clone(), false).await;
        assert_eq!((refused.status, refused.code()), (400, -32021), "{refused:?}");
        let second = site.send(THOR, "tools/call", params, true).await;
        assert_eq!(second.result()["resultType"], "task");
        assert!(second.result().get("requestState").is_none());
        let id = second.result()["taskId"].as_str().unwrap();
        assert_eq!(text(&site.until(id, &OVER).await), "Hello, Alice!");

        let id = site.begin("checkpoints", json!({})).await;
        assert_eq!(text(&site.until(&id, &OVER).await), "after round 4");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_the_work() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let id = site.begin("slow", json!({ "steps": 10_000 })).await;
        while site.counts.starts.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ack = site.task("tasks/cancel", &id).await;
        let cancelled = Instant::now();
        assert_eq!(ack.result()["resultType"], "complete");
        assert!(ack.result().get("status").is_none());
        while site.counts.drops.load(Ordering::SeqCst) == 0 {
            assert!(cancelled.elapsed() < Duration::from_secs(5), "the tool goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let task = site.until(&id, &OVER).await;
        assert_eq!(task["status"], "cancelled");
        assert!(task.get("result").is_none() && task.get("error").is_none());
        let again = site.task("tasks/cancel", &id).await;
        assert_eq!((again.status, &again.text), (ack.status, &ack.text));

        let id = site.begin("asks", json!({})).await;
        site.until(&id, &["input_required"]).await;
        site.task("tasks/cancel", &id).await.result();
        let task = site.until(&id, &OVER).await;
        assert_eq!(task["status"], "cancelled");
        assert!(task.get("inputRequests").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_task_is_no_task() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let id = site.begin("asks", json!({})).await;
        site.until(&id, &["input_required"]).await;
        let made_up = format!("00{}", "7".repeat(32));
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let ask = async |who: Who, id: &str| {
                let mut params = json!({ "taskId": id });
                if method == "tasks/update" {
                    params["inputResponses"] = json!({ "1:name": { "action": "accept", "content": {} } });
                }
                site.send(who, method, params, true).await
            };
            let unknown = ask(THOR, &made_up).await;
            assert_eq!((unknown.status, unknown.code()), (200, -32602), "{unknown:?}");
            for (who, id) in [
                (Who("loki", "org-1"), id.as_str()),
                (Who("thor", "org-2"), id.as_str()),
                (THOR, "tasks-conformance-nonexistent-12345"),
                (THOR, "ff77777777777777777777777777777777"),
                (THOR, ""),
            ] {
                let other = ask(who, id).await;
                let seen = (other.status, &other.headers, &other.text);
                assert_eq!(seen, (unknown.status, &unknown.headers, &unknown.text), "{method} {id}");
            }
        }
        let task = site.until(&id, &["input_required", "cancelled"]).await;
        assert_eq!(task["status"], "input_required", "nobody else touched it");
        assert_eq!(task["inputRequests"].as_object().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_gone_after_its_time_and_so_is_its_work() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let started = Instant::now();
        let answer = site.call(THOR, "brief", json!({ "steps": 1_000 }), true).await;
        assert_eq!(answer.result()["ttlMs"], 1500);
        let id = answer.result()["taskId"].as_str().unwrap();
        loop {
            let task = site.task("tasks/get", id).await;
            if task.body.get("error").is_some() {
                assert_eq!(task.code(), -32602);
                assert!(started.elapsed() >= Duration::from_millis(1500), "too early");
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while site.counts.drops.load(Ordering::SeqCst) == 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "the tool goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_principal_has_a_bounded_number_of_tasks() {
    let limits = StoreLimits::default().with_tasks(4).with_tasks_open(2);
    for (site, _redis) in sites(limits).await {
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(site.begin("asks", json!({})).await);
        }
        let full = site.call(THOR, "asks", json!({}), true).await;
        assert_eq!((full.status, full.code()), (200, -32603), "{full:?}");
        assert!(full.body["error"]["message"].as_str().unwrap().contains("too many tasks"));
        let other = site.call(Who("loki", "org-1"), "asks", json!({}), true).await;
        assert_eq!(other.result()["resultType"], "task");
        for id in open {
            site.task("tasks/cancel", &id).await.result();
        }
        // Two are over and are kept; two more may be.
        for _ in 0..2 {
            let id = site.begin("only", json!({})).await;
            site.until(&id, &["completed"]).await;
        }
        assert_eq!(site.call(THOR, "only", json!({}), true).await.code(), -32603);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_is_told_of_each_change() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let id = site.begin("asks", json!({})).await;
        let foreign = {
            let answer = site.call(Who("loki", "org-1"), "asks", json!({}), true).await;
            answer.result()["taskId"].as_str().unwrap().to_owned()
        };
        let filter = json!({ "notifications": { "taskIds": [foreign, id, "made up"] } });
        let refused = site.send(THOR, "subscriptions/listen", filter.clone(), false).await;
        assert_eq!((refused.status, refused.code()), (400, -32021), "{refused:?}");
        let mut stream = Events::new(site.open(THOR, "subscriptions/listen", filter, true).await);
        let first = stream.json().await;
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(first["params"]["notifications"]["taskIds"], json!([id]), "{first}");

        let mut seen: Vec<Value> = Vec::new();
        let mut notified = async |status: &str| loop {
            let message = stream.json().await;
            assert_eq!(message["method"], "notifications/tasks", "{message}");
            let mut params = message["params"].clone();
            assert_eq!(params["_meta"]["io.modelcontextprotocol/subscriptionId"], 7, "{message}");
            params.as_object_mut().unwrap().remove("_meta");
            assert_eq!(params["taskId"], id.as_str());
            seen.push(params.clone());
            if params["status"] == status {
                return params;
            }
        };
        let asked = notified("input_required").await;
        assert_eq!(asked["inputRequests"].as_object().unwrap().len(), 2);
        let said = json!({ "action": "accept", "content": { "name": "x" } });
        site.answer(&id, json!({ "1:name": said, "1:colour": said })).await.result();
        notified("working").await;
        let asked = notified("input_required").await;
        assert!(asked["inputRequests"]["2:name"].is_object(), "{asked}");
        site.answer(&id, json!({ "2:name": said })).await.result();
        let mut done = notified("completed").await;
        // Just what `tasks/get` says.
        let mut got = site.until(&id, &OVER).await;
        for member in ["resultType", "_meta"] {
            got.as_object_mut().unwrap().remove(member);
        }
        assert_eq!(done.as_object_mut().unwrap().remove("resultType"), None);
        assert_eq!(done, got);
        assert!(seen.iter().all(|task| task["status"] != "failed"), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_its_worker() {
    let server = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let limits = StoreLimits::default();
    let redis = RedisStore::connect(&server.url(), Timing::default(), limits).unwrap();
    let redis: Arc<dyn Store> = Arc::new(redis);
    let site = Nodes::start(redis.clone()).await;
    let url = server.url();
    let start = |site: &Nodes| std::thread::scope(|scope| scope.spawn(|| site.mortal(&url)).join().unwrap());
    let first = start(&site);
    let (safe, unsafe_) =
        (site.begin("slow", json!({ "steps": 60 })).await, site.begin("once", json!({ "steps": 60 })).await);
    let waiting = site.begin("asks", json!({})).await;
    site.until(&waiting, &["input_required"]).await;
    while site.counts.starts.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(first);
    let died = Instant::now();
    let _second = start(&site);
    let lost = site.until(&unsafe_, &OVER).await;
    assert_eq!(lost["status"], "failed");
    assert!(lost["error"]["message"].as_str().unwrap().contains("outcome is unknown"), "{lost}");
    println!("known to be lost after {} ms", died.elapsed().as_millis());
    let done = site.until(&safe, &OVER).await;
    assert_eq!(text(&done), "did 60 in round 1");
    // The one that waited for its client never noticed.
    let said = json!({ "action": "accept", "content": { "name": "x" } });
    site.answer(&waiting, json!({ "1:name": said, "1:colour": said })).await.result();
    let again = loop {
        let task = site.until(&waiting, &["input_required", "failed"]).await;
        if task["inputRequests"].get("2:name").is_some() {
            break task;
        }
    };
    assert_eq!(again["status"], "input_required");
    assert_eq!(site.counts.starts.load(Ordering::SeqCst), 5, "slow twice, once once, asks twice");
}
