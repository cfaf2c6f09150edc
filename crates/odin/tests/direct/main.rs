//! Calls that go straight from a front end to a worker: what they need of the store, and what becomes of them when a
//! link, a worker or the store is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, unreachable_pub)] // a test may fail

mod server;

use std::time::{Duration, Instant};

use kit::site::{Events, Site, memory, over};
use kit::{RedisServer, values};
use serde_json::{Value, json};

use server::Server;

/// A site with one front end and one worker, linked.
struct Linked {
    site: Site,
    server: Server,
    _worker: odin::worker::Worker,
}

impl Linked {
    async fn over(store: std::sync::Arc<dyn odin::store::Store>) -> Self {
        Self::held_after(store, Duration::from_millis(100)).await
    }

    /// One whose calls are written down after that time, if nothing happens before.
    async fn held_after(store: std::sync::Arc<dyn odin::store::Store>, hold_after: Duration) -> Self {
        let site = Site::over(store).direct().config(move |config| config.hold_after = hold_after);
        let (site, server) = (site.start().await, Server::default());
        let _worker = site.worker(server.runner());
        site.linked().await;
        Self { site, server, _worker }
    }

    fn request(&self, tool: &str, text: &str) -> reqwest::RequestBuilder {
        request(&self.site, tool, text)
    }

    fn posted(&self, message: &Value) -> reqwest::RequestBuilder {
        posted(&self.site, message)
    }

    async fn call(&self, tool: &str, text: &str) -> reqwest::Response {
        self.request(tool, text).send().await.unwrap()
    }

    /// Calls a tool in the background.
    fn spawn(&self, tool: &str, text: &str) -> tokio::task::JoinHandle<reqwest::Response> {
        let request = self.request(tool, text);
        tokio::spawn(async move { request.send().await.unwrap() })
    }

    async fn statz(&self, what: &str) -> u64 {
        let statz = self.site.http.get(self.site.url("/statz")).send().await.unwrap();
        statz.json::<Value>().await.unwrap()[what].as_u64().unwrap()
    }

    /// A session of revision 2025-11-25.
    async fn session(&self) -> String {
        let initialize = values::request(1, "initialize", values::initialize("2025-11-25", json!({})));
        let response = self.posted(&initialize).send().await.unwrap();
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }
}

fn request(site: &Site, tool: &str, text: &str) -> reqwest::RequestBuilder {
    let params = json!({ "name": tool, "arguments": { "text": text }, "_meta": { "progressToken": "p" } });
    let message = values::request(7, "tools/call", values::with_meta(params, json!({})));
    posted(site, &message)
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
}

fn posted(site: &Site, message: &Value) -> reqwest::RequestBuilder {
    site.http
        .post(site.url("/api/v1/mcp/org-1"))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(message.to_string())
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + kit::PATIENCE;
    while !is().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The text of an answer, which is one document.
async fn text(response: reqwest::Response) -> String {
    let answer: Value = response.json().await.unwrap();
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The last message of an answer, be it a document or a stream.
async fn last(response: reqwest::Response) -> Value {
    if response.headers()["content-type"] == "application/json" {
        return response.json().await.unwrap();
    }
    let mut events = Events::new(response);
    loop {
        let message = events.json().await;
        if message.get("id").is_some() {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_calls_are_answered_while_redis_is_stopped_and_leave_nothing_in_it() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let linked = Linked::over(over(&redis)).await;
    redis.freeze();
    for number in 0..50 {
        let said = text(linked.call("echo", &number.to_string()).await).await;
        assert_eq!(said, format!("echo {number}"));
    }
    let ready = || async {
        let ready = linked.site.http.get(linked.site.url("/readyz")).send().await.unwrap();
        (ready.status().as_u16(), ready.json::<Value>().await.unwrap())
    };
    until("the silence is noticed", async || ready().await.1["degraded"][0]["part"] == "redis").await;
    assert_eq!(ready().await.0, 200, "quick calls still work");
    redis.thaw();
    assert_eq!(linked.statz("direct").await, 50);
    let mut store = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    for of in ["call", "log", "inbox", "ids", "withdrawn", "retry"] {
        let keys: Vec<String> = redis::cmd("KEYS").arg(format!("asgard:{of}:*")).query(&mut store).unwrap();
        assert_eq!(keys, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_is_written_down_and_streams() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    for store in [memory(), over(&redis)] {
        let linked = Linked::over(store).await;
        let answering = linked.spawn("work", "slow");
        let mut events = Events::new(answering.await.unwrap());
        assert_eq!(events.json().await["params"]["progress"], 1.0);
        linked.server.finish(1);
        let answer = events.json().await;
        assert_eq!(answer["result"]["content"][0]["text"], "worked slow", "{answer}");
        assert_eq!(linked.server.runs(), 1);
        assert_eq!(linked.statz("direct").await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_costs_a_living_worker_nothing() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    for store in [memory(), over(&redis)] {
        for tool in ["hush", "work"] {
            let linked = Linked::over(store.clone()).await;
            let answering = linked.spawn(tool, "on");
            until("the tool runs", async || linked.server.runs() == 1).await;
            linked.site.break_links();
            until("the link is gone", async || !linked.site.is_linked()).await;
            linked.server.finish(1);
            let answer = last(answering.await.unwrap()).await;
            assert_eq!(answer["result"]["content"][0]["text"], "worked on", "{tool}: {answer}");
            assert_eq!(linked.server.runs(), 1, "{tool} ran again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_leaves_its_direct_calls_to_another_one() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    for store in [memory(), over(&redis)] {
        for (tool, runs) in [("look", 2), ("hush", 1)] {
            let hold_after = Duration::from_secs(60);
            let Linked { site, server, _worker } = Linked::held_after(store.clone(), hold_after).await;
            let request = request(&site, tool, "on");
            let answering = tokio::spawn(async move { request.send().await.unwrap() });
            until("the tool runs", async || server.runs() == 1).await;
            // The store has never heard of the call: its backend writes it down.
            drop(_worker);
            let _other = site.worker(server.runner());
            if runs == 2 {
                until("the other worker runs it again", async || server.runs() == 2).await;
                // The run of the dead one may still wait in this process.
                server.finish(2);
            }
            let answer = last(answering.await.unwrap()).await;
            match runs {
                2 => assert_eq!(answer["result"]["content"][0]["text"], "worked on", "{answer}"),
                _ => {
                    let why = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
                    assert!(why.contains("The worker that ran this call was lost"), "{why}");
                }
            }
            assert_eq!(server.runs(), runs, "{tool}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_silent_when_the_link_breaks_is_an_error_in_time() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let linked = Linked::over(over(&redis)).await;
    let answering = linked.spawn("hush", "silent");
    until("the tool runs", async || linked.server.runs() == 1).await;
    redis.freeze();
    linked.site.break_links();
    let answer = last(answering.await.unwrap()).await;
    let why = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(why.contains("what became of the call is unknown"), "{why}");
    redis.thaw();
    linked.server.finish(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateless_client_that_goes_away_stops_the_tool() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let linked = Linked::over(over(&redis)).await;
    // So that the link alone can say it.
    redis.freeze();
    let answering = linked.spawn("hush", "gone");
    until("the tool runs", async || linked.server.runs() == 1).await;
    answering.abort();
    until("the tool is stopped", async || linked.server.stopped() == 1).await;
    until("nothing waits", async || linked.statz("waiting").await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_cancels_a_call_that_only_the_link_knows_of() {
    let linked = Linked::held_after(memory(), Duration::from_secs(60)).await;
    let session = linked.session().await;
    let before = linked.statz("direct").await;
    let in_session = |message: &Value| {
        let posted = linked.posted(message).header("mcp-session-id", &session);
        posted.header("mcp-protocol-version", "2025-11-25")
    };
    let params = json!({ "name": "hush", "arguments": { "text": "cancelled" } });
    let call = in_session(&values::request(9, "tools/call", params));
    let answering = tokio::spawn(async move { call.send().await.unwrap() });
    until("the tool runs", async || linked.server.runs() == 1).await;
    assert_eq!(linked.statz("direct").await, before + 1);
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } });
    assert_eq!(in_session(&cancel).send().await.unwrap().status().as_u16(), 202);
    // A worker writes a call down after ten seconds at the latest, and would find the cancellation then.
    let by_link = tokio::time::timeout(
        Duration::from_secs(8),
        until("the tool is stopped", async || linked.server.stopped() == 1),
    );
    by_link.await.expect("the link says it");
    assert_eq!(answering.await.unwrap().text().await.unwrap(), "", "a cancelled call has no answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_free_slot_and_what_may_be_repeated_goes_through_the_queue() {
    let linked = Linked::over(memory()).await;
    let keyed = linked.request("echo", "keyed").header("idempotency-key", "k").send().await.unwrap();
    assert_eq!(text(keyed).await, "echo keyed");
    assert_eq!(linked.statz("direct").await, 0, "only the queue knows a repetition");
    // More than one principal may have slots; every call is answered all the same.
    let many: Vec<_> = (0..60).map(|number| linked.spawn("hush", &number.to_string())).collect();
    until("some run", async || linked.server.runs() >= 30).await;
    linked.server.finish(60);
    for answering in many {
        let answer = last(answering.await.unwrap()).await;
        assert!(answer["result"]["content"][0]["text"].as_str().unwrap().starts_with("worked"), "{answer}");
    }
    assert_eq!(linked.server.runs(), 60);
}
