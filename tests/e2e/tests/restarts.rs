//! Pushpin and Redis die and come back: calls work again within seconds, and nothing of ours is restarted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use asgard::supervisor::control::Request;
use asgard::supervisor::part::{Kind, PartStatus};
use e2e::{Client, EntryPoint, Era, Form, Stack};
use serde_json::json;

/// How soon after the part is back calls must work.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test restarts"]
async fn pushpin_is_killed_and_comes_back() {
    let stack = Stack::claim().await;
    for _ in 0..3 {
        let ours = stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await;
        let pushpin = stack.pids(&[Kind::Pushpin]).await["pushpin"];
        Stack::kill([pushpin]);
        // Quick calls at the bifrost entry point never need it.
        let quick = Client::modern(&stack, EntryPoint::Bifrost, "thor", "org-1").await;
        assert!(quick.tool("echo", json!({"text": "x"})).await.result().is_some());
        works_again(&stack, &[pushpin], "Pushpin killed").await;
        assert_eq!(stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await, ours);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test restarts"]
async fn a_lost_pushpin_takes_no_node_out_of_service() {
    let stack = Stack::claim().await;
    let ours = stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await;
    Stack::kill([stack.pids(&[Kind::Pushpin]).await["pushpin"]]);
    // It is to stay away for a while.
    stack.order(&Request::Stop("pushpin".into())).await;
    let nodes = async || {
        let mut parts = stack.parts().await;
        parts.retain(|part| matches!(part.kind, Kind::Backend | Kind::Worker));
        parts
    };
    let named = format!("pushpin ipc://{}/sub: the link to it is down", stack.paths.pushpin().display());
    e2e::stack::wait("every node says that it is degraded", SOON, async || {
        let nodes = nodes().await;
        let degraded = |part: &PartStatus| part.degraded.iter().any(|what| what.starts_with(&named));
        nodes.iter().all(degraded).then_some(())
    })
    .await;
    let quick = Client::modern(&stack, EntryPoint::Bifrost, "thor", "org-1").await;
    // Longer than gateway and supervisor take to notice what is not ready.
    let until = Instant::now() + Duration::from_secs(5);
    let mut answered = 0;
    while Instant::now() < until {
        let exchange = quick.tool("echo", json!({"text": "x"})).await;
        assert!(exchange.result().is_some() && exchange.form() == Form::Json, "{}", exchange.outline());
        answered += 1;
        let nodes = nodes().await;
        assert!(nodes.iter().all(|part| part.ready), "{nodes:?}");
    }
    // Slow calls go through the backend, with all their events.
    for era in [Era::Stateless, Era::Stateful] {
        let client = Client::of(era, &stack, EntryPoint::Bifrost, "thor", "org-1").await;
        let slow = client.tool_with_progress("slow_echo", json!({"total_ms": 600, "events": 5})).await;
        assert_eq!(slow.form(), Form::Stream, "{}", slow.outline());
        slow.check_whole(5).unwrap();
    }
    // What needs Pushpin says so.
    let get =
        e2e::client::http().get(format!("{}/sse", quick.endpoint)).header("accept", "text/event-stream");
    let refused = get.bearer_auth(&quick.token).send().await.unwrap();
    assert!(refused.status() == 503 && refused.headers().contains_key("retry-after"), "{refused:?}");
    let refused = refused.text().await.unwrap();
    assert!(refused.contains("The link to Pushpin"), "{refused}");
    println!("without Pushpin: {answered} quick calls answered; HTTP+SSE: {refused}");

    stack.order(&Request::Start("pushpin".into())).await;
    e2e::stack::wait("nothing is degraded any more", SOON * 2, async || {
        nodes().await.iter().all(|part| part.ready && part.degraded.is_empty()).then_some(())
    })
    .await;
    works_again(&stack, &[], "Pushpin stopped and started").await;
    assert_eq!(stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await, ours);
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test restarts"]
async fn streams_that_die_with_pushpin_end_their_calls_by_the_rules_of_their_era() {
    let stack = Stack::claim().await;
    for entry_point in EntryPoint::BOTH {
        let (modern, session) = (
            Client::modern(&stack, entry_point, "thor", "org-1").await,
            Client::session(&stack, entry_point, "thor", "org-1").await,
        );
        let journal = stack.journal();
        let mut echo = modern.open_tool("slow_echo", json!({"total_ms": 60_000, "events": 600}), true).await;
        let mut count = session.open_tool("slow_count", json!({"total_ms": 5_000, "events": 50}), true).await;
        echo.read_messages(2).await;
        count.read_messages(2).await;
        let pushpin = stack.pids(&[Kind::Pushpin]).await["pushpin"];
        let killed = Stack::kill([pushpin]);
        for exchange in [echo.to_end().await, count.to_end().await] {
            assert!(exchange.answer().is_none() && exchange.took() < Duration::from_secs(20));
        }
        let cut = killed.elapsed();
        // While no link stands nobody can know whether the client is still there.
        stack.back(&[pushpin]).await;
        // The modern client is gone for good, so its tool stops once the time for a new subscription is over; the
        // session's client may come back.
        let (_, run) = journal.wait_for("slow_echo is dropped", SOON * 2, |run| run.drops > 0).await;
        assert_eq!((run.tool.as_str(), run.starts.len()), ("slow_echo", 1));
        let dropped = killed.elapsed();
        let (_, run) = journal.wait_for("slow_count ends", SOON * 2, |run| run.ends > 0).await;
        assert_eq!((run.tool.as_str(), run.starts.len(), run.steps.len()), ("slow_count", 1, 50));
        println!(
            "{entry_point:?}: clients cut after {} ms, the modern tool stopped after {} ms, the session's went on",
            cut.as_millis(),
            dropped.as_millis()
        );
        stack.serving().await;
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test restarts"]
async fn redis_is_killed_and_comes_back() {
    let stack = Stack::claim().await;
    for _ in 0..3 {
        let ours = stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await;
        let redis = stack.pids(&[Kind::Redis]).await["redis"];
        Stack::kill([redis]);
        works_again(&stack, &[redis], "Redis killed").await;
        assert_eq!(stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await, ours);
    }
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test restarts"]
async fn without_redis_quick_calls_go_on_and_the_others_are_refused_at_once_and_clearly() {
    let stack = Stack::claim().await;
    let ours = stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await;
    let mut sessions = Vec::new();
    for entry_point in EntryPoint::BOTH {
        sessions.push(Client::session(&stack, entry_point, "thor", "org-1").await);
    }
    stack.order(&Request::Stop("redis".into())).await;
    for (entry_point, session) in EntryPoint::BOTH.into_iter().zip(&sessions) {
        let client = Client::modern(&stack, entry_point, "thor", "org-1").await;
        for number in 0..20 {
            let exchange = client.tool("echo", json!({"text": number.to_string()})).await;
            assert_eq!(exchange.result().unwrap()["content"][0]["text"], number.to_string());
        }
        let in_session = session.tool("echo", json!({"text": "x"})).await;
        let why = in_session.error().unwrap_or_else(|| panic!("{}", in_session.outline()));
        assert_eq!(why["data"]["httpStatus"], 503, "{}", in_session.outline());
        assert!(in_session.took() < Duration::from_secs(6), "{}", in_session.outline());
        println!("{entry_point:?} without Redis: {}", in_session.outline());
        // It can't be written down, and says nothing before its end: so its link brings the answer.
        let slow = client.tool("slow_echo", json!({"total_ms": 500})).await;
        slow.check_whole(0).unwrap();
    }
    stack.order(&Request::Start("redis".into())).await;
    works_again(&stack, &[], "Redis stopped and started").await;
    assert_eq!(stack.pids(&[Kind::Backend, Kind::Worker, Kind::Gateway]).await, ours);
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test restarts"]
async fn a_running_call_outlives_a_restart_of_redis() {
    let stack = Stack::claim().await;
    // Longer than a lease: the worker's own has run out when Redis is back, and nobody may take it for dead.
    let outages = [Duration::ZERO, Duration::from_millis(2_500)];
    for (entry_point, era, outage) in [
        (EntryPoint::Bifrost, Era::Stateless, outages[0]),
        (EntryPoint::Bifrost, Era::Stateful, outages[1]),
        (EntryPoint::Hermod, Era::Stateless, outages[1]),
        (EntryPoint::Hermod, Era::Stateful, outages[0]),
    ] {
        let client = Client::of(era, &stack, entry_point, "thor", "org-1").await;
        let journal = stack.journal();
        let arguments = json!({"total_ms": 4_500, "events": 30});
        let mut exchange = client.open_tool("slow_count", arguments, true).await;
        exchange.read_messages(3).await;
        let rest = tokio::spawn(exchange.to_end());
        if outage.is_zero() {
            let redis = stack.pids(&[Kind::Redis]).await["redis"];
            Stack::kill([redis]);
            stack.kinds_back(Some(&[Kind::Redis]), &[redis]).await;
        } else {
            stack.order(&Request::Stop("redis".into())).await;
            tokio::time::sleep(outage).await;
            stack.order(&Request::Start("redis".into())).await;
        }
        let exchange = rest.await.unwrap();
        exchange
            .check_whole(30)
            .unwrap_or_else(|fault| panic!("{entry_point:?} {era:?} {outage:?}: {fault}"));
        let runs = journal.runs();
        assert!(runs.len() == 1 && runs.values().all(|run| run.starts.len() == 1), "{runs:?}");
        println!(
            "{entry_point:?} {era:?}, Redis gone for {outage:?}: whole after {} ms",
            exchange.took().as_millis()
        );
        stack.serving().await;
    }
}

/// Waits until the part is back, and then at most [`SOON`] until a call of each kind works at each entry point.
async fn works_again(stack: &Stack, gone: &[u32], what: &str) {
    let began = Instant::now();
    stack.kinds_back(Some(&[Kind::Pushpin, Kind::Redis]), gone).await;
    let back = began.elapsed();
    for entry_point in EntryPoint::BOTH {
        e2e::stack::wait("a held call works", SOON, async || {
            let client = Client::modern(stack, entry_point, "thor", "org-1").await;
            let exchange =
                client.tool_with_progress("slow_echo", json!({"total_ms": 300, "events": 2})).await;
            (exchange.form() == Form::Stream && exchange.check_whole(2).is_ok()).then_some(())
        })
        .await;
        stack.answers(entry_point, SOON).await;
    }
    println!(
        "{what}: back after {} ms, calls at both entry points work after {} ms",
        back.as_millis(),
        began.elapsed().as_millis()
    );
}
