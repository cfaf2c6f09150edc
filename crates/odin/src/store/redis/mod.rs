//! The store of a site: the records of calls in Redis.
//!
//! Each transition is one Lua script of `store/lua/`. Everything but the name of the memory expires or is deleted.

mod bus;
mod calls;
mod codec;
mod followers;
mod hints;
mod link;
mod queue;
mod record;
mod runs;
mod scripts;
mod sessions;
mod site;
mod tasks;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo, Script, ScriptInvocation, Value, cmd};
use sha2::{Digest, Sha256};

use self::followers::Subscriber;
use self::link::{Link, unavailable};
use self::record::Field;
use self::scripts::{Clock, Scripts, head};
use self::tasks::TaskScripts;
use self::waiting::Waiting;
use super::memory::PARKED;
use super::{Beat, Beaten, Result, Store, StoreLimits, Unavailable};
use crate::call::{Gone, Order, Timing};
use crate::id::{CallId, hex};

pub use self::site::{Difference, Fact, SITE_LIFE};

/// What every key begins with.
const ROOT: &str = "asgard:";
/// How long a command may take to be answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a record, a queue or a message outlives everybody who could renew it.
const LIFE: Duration = Duration::from_secs(3600);
/// Beats in one script, so that none of them blocks Redis for long.
const BEATS: usize = 256;

/// The URL of Redis can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a usable Redis URL: {0}")]
pub struct InvalidUrl(String);

/// Records in Redis, shared by all nodes of a site. Needs Redis 6.2 or later, with `maxmemory-policy
/// noeviction`: an evicted record is a lost call.
///
/// A Redis that is gone is [`Unavailable`] within about a second; the connections come back by themselves.
pub struct RedisStore {
    client: Client,
    link: Link,
    scripts: Scripts,
    tasks: TaskScripts,
    /// Where workers wait, by server and worker.
    waiting: Mutex<HashMap<(String, String), Arc<Waiting>>>,
    subscriber: Subscriber,
}

impl RedisStore {
    /// A store over the Redis at a URL (`redis://[[user]:password@]host[:port][/db]`, or
    /// `redis+unix:///path`). Redis need not be up yet.
    ///
    /// `timing` and `limits` must be the same on all nodes of the site.
    ///
    /// # Errors
    /// [`InvalidUrl`] when the URL is none.
    pub fn connect(url: &str, timing: Timing, limits: StoreLimits) -> std::result::Result<Self, InvalidUrl> {
        Self::with_clock(url, timing, limits, LIFE, Clock::Redis)
    }

    fn with_clock(
        url: &str,
        timing: Timing,
        limits: StoreLimits,
        life: Duration,
        clock: Clock,
    ) -> std::result::Result<Self, InvalidUrl> {
        let invalid = |error: redis::RedisError| InvalidUrl(error.to_string());
        let info = url.into_connection_info().map_err(invalid)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(invalid)?;
        Ok(Self {
            link: Link::new(client.clone(), PATIENCE),
            subscriber: Subscriber::new(client.clone()),
            client,
            scripts: Scripts::new(&timing, &limits, life, clock),
            tasks: TaskScripts::new(&head(&timing, &limits, life, clock)),
            waiting: Mutex::default(),
        })
    }

    fn waiting(&self, server: &str, worker: &str) -> Arc<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waiting
            .entry((server.to_owned(), worker.to_owned()))
            .or_insert_with(|| Arc::new(Waiting::new(self.client.clone(), format!("{ROOT}bell:{server}"))));
        Arc::clone(place)
    }

    async fn call(&self, script: &Script, call: CallId, args: &[&str]) -> Result<Value> {
        self.invoke(script, |invocation| {
            invocation.arg(call.to_string()).arg(args);
        })
        .await
    }

    async fn invoke(
        &self,
        script: &Script,
        arguments: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<Value> {
        let mut invocation = script.key(ROOT);
        arguments(&mut invocation);
        self.link.invoke(&invocation).await
    }

    /// Beats for some of a worker's calls.
    async fn beat_some(&self, worker: &str, beats: &[Beat]) -> Result<Beaten> {
        let reply = self
            .invoke(&self.scripts.beat, |invocation| {
                invocation.arg(worker).arg(fresh());
                for beat in beats {
                    invocation.arg(beat.call.to_string()).arg(beat.epoch).arg(record::digit(beat.subscribed));
                }
            })
            .await?;
        let mut reply = codec::items(reply)?.into_iter();
        let generation = codec::text(reply.next().unwrap_or_default())?;
        let now = codec::number(reply.next().unwrap_or_default())?;
        let views = beats.iter().zip(reply).map(|(beat, view)| {
            codec::view(view).unwrap_or_else(|error| {
                // It must not cost the worker's other calls their lease.
                tracing::warn!(call = %beat.call, %error, "a record that can't be read");
                Err(Gone::Missing)
            })
        });
        Ok(Beaten { views: views.collect(), generation, now })
    }
}

/// The error of a command that was sent once and not answered.
fn unanswered() -> Unavailable {
    Unavailable("the connection broke before the reply came".to_owned())
}

/// A random name for a memory without one.
fn fresh() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The name of (session, request id) in keys; of one length, whatever the client chose.
fn request_key(session: &str, request_id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(session.len().to_be_bytes());
    hash.update(session);
    hash.update(request_id);
    hash.finalize().first_chunk::<16>().map(|hash| hex(hash)).unwrap_or_default()
}

fn order_key(order: &Order) -> Option<String> {
    Some(request_key(order.session.as_deref()?, order.request_id.as_deref()?))
}

fn add_fields(invocation: &mut ScriptInvocation<'_>, fields: &[Field<'_>]) {
    for (name, value) in fields {
        invocation.arg(*name).arg(value.as_ref());
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn ping(&self) -> Result<()> {
        self.link.command(&cmd("PING")).await.map(drop).map_err(unavailable)
    }
}
