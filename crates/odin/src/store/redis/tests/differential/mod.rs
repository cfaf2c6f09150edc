//! Redis answers exactly what the memory of one process answers.
//!
//! Random commands go to both; every reply is compared, and every few commands all records. Both have the same clock, moved by
//! the test. Left out of the comparison: receipts, and the text of a memory's name.

mod commands;

use crate::call::{
    Message, Order, Parties, Reach, Record, Registrant, Rerun, Retry, Run, Snapshot, Timing, Via,
};
use crate::id::{CallChannel, CallId, Ticket};
use crate::protocol::Era;
use crate::store::{Queue, Runs};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use redis::{Script, Value, cmd};

use self::commands::{Command, OUTCOMES, ask};
use super::super::super::{Beat, Entry, MemoryStore, Result, Room, StoreLimits, Taken};
use super::super::scripts::{Clock, head};
use super::super::{LIFE, ROOT, RedisStore, codec};
use super::{by, order};
use kit::RedisServer;

/// Unless the environment variable `ODIN_SEQUENCES` says otherwise.
const SEQUENCES: u64 = 250;
const COMMANDS: usize = 120;
/// After how many commands all records are compared.
const COMPARE: usize = 4;
/// Calls whose records exist at the same time.
const CALLS: usize = 5;

/// The record as Redis has it.
const PEEK: &str = "local r = record(ARGV[1])
if not r then return false end
local lease = redis.call('ZSCORE', key('leases', r.server), r.call)
return { snapshot(r), r.owner, lease or 0, r.closed, r.enqueued, r.attempt or '' }";

/// Names of all principals and organisations.
fn parties() -> BTreeSet<String> {
    let all = [("p", "o"), ("q", "o"), ("r", "other")].map(|(principal, organisation)| {
        let (principal, organisation) = (principal.into(), organisation.into());
        Order { principal, organisation, ..order(Era::Stateless, "a", 1) }.parties()
    });
    all.into_iter().flat_map(|Parties { principal, organisation }| [principal, organisation]).collect()
}

struct World {
    random: StdRng,
    clock: Arc<AtomicU64>,
    memory: MemoryStore,
    redis: RedisStore,
    peek: Script,
    calls: Vec<CallId>,
    tickets: Vec<Ticket>,
    /// Lines that were read: the receipts of both.
    lines: BTreeMap<CallId, (Entry, Entry)>,
    /// Commands that are to come next.
    plan: VecDeque<Command>,
    snapshots: Vec<(CallId, Snapshot)>,
    generations: (String, String),
    /// The commands so far.
    trace: Vec<String>,
    /// Which of [`OUTCOMES`] came up.
    seen: BTreeSet<(&'static str, &'static str)>,
}

#[tokio::test]
async fn redis_answers_what_memory_answers() {
    let server = RedisServer::start();
    let sequences = std::env::var("ODIN_SEQUENCES").map_or(SEQUENCES, |count| count.parse().unwrap());
    let mut seen = BTreeSet::new();
    for seed in 0..sequences {
        let mut world = World::new(&server, seed).await;
        for _ in 0..COMMANDS {
            let command = world.command();
            world.trace.push(format!("{command:?}"));
            if let Err(difference) = world.step(command).await {
                panic!("seed {seed}, after\n{}\n{difference}", world.trace.join("\n"));
            }
        }
        seen.append(&mut world.seen);
    }
    let unseen: Vec<_> = OUTCOMES.iter().filter(|outcome| !seen.contains(*outcome)).collect();
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

impl World {
    async fn new(server: &RedisServer, seed: u64) -> Self {
        let timing = Timing::default();
        let limits = StoreLimits {
            queue: 3,
            calls_of_principal: 3,
            calls_of_organisation: 4,
            inbox: 2,
            session_fields: 1,
            ..StoreLimits::default()
        };
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let read = Arc::clone(&clock);
        let memory = MemoryStore::with_clock(timing, limits, Arc::new(move || read.load(Ordering::Relaxed)));
        let redis = RedisStore::with_clock(&server.url(), timing, limits, LIFE, Clock::Key).unwrap();
        let peek = Script::new(&format!("{}\n{PEEK}", head(&timing, &limits, LIFE, Clock::Key)));
        let world = Self {
            random: StdRng::seed_from_u64(seed),
            clock,
            memory,
            redis,
            peek,
            calls: Vec::new(),
            tickets: Vec::new(),
            lines: BTreeMap::new(),
            plan: VecDeque::new(),
            snapshots: Vec::new(),
            generations: Default::default(),
            trace: Vec::new(),
            seen: BTreeSet::new(),
        };
        world.empty_redis().await;
        world
    }

    async fn empty_redis(&self) {
        self.redis.link.command(&cmd("FLUSHALL")).await.unwrap();
        self.set_clock().await;
    }

    async fn set_clock(&self) {
        let now = self.clock.load(Ordering::Relaxed);
        self.redis.link.command(cmd("SET").arg(format!("{ROOT}clock")).arg(now)).await.unwrap();
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.random).unwrap().clone()
    }

    fn node(&mut self) -> &'static str {
        self.pick(&["a", "b"])
    }

    fn worker(&mut self) -> &'static str {
        self.pick(&["v", "w"])
    }

    fn session(&mut self) -> &'static str {
        self.pick(&["session", "session", "session", "other"])
    }

    fn message(&mut self) -> Message {
        // Nothing that a client or a tool sends is special to Lua, JSON or the protocol of Redis.
        let text = ["plain", "", "a\r\nb\0c", "{\"ü\":\"\\u0000 𝄞\"}", "]]' .. error('x') --", "$5\r\n"];
        self.pick(&text).into()
    }

    fn known_call(&mut self) -> CallId {
        let calls = self.calls.clone();
        if calls.is_empty() { CallId::from_bits([9; 16]) } else { self.pick(&calls) }
    }

    fn party(&mut self) -> (&'static str, &'static str) {
        self.pick(&[("p", "o"), ("p", "o"), ("q", "o"), ("r", "other")])
    }

    fn registrant(&mut self) -> Registrant {
        self.pick(&[
            Registrant::Worker(Rerun::Safe),
            Registrant::Worker(Rerun::Unsafe),
            Registrant::Backend,
            Registrant::Backend,
        ])
    }

    fn room(&mut self) -> Room {
        let mut room = Room::of(self.random.random_range(1..4));
        room.organisation = self.pick(&[1, 2, 3, usize::MAX]);
        room.principal = self.pick(&[1, 2, usize::MAX]);
        let names = parties();
        for name in names {
            let taken = self.random.random_range(0..3);
            if taken > 0 {
                room.taken.insert(name, taken);
            }
        }
        room
    }

    fn ticket(&mut self) -> Ticket {
        let known = self.tickets.clone();
        if known.is_empty() || self.random.random_bool(0.5) {
            let ticket = Ticket::from_bits(self.random.random());
            self.tickets.push(ticket);
            return ticket;
        }
        self.pick(&known)
    }

    fn new_order(&mut self) -> (CallId, Arc<Order>) {
        let existing: Vec<CallId> =
            self.calls.iter().copied().filter(|call| self.memory.peek(*call).is_some()).collect();
        let era = self.pick(&[Era::Stateless, Era::Stateful]);
        let node = self.node();
        let mut order = order(era, node, self.random.random_range(1..3));
        let (principal, organisation) = self.party();
        (order.principal, order.organisation) = (principal.into(), organisation.into());
        order.via = self.pick(&[Via::Pushpin, Via::Pushpin, Via::Backend]);
        order.tool = self.pick(&[None, Some("report".to_owned()), Some(String::new())]);
        order.request_id = order.request_id.map(|_| self.pick(&["1", "\"x\""]).to_owned());
        order.job = self.message();
        let retry = |fingerprint: &str| Retry { name: "retry".into(), fingerprint: fingerprint.into() };
        order.retry = self.pick(&[None, None, Some(retry("p1")), Some(retry("p2"))]);
        if order.session.is_some() && order.retry.is_none() {
            order.stream = self.pick(&[None, None, Some("stream".to_owned())]);
        }
        let again = !existing.is_empty() && self.random.random_bool(0.1);
        let call = if existing.len() >= CALLS || again {
            self.pick(&existing)
        } else {
            CallId::from_bits(self.random.random())
        };
        (call, Arc::new(order))
    }

    /// A command that may do something: most of the time with the numbers that the record has.
    fn command(&mut self) -> Command {
        if let Some(command) = self.plan.pop_front() {
            return command;
        }
        let call = self.known_call();
        let record = self.memory.peek(call);
        let right = self.random.random_bool(0.85);
        let epoch = match &record {
            Some(record) if right => record.epoch,
            _ => self.random.random_range(0..3),
        };
        let channel = match record.as_ref().map(|record| &record.reach) {
            Some(Reach::Held { channel, .. }) if self.random.random_bool(0.7) => *channel,
            _ => self.random.random_range(1..4),
        };
        let (node, request) = match record.as_ref().map(|record| &record.order) {
            Some(order) if right => (if order.node == "a" { "a" } else { "b" }, order.request),
            _ => (self.node(), self.random.random_range(1..3)),
        };
        let event_count = record.as_ref().map_or(0, |record| record.event_count);
        let worker = match record.as_ref().map(|record| record.owner.as_str()) {
            Some("v") if right => "v",
            Some("w") if right => "w",
            _ => self.worker(),
        };
        let fence = (worker, epoch);
        if let Some(record) = &record
            && record.run == Run::Running
            && self.random.random_bool(0.1)
        {
            self.plan = self.scenario(call, record, worker).into();
        }
        match self.random.random_range(0..100) {
            0..2 => Command::Withdraw(call, node, request),
            2..12 => {
                let (call, order) = self.new_order();
                Command::Enqueue(call, order)
            }
            // Again, by its owner or another, and by a backend in its name.
            12 if let Some(record) = &record => {
                Command::Register(call, Arc::new(record.order.clone()), worker, self.registrant())
            }
            12..14 => {
                let (call, order) = self.new_order();
                // What has a key or a stream of its own goes through the queue.
                let order = Order { retry: None, stream: None, ..(*order).clone() };
                let id = if order.request_id.as_deref() == Some("1") { "1" } else { "\"x\"" };
                let (order, worker, by) = (Arc::new(order), self.worker(), self.registrant());
                if self.random.random_bool(0.2) {
                    // Its cancellation comes first; and it comes twice.
                    self.plan.push_back(Command::Register(call, order.clone(), worker, by));
                    let again = Command::Register(call, order, worker, self.registrant());
                    self.plan.push_back(again);
                    return Command::Cancel("session", id);
                }
                Command::Register(call, order, worker, by)
            }
            14..24 => {
                let ticket = self.ticket();
                Command::Offer(call, node, request, ticket, self.random.random_bool(0.7))
            }
            24..32 => {
                let offered = match record.as_ref().map(|record| &record.reach) {
                    Some(Reach::Offered { ticket, .. }) if right => *ticket,
                    Some(Reach::Held { ticket: Some(ticket), .. }) if right => *ticket,
                    _ => self.ticket(),
                };
                Command::Hold(offered, self.pick(&["a1", "a1", "a1", "a2"]))
            }
            32..35 => Command::Read(call, node, request, self.random.random_range(0..3)),
            35..37 => Command::Abandon(call, node, request),
            37..40 => {
                let at = self.random.random_bool(0.3).then_some((node, request));
                Command::Resume(call, self.session(), self.random.random_range(0..event_count + 3), at)
            }
            40 => Command::Join(call, self.pick(&["retry", "retry", "another"]), node, request),
            41..43 => Command::Cancel(self.session(), self.pick(&["1", "\"x\""])),
            43..46 => Command::Post(call, self.session(), self.message()),
            46..54 => Command::Next(worker, self.room()),
            // A line that woke the worker is taken without having been read.
            54..56 => {
                let rerun = self.pick(&[Rerun::Safe, Rerun::Unsafe]);
                Command::Take(worker, call, self.pick(&["one", "two"]), rerun)
            }
            56..64 if !self.lines.is_empty() => {
                let lines: Vec<CallId> = self.lines.keys().copied().collect();
                let worker = self.worker();
                let rerun = self.pick(&[Rerun::Safe, Rerun::Unsafe]);
                Command::Take(worker, self.pick(&lines), self.pick(&["one", "two"]), rerun)
            }
            64..66 => Command::Inbox(call, fence, self.random.random_range(0..3)),
            66..72 => {
                let first =
                    if right { event_count + 1 } else { self.random.random_range(0..event_count + 3) };
                let events = (0..self.random.random_range(0..4)).map(|_| self.message()).collect();
                Command::Emit(call, fence, first, events)
            }
            72..77 => {
                let out = self.pick(&["out", "out", "other"]);
                Command::Finish(call, fence, out.into())
            }
            77..80 => Command::Gate(call, fence, channel),
            80..82 => Command::Lost(call, fence, channel),
            82..84 => Command::Published(call, fence),
            84..86 => Command::DropWork(call, fence),
            86..90 => Command::Beat(worker, self.beats()),
            90..93 => {
                // At the last moment, and a moment late.
                let late = u64::from(self.random.random_bool(0.1));
                Command::Claim(worker, self.clock.load(Ordering::Relaxed) - late)
            }
            93..95 if !self.snapshots.is_empty() => {
                let known = self.snapshots.clone();
                let (call, mut snapshot) = self.pick(&known);
                snapshot.epoch += u32::from(self.random.random_bool(0.2));
                Command::Restore(call, worker, Box::new(snapshot))
            }
            95 => Command::OrphanedStream(CallChannel { call, number: channel }),
            // These end by Redis' own clock, beyond what a sequence lasts.
            96 => Command::Remember(
                self.session(),
                self.pick(&["level", "end", "more", "most"]),
                self.message(),
            ),
            97 => Command::Recall(self.session()),
            98 if self.random.random_bool(0.2) => Command::Forget,
            // Not below a second: the memory sweeps once a second.
            _ => Command::Advance(self.pick(&[1000, 1000, 1500, 4000, 5000, 10_000, 60_000, 300_000])),
        }
    }

    /// What chance alone would bring up too seldom, of a call at work.
    fn scenario(&mut self, call: CallId, record: &Record, worker: &'static str) -> Vec<Command> {
        let node = if record.order.node == "a" { "a" } else { "b" };
        let (epoch, request) = (record.epoch, record.order.request);
        let fence = (if record.owner == "v" { "v" } else { "w" }, epoch);
        let [one, two] = [(); 2].map(|()| Ticket::from_bits(self.random.random()));
        let beat = Command::Beat(fence.0, vec![Beat { call, epoch, subscribed: false }]);
        let offer = |ticket| Command::Offer(call, node, request, ticket, true);
        let finish = Command::Finish(call, fence, "out".into());
        let id = if record.order.request_id.as_deref() == Some("1") { "1" } else { "\"x\"" };
        match self.random.random_range(0..6) {
            // A stream that is taken up while the work goes on.
            5 => vec![
                Command::Emit(call, fence, record.event_count + 1, vec!["event".into()]),
                Command::Resume(call, "session", 0, None),
            ],
            // A hold that is repeated after the gate was opened.
            0 => {
                let gate = Command::Gate(call, fence, record.channels + 1);
                vec![offer(one), Command::Hold(one, "a1"), gate, Command::Hold(one, "a1")]
            }
            // A hold with the ticket of an earlier offer.
            1 => vec![offer(one), Command::Advance(5000), beat, offer(two), Command::Hold(one, "a1")],
            // A backend that fetches its answer too late, and then again.
            2 => {
                let read = Command::Read(call, node, request, 0);
                vec![finish, Command::Advance(4000), beat, Command::Advance(1000), read.clone(), read]
            }
            // An answer in spite of the cancellation.
            3 => vec![Command::Cancel("session", id), finish, Command::Published(call, fence)],
            // Work that goes on without a client, and is taken over.
            _ => vec![
                Command::Abandon(call, node, request),
                Command::Advance(1500),
                Command::Claim(worker, u64::MAX),
            ],
        }
    }

    fn beats(&mut self) -> Vec<Beat> {
        let calls = self.calls.clone();
        let mut beats = Vec::new();
        for call in calls {
            if self.random.random_bool(0.7) {
                let epoch = match self.memory.peek(call) {
                    Some(record) if self.random.random_bool(0.9) => record.epoch,
                    _ => self.random.random_range(0..3),
                };
                beats.push(Beat { call, epoch, subscribed: self.random.random_bool(0.3) });
            }
        }
        beats
    }

    /// Gives both the command, and compares the replies.
    async fn step(&mut self, command: Command) -> std::result::Result<(), String> {
        let (memory, redis) = match &command {
            Command::Next(worker, room) => {
                let memory = self.memory.next("s", worker, room).await.unwrap();
                let redis = self.redis.next("s", worker, room).await.unwrap();
                self.read_lines(memory, redis)
            }
            Command::Take(worker, call, attempt, rerun) => {
                let parties = Parties::default();
                let unread = Entry { call: *call, tool: None, parties, receipt: String::new() };
                let (one, other) = self.lines.get(call).cloned().unwrap_or((unread.clone(), unread));
                // Some are taken twice: the first reply may be lost.
                if self.random.random_bool(0.7) {
                    self.lines.remove(call);
                }
                let memory = self.memory.take("s", worker, &one, attempt, *rerun).await.unwrap();
                let redis = self.redis.take("s", worker, &other, attempt, *rerun).await.unwrap();
                if let (Some(memory), Some(redis)) = (&memory, &redis) {
                    self.compare_generations(&memory.generation, &redis.generation)?;
                }
                let snapshot = |taken: Option<Taken>| taken.map(|t| t.snapshot);
                (format!("{:?}", snapshot(memory)), format!("{:?}", snapshot(redis)))
            }
            Command::Register(call, order, worker, by) => {
                let memory = self.memory.register(*call, order, worker, *by).await.unwrap();
                let redis = self.redis.register(*call, order, worker, *by).await.unwrap();
                if let (Ok(memory), Ok(redis)) = (&memory, &redis) {
                    self.compare_generations(&memory.generation, &redis.generation)?;
                }
                if !self.calls.contains(call) {
                    self.calls.push(*call);
                }
                (
                    format!("{:?}", memory.map(|registered| registered.state)),
                    format!("{:?}", redis.map(|registered| registered.state)),
                )
            }
            Command::Beat(worker, beats) => {
                let memory = self.memory.beat(worker, beats).await.unwrap();
                let redis = self.redis.beat(worker, beats).await.unwrap();
                self.compare_generations(&memory.generation, &redis.generation)?;
                (format!("{:?}", memory.views), format!("{:?}", redis.views))
            }
            Command::Advance(step) => {
                self.clock.fetch_add(*step, Ordering::Relaxed);
                self.set_clock().await;
                // Any command of a worker makes the memory sweep.
                self.memory.gate(CallId::from_bits([0; 16]), by("w", 0), 0).await.unwrap().unwrap_err();
                Default::default()
            }
            Command::Forget => {
                self.memory.forget();
                self.empty_redis().await;
                self.lines.clear();
                Default::default()
            }
            command => {
                if let Command::Enqueue(call, _) = command
                    && !self.calls.contains(call)
                {
                    self.calls.push(*call);
                    let old = self.calls.len().saturating_sub(2 * CALLS);
                    self.calls.drain(..old);
                }
                let memory = ask(&self.memory, command).await.unwrap();
                let redis = ask(&self.redis, command).await.map_err(|error| error.to_string())?;
                (memory, redis)
            }
        };
        let name = format!("{command:?}");
        let name = name.split('(').next().unwrap_or_default();
        for (command, part) in OUTCOMES {
            if *command == name && memory.contains(part) {
                self.seen.insert((command, part));
            }
        }
        if memory != redis {
            return Err(format!("memory: {memory}\nredis:  {redis}"));
        }
        if self.trace.len().is_multiple_of(COMPARE) {
            self.compare_records().await?;
            self.compare_counts().await?;
        }
        Ok(())
    }

    fn read_lines(&mut self, memory: Vec<Entry>, redis: Vec<Entry>) -> (String, String) {
        let plain = |entries: &[Entry]| {
            format!(
                "{:?}",
                entries.iter().map(|entry| (entry.call, &entry.tool, &entry.parties)).collect::<Vec<_>>()
            )
        };
        let texts = (plain(&memory), plain(&redis));
        for (memory, redis) in memory.into_iter().zip(redis) {
            self.lines.insert(memory.call, (memory, redis));
        }
        texts
    }

    fn compare_generations(&mut self, memory: &str, redis: &str) -> std::result::Result<(), String> {
        let (last_memory, last_redis) = &self.generations;
        if !last_memory.is_empty() && (last_memory == memory) != (last_redis == redis) {
            return Err(format!("generations: {last_memory} {memory}, {last_redis} {redis}"));
        }
        self.generations = (memory.to_owned(), redis.to_owned());
        Ok(())
    }

    async fn compare_records(&mut self) -> std::result::Result<(), String> {
        let peeks = try_join_all(self.calls.iter().map(|call| self.peek(*call))).await;
        let records = peeks.map_err(|error| error.to_string())?;
        for (call, redis) in self.calls.clone().into_iter().zip(records) {
            let memory = self.memory.peek(call);
            if memory != redis {
                return Err(format!("record {call}\nmemory: {memory:?}\nredis:  {redis:?}"));
            }
            if let Some(record) = memory
                && self.random.random_bool(0.2)
            {
                self.snapshots.push((call, record.snapshot()));
            }
        }
        Ok(())
    }

    /// What counts for whom is what is open, no more and no less.
    async fn compare_counts(&self) -> std::result::Result<(), String> {
        let (open, counted) = self.memory.open_calls("s");
        let mut redis: BTreeMap<String, BTreeSet<CallId>> = BTreeMap::new();
        for name in parties() {
            let key = format!("{ROOT}open:{name}:s");
            let calls = self.redis.link.command(cmd("ZRANGE").arg(key).arg(0).arg(-1)).await.unwrap();
            for call in codec::items(calls).unwrap() {
                redis.entry(name.clone()).or_default().insert(codec::number(call).unwrap());
            }
        }
        if open == counted && open == redis {
            return Ok(());
        }
        Err(format!("open:    {open:?}\ncounted: {counted:?}\nredis:   {redis:?}"))
    }

    async fn peek(&self, call: CallId) -> Result<Option<Record>> {
        let reply = self.redis.call(&self.peek, call, &[]).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [snapshot, owner, lease, closed, enqueued, attempt] = codec::fixed(reply)?;
        let snapshot = codec::snapshot(snapshot)?;
        Ok(Some(Record {
            order: snapshot.order,
            enqueued: codec::number(enqueued)?,
            run: snapshot.run,
            epoch: snapshot.epoch,
            owner: codec::text(owner)?,
            lease: codec::number(lease)?,
            rerun: snapshot.rerun,
            reach: snapshot.state.reach,
            channels: snapshot.channels,
            event_count: snapshot.state.event_count,
            attempt: codec::text(attempt)?,
            out: snapshot.out,
            log: snapshot.log,
            cancel: snapshot.state.cancel,
            closed: codec::text(closed)? == "1",
        }))
    }
}
