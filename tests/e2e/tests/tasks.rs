//! Long work under a handle (the tasks extension): whatever dies meanwhile, the client asks and gets its result.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use asgard::supervisor::part::Kind;
use e2e::stack::wait;
use e2e::{Client, EntryPoint, Form, Stack};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Calls a tool that runs as a task; the task's id.
async fn begin(client: &Client, tool: &str, arguments: Value) -> String {
    let exchange = client.tool(tool, arguments).await;
    let result = exchange.result().unwrap_or_else(|| panic!("no handle: {}", exchange.outline()));
    assert_eq!((&result["resultType"], &result["status"]), (&json!("task"), &json!("working")), "{result}");
    result["taskId"].as_str().unwrap().to_owned()
}

/// Asks for a task, until it is over. While parts are down nobody may answer; an answer must be right.
async fn until_over(client: &Client, id: &str) -> Value {
    wait("the task is over", LIMIT, async || {
        let exchange = client.request("tasks/get", json!({"taskId": id})).await;
        assert!(exchange.error().is_none_or(|error| error["code"] != -32602), "{}", exchange.outline());
        let task = exchange.result()?.clone();
        assert_eq!(task["taskId"], id);
        (task["status"] != "working").then_some(task)
    })
    .await
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test tasks"]
async fn a_task_runs_on_both_entry_points_and_any_backend_knows_it() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await.with_tasks();
        let started = Instant::now();
        let id = begin(&client, "long_report", json!({"steps": 20, "step_ms": 100})).await;
        let handle = started.elapsed();
        let served = stack.served().await;
        for _ in 0..8 {
            let exchange = client.request("tasks/get", json!({"taskId": id})).await;
            assert_eq!(exchange.form(), Form::Json);
            assert_eq!(exchange.result().unwrap()["taskId"], id.as_str());
        }
        let now = stack.served().await;
        assert!(served.iter().all(|(backend, count)| now[backend] > *count), "{served:?} {now:?}");
        let task = until_over(&client, &id).await;
        assert_eq!(task["status"], "completed", "{task}");
        assert_eq!(task["result"]["structuredContent"]["steps"], 20);
        println!("{entry_point:?}: handle after {} ms", handle.as_millis());

        let plain = Client::modern(&stack, entry_point, "thor", "org-1").await;
        let exchange = plain.tool("long_report", json!({"steps": 2})).await;
        assert_eq!(exchange.result().unwrap()["structuredContent"]["steps"], 2);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test tasks"]
async fn a_task_outlives_its_worker_every_backend_and_the_gateway() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await.with_tasks();
        let journal = stack.journal();
        let id = begin(&client, "long_report", json!({"steps": 40, "step_ms": 100})).await;
        let started = |run: &e2e::journal::Run| run.tool == "long_report" && run.steps.len() > 2;
        let (_, run) = journal.wait_for("the tool works", LIMIT, started).await;
        let mut gone: Vec<u32> = stack.pids(&[Kind::Backend, Kind::Gateway]).await.into_values().collect();
        gone.push(run.starts[0]);
        let killed = Stack::kill(gone.iter().copied());
        let over = async {
            let task = until_over(&client, &id).await;
            println!("{entry_point:?}: result {} ms after the killing", killed.elapsed().as_millis());
            task
        };
        // The supervisor waits longer for what died often; this makes it hurry.
        let (task, ()) = tokio::join!(over, stack.back(&gone));
        assert_eq!(task["status"], "completed", "{task}");
        assert_eq!(task["result"]["structuredContent"]["steps"], 40);
        let runs = journal.runs();
        let run = runs.values().find(|run| run.tool == "long_report").unwrap();
        assert_eq!((run.starts.len(), run.ends), (2, 1), "{run:?}");
        // It is kept for whoever asks again.
        let again = until_over(&client, &id).await;
        assert_eq!(again, task);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test tasks"]
async fn a_task_that_must_not_run_twice_fails_when_its_worker_dies() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await.with_tasks();
        let journal = stack.journal();
        let id = begin(&client, "slow_count", json!({"total_ms": 4_000, "events": 20})).await;
        let started = |run: &e2e::journal::Run| run.tool == "slow_count" && run.steps.len() > 2;
        let (_, run) = journal.wait_for("the tool works", LIMIT, started).await;
        let killed = Stack::kill([run.starts[0]]);
        let task = until_over(&client, &id).await;
        assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &json!(-32603)), "{task}");
        assert!(task["error"]["message"].as_str().unwrap().contains("outcome is unknown"), "{task}");
        println!("{entry_point:?}: answered {} ms after the killing", killed.elapsed().as_millis());
        stack.back(&[run.starts[0]]).await;
        assert_eq!(journal.runs().values().map(|run| run.starts.len()).sum::<usize>(), 1);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test tasks"]
async fn a_task_outlives_redis() {
    let stack = Stack::claim().await;
    let client = Client::modern(&stack, EntryPoint::Bifrost, "thor", "org-1").await.with_tasks();
    let id = begin(&client, "long_report", json!({"steps": 40, "step_ms": 100})).await;
    let done = begin(&client, "long_report", json!({"steps": 1})).await;
    let before = until_over(&client, &done).await;
    // What was written is in the log once a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let redis: Vec<u32> = stack.pids(&[Kind::Redis]).await.into_values().collect();
    Stack::kill(redis.iter().copied());
    stack.back(&redis).await;
    assert_eq!(until_over(&client, &done).await, before);
    assert_eq!(until_over(&client, &id).await["status"], "completed");
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test tasks"]
async fn cancelling_a_task_stops_its_work() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await.with_tasks();
        let journal = stack.journal();
        let id = begin(&client, "long_report", json!({"steps": 6_000, "step_ms": 10})).await;
        let started = |run: &e2e::journal::Run| run.tool == "long_report" && !run.steps.is_empty();
        journal.wait_for("the tool works", LIMIT, started).await;
        let asked = Instant::now();
        let exchange = client.request("tasks/cancel", json!({"taskId": id})).await;
        assert_eq!(exchange.result().unwrap()["resultType"], "complete");
        journal.wait_for("the tool stops", Duration::from_secs(5), |run| run.drops > 0).await;
        println!("{entry_point:?}: stopped after {} ms", asked.elapsed().as_millis());
        assert_eq!(until_over(&client, &id).await["status"], "cancelled");
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test tasks"]
async fn a_task_of_somebody_else_is_unknown() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let client = Client::modern(&stack, entry_point, "freya", "org-1").await.with_tasks();
        let id = begin(&client, "long_report", json!({"steps": 1})).await;
        until_over(&client, &id).await;
        let others = [
            Client::modern(&stack, entry_point, "thor", "org-1").await.with_tasks(),
            Client::modern(&stack, entry_point, "freya", "org-2").await.with_tasks(),
        ];
        let made_up = format!("00{}", "7".repeat(32));
        for (method, more) in [
            ("tasks/get", json!({})),
            ("tasks/cancel", json!({})),
            ("tasks/update", json!({"inputResponses": {}})),
        ] {
            let seen = async |client: &Client, id: &str| {
                let mut params = more.clone();
                params["taskId"] = json!(id);
                let response = client.build(5, method, params).send().await.unwrap();
                let headers = e2e::comparable_headers(response.headers());
                (response.status().as_u16(), headers, response.text().await.unwrap())
            };
            let unknown = seen(&client, &made_up).await;
            assert!(unknown.0 == 200 && unknown.2.contains("-32602"), "{unknown:?}");
            for other in &others {
                assert_eq!(seen(other, &id).await, unknown, "{method}");
            }
        }
        assert_eq!(until_over(&client, &id).await["status"], "completed");
    }
}
