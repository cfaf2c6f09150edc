//! Queues, nudges, restarts and leftovers, in real time.

use std::time::{Duration, Instant};

use super::super::super::{Broker, BrokerLimits, Entry};
use super::super::RedisBroker;
use super::order;
use super::redis_server::RedisServer;
use crate::call::{Enqueue, Offer, Reach, Timing};
use crate::id::{CallId, Ticket};
use crate::job::Era;
use crate::runner::Rerun;

fn broker(server: &RedisServer, shards: u8) -> RedisBroker {
    RedisBroker::connect(&server.url(), Timing::default(), BrokerLimits::default(), shards).unwrap()
}

/// Reads until there is a line, for at most ten seconds.
async fn line(broker: &RedisBroker, worker: &str) -> Entry {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Ok(lines) = broker.next("s", worker, 1).await
            && let Some(line) = lines.into_iter().next()
        {
            return line;
        }
    }
    panic!("no line came");
}

#[tokio::test]
async fn a_quick_call_runs_from_order_to_answer() {
    let server = RedisServer::start();
    for shards in [1, 3] {
        let broker = broker(&server, shards);
        broker.announce("a").await.unwrap();
        let call = CallId::random(broker.shard(None));
        let order = order(Era::Modern, "a", u64::MAX);
        assert_eq!(broker.enqueue(call, order.clone()).await, Ok(Enqueue::Accepted));

        let line = line(&broker, "w").await;
        assert_eq!((line.call, line.tool.as_deref()), (call, Some("report")));
        let taken = broker.take("s", "w", &line, Rerun::Safe).await.unwrap().unwrap();
        assert_eq!(taken.snapshot.order, order);
        assert_eq!(taken.snapshot.epoch, 1);
        let beaten = broker.beat("w", &[]).await.unwrap();
        assert_eq!(beaten.generation, taken.generation);

        let state = broker.finish(call, 1, &"out".into()).await.unwrap().unwrap();
        assert_eq!(state.reach, Reach::Node { node: "a".into(), request: u64::MAX });
        let ticket = Ticket::random(call.shard());
        assert_eq!(broker.offer(call, "a", u64::MAX, ticket, true).await, Ok(Offer::Done("out".into())));
        assert_eq!(broker.offer(call, "a", u64::MAX, ticket, true).await, Ok(Offer::Missing));
    }
}
