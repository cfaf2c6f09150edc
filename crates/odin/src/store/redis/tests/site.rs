//! What the nodes of a site say of themselves.

use redis::{Value, cmd};

use super::super::super::StoreLimits;
use super::super::{Fact, RedisStore};
use crate::call::Timing;
use kit::RedisServer;

fn facts(timing: &str, keys: &str) -> Vec<Fact> {
    vec![("timing", timing.to_owned()), ("keys", keys.to_owned())]
}

#[tokio::test]
async fn facts_must_fit_and_are_forgotten_with_the_last_node() {
    let server = RedisServer::start();
    let node = RedisStore::connect(&server.url(), Timing::default(), StoreLimits::default()).unwrap();
    let join = async |timing, keys| node.join_site(&facts(timing, keys)).await.unwrap();
    assert_eq!(join("lease=1ms", "a").await, None);
    assert_eq!(join("lease=1ms", "a").await, None);

    let difference = join("lease=2ms", "a").await.unwrap();
    let said = difference.to_string();
    assert!(said.starts_with("timing differs: this node has lease=2ms, the running"), "{said}");
    assert!(said.contains("have lease=1ms. Give all nodes the same"), "{said}");
    // Nothing of a node that was refused stays.
    assert!(join("lease=2ms", "b").await.is_some());
    assert_eq!(join("lease=1ms", "a").await, None);
    // Keys that are being changed.
    assert_eq!(join("lease=1ms", "b\na").await, None);
    assert_eq!(join("lease=1ms", "b").await, None);
    let difference = join("lease=1ms", "a\nc").await.unwrap();
    assert_eq!((&*difference.name, &*difference.own, &*difference.others), ("keys", "a, c", "b"));
    // Another kind of node says other things.
    let worker = [("timing", "lease=1ms".to_owned()), ("state", "s".to_owned())];
    assert_eq!(node.join_site(&worker).await, Ok(None));

    let life = node.link.command(cmd("PTTL").arg("asgard:site")).await.unwrap();
    assert!(matches!(life, Value::Int(1..=15_000)), "{life:?}");
    node.link.command(cmd("PEXPIRE").arg("asgard:site").arg(1)).await.unwrap();
    super::until("they are forgotten", async || join("lease=2ms", "c").await.is_none().then_some(())).await;
}
