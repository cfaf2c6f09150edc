//! The broker of a site: the records of calls in Redis.
//!
//! Each transition is one Lua script of `broker/lua/`. Everything but the name of the memory expires or is deleted.

mod bus;
mod codec;
mod link;
mod nudges;
mod queue;
mod scripts;
mod site;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo, Script, ScriptInvocation, Value, cmd};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use self::bus::Bus;
use self::codec::Field;
use self::link::{Link, unavailable};
use self::queue::Waiting;
use self::scripts::{Clock, Scripts, head};
use self::tasks::TaskScripts;
use super::memory::PARKED;
use super::{
    Arrived, Beat, Beaten, Broker, BrokerLimits, Cast, Claimed, Entry, Held, Inbox, NodeNudge, Result, Room,
    Stray, Taken, Unavailable, WorkerNudge,
};
use crate::call::{
    Enqueue, Fence, Gone, Join, Message, Offer, Order, Read, Resume, Snapshot, State, Timing, Whose, Withdraw,
};
use crate::id::{CallChannel, CallId, Ticket};
use crate::runner::Rerun;

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
pub struct RedisBroker {
    client: Client,
    link: Link,
    scripts: Scripts,
    tasks: TaskScripts,
    /// Where workers wait, by server and worker.
    waiting: Mutex<HashMap<(String, String), Arc<Waiting>>>,
    bus: Bus,
}

impl RedisBroker {
    /// A broker over the Redis at a URL (`redis://[[user]:password@]host[:port][/db]`, or
    /// `redis+unix:///path`). Redis need not be up yet.
    ///
    /// `timing` and `limits` must be the same on all nodes of the site.
    ///
    /// # Errors
    /// [`InvalidUrl`] when the URL is none.
    pub fn connect(url: &str, timing: Timing, limits: BrokerLimits) -> std::result::Result<Self, InvalidUrl> {
        Self::with_clock(url, timing, limits, LIFE, Clock::Redis)
    }

    fn with_clock(
        url: &str,
        timing: Timing,
        limits: BrokerLimits,
        life: Duration,
        clock: Clock,
    ) -> std::result::Result<Self, InvalidUrl> {
        let invalid = |error: redis::RedisError| InvalidUrl(error.to_string());
        let info = url.into_connection_info().map_err(invalid)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(invalid)?;
        Ok(Self {
            link: Link::new(client.clone(), PATIENCE),
            bus: Bus::new(client.clone()),
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
                    invocation.arg(beat.call.to_string()).arg(beat.epoch).arg(codec::digit(beat.subscribed));
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
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
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
impl Broker for RedisBroker {
    async fn ping(&self) -> Result<()> {
        self.link.command(&cmd("PING")).await.map(drop).map_err(unavailable)
    }

    async fn node_nudges(&self, node: &str) -> Result<mpsc::Receiver<NodeNudge>> {
        let parse = |text: &[u8]| Some(NodeNudge::Request(std::str::from_utf8(text).ok()?.parse().ok()?));
        let channel = format!("asgard:node:{node}");
        Ok(nudges::follow(self.client.clone(), channel, NodeNudge::All, parse))
    }

    async fn worker_nudges(&self, worker: &str) -> Result<mpsc::Receiver<WorkerNudge>> {
        let parse = |text: &[u8]| Some(WorkerNudge::Call(std::str::from_utf8(text).ok()?.parse().ok()?));
        let channel = format!("asgard:worker:{worker}");
        Ok(nudges::follow(self.client.clone(), channel, WorkerNudge::All, parse))
    }

    async fn enqueue(&self, call: CallId, order: Order) -> Result<Enqueue> {
        let key = order_key(&order);
        let retry = order.retry.as_ref();
        let parties = order.parties();
        let mut fields = codec::order(&order);
        fields.extend(codec::node(&order.node, order.request));
        fields.extend(key.as_deref().map(|key| ("ids", key.into())));
        let mut invocation = self.scripts.enqueue.key(ROOT);
        invocation.arg(call.to_string()).arg(&order.server).arg(key.as_deref().unwrap_or_default());
        invocation.arg(retry.map_or("", |retry| &retry.name));
        invocation.arg(retry.map_or("", |retry| &retry.print));
        invocation.arg(&parties.principal).arg(&parties.organisation);
        add_fields(&mut invocation, &fields);
        let Some(reply) = self.link.invoke_once(&invocation).await? else { return Ok(Enqueue::Unanswered) };
        if let Value::Array(_) = reply {
            let [call, same] = codec::fixed(reply)?;
            return Ok(Enqueue::Known { call: codec::number(call)?, same: codec::number::<u8>(same)? == 1 });
        }
        match codec::text(reply)?.as_str() {
            "accepted" => Ok(Enqueue::Accepted),
            "full" => Ok(Enqueue::Full),
            "principal" => Ok(Enqueue::TooMany(Whose::Principal)),
            "organisation" => Ok(Enqueue::TooMany(Whose::Organisation)),
            "cancelled" => Ok(Enqueue::Cancelled),
            reply => Err(Unavailable(format!("unexpected reply {reply}"))),
        }
    }

    async fn offer(
        &self,
        call: CallId,
        node: &str,
        request: u64,
        ticket: Ticket,
        may_hold: bool,
    ) -> Result<Offer> {
        let args = [node, &request.to_string(), &ticket.to_string(), codec::digit(may_hold)];
        codec::offer(self.call(&self.scripts.offer, call, &args).await?)
    }

    async fn withdraw(&self, call: CallId, node: &str, request: u64) -> Result<Withdraw> {
        let args = [node, &request.to_string()];
        codec::withdraw(self.call(&self.scripts.withdraw, call, &args).await?)
    }

    async fn hold(&self, ticket: Ticket, assertion: &str) -> Result<Option<Held>> {
        let reply = self
            .invoke(&self.scripts.hold, |invocation| {
                invocation.arg(ticket.to_string()).arg(assertion);
            })
            .await?;
        codec::held(reply)
    }

    async fn read(&self, call: CallId, node: &str, request: u64, from: u32) -> Result<Read> {
        let args = [node, &request.to_string(), &from.to_string()];
        codec::read(self.call(&self.scripts.read, call, &args).await?)
    }

    async fn abandon(&self, call: CallId, node: &str, request: u64) -> Result<()> {
        self.call(&self.scripts.abandon, call, &[node, &request.to_string()]).await.map(drop)
    }

    async fn resume(
        &self,
        call: CallId,
        session: &str,
        last: u32,
        at: Option<(&str, u64)>,
    ) -> Result<Resume> {
        let last = last.to_string();
        let reply = match at {
            Some((node, request)) => {
                let args = [session, &last, node, &request.to_string()];
                self.call(&self.scripts.resume, call, &args).await?
            }
            None => self.call(&self.scripts.resume, call, &[session, &last]).await?,
        };
        codec::resume(reply)
    }

    async fn join(&self, call: CallId, name: &str, node: &str, request: u64) -> Result<Join> {
        let args = [name, node, &request.to_string()];
        codec::join(self.call(&self.scripts.join, call, &args).await?)
    }

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

    async fn cancel(&self, session: &str, request_id: &str) -> Result<()> {
        self.invoke(&self.scripts.cancel, |invocation| {
            invocation.arg(request_key(session, request_id));
        })
        .await
        .map(drop)
    }

    async fn post(&self, call: CallId, session: &str, message: Message) -> Result<bool> {
        let mut invocation = self.scripts.post.key(ROOT);
        invocation.arg(call.to_string()).arg(session).arg(&*message);
        match self.link.invoke_once(&invocation).await? {
            Some(reply) => Ok(codec::number::<u8>(reply)? == 1),
            None => Err(unanswered()),
        }
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

    async fn next(&self, server: &str, _worker: &str, room: &Room) -> Result<Vec<Entry>> {
        let reply = self
            .invoke(&self.scripts.next, |invocation| {
                invocation.arg(server).arg(room.most).arg(room.organisation).arg(room.principal);
                for (name, taken) in queue::named(room, room.most) {
                    invocation.arg(name).arg(*taken);
                }
            })
            .await?;
        codec::items(reply)?.into_iter().map(queue::entry).collect()
    }

    async fn arrival(&self, server: &str, worker: &str) -> Result<Option<Arrived>> {
        self.waiting(server, worker).line().await
    }

    async fn pass_on(&self, server: &str, line: &Arrived) -> Result<()> {
        let Some(words) = queue::passed_on(line) else { return Ok(()) };
        self.invoke(&self.scripts.pass_on, |invocation| {
            invocation.arg(server).arg(&words);
        })
        .await
        .map(drop)
    }

    async fn take(
        &self,
        server: &str,
        worker: &str,
        entry: &Entry,
        attempt: &str,
        rerun: Rerun,
    ) -> Result<Option<Taken>> {
        let args = [server, worker, &entry.receipt, attempt, codec::rerun(rerun), &fresh()];
        let reply = self.call(&self.scripts.take, entry.call, &args).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [generation, snapshot] = codec::fixed(reply)?;
        Ok(Some(Taken { snapshot: codec::snapshot(snapshot)?, generation: codec::text(generation)? }))
    }

    async fn inbox(&self, call: CallId, fence: Fence<'_>, after: u64) -> Result<Inbox> {
        let args = [fence.worker, &fence.epoch.to_string(), &after.to_string()];
        codec::inbox(self.call(&self.scripts.inbox, call, &args).await?)
    }

    async fn emit(
        &self,
        call: CallId,
        fence: Fence<'_>,
        first: u32,
        events: &[Message],
    ) -> Result<std::result::Result<State, Gone>> {
        let reply = self
            .invoke(&self.scripts.emit, |invocation| {
                invocation.arg(call.to_string()).arg(fence.worker).arg(fence.epoch).arg(first);
                for event in events {
                    invocation.arg(&**event);
                }
            })
            .await?;
        codec::view(reply)
    }

    async fn finish(
        &self,
        call: CallId,
        fence: Fence<'_>,
        out: &Message,
    ) -> Result<std::result::Result<State, Gone>> {
        codec::view(
            self.call(&self.scripts.finish, call, &[fence.worker, &fence.epoch.to_string(), out]).await?,
        )
    }

    async fn gate(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>> {
        let args = [fence.worker, &fence.epoch.to_string(), &channel.to_string()];
        codec::view(self.call(&self.scripts.gate, call, &args).await?)
    }

    async fn lost(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>> {
        let args = [fence.worker, &fence.epoch.to_string(), &channel.to_string()];
        codec::view(self.call(&self.scripts.lost, call, &args).await?)
    }

    async fn published(&self, call: CallId, fence: Fence<'_>) -> Result<std::result::Result<(), Gone>> {
        let reply =
            self.call(&self.scripts.published, call, &[fence.worker, &fence.epoch.to_string()]).await?;
        Ok(codec::owned(reply)?.map(drop))
    }

    async fn drop_work(
        &self,
        call: CallId,
        fence: Fence<'_>,
    ) -> Result<std::result::Result<Option<State>, Gone>> {
        codec::dropped(
            self.call(&self.scripts.drop_work, call, &[fence.worker, &fence.epoch.to_string()]).await?,
        )
    }

    async fn beat(&self, worker: &str, beats: &[Beat]) -> Result<Beaten> {
        // Without a call as well: the memory may be lost all the same.
        let first = beats.chunks(BEATS).next().unwrap_or_default();
        let rest = beats.get(first.len()..).unwrap_or_default().chunks(BEATS);
        let replies = [first].into_iter().chain(rest).map(|some| self.beat_some(worker, some));
        let mut beaten = Beaten { views: Vec::with_capacity(beats.len()), generation: String::new(), now: 0 };
        for some in try_join_all(replies).await? {
            beaten.views.extend(some.views);
            (beaten.generation, beaten.now) = (some.generation, some.now);
        }
        Ok(beaten)
    }

    async fn claim(&self, server: &str, worker: &str, most: usize, by: u64) -> Result<Vec<Claimed>> {
        let reply = self
            .invoke(&self.scripts.claim, |invocation| {
                invocation.arg(server).arg(worker).arg(most).arg(by);
            })
            .await?;
        let mut claimed = Vec::new();
        for item in codec::items(reply)? {
            match codec::claimed(item) {
                Ok(item) => claimed.push(item),
                // It must not stand in the way of the others.
                Err(error) => tracing::warn!(server, %error, "a record that can't be read"),
            }
        }
        Ok(claimed)
    }

    async fn restore(
        &self,
        call: CallId,
        worker: &str,
        snapshot: Snapshot,
    ) -> Result<std::result::Result<State, Gone>> {
        let key = order_key(&snapshot.order);
        let mut fields = codec::restored(&snapshot);
        fields.extend(key.as_deref().map(|key| ("ids", key.into())));
        let reply = self
            .invoke(&self.scripts.restore, |invocation| {
                invocation.arg(call.to_string()).arg(worker).arg(snapshot.epoch).arg(fields.len() * 2);
                add_fields(invocation, &fields);
                for event in &snapshot.log {
                    invocation.arg(&**event);
                }
            })
            .await?;
        codec::view(reply)
    }

    async fn stray(&self, channel: CallChannel) -> Result<Option<Stray>> {
        let args = [&*channel.number.to_string()];
        codec::stray(self.call(&self.scripts.stray, channel.call, &args).await?)
    }

    async fn cast(&self, topic: &str, message: Message) -> Result<()> {
        let mut publish = cmd("PUBLISH");
        publish.arg(bus::channel(topic)).arg(&*message);
        self.link.command_once(&publish).await?.map(drop).ok_or_else(unanswered)
    }

    async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>> {
        self.bus.follow(topics).await
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
