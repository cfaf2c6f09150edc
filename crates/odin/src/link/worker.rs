//! The worker's side of a link.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use super::LinkLimits;
use super::frame::{FrameCodec, Kind, Outgoing};
use super::greeting::{self, Identity, NoLink};
use super::message::{self, Dispatch, MESSAGE, Malformed, ToWorker};
use super::queue::SendQueue;
use super::wire::{self, Side};
use crate::call::Message;
use crate::call::direct::{DirectInput, is_fresh};
use crate::id::CallId;

/// What a worker does with what comes from backends. Called within the link's own task: it must not block.
pub trait Calls: Send + Sync + 'static {
    /// Slots that are free now.
    fn free(&self) -> u32;
    /// A call. Whoever does not begin it says so at once ([`Peer::busy`]).
    fn dispatch(&self, from: &Peer, dispatch: Dispatch);
    /// Something about a call that came on this link.
    fn input(&self, from: &Peer, call: CallId, input: DirectInput);
}

/// The way back to the backend that a call came from. A clone is the same link.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    name: String,
    server: String,
    queue: Arc<SendQueue>,
    limits: LinkLimits,
    calls: Arc<dyn Calls>,
    /// The heartbeats sent last, and when. Number 0 is the greeting.
    beats: Mutex<VecDeque<(u64, Instant)>>,
    last: AtomicU64,
    broken: CancellationToken,
}

impl Peer {
    /// Name of the backend.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether both are the same link.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether this heartbeat was sent within a lease. A call whose backend saw only older ones may be one that its
    /// client was told is lost: it must not begin.
    pub fn is_fresh(&self, seen: u64) -> bool {
        let beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = beats.iter().find(|(number, _)| *number == seen);
        is_fresh(sent.map(|(_, at)| at.elapsed()), self.0.limits.lease)
    }

    /// Whether this side sees the link broken.
    pub fn is_broken(&self) -> bool {
        self.0.broken.is_cancelled()
    }

    /// Waits until this side sees the link broken.
    pub async fn broken(&self) {
        self.0.broken.cancelled().await;
    }

    /// BUSY.
    pub fn busy(&self, call: CallId) {
        self.must_say(Kind::BUSY, call);
    }

    /// REGISTERED.
    pub fn registered(&self, call: CallId) {
        self.must_say(Kind::REGISTERED, call);
    }

    /// A hint: the record may have changed. False: the link can't carry it now.
    pub fn hint(&self, call: CallId) -> bool {
        self.say(Kind::HINT, call)
    }

    /// ANSWER. False: the link is broken or full, or the answer is too long for it; the record is to have it.
    pub fn answer(&self, call: CallId, out: &Message) -> bool {
        self.send_answer(Kind::ANSWER, call, out)
    }

    /// ANSWER?.
    pub fn answer_in_doubt(&self, call: CallId, out: &Message) {
        if !self.send_answer(Kind::IN_DOUBT, call, out) {
            self.close();
        }
    }

    /// Whether an answer is short enough for a link.
    pub fn carries(out: &str) -> bool {
        out.len() + 4 <= MESSAGE
    }

    /// Breaks the link.
    pub fn close(&self) {
        self.0.queue.close();
    }

    fn send_answer(&self, kind: Kind, call: CallId, out: &Message) -> bool {
        let Ok((head, body)) = message::answer(out, self.0.calls.free()) else { return false };
        self.0.queue.push(call, Outgoing::split(kind, call, head, body))
    }

    fn say(&self, kind: Kind, call: CallId) -> bool {
        self.0.queue.push(call, Outgoing::split(kind, call, Bytes::new(), Bytes::new()))
    }

    /// Without it the backend would wait for ever: where it can't be said, both sides are to see the link broken.
    fn must_say(&self, kind: Kind, call: CallId) {
        if !self.say(kind, call) {
            self.close();
        }
    }
}

impl Side for Peer {
    fn message(&self, kind: Kind, call: CallId, body: Bytes) -> Result<(), Malformed> {
        let calls = &self.0.calls;
        match message::to_worker(kind, call, body)? {
            Some(ToWorker::Dispatch(dispatch)) if dispatch.order.server != self.0.server => {
                return Err(Malformed("a call of another server".into()));
            }
            Some(ToWorker::Dispatch(dispatch)) => calls.dispatch(self, *dispatch),
            Some(ToWorker::Cancel) => calls.input(self, call, DirectInput::Cancel),
            Some(ToWorker::Got) => calls.input(self, call, DirectInput::Got),
            None => {}
        }
        Ok(())
    }

    fn beat(&self, _number: u64, _free: u32) {}

    fn beats(&self) -> (u64, u32) {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut beats = self.0.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.push_back((number, Instant::now()));
        beats.retain(|(_, at)| at.elapsed() <= self.0.limits.lease * 2);
        (number, self.0.calls.free())
    }
}

/// Serves one connection until it breaks, or `ended`. Its calls learn that it broke, and go on.
///
/// # Errors
/// [`NoLink`] when it never became a link.
pub async fn serve<S>(
    stream: S,
    own: &Identity,
    calls: Arc<dyn Calls>,
    limits: LinkLimits,
    ended: &CancellationToken,
) -> Result<(), NoLink>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut framed = Framed::new(stream, FrameCodec::for_greeting());
    let name = tokio::select! {
        name = greeting::answer(&mut framed, own) => name?,
        () = ended.cancelled() => return Ok(()),
    };
    let broken = CancellationToken::new();
    let _broken = broken.clone().drop_guard();
    let queue = Arc::new(SendQueue::new(limits));
    let peer = Peer(Arc::new(Inner {
        name,
        server: own.server.clone(),
        queue: queue.clone(),
        limits,
        calls,
        beats: Mutex::new(VecDeque::from([(0, Instant::now())])),
        last: AtomicU64::new(0),
        broken,
    }));
    tokio::select! {
        why = wire::carry(framed, queue, Arc::new(peer.clone()), limits) => {
            tracing::info!(backend = peer.name(), %why, "a link has ended");
        }
        () = ended.cancelled() => peer.close(),
    }
    Ok(())
}
