//! What the record, its transitions and their replies are made of.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{CallId, Ticket, hex};
use crate::protocol::Era;

/// A JSON-RPC message as text, shared without copying.
pub type Message = Arc<str>;

/// The times of the protocol. All of them are the same on every node of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// How long a worker owns a call after its last beat.
    pub lease: Duration,
    /// How long a backend may not ask for a call (OFFER, READ) before its client counts as gone. Longer than a
    /// restart of Redis takes: a living backend can't ask meanwhile.
    pub silence: Duration,
    /// How long a ticket may be used after it was offered.
    pub offer: Duration,
    /// How long a held stream may wait for its subscription to be seen.
    pub gate: Duration,
    /// How long a call may wait in the queue before the client's connection is handed over all the same.
    pub start: Duration,
    /// How long a finished call of a stateful era can be resumed.
    pub keep: Duration,
    /// How long a call that is over is remembered with its answer, so that a command whose reply was lost can be
    /// repeated.
    pub tombstone: Duration,
    /// How long an undelivered queue entry may lie with a worker that has not taken it.
    pub undelivered: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(1500),
            silence: Duration::from_secs(5),
            offer: Duration::from_secs(5),
            gate: Duration::from_secs(10),
            start: Duration::from_secs(30),
            keep: Duration::from_secs(300),
            tombstone: Duration::from_secs(60),
            undelivered: Duration::from_millis(1000),
        }
    }
}

setters!(Timing {
    with_lease => lease: Duration,
    with_silence => silence: Duration,
    with_offer => offer: Duration,
    with_gate => gate: Duration,
    with_start => start: Duration,
    with_keep => keep: Duration,
    with_tombstone => tombstone: Duration,
    with_undelivered => undelivered: Duration,
});

/// How a stream reaches the client, if the call needs one. Known when the call begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Held by Pushpin; the worker publishes.
    Pushpin,
    /// Streamed by the backend that took the request; the events travel through the record.
    Backend,
}

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// In the queue.
    Queued,
    /// A worker runs it, or did before it was lost.
    Running,
    /// The answer is in the record.
    Done,
    /// Given up: nothing more will come.
    Cancelled,
}

/// Where the client can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "lowercase")]
pub enum Reach {
    /// A backend waits with the client's connection.
    Node {
        /// Name of the backend.
        node: String,
        /// Number of the request within that backend.
        request: u64,
        /// When that request last asked for the call, in milliseconds of the store's clock. A backend may live
        /// and have given this request up: only asking counts.
        asked: u64,
    },
    /// The client's connection is on its way to Pushpin.
    Offered {
        /// What the hold request must show.
        ticket: Ticket,
        /// When the offer was made, in milliseconds of the store's clock.
        since: u64,
    },
    /// Pushpin holds the client's connection.
    Held {
        /// Number of the channel.
        channel: u32,
        /// How many events the client already had when the hold began.
        from: u32,
        /// Whether the worker saw the subscription and may have written.
        gate: bool,
        /// When the hold began, in milliseconds of the store's clock.
        since: u64,
        /// The ticket that a repeated hold request shows; none for a resumed stream.
        ticket: Option<Ticket>,
    },
    /// Nobody is there.
    None,
}

/// A call as a backend hands it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Named server that is to run it.
    pub server: String,
    /// The [`crate::call::Job`] as JSON text.
    pub job: Message,
    /// Protocol era, which decides what happens when the client is gone.
    pub era: Era,
    /// How a stream would reach the client.
    pub via: Via,
    /// Tool that `tools/call` names; none for every other method.
    pub tool: Option<String>,
    /// SHA-256 of the request's assertion, in hexadecimal; the hold request must carry the same.
    pub assertion: String,
    /// [`identity::Principal::key`] of the caller.
    pub principal: String,
    /// [`identity::Principal::organisation_key`] of the caller.
    #[serde(default)]
    pub organisation: String,
    /// Session id, in the stateful eras.
    pub session: Option<String>,
    /// The client's own request id as JSON text.
    pub request_id: Option<String>,
    /// The answer if the worker is lost and the call may not run again.
    pub lost: Message,
    /// The backend that waits.
    pub node: String,
    /// Number of the request within that backend.
    pub request: u64,
    /// Channel of the session's long-lived stream, which carries this call's messages (HTTP+SSE, revision
    /// 2024-11-05). None: the call has a stream of its own.
    pub stream: Option<String>,
    /// What a repetition of this request is recognised by.
    pub retry: Option<Retry>,
    /// The task that this call is a round of. Nobody waits for such a call, and its job is with the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<CallId>,
}

impl Order {
    /// Whether the record keeps the events: for a client that resumes, or for a backend that streams by itself.
    pub fn keeps_log(&self) -> bool {
        self.era == Era::Stateful || self.via == Via::Backend
    }

    /// Whom the call counts for.
    pub fn parties(&self) -> Parties {
        Parties { principal: short("p", &self.principal), organisation: short("o", &self.organisation) }
    }
}

/// Whom a call counts for, by names of one length: hashes of [`Order::principal`] and [`Order::organisation`].
/// No principal has the name of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Parties {
    /// The caller, in its organisation.
    pub principal: String,
    /// The organisation.
    pub organisation: String,
}

fn short(kind: &str, name: &str) -> String {
    let hash = Sha256::new().chain_update(kind).chain_update(name).finalize();
    hash.first_chunk::<16>().map(|hash| hex(hash)).unwrap_or_default()
}

/// What a repeated request is recognised by (header `Idempotency-Key`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Hash of caller, server, method, name and key, in hexadecimal.
    pub name: String,
    /// Hash of the parameters, in hexadecimal: one key is for one request.
    pub fingerprint: String,
}

/// A worker's view of its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where the client is.
    pub reach: Reach,
    /// Events accepted so far.
    pub event_count: u32,
    /// The client asked to cancel.
    pub cancel: bool,
}

/// Who speaks for a call. Both must be those of the record: a worker that lost the call has an old epoch, and after
/// the store lost its memory the epochs begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence<'a> {
    /// The worker's name.
    pub worker: &'a str,
    /// The epoch in which it took the call.
    pub epoch: u32,
    /// The backend to which the worker has a link: it says itself there that the record has changed, so the store need
    /// not.
    pub linked: Option<&'a str>,
}

impl<'a> Fence<'a> {
    /// Of a worker without a link to the call's backend.
    pub fn new(worker: &'a str, epoch: u32) -> Self {
        Self { worker, epoch, linked: None }
    }
}

/// Why a worker's word no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// There is no such record, or the call is over.
    Missing,
    /// Another worker has it.
    Fenced,
}

/// Outcome of handing a call in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueue {
    /// It is in the queue.
    Accepted,
    /// The queue is full; nothing was kept.
    Full,
    /// Too many calls are open already; nothing was kept.
    TooMany(Whose),
    /// The client cancelled it before it came; nothing was kept.
    Cancelled,
    /// The command was sent and not answered: the call may be in the queue, or come into it late. WITHDRAW
    /// (`store::Calls::withdraw`) settles it.
    Unanswered,
    /// It is the repetition of a call that is known, by its [`Retry`]; nothing was kept.
    Known {
        /// The call.
        call: CallId,
        /// Whether the parameters are the same.
        same: bool,
    },
}

/// Whose calls are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The caller's own.
    Principal,
    /// Those of its organisation together.
    Organisation,
}

/// How a repeated request meets its call (JOIN).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// The call is unknown.
    Unknown,
    /// It was cancelled.
    Cancelled,
    /// It is finished.
    Done(Message),
    /// It runs; its answer will come to the request that joined.
    Waits,
}

/// What a waiting backend may do with its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Go on waiting: no worker has begun.
    Queued,
    /// Go on waiting: the call runs.
    Wait,
    /// The answer.
    Done(Message),
    /// Hand the client over with the ticket.
    Offered,
    /// The client cancelled the call.
    Cancelled,
    /// The record is lost, or this request no longer has the call.
    Missing,
}

/// What a backend that streams by itself finds in the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// No worker has begun.
    Queued,
    /// What there is after the number that was asked for.
    Events {
        /// The events.
        events: Vec<Message>,
        /// The answer, if it is there.
        out: Option<Message>,
    },
    /// The client cancelled the call.
    Cancelled,
    /// The record is lost, or this request no longer has the call.
    Missing,
}

/// What a backend may tell a client that does not want to wait any longer (WITHDRAW).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdraw {
    /// The call has not begun, and never will.
    Withdrawn,
    /// A worker has begun.
    Running,
    /// The record is lost, or this request no longer has the call. If it is still to come, it is refused then.
    Missing,
}

/// How a stream is resumed in a stateful era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The call is unknown, or somebody else's.
    Unknown,
    /// Everything that was missed; the call is finished, or was cancelled.
    Replay {
        /// Events after the last one that the client has, the answer included.
        events: Vec<Message>,
    },
    /// Everything that was missed so far; more will come on the channel.
    Held {
        /// Events after the last one that the client has.
        events: Vec<Message>,
        /// Number of the new channel.
        channel: u32,
    },
    /// More will come; the backend that asks reads it (READ).
    Joined,
}

/// What a worker does with a call that another one lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Run it again; events up to `state.event_count` were accepted before. Where [`Snapshot::rerun`] is none, only
    /// if the tool allows it: otherwise the answer is [`Order::lost`].
    Run,
    /// The answer is there: see that it reaches the client.
    Publish {
        /// The answer.
        out: Message,
    },
}

/// A worker's copy of what it takes over or registers again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The order.
    pub order: Order,
    /// Epoch of the owner.
    pub epoch: u32,
    /// How far the work is.
    pub run: Run,
    /// Whether it may run again; none: whoever offers the tool decides, as a backend registered the call, which
    /// doesn't know the tool.
    pub rerun: Option<Rerun>,
    /// The worker's view.
    pub state: State,
    /// The answer.
    pub out: Option<Message>,
    /// The kept events.
    pub log: Vec<Message>,
    /// Number of the last channel handed out.
    pub channels: u32,
}

/// May a message be run again after its worker was lost?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    /// Running it twice does no harm: a tool annotated read-only or idempotent, and every message that
    /// is not `tools/call`.
    Safe,
    /// It may have changed something: never run it twice.
    Unsafe,
}

/// Who writes down a call that was handed straight to a worker (REGISTER, ADOPT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registrant {
    /// The worker that runs it, which knows whether it may run again.
    Worker(Rerun),
    /// The backend whose link to that worker broke, in the worker's name: it may live or not.
    Backend,
}

impl Registrant {
    /// Whether the call may run again, where that is known.
    pub fn rerun(self) -> Option<Rerun> {
        match self {
            Self::Worker(rerun) => Some(rerun),
            Self::Backend => None,
        }
    }
}

/// A hold that nobody will ever write to: it opened too late, or its call is lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrphanedStream {
    /// Events that were accepted for the call; their item ids are to be used up.
    pub event_count: u32,
    /// The last message for the client, before the stream is closed. None when the record is gone, and in
    /// the stateful eras, where the client resumes.
    pub final_message: Option<Message>,
}
