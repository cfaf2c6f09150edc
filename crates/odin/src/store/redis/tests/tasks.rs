//! Redis answers exactly what the memory of one process answers, for tasks too.

use crate::call::{
    Message, Rerun, Run, Timing,
    task::{NewTask, TaskEnd},
};
use crate::id::CallId;
use crate::protocol::Era;
use crate::store::{Queue, Tasks};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use redis::cmd;

use super::super::super::{Beat, Entry, MemoryStore, Result, Room, Store, StoreLimits};
use super::super::scripts::Clock;
use super::super::{LIFE, ROOT, RedisStore, codec};
use super::{by, order};
use kit::RedisServer;

const SEQUENCES: u64 = 40;
const COMMANDS: usize = 150;
/// The queue of calls, and that of rounds.
const QUEUES: [&str; 2] = ["s", "s/tasks"];
/// The latest tasks, which are compared after each command.
const COMPARE: usize = 4;

/// Commands with a part of a reply: all of them come up in the sequences, or the test shows too little.
const OUTCOMES: &[(&str, &str)] = &[
    ("Begin", "Created"),
    ("Begin", "Nobody"),
    ("Begin", "Full"),
    ("Begin", "Missing"),
    ("Begin", "Fenced"),
    ("Work", "Some(TaskWork"),
    ("Work", "round: 3"),
    ("Work", "answers: {\""),
    ("Work", "state: Some"),
    ("Work", "None"),
    ("Note", "note: Some"),
    ("Note", "None"),
    ("End", "status: Completed"),
    ("End", "status: Failed"),
    ("End", "status: InputRequired"),
    ("End", "status: Working"),
    ("End", "Ok(None)"),
    ("End", "Missing"),
    ("End", "Fenced"),
    ("Get", "Some(TaskView"),
    ("Get", "status: Cancelled"),
    ("Get", "None"),
    ("Get", "outcome: Some(\"gone\")"),
    ("Answer", "changed: true"),
    ("Answer", "changed: false"),
    ("Answer", "status: Working"),
    ("Answer", "None"),
    ("Cancel", "changed: true"),
    ("Cancel", "changed: false"),
    ("Cancel", "None"),
    ("Claim", "claim: Run"),
    ("Claim", "claim: Publish { out: \"gone\" }"),
    ("Beat", "cancel: true"),
    ("DropWork", "Ok(None)"),
];

#[derive(Debug, Clone)]
enum Command {
    Call(CallId),
    Pull(Rerun),
    Abandon(CallId),
    Begin(CallId, u32, Box<NewTask>, Message),
    Work(CallId, CallId),
    Note(CallId, CallId, u32, &'static str),
    End(CallId, CallId, u32, TaskEnd, CallId),
    Get(CallId, &'static str),
    Answer(CallId, &'static str, Vec<(String, Message)>, CallId),
    Cancel(CallId, &'static str),
    Beat(Vec<Beat>),
    Claim,
    Published(CallId, u32),
    DropWork(CallId, u32),
    Lose(CallId),
    Advance(u64),
}

struct World {
    random: StdRng,
    clock: Arc<AtomicU64>,
    memory: MemoryStore,
    redis: RedisStore,
    /// Calls of clients; those that became tasks name them.
    calls: Vec<CallId>,
    /// Calls of rounds.
    runs: Vec<CallId>,
    epochs: BTreeMap<CallId, u32>,
    /// Commands that are to come next.
    plan: VecDeque<Command>,
    trace: Vec<String>,
    seen: BTreeSet<(&'static str, &'static str)>,
}

#[tokio::test]
async fn redis_keeps_tasks_as_memory_does() {
    let server = RedisServer::start();
    let sequences = std::env::var("ODIN_SEQUENCES").map_or(SEQUENCES, |count| count.parse().unwrap());
    let mut seen = BTreeSet::new();
    for seed in 0..sequences {
        let mut world = World::new(&server, seed).await;
        for _ in 0..COMMANDS {
            let command = world.command();
            world.trace.push(format!("{command:?}"));
            let outcome = world.step(command).await;
            if let Err(difference) = outcome {
                panic!("seed {seed}, after\n{}\n{difference}", world.trace.join("\n"));
            }
        }
        world.all_expires().await;
        seen.append(&mut world.seen);
    }
    let unseen: Vec<_> = OUTCOMES.iter().filter(|outcome| !seen.contains(*outcome)).collect();
    assert!(unseen.is_empty(), "never seen: {unseen:?}");
}

impl World {
    async fn new(server: &RedisServer, seed: u64) -> Self {
        let timing = Timing { undelivered: Duration::ZERO, ..Timing::default() };
        // In some sequences the bounds are met, in others all that may happen to a task.
        let tasks = if seed.is_multiple_of(3) { 1000 } else { 4 };
        let limits = StoreLimits { tasks, tasks_open: tasks - 1, ..StoreLimits::default() };
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let read = Arc::clone(&clock);
        let memory = MemoryStore::with_clock(timing, limits, Arc::new(move || read.load(Ordering::Relaxed)));
        let redis = RedisStore::with_clock(&server.url(), timing, limits, LIFE, Clock::Key).unwrap();
        redis.link.command(&cmd("FLUSHALL")).await.unwrap();
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            clock,
            memory,
            redis,
            calls: Vec::new(),
            runs: Vec::new(),
            epochs: BTreeMap::new(),
            plan: VecDeque::new(),
            trace: Vec::new(),
            seen: BTreeSet::new(),
        };
        world.advance(0).await;
        world
    }

    /// Moves the time.
    async fn advance(&mut self, by: u64) {
        let now = self.clock.fetch_add(by, Ordering::Relaxed) + by;
        self.redis.link.command(cmd("SET").arg(format!("{ROOT}clock")).arg(now)).await.unwrap();
    }

    /// Nothing of a task stays.
    async fn all_expires(&self) {
        let keys = self.redis.link.command(cmd("KEYS").arg("*")).await.unwrap();
        for key in codec::items(keys).unwrap() {
            let key = codec::text(key).unwrap();
            if ["task:", "asks:", "answers:", "tasks:", "open:"].iter().any(|kind| key.contains(kind)) {
                let left = self.redis.link.command(cmd("PTTL").arg(&key)).await.unwrap();
                assert!(codec::number::<i64>(left).unwrap() > 0, "{key} stays");
            }
        }
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.random).unwrap().clone()
    }

    fn new_id(&mut self) -> CallId {
        CallId::from_bits(self.random.random())
    }

    fn known(&mut self, runs: bool) -> CallId {
        let known = if runs { self.runs.clone() } else { self.calls.clone() };
        match known.last() {
            None => CallId::from_bits([9; 16]),
            // Mostly late ones: many of the others are over.
            Some(last) if self.random.random_bool(0.5) => *last,
            Some(_) => self.pick(known.split_at(known.len().saturating_sub(6)).1),
        }
    }

    fn text(&mut self) -> Message {
        // Nothing that a client or a tool sends is special to Lua, JSON or the protocol of Redis.
        self.pick(&["1", "", "a\r\nb\0c", "{\"ü\":\"\\u0000 𝄞\"}", "]]' .. error('x') --", "asks"]).into()
    }

    fn key(&mut self) -> String {
        self.pick(&["1:name", "1:ok", "2:name", "", "]]"]).to_owned()
    }

    fn end(&mut self) -> TaskEnd {
        match self.random.random_range(0..10) {
            0..6 => {
                let count = self.random.random_range(0..3);
                let asks = (0..count).map(|_| (self.key(), self.text())).collect();
                TaskEnd::Asks { asks, state: self.random.random_bool(0.5).then(|| self.text()) }
            }
            6..8 => TaskEnd::Completed(self.text()),
            _ => TaskEnd::Failed {
                error: self.text(),
                note: self.random.random_bool(0.5).then(|| self.text().to_string()),
            },
        }
    }

    fn epoch(&mut self, call: CallId) -> u32 {
        match self.epochs.get(&call) {
            Some(epoch) if self.random.random_bool(0.9) => *epoch,
            _ => self.random.random_range(0..3),
        }
    }

    /// The task whose round a call is, mostly.
    fn task_of(&mut self, run: CallId) -> CallId {
        let task = self.memory.peek(run).and_then(|record| record.order.task);
        match task {
            Some(task) if self.random.random_bool(0.9) => task,
            _ => self.known(false),
        }
    }

    fn principal(&mut self) -> &'static str {
        self.pick(&["p", "p", "p", "p", "other"])
    }

    fn command(&mut self) -> Command {
        if let Some(command) = self.plan.pop_front() {
            return command;
        }
        let (call, run) = (self.known(false), self.known(true));
        let (call_epoch, run_epoch) = (self.epoch(call), self.epoch(run));
        let record = self.memory.peek(run).filter(|record| record.run == Run::Running);
        if let Some(task) = record.and_then(|record| record.order.task)
            && self.random.random_bool(0.1)
        {
            self.plan = self.scenario(task, run).into();
        }
        match self.random.random_range(0..100) {
            0..10 => Command::Call(self.new_id()),
            10..25 => Command::Pull(self.pick(&[Rerun::Safe, Rerun::Unsafe])),
            25..27 => Command::Abandon(call),
            27..42 => {
                let new = NewTask {
                    run: self.new_id(),
                    job: self.text(),
                    tool: self.pick(&["report", ""]).to_owned(),
                    lost: "gone".into(),
                    server_info: self.random.random_bool(0.5).then(|| self.text()),
                    ttl: self.pick(&[60_000, 200_000]),
                    poll: 1000,
                    created: self.clock.load(Ordering::Relaxed),
                };
                let handle = self.pick(&["handle", "handle", "other"]);
                Command::Begin(call, call_epoch, Box::new(new), handle.into())
            }
            42..48 => Command::Work(self.task_of(run), run),
            48..52 => Command::Note(self.task_of(run), run, run_epoch, self.pick(&["one", "two", ""])),
            52..64 => Command::End(self.task_of(run), run, run_epoch, self.end(), self.new_id()),
            64..72 => Command::Get(call, self.principal()),
            72..84 => {
                let asks: Vec<String> = match self.memory_asks(call) {
                    asks if asks.is_empty() || self.random.random_bool(0.3) => {
                        vec![self.key(), "x".to_owned()]
                    }
                    asks => asks,
                };
                let answers = asks.into_iter().map(|key| (key, self.text())).collect();
                Command::Answer(call, self.principal(), answers, self.new_id())
            }
            84..87 => Command::Cancel(call, self.principal()),
            87..91 => {
                let runs = self.runs.clone();
                let beat = |world: &mut Self, call| Beat { call, epoch: world.epoch(call), subscribed: true };
                Command::Beat(runs.into_iter().map(|run| beat(self, run)).collect())
            }
            91..94 => Command::Claim,
            94 => Command::Published(run, run_epoch),
            95 => Command::DropWork(run, run_epoch),
            96 => Command::Lose(run),
            _ => Command::Advance(self.pick(&[1000, 1500, 5000, 60_000])),
        }
    }

    /// What chance alone would bring up too seldom, of a round at work.
    fn scenario(&mut self, task: CallId, run: CallId) -> Vec<Command> {
        let epoch = self.epochs.get(&run).copied().unwrap_or_default();
        if self.random.random_bool(0.5) {
            let beat = Beat { call: run, epoch, subscribed: true };
            return vec![
                Command::Cancel(task, "p"),
                Command::Beat(vec![beat]),
                Command::DropWork(run, epoch),
            ];
        }
        let [one, two] = [(); 2].map(|()| self.new_id());
        if self.random.random_bool(0.5) {
            // A question, its answer, and the round that has it.
            let asks = BTreeMap::from([("x".to_owned(), self.text())]);
            return vec![
                Command::End(task, run, epoch, TaskEnd::Asks { asks, state: None }, one),
                Command::Answer(task, "p", vec![("x".to_owned(), self.text())], one),
                Command::Pull(Rerun::Safe),
                Command::Work(task, one),
            ];
        }
        // Rounds that follow at once.
        let go_on = |state: &str| TaskEnd::Asks { asks: BTreeMap::new(), state: Some(state.into()) };
        vec![
            Command::End(task, run, epoch, go_on("one"), one),
            // The first reply may be lost.
            Command::End(task, run, epoch, go_on("one"), one),
            Command::Pull(Rerun::Safe),
            Command::Work(task, one),
            Command::End(task, one, 1, go_on("two"), two),
            Command::Pull(Rerun::Safe),
            Command::Work(task, two),
        ]
    }

    fn memory_asks(&self, task: CallId) -> Vec<String> {
        self.memory.peek_task(task).map(|task| task.asks.into_keys().collect()).unwrap_or_default()
    }

    /// Gives both the command, and compares the replies.
    async fn step(&mut self, command: Command) -> std::result::Result<(), String> {
        let at = self.clock.load(Ordering::Relaxed);
        let (memory, redis) = match &command {
            Command::Advance(by) => {
                self.advance(*by).await;
                Default::default()
            }
            Command::Lose(run) => {
                // The record goes, as one whose time is over.
                let key = format!("{ROOT}call:{run}");
                self.redis.link.command(cmd("DEL").arg(key)).await.unwrap();
                let leases = format!("{ROOT}leases:s/tasks");
                self.redis.link.command(cmd("ZREM").arg(leases).arg(run.to_string())).await.unwrap();
                self.memory.lose(*run);
                Default::default()
            }
            Command::Pull(rerun) => self.pull(*rerun).await,
            command => {
                if let Command::Call(call) = command {
                    self.calls.push(*call);
                }
                let memory = ask(&self.memory, command, at).await.unwrap();
                let redis = ask(&self.redis, command, at).await.map_err(|error| error.to_string())?;
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
        self.note_epochs();
        let late = self.calls.len().saturating_sub(COMPARE);
        for call in self.calls.clone().split_off(late) {
            let memory = self.memory.task(call, "p", at).await.unwrap();
            let redis = self.redis.task(call, "p", at).await.map_err(|error| error.to_string())?;
            if memory != redis {
                return Err(format!("task {call}\nmemory: {memory:?}\nredis:  {redis:?}"));
            }
        }
        Ok(())
    }

    /// A worker reads and takes all lines.
    async fn pull(&mut self, rerun: Rerun) -> (String, String) {
        let (mut one, mut other) = (String::new(), String::new());
        for queue in QUEUES {
            let mut memory: Vec<Entry> = Vec::new();
            let mut redis: Vec<Entry> = Vec::new();
            let waiting = self.memory.waiting(queue);
            while memory.len() < waiting {
                memory.extend(self.memory.next(queue, "w", &Room::of(100)).await.unwrap());
            }
            while redis.len() < waiting {
                redis.extend(self.redis.next(queue, "w", &Room::of(100)).await.unwrap());
            }
            memory.sort_by_key(|entry| entry.call);
            redis.sort_by_key(|entry| entry.call);
            for (memory, redis) in memory.iter().zip(&redis) {
                let taken = self.memory.take(queue, "w", memory, "t", rerun).await.unwrap();
                one +=
                    &format!("{} {:?} {:?}\n", memory.call, memory.tool, taken.map(|taken| taken.snapshot));
                let taken = self.redis.take(queue, "w", redis, "t", rerun).await.unwrap();
                other +=
                    &format!("{} {:?} {:?}\n", redis.call, redis.tool, taken.map(|taken| taken.snapshot));
                if !self.calls.contains(&memory.call) {
                    self.runs.push(memory.call);
                }
            }
        }
        (one, other)
    }

    fn note_epochs(&mut self) {
        for call in self.calls.iter().chain(&self.runs) {
            if let Some(record) = self.memory.peek(*call) {
                self.epochs.insert(*call, record.epoch);
            }
        }
    }
}

async fn ask<B: Store>(store: &B, command: &Command, at: u64) -> Result<String> {
    Ok(match command.clone() {
        Command::Call(call) => format!("{:?}", store.enqueue(call, order(Era::Stateless, "a", 1)).await?),
        Command::Abandon(call) => format!("{:?}", store.abandon(call, "a", 1).await?),
        Command::Begin(call, epoch, task, out) => {
            format!("{:?}", store.begin_task(call, by("w", epoch), &task, &out).await?)
        }
        Command::Work(task, run) => format!("{:?}", store.task_work(task, run).await?),
        Command::Note(task, run, epoch, note) => {
            format!("{:?}", store.note_task(task, run, by("w", epoch), note, at).await?)
        }
        Command::End(task, run, epoch, end, next) => {
            format!("{:?}", store.end_run(task, run, by("w", epoch), &end, next, at).await?)
        }
        Command::Get(task, principal) => format!("{:?}", store.task(task, principal, at).await?),
        Command::Answer(task, principal, answers, next) => {
            format!("{:?}", store.answer_task(task, principal, &answers, next, at).await?)
        }
        Command::Cancel(task, principal) => {
            format!("{:?}", store.cancel_task(task, principal, at).await?)
        }
        Command::Beat(beats) => format!("{:?}", store.beat("w", &beats).await?.views),
        Command::Claim => {
            let mut claimed = store.claim("s", "w", 100, u64::MAX).await?;
            claimed.extend(store.claim(QUEUES[1], "w", 100, u64::MAX).await?);
            claimed.sort_by_key(|claimed| claimed.call);
            format!("{claimed:?}")
        }
        Command::Published(call, epoch) => format!("{:?}", store.published(call, by("w", epoch)).await?),
        Command::DropWork(call, epoch) => format!("{:?}", store.drop_work(call, by("w", epoch)).await?),
        Command::Pull(_) | Command::Lose(_) | Command::Advance(_) => unreachable!("handled by its caller"),
    })
}
