//! What is kept for sessions and streams, and what is good for once, in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::cmd;

use super::PARKED;
use super::ROOT;
use super::RedisStore;
use super::codec;
use super::link::unavailable;
use crate::id::Ticket;
use crate::store::{Result, Sessions, Unavailable};

#[async_trait]
impl Sessions for RedisStore {
    async fn park(&self, ticket: Ticket, stream: &str) -> Result<()> {
        let at = format!("{ROOT}park:{ticket}");
        let life = u64::try_from(PARKED.as_millis()).unwrap_or(u64::MAX);
        self.link
            .command(cmd("SET").arg(at).arg(stream).arg("PX").arg(life))
            .await
            .map(drop)
            .map_err(unavailable)
    }

    async fn parked(&self, ticket: Ticket) -> Result<Option<String>> {
        let at = format!("{ROOT}park:{ticket}");
        let reply = self.link.command(cmd("GET").arg(at)).await.map_err(unavailable)?;
        redis::from_redis_value(reply).map_err(|error| Unavailable(error.to_string()))
    }

    async fn remember(&self, session: &str, field: &str, value: &str, live: Duration) -> Result<bool> {
        let life = live.as_millis().clamp(1, 1 << 40).to_string();
        let reply = self
            .invoke(&self.scripts.remember, |invocation| {
                invocation.arg(session).arg(field).arg(value).arg(life);
            })
            .await?;
        Ok(codec::number::<u8>(reply)? == 1)
    }

    async fn recall(&self, session: &str) -> Result<BTreeMap<String, String>> {
        let at = format!("{ROOT}session:{session}");
        let reply = self.link.command(cmd("HGETALL").arg(at)).await.map_err(unavailable)?;
        redis::from_redis_value(reply).map_err(|error| Unavailable(error.to_string()))
    }

    async fn use_once(&self, name: &str, by: &str, live: Duration) -> Result<String> {
        let life = live.as_millis().clamp(1, 1 << 40).to_string();
        let reply = self
            .invoke(&self.scripts.use_once, |invocation| {
                invocation.arg(name).arg(by).arg(life);
            })
            .await?;
        codec::text(reply)
    }
}
