//! The backend's side: links to some workers of a server, and which of them gets a call.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::seq::IndexedRandom;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::codec::Framed;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::frame::{FrameCodec, Kind, Outgoing};
use super::greeting::{self, Identity, NoLink};
use super::message::{self, Malformed};
use super::queue::SendQueue;
use super::wire::{self, Side};
use super::{Address, LinkLimits};
use crate::call::Order;
use crate::call::direct::Heard;
use crate::id::CallId;

/// What waits for one call to be taken in. A worker sends one word that counts, and hints.
const HEARD: usize = 16;

/// A backend's links to workers of one server.
#[derive(Clone)]
pub struct Links {
    pub(super) shared: Arc<Shared>,
    _ended: Arc<DropGuard>,
}

pub(super) struct Shared {
    pub(super) own: Identity,
    pub(super) limits: LinkLimits,
    lines: Mutex<Vec<Arc<Line>>>,
    pub(super) ended: CancellationToken,
}

/// One link.
pub(super) struct Line {
    worker: String,
    queue: Arc<SendQueue>,
    /// Slots that the worker said are free, less what was sent to it since.
    free: AtomicI64,
    /// Number of its last heartbeat.
    seen: AtomicU64,
    calls: Mutex<HashMap<CallId, mpsc::Sender<Heard>>>,
}

/// A call that was sent to a worker. Dropped, nothing more is heard of it; the worker learns nothing of that.
pub struct DirectCall {
    call: CallId,
    line: Arc<Line>,
    heard: mpsc::Receiver<Heard>,
}

impl Links {
    /// No links yet. They end with the last clone, or by [`Links::close`].
    pub fn new(own: Identity, limits: LinkLimits) -> Self {
        let ended = CancellationToken::new();
        let guard = Arc::new(ended.clone().drop_guard());
        Self { shared: Arc::new(Shared { own, limits, lines: Mutex::default(), ended }), _ended: guard }
    }

    /// Makes a link of a connection, and keeps it until it breaks or the last clone of this is dropped.
    ///
    /// # Errors
    /// [`NoLink`] when it never became a link.
    pub async fn attach<S>(&self, stream: S) -> Result<(), NoLink>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.shared.carry(stream, None).await
    }

    /// Carries these links in a thread of their own, until they end: whatever else the process does then breaks none of
    /// them. `carry` is called there, and makes the future of [`Links::follow`] or [`Links::attach`].
    ///
    /// # Errors
    /// When that thread can't be started.
    pub fn carry_in_thread<F, C>(&self, carry: F) -> std::io::Result<()>
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = self.shared.ended.clone();
        std::thread::Builder::new().name("links".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = carry() => {}
                    () = ended.cancelled() => {}
                }
            });
        })?;
        Ok(())
    }

    /// Ends all links: after the last answer that comes over one.
    pub fn close(&self) {
        self.shared.ended.cancel();
    }

    /// Names of the workers that there are links to.
    pub fn workers(&self) -> Vec<String> {
        self.shared.lines().iter().map(|line| line.worker.clone()).collect()
    }

    /// How many calls wait on each link, by worker.
    pub fn waiting(&self) -> BTreeMap<String, usize> {
        self.shared.lines().iter().map(|line| (line.worker.clone(), line.calls().len())).collect()
    }

    /// Slots that are free on all links, as far as is known.
    pub fn free(&self) -> u64 {
        let free = |line: &Arc<Line>| u64::try_from(line.free.load(Ordering::Acquire)).unwrap_or(0);
        self.shared.lines().iter().map(free).sum()
    }

    /// Sends a call to a worker: of two links with free slots, chosen at random, that on which fewer calls wait. `left`
    /// is what is left of the time after which the call is to be written down. `except`: a worker that said it is busy.
    ///
    /// None: no link has a free slot, or the call is too long for one. It is one for the queue, which alone is fair.
    pub fn dispatch(
        &self,
        call: CallId,
        order: &Order,
        left: Duration,
        except: Option<&str>,
    ) -> Option<DirectCall> {
        let line = self.shared.choose(except)?;
        let seen = line.seen.load(Ordering::Acquire);
        let (head, body) = message::dispatch(order, left, seen).ok()?;
        let (sender, heard) = mpsc::channel(HEARD);
        line.calls().insert(call, sender);
        line.free.fetch_sub(1, Ordering::AcqRel);
        // From here on it is taken back by dropping it.
        let direct = DirectCall { call, line, heard };
        let sent = direct.line.queue.push(call, Outgoing::split(Kind::DISPATCH, call, head, body));
        sent.then_some(direct)
    }
}

impl DirectCall {
    /// The worker that it was sent to.
    pub fn worker(&self) -> &str {
        &self.line.worker
    }

    /// What the worker says next; at last that the link is broken. May be dropped at any time, and called again.
    pub async fn heard(&mut self) -> Heard {
        self.heard.recv().await.unwrap_or(Heard::Broken)
    }

    /// CANCEL. Where the link can't carry it, it is of no more use.
    pub fn cancel(&self) {
        self.line.say(Kind::CANCEL, self.call);
    }
}

impl Drop for DirectCall {
    fn drop(&mut self) {
        self.line.calls().remove(&self.call);
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn choose(&self, except: Option<&str>) -> Option<Arc<Line>> {
        let lines = self.lines();
        let free = |line: &Line| line.free.load(Ordering::Acquire) > 0 && !line.queue.is_closed();
        let usable: Vec<&Arc<Line>> =
            lines.iter().filter(|line| except != Some(&line.worker) && free(line)).collect();
        let two = usable.sample(&mut rand::rng(), 2);
        // By what this backend waits for: how many slots are free it last heard half a second ago, and would send all
        // calls of that time to one worker. Equals by chance.
        let least = two.min_by_key(|line| (line.calls().len(), rand::random::<bool>()))?;
        Some(Arc::clone(least))
    }

    /// Links on which no call waits.
    pub(super) fn idle_lines(&self) -> Vec<Arc<Line>> {
        self.lines().iter().filter(|line| line.calls().is_empty()).cloned().collect()
    }

    /// Makes a link of a connection. `worker`: who is expected there.
    pub(super) async fn carry<S>(&self, stream: S, worker: Option<&str>) -> Result<(), NoLink>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut framed = Framed::new(stream, FrameCodec::for_greeting());
        let name = greeting::call(&mut framed, &self.own).await?;
        if worker.is_some_and(|worker| worker != name) {
            return Err(NoLink::Refused(format!("it is {name}: its address belonged to another before")));
        }
        let queue = Arc::new(SendQueue::new(self.limits));
        let line = Arc::new(Line {
            worker: name,
            queue: queue.clone(),
            free: AtomicI64::new(0),
            seen: AtomicU64::new(0),
            calls: Mutex::default(),
        });
        self.lines().push(line.clone());
        let _out = Out { shared: self, line: line.clone() };
        tokio::select! {
            why = wire::carry(framed, queue, line.clone(), self.limits) => {
                tracing::info!(worker = line.worker, %why, "a link has ended");
            }
            () = self.ended.cancelled() => {}
        }
        Ok(())
    }
}

/// Takes a link out, however it ended: its calls hear that it is broken.
struct Out<'a> {
    shared: &'a Shared,
    line: Arc<Line>,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.shared.lines().retain(|line| !Arc::ptr_eq(line, &self.line));
        self.line.queue.close();
        self.line.calls().clear();
    }
}

impl Line {
    fn calls(&self) -> MutexGuard<'_, HashMap<CallId, mpsc::Sender<Heard>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn worker(&self) -> &str {
        &self.worker
    }

    pub(super) fn close(&self) {
        self.queue.close();
    }

    fn say(&self, kind: Kind, call: CallId) {
        if !self.queue.push(call, Outgoing::split(kind, call, Bytes::new(), Bytes::new())) {
            self.queue.close();
        }
    }
}

impl Side for Line {
    fn message(&self, kind: Kind, call: CallId, body: Bytes) -> Result<(), Malformed> {
        let Some((heard, free)) = message::to_backend(kind, body)? else { return Ok(()) };
        if let Some(free) = free {
            self.free.store(i64::from(free), Ordering::Release);
        }
        if matches!(heard, Heard::AnswerInDoubt(_)) {
            // Whether or not anybody waits for it: the worker keeps it until then.
            self.say(Kind::GOT, call);
        }
        if let Some(sender) = self.calls().get(&call) {
            // Full: hints that nobody has read yet.
            let _ = sender.try_send(heard);
        }
        Ok(())
    }

    fn beat(&self, number: u64, free: u32) {
        self.seen.store(number, Ordering::Release);
        self.free.store(i64::from(free), Ordering::Release);
    }

    fn beats(&self) -> (u64, u32) {
        (0, 0)
    }
}

/// Connects to a worker.
pub(super) async fn connect(shared: &Shared, worker: &str, address: &Address) -> Result<(), NoLink> {
    let patience = shared.limits.lease;
    let silent = |_| NoLink::Silent;
    match address {
        Address::Tcp(at) => {
            let stream = tokio::time::timeout(patience, tokio::net::TcpStream::connect(at)).await;
            let stream = stream.map_err(silent)??;
            stream.set_nodelay(true)?;
            shared.carry(stream, Some(worker)).await
        }
        Address::Unix(path) => {
            let stream = tokio::time::timeout(patience, tokio::net::UnixStream::connect(path)).await;
            shared.carry(stream.map_err(silent)??, Some(worker)).await
        }
    }
}
