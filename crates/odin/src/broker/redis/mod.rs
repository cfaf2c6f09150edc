//! The broker of a site: the records of calls in Redis.
//!
//! Each transition is one Lua script of `broker/lua/`. All keys of a script are in one shard, whose number is
//! the hash tag of a Redis Cluster. Everything but the name of the memory expires or is deleted.

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
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    shards: u8,
    /// Where workers wait, by server and worker.
    waiting: Mutex<HashMap<(String, String), Arc<Waiting>>>,
    /// The shard that the next worker begins with.
    first: AtomicU8,
    bus: Bus,
    /// The last known name of each shard's memory.
    generations: Mutex<Vec<Option<String>>>,
}

impl RedisBroker {
    /// A broker over the Redis at a URL (`redis://[[user]:password@]host[:port][/db]`, or
    /// `redis+unix:///path`). Redis need not be up yet.
    ///
    /// `timing`, `limits` and `shards` (at least 1) must be the same on all nodes of the site.
    ///
    /// # Errors
    /// [`InvalidUrl`] when the URL is none.
    pub fn connect(
        url: &str,
        timing: Timing,
        limits: BrokerLimits,
        shards: u8,
    ) -> std::result::Result<Self, InvalidUrl> {
        Self::with_clock(url, timing, limits, shards, LIFE, Clock::Redis)
    }

    fn with_clock(
        url: &str,
        timing: Timing,
        limits: BrokerLimits,
        shards: u8,
        life: Duration,
        clock: Clock,
    ) -> std::result::Result<Self, InvalidUrl> {
        let invalid = |error: redis::RedisError| InvalidUrl(error.to_string());
        let info = url.into_connection_info().map_err(invalid)?;
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(invalid)?;
        let shards = shards.max(1);
        Ok(Self {
            link: Link::new(client.clone(), PATIENCE),
            bus: Bus::new(client.clone()),
            client,
            scripts: Scripts::new(&timing, &limits, life, clock),
            tasks: TaskScripts::new(&head(&timing, &limits, life, clock)),
            shards,
            waiting: Mutex::default(),
            first: AtomicU8::new(0),
            generations: Mutex::new(vec![None; usize::from(shards)]),
        })
    }

    fn waiting(&self, server: &str, worker: &str) -> Arc<Waiting> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let place = waiting.entry((server.to_owned(), worker.to_owned())).or_insert_with(|| {
            let bells = (0..self.shards).map(|shard| format!("{}bell:{server}", root(shard))).collect();
            Arc::new(Waiting::new(self.client.clone(), bells))
        });
        Arc::clone(place)
    }

    async fn call(&self, script: &Script, call: CallId, args: &[&str]) -> Result<Value> {
        self.invoke(script, call.shard(), |invocation| {
            invocation.arg(call.to_string()).arg(args);
        })
        .await
    }

    async fn invoke(
        &self,
        script: &Script,
        shard: u8,
        arguments: impl FnOnce(&mut ScriptInvocation<'_>),
    ) -> Result<Value> {
        let mut invocation = script.key(root(shard));
        arguments(&mut invocation);
        self.link.invoke(&invocation).await
    }

    fn generations(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the name of a shard's memory.
    fn note(&self, shard: u8, generation: Value) -> Result<()> {
        let generation = Some(codec::text(generation)?);
        let mut generations = self.generations();
        if let Some(known) = generations.get_mut(usize::from(shard)) {
            if known.is_some() && *known != generation {
                // The same Redis has other shards: they are asked again.
                generations.fill(None);
            }
            if let Some(known) = generations.get_mut(usize::from(shard)) {
                *known = generation;
            }
        }
        Ok(())
    }

    /// The name of all shards' memory together.
    async fn generation(&self) -> Result<String> {
        let unknown: Vec<u8> = (0..self.shards)
            .zip(self.generations().iter())
            .filter_map(|(shard, known)| known.is_none().then_some(shard))
            .collect();
        try_join_all(unknown.into_iter().map(|shard| self.beat_shard(shard, "", Vec::new()))).await?;
        let generations = self.generations();
        Ok(generations.iter().map(|known| known.as_deref().unwrap_or_default()).collect::<Vec<_>>().join("."))
    }

    /// Beats for one shard's calls: the place of each in the worker's list with its answer.
    async fn beat_shard(
        &self,
        shard: u8,
        worker: &str,
        beats: Vec<(usize, Beat)>,
    ) -> Result<Vec<(usize, std::result::Result<State, Gone>)>> {
        let reply = self
            .invoke(&self.scripts.beat, shard, |invocation| {
                invocation.arg(worker).arg(fresh());
                for (_, beat) in &beats {
                    invocation.arg(beat.call.to_string()).arg(beat.epoch).arg(codec::digit(beat.subscribed));
                }
            })
            .await?;
        let mut reply = codec::items(reply)?.into_iter();
        self.note(shard, reply.next().unwrap_or_default())?;
        let views = beats.into_iter().zip(reply).map(|((place, beat), view)| {
            let view = codec::view(view).unwrap_or_else(|error| {
                // It must not cost the worker's other calls their lease.
                tracing::warn!(call = %beat.call, %error, "a record that can't be read");
                Err(Gone::Missing)
            });
            (place, view)
        });
        Ok(views.collect())
    }
}

/// The root of a shard's keys.
fn root(shard: u8) -> String {
    format!("asgard:{{{shard}}}:")
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
    fn shard(&self, session: Option<&str>) -> u8 {
        let number = match session {
            Some(session) => {
                let hash: [u8; 32] = Sha256::digest(session).into();
                let [a, b, c, d, ..] = hash;
                u32::from_be_bytes([a, b, c, d])
            }
            None => rand::random(),
        };
        u8::try_from(number % u32::from(self.shards)).unwrap_or_default()
    }

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
        if call.shard() >= self.shards {
            return Err(Unavailable(format!("there is no shard {}", call.shard())));
        }
        let key = order_key(&order);
        let retry = order.retry.as_ref();
        let parties = order.parties();
        let mut fields = codec::order(&order);
        fields.extend(codec::node(&order.node, order.request));
        fields.extend(key.as_deref().map(|key| ("ids", key.into())));
        let mut invocation = self.scripts.enqueue.key(root(call.shard()));
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
            .invoke(&self.scripts.hold, ticket.shard(), |invocation| {
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
        let at = format!("{}park:{ticket}", root(ticket.shard()));
        let life = u64::try_from(PARKED.as_millis()).unwrap_or(u64::MAX);
        self.link
            .command(cmd("SET").arg(at).arg(stream).arg("PX").arg(life))
            .await
            .map(drop)
            .map_err(unavailable)
    }

    async fn parked(&self, ticket: Ticket) -> Result<Option<String>> {
        let at = format!("{}park:{ticket}", root(ticket.shard()));
        let reply = self.link.command(cmd("GET").arg(at)).await.map_err(unavailable)?;
        redis::from_redis_value(reply).map_err(|error| Unavailable(error.to_string()))
    }

    async fn cancel(&self, session: &str, request_id: &str) -> Result<()> {
        // In all shards: a call with a retry's key is not in its session's.
        let cancel = |shard| {
            self.invoke(&self.scripts.cancel, shard, |invocation| {
                invocation.arg(request_key(session, request_id));
            })
        };
        try_join_all((0..self.shards).map(cancel)).await.map(drop)
    }

    async fn post(&self, call: CallId, session: &str, message: Message) -> Result<bool> {
        let mut invocation = self.scripts.post.key(root(call.shard()));
        invocation.arg(call.to_string()).arg(session).arg(&*message);
        match self.link.invoke_once(&invocation).await? {
            Some(reply) => Ok(codec::number::<u8>(reply)? == 1),
            None => Err(unanswered()),
        }
    }

    async fn remember(&self, session: &str, field: &str, value: &str, live: Duration) -> Result<bool> {
        let life = live.as_millis().clamp(1, 1 << 40).to_string();
        let reply = self
            .invoke(&self.scripts.remember, self.shard(Some(session)), |invocation| {
                invocation.arg(session).arg(field).arg(value).arg(life);
            })
            .await?;
        Ok(codec::number::<u8>(reply)? == 1)
    }

    async fn recall(&self, session: &str) -> Result<BTreeMap<String, String>> {
        let at = format!("{}session:{session}", root(self.shard(Some(session))));
        let reply = self.link.command(cmd("HGETALL").arg(at)).await.map_err(unavailable)?;
        redis::from_redis_value(reply).map_err(|error| Unavailable(error.to_string()))
    }

    async fn next(&self, server: &str, _worker: &str, room: &Room) -> Result<Vec<Entry>> {
        let (mut room, mut entries) = (room.clone(), Vec::new());
        let first = self.first.fetch_add(1, Ordering::Relaxed);
        for number in 0..self.shards {
            if room.most == 0 {
                break;
            }
            let shard = (usize::from(first) + usize::from(number)) % usize::from(self.shards);
            let shard = u8::try_from(shard).unwrap_or_default();
            let most = room.most;
            let reply = self
                .invoke(&self.scripts.next, shard, |invocation| {
                    invocation.arg(server).arg(most).arg(room.organisation).arg(room.principal);
                    for (name, taken) in queue::named(&room, most) {
                        invocation.arg(name).arg(*taken);
                    }
                })
                .await;
            let lines = match reply.and_then(codec::items) {
                // Of another shard there are lines, which must not be lost.
                Err(_) if !entries.is_empty() => break,
                lines => lines?,
            };
            for line in lines {
                let entry = queue::entry(line)?;
                room.take(&entry.parties);
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    async fn arrival(&self, server: &str, worker: &str) -> Result<Option<Arrived>> {
        self.waiting(server, worker).line().await
    }

    async fn pass_on(&self, server: &str, line: &Arrived) -> Result<()> {
        let Some(words) = queue::passed_on(line) else { return Ok(()) };
        self.invoke(&self.scripts.pass_on, line.entry.call.shard(), |invocation| {
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
        self.note(entry.call.shard(), generation)?;
        Ok(Some(Taken { snapshot: codec::snapshot(snapshot)?, generation: self.generation().await? }))
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
            .invoke(&self.scripts.emit, call.shard(), |invocation| {
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
        let shard_beats = (0..self.shards).flat_map(|shard| {
            let own: Vec<(usize, Beat)> =
                beats.iter().copied().enumerate().filter(|(_, beat)| beat.call.shard() == shard).collect();
            let chunks: Vec<Vec<(usize, Beat)>> = match own.is_empty() {
                // The shard's memory may be lost all the same.
                true => vec![Vec::new()],
                false => own.chunks(BEATS).map(<[_]>::to_vec).collect(),
            };
            chunks.into_iter().map(move |chunk| (shard, chunk))
        });
        let replies =
            try_join_all(shard_beats.map(|(shard, chunk)| self.beat_shard(shard, worker, chunk))).await?;
        let mut views = vec![Err(Gone::Missing); beats.len()];
        for (place, view) in replies.into_iter().flatten() {
            if let Some(slot) = views.get_mut(place) {
                *slot = view;
            }
        }
        Ok(Beaten { views, generation: self.generation().await? })
    }

    async fn claim(&self, server: &str, worker: &str, most: usize) -> Result<Vec<Claimed>> {
        let mut claimed = Vec::new();
        for shard in 0..self.shards {
            if claimed.len() >= most {
                break;
            }
            let reply = self
                .invoke(&self.scripts.claim, shard, |invocation| {
                    invocation.arg(server).arg(worker).arg(most - claimed.len());
                })
                .await?;
            for item in codec::items(reply)? {
                match codec::claimed(item) {
                    Ok(item) => claimed.push(item),
                    // It must not stand in the way of the others.
                    Err(error) => tracing::warn!(server, %error, "a record that can't be read"),
                }
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
            .invoke(&self.scripts.restore, call.shard(), |invocation| {
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
            .invoke(&self.scripts.use_once, self.shard(Some(name)), |invocation| {
                invocation.arg(name).arg(by).arg(life);
            })
            .await?;
        codec::text(reply)
    }

    async fn enter(&self, group: &str, member: &str, live: Duration, most: usize) -> Result<bool> {
        let life = live.as_millis().clamp(1, 1 << 40).to_string();
        let reply = self
            .invoke(&self.scripts.enter, self.shard(Some(group)), |invocation| {
                invocation.arg(group).arg(member).arg(life).arg(most);
            })
            .await?;
        Ok(codec::number::<u8>(reply)? == 1)
    }

    async fn leave(&self, group: &str, member: &str) -> Result<()> {
        let at = format!("{}group:{group}", root(self.shard(Some(group))));
        self.link.command(cmd("ZREM").arg(at).arg(member)).await.map(drop).map_err(unavailable)
    }

    async fn members(&self, group: &str) -> Result<Vec<String>> {
        let reply = self
            .invoke(&self.scripts.members, self.shard(Some(group)), |invocation| {
                invocation.arg(group);
            })
            .await?;
        codec::items(reply)?.into_iter().map(codec::text).collect()
    }
}
