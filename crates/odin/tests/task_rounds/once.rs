//! A `requestState` of a tool that may not run twice is good for one run.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use odin::call::Timing;
use odin::store::{MemoryStore, RedisStore, Store, StoreLimits};
use serde_json::{Value, json};

use kit::RedisServer;

use super::nodes::{Answer, Nodes, THOR};
use super::sites;

/// Asks a tool's first question; the state that it gave.
async fn ask(site: &Nodes, tool: &str) -> String {
    let asked = site.call(THOR, tool, json!({}), false).await;
    asked.result()["requestState"].as_str().unwrap_or_else(|| panic!("{asked:?}")).to_owned()
}

/// The same call again, with the answers.
fn again(tool: &str, state: &str) -> Value {
    let said = |name: &str| json!({ "action": "accept", "content": { "name": name } });
    json!({
        "name": tool, "arguments": {}, "requestState": state,
        "inputResponses": { "name": said("Freya"), "colour": said("gold") },
    })
}

async fn bring(site: &Nodes, tool: &str, state: &str) -> Answer {
    site.send(THOR, "tools/call", again(tool, state), false).await
}

fn starts(site: &Nodes) -> usize {
    site.counts.starts.load(Ordering::SeqCst)
}

fn is_used(answer: &Answer) -> bool {
    let error = &answer.body["error"];
    error["code"] == -32602 && error["message"].as_str().unwrap().contains("used already")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_used_once_by_a_tool_that_may_not_run_twice() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let state = ask(&site, "asks").await;
        let second = bring(&site, "asks", &state).await;
        assert_eq!(second.result()["resultType"], "input_required");
        let before = starts(&site);
        for _ in 0..3 {
            assert!(is_used(&bring(&site, "asks", &state).await));
        }
        assert_eq!(starts(&site), before, "the tool does not run");
        // Written otherwise it is the same state.
        let mut escaped = again("asks", &state).to_string();
        escaped = escaped.replacen("requestState", "request\\u0053tate", 1);
        let escaped: Box<serde_json::value::RawValue> = serde_json::from_str(&escaped).unwrap();
        assert!(is_used(&site.send_raw(THOR, "tools/call", &escaped).await));
        assert_eq!(starts(&site), before);
        // The state of the next round is another one, and a new question begins anew.
        let next = second.result()["requestState"].as_str().unwrap();
        let mut third = again("asks", next);
        third["inputResponses"].as_object_mut().unwrap().remove("colour");
        let done = site.send(THOR, "tools/call", third, false).await;
        assert_eq!(done.result()["content"][0]["text"], "Freya gold, Freya, round 0");
        assert!(!is_used(&bring(&site, "asks", &ask(&site, "asks").await).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_runs() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let state = ask(&site, "asks").await;
        let before = starts(&site);
        let all = futures::future::join_all((0..20).map(|_| bring(&site, "asks", &state))).await;
        assert_eq!(all.iter().filter(|answer| !is_used(answer)).count(), 1);
        assert_eq!(starts(&site) - before, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_does_no_harm_may_run_again() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let state = ask(&site, "asks-safely").await;
        for _ in 0..3 {
            let answer = bring(&site, "asks-safely", &state).await;
            assert_eq!(answer.result()["resultType"], "input_required");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_under_the_same_key_gets_the_same_answer() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let state = ask(&site, "asks").await;
        let before = starts(&site);
        let first = site.send_keyed(THOR, "tools/call", again("asks", &state), "k").await;
        assert_eq!(first.result()["resultType"], "input_required");
        for _ in 0..2 {
            let repeated = site.send_keyed(THOR, "tools/call", again("asks", &state), "k").await;
            assert_eq!(repeated.body, first.body);
        }
        assert_eq!(starts(&site) - before, 1);
        let other = site.send_keyed(THOR, "tools/call", again("asks", &state), "another").await;
        assert!(is_used(&other), "{other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_that_a_call_becomes_goes_on_with_its_state() {
    for (site, _redis) in sites(StoreLimits::default()).await {
        let state = ask(&site, "ask-first").await;
        let born = site.send(THOR, "tools/call", again("ask-first", &state), true).await;
        let id = born.result()["taskId"].as_str().unwrap_or_else(|| panic!("{born:?}"));
        let done = site.until(id, &["completed", "failed"]).await;
        assert_eq!(done["result"]["content"][0]["text"], "Hello, Freya!", "{done}");
        assert!(is_used(&site.send(THOR, "tools/call", again("ask-first", &state), true).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_began_uses_nothing_up() {
    // The state comes from another site with the same keys, as this one has no worker yet.
    let limits = StoreLimits::default().with_queue(1);
    let (other, _redis) = sites(StoreLimits::default()).await.remove(0);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Timing::default(), limits));
    let mut site = Nodes::start(store.clone()).await;
    site.states = other.states.clone();
    let state = ask(&other, "asks").await;
    let site = Arc::new(site);
    let waiting = tokio::spawn({
        let site = site.clone();
        // Until it has the queue's one place, which the other call may have had for a moment.
        async move {
            loop {
                let answer = site.call(THOR, "plain", json!({}), false).await;
                if answer.status == 200 {
                    return answer;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    });
    // The queue has one place: until it is taken, the call waits like the other one.
    let refused = loop {
        let bring = tokio::time::timeout(std::time::Duration::from_secs(1), bring(&site, "asks", &state));
        if let Ok(answer) = bring.await {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.code()), (503, -32603), "{refused:?}");
    site.worker(store);
    waiting.await.unwrap().result();
    let answer = bring(&site, "asks", &state).await;
    assert_eq!(answer.result()["resultType"], "input_required");
    assert!(is_used(&bring(&site, "asks", &state).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_memory_the_server_runs_nothing() {
    let server = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let limits = StoreLimits::default();
    let redis: Arc<dyn Store> =
        Arc::new(RedisStore::connect(&server.url(), Timing::default(), limits).unwrap());
    let site = Nodes::start(redis.clone()).await;
    site.worker(redis);
    let state = ask(&site, "asks").await;
    let before = starts(&site);
    // Everything but what was used up can be read and written.
    command(&server.url(), "ACL SETUSER default resetkeys ~asgard: ~asgard:[^u]*");
    let refused = bring(&site, "asks", &state).await;
    assert_eq!(refused.code(), -32603, "{refused:?}");
    let message = refused.body["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("session store does not answer") && message.contains("was not run"),
        "{message}"
    );
    assert_eq!(starts(&site), before);
    command(&server.url(), "ACL SETUSER default allkeys");
    assert_eq!(bring(&site, "asks", &state).await.result()["resultType"], "input_required");
}

fn command(url: &str, text: &str) {
    let mut stream = TcpStream::connect(url.strip_prefix("redis://").unwrap()).unwrap();
    stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), "+OK", "{text}");
}
