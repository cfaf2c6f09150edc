//! Calls that come straight from their backends, on links.
//!
//! The links and REGISTER have a thread of their own, beside that of the beats: a tool that blocks the worker's runtime
//! breaks no link. [`DirectRun`] says what to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;

use super::drive::{Driver, Start, Tool};
use super::slots::Slot;
use super::{MakeStore, Shared, Worker};
use crate::call::direct::{DirectInput, DirectRun, Step};
use crate::call::{Delivery, DeliveryLimits, Fence, Input, Message, Reach, Registrant, Run, Snapshot, State};
use crate::id::CallId;
use crate::link::{self, Address, Calls, Dispatch, Identity, LinkKeys, LinkLimits, Listener, Peer};
use crate::store::{Registered, Store};

/// How long to wait before a command is sent again that the store did not answer.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest time until a call that still runs is written down, whatever its backend says.
const HOLD: Duration = Duration::from_secs(10);
/// Bytes under way on a link within the process.
const PIPE: usize = 256 * 1024;

/// Where a worker takes direct calls, and from whom.
pub struct DirectCalls {
    keys: LinkKeys,
    limits: LinkLimits,
    listener: Option<(Listener, Address)>,
}

impl DirectCalls {
    /// From backends of this process alone ([`Pipes`]).
    pub fn new(keys: LinkKeys) -> Self {
        Self { keys, limits: LinkLimits::default(), listener: None }
    }

    /// From backends elsewhere as well. `announced` is where they find it.
    #[must_use]
    pub fn with_listener(mut self, listener: Listener, announced: Address) -> Self {
        self.listener = Some((listener, announced));
        self
    }

    /// With other times and bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: LinkLimits) -> Self {
        self.limits = limits;
        self
    }
}

/// The way to a worker of the same process.
#[derive(Clone)]
pub struct Pipes(mpsc::UnboundedSender<DuplexStream>);

impl Pipes {
    /// A connection, for [`crate::link::Links::attach`]. It ends with the worker.
    pub fn open(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(PIPE);
        // A worker that has ended: the other end is dropped.
        let _ = self.0.send(far);
        near
    }
}

impl Worker {
    /// Takes calls straight from backends as well, until the worker stops. `store` is called once, in the thread of the
    /// links. Without this, all calls come through the queue.
    ///
    /// # Errors
    /// When that thread can't be started.
    pub fn take_direct(&self, config: DirectCalls, store: MakeStore) -> std::io::Result<Pipes> {
        let shared = self.shared.clone();
        let (pipes, piped) = mpsc::unbounded_channel();
        let (tools, runtime) =
            (Runtime::current(), tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        std::thread::Builder::new().name("links".into()).spawn(move || {
            runtime.block_on(async move {
                let ended = shared.ended.clone();
                let links = take_links(Arc::new(Direct { shared, store: store(), tools }), config, piped);
                tokio::select! {
                    () = links => {}
                    () = ended.cancelled() => {}
                }
            });
        })?;
        Ok(Pipes(pipes))
    }
}

async fn take_links(
    direct: Arc<Direct>,
    config: DirectCalls,
    mut piped: mpsc::UnboundedReceiver<DuplexStream>,
) {
    let DirectCalls { keys, limits, listener } = config;
    let shared = direct.shared.clone();
    let (name, server) = (shared.config.name.clone(), shared.config.server.clone());
    let own = Identity { name, server, keys };
    let calls: Arc<dyn Calls> = Arc::new(Taker(direct.clone()));
    if let Some((listener, address)) = listener {
        let (calls, ended) = (calls.clone(), shared.ended.clone());
        let (own, store) = (own.clone(), direct.store.clone());
        let (stop, announced) = (shared.stop.clone(), own.clone());
        tokio::spawn(async move { link::announce(store, &announced, &address, &stop).await });
        tokio::spawn(async move {
            if let Err(error) = listener.run(own, calls, limits, ended).await {
                tracing::error!(%error, "no links can be taken: all calls come through the queue");
            }
        });
    }
    while let Some(stream) = piped.recv().await {
        let (own, calls, ended) = (own.clone(), calls.clone(), shared.ended.clone());
        tokio::spawn(async move {
            if let Err(error) = link::serve(stream, &own, calls, limits, &ended).await {
                tracing::warn!(%error, "a pipe did not become a link");
            }
        });
    }
    // No backend is in this process.
    std::future::pending::<()>().await;
}

/// What the rest of the worker knows of a direct call.
pub(super) struct Handle {
    peer: Peer,
    inputs: mpsc::UnboundedSender<DirectInput>,
}

/// This worker takes a call from the queue, or claims it: a run of its own that began before is stopped.
pub(super) fn supersede(shared: &Shared, call: CallId) {
    if let Some(handle) = shared.state().direct.get(&call) {
        let _ = handle.inputs.send(DirectInput::Superseded);
    }
}

/// All that direct calls need.
struct Direct {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    /// Where tools run.
    tools: Runtime,
}

impl Calls for Taker {
    fn free(&self) -> u32 {
        let shared = &self.0.shared;
        // A worker with one slot is for the queue alone, which is fair.
        if shared.stop.is_cancelled() || shared.config.concurrency < 2 {
            return 0;
        }
        u32::try_from(shared.slots.count()).unwrap_or(u32::MAX)
    }

    fn dispatch(&self, from: &Peer, dispatch: Dispatch) {
        let shared = &self.0.shared;
        let slot = if self.free() > 0 && from.is_fresh(dispatch.seen) {
            let free = shared.slots.free_now();
            free.and_then(|free| shared.slots.give(free, &dispatch.order.parties()).ok())
        } else {
            None
        };
        let (sender, inputs) = mpsc::unbounded_channel();
        let call = dispatch.call;
        let Some(slot) = slot else { return from.busy(call) };
        {
            let mut state = shared.state();
            if state.direct.contains_key(&call) || state.jobs.contains_key(&call) {
                return from.busy(call);
            }
            state.direct.insert(call, Handle { peer: from.clone(), inputs: sender });
        }
        let run = DirectCall::start(self.0.clone(), from.clone(), dispatch, inputs, slot);
        tokio::spawn(run.run_out());
    }

    fn input(&self, from: &Peer, call: CallId, input: DirectInput) {
        if let Some(handle) = self.0.shared.state().direct.get(&call)
            && handle.peer.is(from)
        {
            let _ = handle.inputs.send(input);
        }
    }
}

/// Takes calls from the links.
struct Taker(Arc<Direct>);

/// One call on this worker, from START until another or the store has it.
struct DirectCall {
    direct: Arc<Direct>,
    peer: Peer,
    call: CallId,
    snapshot: Snapshot,
    run: DirectRun,
    tool: Tool,
    inputs: mpsc::UnboundedReceiver<DirectInput>,
    linked: bool,
    /// What the tool said before this worker owned the call.
    said: Vec<Input>,
    registered: Option<Registered>,
    /// The last REGISTER was not answered.
    unanswered: bool,
    _busy: Arc<()>,
}

impl DirectCall {
    fn start(
        direct: Arc<Direct>,
        peer: Peer,
        dispatch: Dispatch,
        inputs: mpsc::UnboundedReceiver<DirectInput>,
        slot: Slot,
    ) -> Self {
        let shared = &direct.shared;
        let Dispatch { call, order, left, .. } = dispatch;
        let reach = Reach::Node { node: order.node.clone(), request: order.request, asked: 0 };
        let rerun = Some(shared.rerun(order.tool.as_deref()));
        let parties = order.parties();
        let snapshot = Snapshot {
            order,
            epoch: 1,
            run: Run::Running,
            rerun,
            state: State { reach, event_count: 0, cancel: false },
            out: None,
            log: Vec::new(),
            channels: 0,
        };
        let mut tool = Tool::new(call, &snapshot);
        {
            let _tools = direct.tools.enter();
            tool.start(shared, Some(slot), parties);
        }
        let hold = shared.now() + super::millis(left.min(HOLD));
        Self {
            peer,
            call,
            snapshot,
            run: DirectRun::new(hold),
            tool,
            inputs,
            linked: true,
            said: Vec::new(),
            registered: None,
            unanswered: false,
            _busy: shared.busy.clone(),
            direct,
        }
    }

    async fn run_out(mut self) {
        let (shared, call) = (self.direct.shared.clone(), self.call);
        tokio::select! {
            () = self.drive() => {}
            // As if this worker had been killed: who waits finds out by its link.
            () = shared.ended.cancelled() => self.tool.abort.cancel(),
        }
        shared.state().direct.remove(&call);
    }

    async fn drive(&mut self) {
        loop {
            self.take_in();
            match self.run.next(self.direct.shared.now()) {
                Step::Wait { until } => self.wait(until).await,
                Step::Register => self.register().await,
                Step::Answer(out) => {
                    if self.peer.answer(self.call, &out) {
                        return;
                    }
                    // The link is broken, or full.
                    self.run.input(DirectInput::Finished { out: None, needs_record: true });
                }
                Step::AnswerInDoubt(out) => self.peer.answer_in_doubt(self.call, &out),
                Step::Own { tell, cancelled } => return self.own(tell, cancelled).await,
                Step::Clear(out) => return self.clear(&out).await,
                Step::Stop { tell } => {
                    self.tool.abort.cancel();
                    if tell {
                        self.peer.registered(self.call);
                    }
                    return;
                }
            }
        }
    }

    fn take_in(&mut self) {
        while let Ok(input) = self.inputs.try_recv() {
            self.hear(input);
        }
        while let Ok(input) = self.tool.inputs.try_recv() {
            self.hear_tool(input);
        }
    }

    fn hear(&mut self, input: DirectInput) {
        if input == DirectInput::Cancel {
            self.tool.abort.cancel();
        }
        self.run.input(input);
    }

    fn hear_tool(&mut self, input: Input) {
        match &input {
            Input::Finished(out) => {
                let long = out.as_ref().is_some_and(|out| !Peer::carries(out));
                let needs_record = long || self.tool.role.becomes_task();
                self.run.input(DirectInput::Finished { out: out.clone(), needs_record });
            }
            _ => self.run.input(DirectInput::Emitted),
        }
        self.said.push(input);
    }

    /// Waits until something comes, or the time (milliseconds since the worker's start).
    async fn wait(&mut self, until: Option<u64>) {
        let start = self.direct.shared.start;
        let due = async {
            match until {
                Some(until) => tokio::time::sleep_until((start + Duration::from_millis(until)).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(input) = self.inputs.recv() => self.hear(input),
            Some(input) = self.tool.inputs.recv() => self.hear_tool(input),
            () = self.peer.broken(), if self.linked => {
                self.linked = false;
                self.run.input(DirectInput::Broken);
            }
            () = due => {}
        }
    }

    async fn register(&mut self) {
        if std::mem::take(&mut self.unanswered) {
            self.wait(Some(self.direct.shared.now() + super::millis(AGAIN))).await;
            if !self.run.is_asking() {
                return;
            }
        }
        let shared = &self.direct.shared;
        let by = Registrant::Worker(shared.rerun(self.snapshot.order.tool.as_deref()));
        let order = &self.snapshot.order;
        let reply = self.direct.store.register(self.call, order, &shared.config.name, by).await;
        let reply = match reply {
            Ok(reply) => Some(reply.map(|registered| self.registered = Some(registered))),
            Err(error) => {
                tracing::warn!(%error, call = %self.call, "a call can't be registered yet");
                self.unanswered = true;
                None
            }
        };
        self.run.input(DirectInput::Replied(reply));
    }

    /// From here on the call is one like those of the queue. What still comes on the link is seen to until it ends.
    async fn own(&mut self, tell: bool, cancelled: bool) {
        let Some(Registered { state, generation }) = self.registered.take() else { return };
        let snapshot = Snapshot { state, ..self.snapshot.clone() };
        let mut delivery =
            Delivery::taken(&snapshot.order, snapshot.state.clone(), DeliveryLimits::default());
        self.said.drain(..).for_each(|input| delivery.input(input));
        let inputs = self.tool.sender.clone();
        let rest = Tool::new(self.call, &snapshot);
        let tool = std::mem::replace(&mut self.tool, rest);
        self.tool.abort = tool.abort.clone();
        let link = Some(self.peer.clone());
        let start = Start { call: self.call, snapshot, generation, run: true, link };
        let driver = Driver::new(self.direct.shared.clone(), start, delivery, tool);
        // Before the driver says there that the record has changed.
        if tell {
            self.peer.registered(self.call);
        }
        let mut driven = self.direct.tools.spawn(driver.run_out());
        if cancelled {
            self.abandon().await;
        }
        loop {
            tokio::select! {
                Some(input) = self.inputs.recv() => match input {
                    DirectInput::Got => drop(inputs.send(Input::Got)),
                    DirectInput::Cancel => {
                        self.tool.abort.cancel();
                        self.abandon().await;
                    }
                    _ => {}
                },
                _ = &mut driven => return,
            }
        }
    }

    /// The client is gone: as owner, so that the record says so too.
    async fn abandon(&self) {
        let order = &self.snapshot.order;
        while self.direct.store.abandon(self.call, &order.node, order.request).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The backend has the answer: if there is a record, it is closed with it.
    async fn clear(&self, out: &Message) {
        let (store, call) = (&self.direct.store, self.call);
        let fence = Fence::new(&self.direct.shared.config.name, 1);
        loop {
            let cleared = match store.finish(call, fence, out).await {
                Ok(Ok(_)) => store.published(call, fence).await.is_ok(),
                Ok(Err(_)) => true,
                Err(_) => false,
            };
            if cleared {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
