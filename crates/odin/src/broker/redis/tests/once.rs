//! What is good for once, in both homes of the broker.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::{Broker, BrokerLimits, MemoryBroker};
use super::super::RedisBroker;
use super::redis_server::RedisServer;
use super::until;
use crate::call::Timing;

#[tokio::test]
async fn a_thing_is_used_in_one_name_until_it_is_forgotten() {
    let server = RedisServer::start();
    let limits = BrokerLimits::default();
    let redis = || RedisBroker::connect(&server.url(), Timing::default(), limits).unwrap();
    let memory = Arc::new(MemoryBroker::new(Timing::default(), limits));
    let homes: [(Arc<dyn Broker>, Arc<dyn Broker>); 2] =
        [(memory.clone(), memory), (Arc::new(redis()), Arc::new(redis()))];
    for (here, there) in homes {
        let long = Duration::from_secs(60);
        assert_eq!(here.use_once("n", "a", long).await.unwrap(), "a");
        assert_eq!(there.use_once("n", "b", long).await.unwrap(), "a");
        assert_eq!(there.use_once("n", "a", long).await.unwrap(), "a", "the same command again");
        assert_eq!(there.use_once("m", "b", long).await.unwrap(), "b");

        assert_eq!(here.use_once("short", "a", Duration::from_millis(50)).await.unwrap(), "a");
        until("it is forgotten", async || {
            (there.use_once("short", "b", long).await.unwrap() == "b").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn one_process_remembers_a_bounded_number() {
    let limits = BrokerLimits { used: 1, ..BrokerLimits::default() };
    let broker = MemoryBroker::new(Timing::default(), limits);
    let long = Duration::from_secs(60);
    assert_eq!(broker.use_once("n", "a", long).await.unwrap(), "a");
    assert!(broker.use_once("m", "a", long).await.is_err());
    assert_eq!(broker.use_once("n", "b", long).await.unwrap(), "a");
}
