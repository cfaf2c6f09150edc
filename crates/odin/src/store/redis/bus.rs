//! How processes reach each other: hints, casts, and groups, in Redis.

use std::time::Duration;

use async_trait::async_trait;
use redis::cmd;
use tokio::sync::mpsc;

use super::ROOT;
use super::RedisStore;
use super::codec;
use super::followers::channel;
use super::hints;
use super::link::unavailable;
use super::unanswered;
use crate::call::Message;
use crate::store::{Bus, Cast, NodeHint, Result, WorkerHint};

#[async_trait]
impl Bus for RedisStore {
    async fn node_hints(&self, node: &str) -> Result<mpsc::Receiver<NodeHint>> {
        let parse = |text: &[u8]| Some(NodeHint::Request(std::str::from_utf8(text).ok()?.parse().ok()?));
        let channel = format!("asgard:node:{node}");
        Ok(hints::follow(self.client.clone(), channel, NodeHint::All, parse))
    }

    async fn worker_hints(&self, worker: &str) -> Result<mpsc::Receiver<WorkerHint>> {
        let parse = |text: &[u8]| Some(WorkerHint::Call(std::str::from_utf8(text).ok()?.parse().ok()?));
        let channel = format!("asgard:worker:{worker}");
        Ok(hints::follow(self.client.clone(), channel, WorkerHint::All, parse))
    }

    async fn cast(&self, topic: &str, message: Message) -> Result<()> {
        let mut publish = cmd("PUBLISH");
        publish.arg(channel(topic)).arg(&*message);
        self.link.command_once(&publish).await?.map(drop).ok_or_else(unanswered)
    }

    async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>> {
        self.subscriber.follow(topics).await
    }

    async fn enter(&self, group: &str, member: &str, live: Duration, most: usize) -> Result<bool> {
        let life = live.as_millis().clamp(1, 1 << 40).to_string();
        let reply = self
            .invoke(&self.scripts.enter, |invocation| {
                invocation.arg(group).arg(member).arg(life).arg(most);
            })
            .await?;
        Ok(codec::number::<u8>(reply)? == 1)
    }

    async fn leave(&self, group: &str, member: &str) -> Result<()> {
        let at = format!("{ROOT}group:{group}");
        self.link.command(cmd("ZREM").arg(at).arg(member)).await.map(drop).map_err(unavailable)
    }

    async fn members(&self, group: &str) -> Result<Vec<String>> {
        let reply = self
            .invoke(&self.scripts.members, |invocation| {
                invocation.arg(group);
            })
            .await?;
        codec::items(reply)?.into_iter().map(codec::text).collect()
    }
}
