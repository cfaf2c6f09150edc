//! Whatever stands in Redis: no panic, and an answer in time; other calls go on.

use std::time::Duration;

use http::StatusCode;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use redis::aio::MultiplexedConnection;
use serde_json::json;

use crate::client::Ask;
use crate::server::{Server, count_panics, panics};
use kit::RedisServer;

/// Values of fields that fit nowhere.
const NONSENSE: [&str; 10] =
    ["", "x", "-1", "1e99", "99999999999999999999", "node", "held", "{\"call\":7}", "\u{0}\u{1}", "nan"];

/// Breaks something in the store.
async fn corrupt(redis: &mut MultiplexedConnection, random: &mut StdRng) -> Option<String> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("asgard:*").query_async(redis).await.unwrap();
    let key = keys.iter().filter(|key| !key.contains(":node:")).choose(random)?.clone();
    let kind: String = redis::cmd("TYPE").arg(&key).query_async(redis).await.unwrap();
    let nonsense = *NONSENSE.choose(random).unwrap();
    let what = match (kind.as_str(), random.random_range(0..10)) {
        ("hash", 0..8) => {
            let fields: Vec<String> = redis::cmd("HKEYS").arg(&key).query_async(redis).await.unwrap();
            let field = fields.choose(random)?;
            if random.random_bool(0.3) {
                let _: () = redis::cmd("HDEL").arg(&key).arg(field).query_async(redis).await.unwrap();
                format!("HDEL {key} {field}")
            } else {
                let set = redis::cmd("HSET").arg(&key).arg(field).arg(nonsense).to_owned();
                let _: () = set.query_async(redis).await.unwrap();
                format!("HSET {key} {field} {nonsense:?}")
            }
        }
        ("zset", 0..5) => {
            let _: () = redis::cmd("ZADD").arg(&key).arg(1).arg(nonsense).query_async(redis).await.unwrap();
            format!("ZADD {key} 1 {nonsense:?}")
        }
        ("list", 0..5) => {
            let _: () = redis::cmd("RPUSH").arg(&key).arg(nonsense).query_async(redis).await.unwrap();
            format!("RPUSH {key} {nonsense:?}")
        }
        (_, 8) => {
            let _: () = redis::cmd("DEL").arg(&key).query_async(redis).await.unwrap();
            format!("DEL {key}")
        }
        _ => {
            let _: () = redis::cmd("SET").arg(&key).arg(nonsense).query_async(redis).await.unwrap();
            format!("SET {key} {nonsense:?}")
        }
    };
    Some(what)
}

/// A call that takes a tenth of a second and reports progress: its record lives, and is written to.
fn slow() -> Ask {
    Ask::modern("tools/call", json!({"name": "test_tool_with_progress"}), &json!({"progressToken": "p"}))
}

fn quick() -> Ask {
    Ask::modern("tools/call", json!({"name": "test_simple_text"}), &json!({}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_store_breaks_no_more_than_its_own_call() {
    count_panics();
    let store = RedisServer::start();
    let client = redis::Client::open(store.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let server = Server::over_redis(&store.url()).await;
    let seed = rand::random::<u64>();
    println!("the seed is {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let before = panics();
    for round in 0..40 {
        let asks: Vec<_> = (0..4).map(|_| tokio::spawn(slow().send(server.address))).collect();
        let mut done = Vec::new();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
            done.extend(corrupt(&mut redis, &mut random).await);
        }
        for ask in asks {
            let said = ask.await.unwrap_or_else(|error| panic!("round {round}, {done:?}: {error}"));
            let fine = matches!(said.status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE);
            assert!(fine, "round {round}, {done:?}: {said:?}");
        }
        // What is broken beyond its call (a queue that is no queue any more) an operator clears; then all is well.
        let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
        e2e::stack::wait("calls are answered again", Duration::from_secs(30), async || {
            let said = quick().send(server.address).await;
            (said.status == StatusCode::OK).then_some(())
        })
        .await;
        assert_eq!(panics(), before, "round {round}, {done:?}");
    }
}

/// The answers of a batch are one document, so a tool in it can't ask: it gets an error, and does not wait for ever.
#[tokio::test]
async fn a_tool_in_a_batch_that_asks_its_client_is_refused() {
    let server = Server::in_memory().await;
    for (tool, capability, arguments) in [
        ("test_elicitation", "elicitation", json!({"message": "?"})),
        ("test_sampling", "sampling", json!({"prompt": "?"})),
    ] {
        let params = json!({"protocolVersion": "2025-03-26", "capabilities": {capability: {}},
            "clientInfo": {"name": "edges", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        let started = Ask::post(&body).send(server.address).await;
        let session = started.headers["mcp-session-id"].to_str().unwrap();
        let body = json!([{"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}}]);
        let said = Ask::post(&body).with("mcp-session-id", session).send(server.address).await;
        let answers: serde_json::Value = serde_json::from_str(&said.body).unwrap();
        let text = answers[0].to_string();
        assert_eq!(answers[0]["id"], 2, "{text}");
        assert!(text.contains("can't be asked"), "{text}");
    }
}

/// The record says that the call waits, and the queue can't say that it does no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_a_broken_queue_is_given_up() {
    let store = RedisServer::start();
    let client = redis::Client::open(store.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let server = Server::with_patience(&store.url(), Duration::from_secs(1)).await;
    server.worker.shut_down(Duration::ZERO).await;
    let asks = [quick(), slow()].map(|ask| tokio::spawn(ask.send(server.address)));
    e2e::stack::wait("both calls wait", Duration::from_secs(10), async || {
        let calls: Vec<String> =
            redis::cmd("KEYS").arg("asgard:call:*").query_async(&mut redis).await.unwrap();
        (calls.len() == 2).then_some(())
    })
    .await;
    let queues: Vec<String> =
        redis::cmd("KEYS").arg("asgard:waiting:*").query_async(&mut redis).await.unwrap();
    assert!(!queues.is_empty());
    for queue in queues {
        let _: () = redis::cmd("SET").arg(queue).arg("x").query_async(&mut redis).await.unwrap();
    }
    for ask in asks {
        let said = ask.await.expect("an answer");
        assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broken_record_leaves_the_others_their_lease() {
    count_panics();
    let before = panics();
    let fields =
        [("reach", "nowhere"), ("events", "x"), ("epoch", ""), ("at_request", "-1"), ("cancel", "7")];
    futures::future::join_all(fields.map(|(field, value)| break_one(field, value))).await;
    assert_eq!(panics(), before);
}

async fn break_one(field: &str, value: &str) {
    let store = RedisServer::start();
    let client = redis::Client::open(store.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let server = Server::over_redis(&store.url()).await;
    // A session's calls that wait for their client: their records stay as long as we like.
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "edges", "version": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let started = Ask::post(&body).send(server.address).await;
    let session = started.headers["mcp-session-id"].to_str().unwrap();
    for _ in 0..2 {
        let body = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "test_elicitation", "arguments": {"message": "?"}}});
        // The stream is left after a while; the call goes on.
        let said = Ask::post(&body).with("mcp-session-id", session).send(server.address).await;
        assert_eq!(said.status, StatusCode::OK, "{said:?}");
    }
    let epoch = async |redis: &mut MultiplexedConnection, key: &str| -> Option<String> {
        redis::cmd("HGET").arg(key).arg("epoch").query_async(redis).await.unwrap()
    };
    let keys: Vec<String> = redis::cmd("KEYS").arg("asgard:call:*").query_async(&mut redis).await.unwrap();
    let mut waiting = Vec::new();
    for key in keys {
        let run: Option<String> =
            redis::cmd("HGET").arg(&key).arg("run").query_async(&mut redis).await.unwrap();
        if run.as_deref() == Some("running") {
            waiting.push(key);
        }
    }
    let [broken, whole] = waiting.as_slice() else { panic!("{waiting:?}") };
    let set = redis::cmd("HSET").arg(broken).arg(field).arg(value).to_owned();
    let _: () = set.query_async(&mut redis).await.unwrap();
    // Longer than a lease: whoever is not renewed is claimed then, which raises the epoch.
    tokio::time::sleep(odin::call::Timing::default().lease * 2).await;
    assert_eq!(server.worker.ready(), Ok(Vec::new()), "{field}: the worker's beats come to nothing");
    assert_eq!(
        epoch(&mut redis, whole).await.as_deref(),
        Some("1"),
        "{field}: the other call lost its lease"
    );
    let said = quick().send(server.address).await;
    assert_eq!(said.status, StatusCode::OK, "{field}: {said:?}");
}
