//! Where the records of calls live, and how the parts find each other.
//!
//! [`Broker`] has two homes: [`RedisBroker`] for a site of many nodes, and [`MemoryBroker`] for one
//! process. Both make the transitions of [`crate::call`] atomic. What they send to nodes and workers on the
//! side are nudges only: whoever is nudged reads the record.

mod bus;
mod memory;
mod redis;
mod tasks;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use self::redis::{Difference, Fact, InvalidUrl, RedisBroker, SITE_LIFE};
pub use bus::Cast;
pub use memory::{Clock, MemoryBroker};
pub use tasks::{Begun, TaskBroker, TaskReply};

use crate::call::{
    Claim, Enqueue, Fence, Gone, Join, Message, Offer, Order, Parties, Read, Resume, Snapshot, State,
    Withdraw,
};
use crate::id::{CallChannel, CallId, Ticket};
use crate::runner::Rerun;

/// Bounds that the broker enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Calls that wait in one server's queue.
    pub queue: usize,
    /// Calls of one principal that are open at once on one server: queued, running, or held with their answer.
    pub calls_of_principal: usize,
    /// The same for one organisation.
    pub calls_of_organisation: usize,
    /// Messages from the client that wait for one running call.
    pub inbox: usize,
    /// Stored fields of one session.
    pub session_fields: usize,
    /// Tasks that are kept for one principal: with what they ask and their results.
    pub tasks: usize,
    /// Those of them that are not over.
    pub tasks_open: usize,
    /// Things used up that one process remembers ([`Broker::use_once`]); more can't be used. In Redis they expire.
    pub used: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            queue: 10_000,
            calls_of_principal: 256,
            calls_of_organisation: 4096,
            inbox: 64,
            session_fields: 64,
            tasks: 200,
            tasks_open: 50,
            used: 1_000_000,
        }
    }
}

/// The broker can't be reached, or answered nonsense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the broker is not available: {0}")]
pub struct Unavailable(pub String);

/// Result of a broker command.
pub type Result<T> = std::result::Result<T, Unavailable>;

/// A line of a server's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The call.
    pub call: CallId,
    /// Tool that `tools/call` names; none for every other method. Tells the worker whether the call may
    /// run again before it takes it.
    pub tool: Option<String>,
    /// Whom it counts for: what the worker's slots are shared by.
    pub parties: Parties,
    /// What the broker needs to acknowledge the line.
    pub receipt: String,
}

/// What a worker may take from a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Lines in all.
    pub most: usize,
    /// Slots that one organisation may have.
    pub organisation: usize,
    /// Slots that one principal may have.
    pub principal: usize,
    /// How many slots each organisation and principal has, by the names of [`Parties`].
    pub taken: HashMap<String, usize>,
}

impl Room {
    /// For who takes any `most` lines.
    pub fn of(most: usize) -> Self {
        Self { most, organisation: usize::MAX, principal: usize::MAX, taken: HashMap::new() }
    }

    /// Whether a call may be taken.
    pub fn fits(&self, parties: &Parties) -> bool {
        let taken = |name| self.taken.get(name).copied().unwrap_or_default();
        self.most > 0
            && taken(&parties.organisation) < self.organisation
            && taken(&parties.principal) < self.principal
    }

    /// A call was taken.
    pub fn take(&mut self, parties: &Parties) {
        self.most = self.most.saturating_sub(1);
        for name in [&parties.organisation, &parties.principal] {
            *self.taken.entry(name.clone()).or_default() += 1;
        }
    }
}

/// A line that has come while a worker waited. It is still in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// The line.
    pub entry: Entry,
    /// How many workers were woken for it that could not take it.
    pub passed: u8,
}

/// A call that this worker took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Its whole state.
    pub snapshot: Snapshot,
    /// Names the broker's memory: another value after the broker lost it.
    pub generation: String,
}

/// A call that this worker took over from a lost one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The call.
    pub call: CallId,
    /// What to do.
    pub claim: Claim,
    /// Its whole state.
    pub snapshot: Snapshot,
    /// A channel whose stream is to be closed, so that its client resumes.
    pub close: Option<CallChannel>,
}

/// Messages of the client for a running call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inbox {
    /// Number of the last of them, counted from 1 over the whole call. Shown to [`Broker::inbox`] again, it says
    /// which ones have arrived.
    pub last: u64,
    /// The messages, in the order in which they came.
    pub messages: Vec<Message>,
}

/// A beat for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The call.
    pub call: CallId,
    /// The worker's epoch.
    pub epoch: u32,
    /// The worker sees the current channel's subscription, or can't know.
    pub subscribed: bool,
}

/// The answer to a worker's beats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beaten {
    /// A view for each beat, in the same order.
    pub views: Vec<std::result::Result<State, Gone>>,
    /// Names the broker's memory.
    pub generation: String,
    /// The time of the broker's clock, in milliseconds.
    pub now: u64,
}

/// A successful hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The channel to hold on.
    pub channel: CallChannel,
    /// Session id, in the session eras.
    pub session: Option<String>,
}

/// A hold that nobody will ever write to: it opened too late, or its call is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stray {
    /// Events that were accepted for the call; their item ids are to be used up.
    pub hi: u32,
    /// The last message for the client, before the stream is closed. None when the record is gone, and in
    /// the session eras, where the client resumes.
    pub farewell: Option<Message>,
}

/// A hint for a backend that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeNudge {
    /// Look at this request's call again.
    Request(u64),
    /// Hints may have been lost: look at everything again.
    All,
}

/// A hint for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerNudge {
    /// Look at this call again: its client moved, cancelled, or sent something.
    Call(CallId),
    /// Hints may have been lost: look at everything again.
    All,
}

/// The shared memory of backends and workers.
///
/// Every method is one atomic step. [`Unavailable`] says nothing about whether the step was made. A command may be
/// repeated until it is answered: the second time it says the same and changes nothing more. Three may not, and
/// are sent once: [`enqueue`](Broker::enqueue) (after a loss of memory a repetition would start a tool twice),
/// [`post`](Broker::post) and [`cast`](Broker::cast) (their message would arrive twice).
#[async_trait]
pub trait Broker: TaskBroker {
    /// Whether it answers.
    async fn ping(&self) -> Result<()>;
    /// Nudges for a backend. One receiver for each backend. Bounded: hints that don't fit become
    /// [`NodeNudge::All`].
    async fn node_nudges(&self, node: &str) -> Result<mpsc::Receiver<NodeNudge>>;
    /// Nudges for a worker.
    async fn worker_nudges(&self, worker: &str) -> Result<mpsc::Receiver<WorkerNudge>>;

    /// ENQ, sent once. [`Unavailable`]: the call is not in the queue and will not be.
    /// [`Enqueue::Unanswered`]: nobody knows.
    async fn enqueue(&self, call: CallId, order: Order) -> Result<Enqueue>;
    /// OFFER.
    async fn offer(
        &self,
        call: CallId,
        node: &str,
        request: u64,
        ticket: Ticket,
        may_hold: bool,
    ) -> Result<Offer>;
    /// WITHDRAW. Without a record, one that is still to come (an ENQ under way) is refused.
    async fn withdraw(&self, call: CallId, node: &str, request: u64) -> Result<Withdraw>;
    /// HOLD; none when the ticket opens nothing.
    async fn hold(&self, ticket: Ticket, assertion: &str) -> Result<Option<Held>>;
    /// READ.
    async fn read(&self, call: CallId, node: &str, request: u64, from: u32) -> Result<Read>;
    /// The client went away before anything was offered.
    async fn abandon(&self, call: CallId, node: &str, request: u64) -> Result<()>;
    /// RESUME; with `at`, for a backend that streams by itself.
    async fn resume(&self, call: CallId, session: &str, last: u32, at: Option<(&str, u64)>)
    -> Result<Resume>;
    /// JOIN.
    async fn join(&self, call: CallId, name: &str, node: &str, request: u64) -> Result<Join>;
    /// Keeps what a hold request will need, for a stream that is no call's, for half a minute.
    async fn park(&self, ticket: Ticket, stream: &str) -> Result<()>;
    /// What was kept under the ticket.
    async fn parked(&self, ticket: Ticket) -> Result<Option<String>>;
    /// CANCEL of all calls of the session with this request id; one that comes later, within 10 s, is
    /// cancelled as well. Ids are used once in a session (MCP, Requests).
    async fn cancel(&self, session: &str, request_id: &str) -> Result<()>;
    /// Hands a message of the client to a running call of the same session, sent once. False when there is none.
    async fn post(&self, call: CallId, session: &str, message: Message) -> Result<bool>;

    /// Stores a field of a session (log level, its end) for as long as the session can live. At most
    /// [`BrokerLimits::session_fields`] of them; more are refused with false.
    async fn remember(&self, session: &str, field: &str, value: &str, live: Duration) -> Result<bool>;
    /// The stored fields of a session.
    async fn recall(&self, session: &str) -> Result<BTreeMap<String, String>>;

    /// NEXT: lines of a server's queue that the worker has room for, by turns over organisations, and within one
    /// over the principals; those of one principal in their order. Does not wait. A line that is not taken soon is
    /// given again.
    async fn next(&self, server: &str, worker: &str, room: &Room) -> Result<Vec<Entry>>;
    /// Waits until a line comes after this worker's last [`next`](Self::next), at most for about a second. Where
    /// the line is known, this worker may TAKE it at once; if it has no room for it, it is to
    /// [pass it on](Self::pass_on). One at a time for each queue of a worker. None: see what `next` says.
    async fn arrival(&self, server: &str, worker: &str) -> Result<Option<Arrived>>;
    /// Wakes another worker for a line, in place of this one.
    async fn pass_on(&self, server: &str, line: &Arrived) -> Result<()>;
    /// TAKE; the line leaves the queue in any case. None: nothing to do. `attempt` is a new name for each taking of a
    /// line, and the same when the command is repeated.
    async fn take(
        &self,
        server: &str,
        worker: &str,
        entry: &Entry,
        attempt: &str,
        rerun: Rerun,
    ) -> Result<Option<Taken>>;
    /// Messages of the client for a running call, after number `after`: [`Inbox::last`] of those that arrived, 0 at
    /// first. They stay until then.
    async fn inbox(&self, call: CallId, fence: Fence<'_>, after: u64) -> Result<Inbox>;
    /// EMIT / APPEND.
    async fn emit(
        &self,
        call: CallId,
        fence: Fence<'_>,
        first: u32,
        events: &[Message],
    ) -> Result<std::result::Result<State, Gone>>;
    /// FINISH.
    async fn finish(
        &self,
        call: CallId,
        fence: Fence<'_>,
        out: &Message,
    ) -> Result<std::result::Result<State, Gone>>;
    /// GATE.
    async fn gate(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>>;
    /// LOST.
    async fn lost(
        &self,
        call: CallId,
        fence: Fence<'_>,
        channel: u32,
    ) -> Result<std::result::Result<State, Gone>>;
    /// PUBLISHED.
    async fn published(&self, call: CallId, fence: Fence<'_>) -> Result<std::result::Result<(), Gone>>;
    /// Gives the work up; the view when it may not be.
    async fn drop_work(
        &self,
        call: CallId,
        fence: Fence<'_>,
    ) -> Result<std::result::Result<Option<State>, Gone>>;
    /// BEAT for all calls of a worker.
    async fn beat(&self, worker: &str, beats: &[Beat]) -> Result<Beaten>;
    /// CLAIM: calls of the server whose lease ran out. Nothing after `by`, in milliseconds of the broker's clock: a
    /// broker that was paused would carry out claims whose workers wait no more, before any beat that came meanwhile.
    async fn claim(&self, server: &str, worker: &str, most: usize, by: u64) -> Result<Vec<Claimed>>;
    /// Registers a running call again after the broker lost its memory; the view, or that somebody else did.
    async fn restore(
        &self,
        call: CallId,
        worker: &str,
        snapshot: Snapshot,
    ) -> Result<std::result::Result<State, Gone>>;
    /// What to say on a channel that is subscribed without being the one that its call is held on; none when
    /// it is.
    async fn stray(&self, channel: CallChannel) -> Result<Option<Stray>>;

    /// Passes a message to all followers of a topic, in every process that shares this broker; sent once. Nothing is kept:
    /// who does not follow at this moment never gets it.
    async fn cast(&self, topic: &str, message: Message) -> Result<()>;
    /// Follows topics of the bus, in the order of the casts. What is cast after this has returned arrives, or
    /// the receiver ends: it fell too far behind, or the broker was lost for a while. Its client then has to
    /// connect again, and to ask for what it may have missed. Dropping the receiver ends it.
    async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>>;

    /// Uses up what is good for once, in the name of `by`, and says in whose name it was used: `by` when this
    /// command did it, now or before (it may be repeated). Remembered for a time, after which the caller takes
    /// such a thing no more.
    async fn use_once(&self, name: &str, by: &str, live: Duration) -> Result<String>;

    /// Adds a member to a group, or renews it, for a time. False when the group has `most` already.
    async fn enter(&self, group: &str, member: &str, live: Duration, most: usize) -> Result<bool>;
    /// Takes a member out of a group.
    async fn leave(&self, group: &str, member: &str) -> Result<()>;
    /// The members of a group, in no order.
    async fn members(&self, group: &str) -> Result<Vec<String>>;
}
