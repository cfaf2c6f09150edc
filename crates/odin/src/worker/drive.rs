//! One call on one worker: its tool, and the task that drives its delivery.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::outbox::JobOutbox;
use super::slots::Slot;
use super::task::{Role, Stored};
use crate::call::{
    Action, Delivery, Exit, Fence, Gone, Input, Message, Parties, Reach, SendOutcome, Snapshot, State, Via,
};
use crate::events::{self, Stream};
use crate::id::{CallChannel, CallId};
use crate::link::Peer;
use crate::protocol::Era;
use crate::store::Beat;
use crate::worker::Inbound;

/// How long to wait before a command is tried again that the store did not answer, or a write that was not
/// made.
const AGAIN: Duration = Duration::from_millis(50);
/// In place of the number of a Pushpin: the backend that streams by itself, reached through the store.
const BACKEND: usize = usize::MAX;
/// Messages from the client that wait for the tool.
const INBOX: usize = 64;

/// What a call begins with.
pub(super) struct Start {
    pub(super) call: CallId,
    pub(super) snapshot: Snapshot,
    pub(super) generation: String,
    /// Whether the tool runs, or only an answer is to be delivered.
    pub(super) run: bool,
    /// The link on which it came.
    pub(super) link: Option<Peer>,
}

/// What the rest of the worker knows of a call.
pub(super) struct Handle {
    epoch: u32,
    /// The long-lived stream that carries the call's messages.
    stream: Option<String>,
    inputs: mpsc::UnboundedSender<Input>,
    subscribed: Arc<AtomicBool>,
    /// A view waits to be read: a newer one would say no more than the next beat does.
    seen: Arc<AtomicBool>,
    look: mpsc::Sender<()>,
}

impl Handle {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn stream(&self) -> Option<&str> {
        self.stream.as_deref()
    }

    pub(super) fn beat(&self, call: CallId, links_down: bool) -> Beat {
        let subscribed = links_down || self.subscribed.load(Ordering::Acquire);
        Beat { call, epoch: self.epoch, subscribed }
    }

    pub(super) fn input(&self, input: Input) {
        if matches!(input, Input::Seen(_)) && self.seen.swap(true, Ordering::AcqRel) {
            return;
        }
        // A call that has just ended takes nothing in.
        let _ = self.inputs.send(input);
    }
}

/// The call's record changed, or the client sent something.
pub(super) fn look(shared: &Arc<Shared>, call: CallId) {
    if let Some(handle) = shared.state().jobs.get(&call) {
        // Full: it will look anyway.
        let _ = handle.look.try_send(());
    }
}

/// A tool that runs, or none, and the ways to it.
pub(super) struct Tool {
    pub(super) sender: mpsc::UnboundedSender<Input>,
    pub(super) inputs: mpsc::UnboundedReceiver<Input>,
    pub(super) role: Arc<Role>,
    pub(super) abort: CancellationToken,
    /// What the client sends goes here; `None` when no tool runs.
    pub(super) inbox: Option<mpsc::Sender<Inbound>>,
}

impl Tool {
    pub(super) fn new(call: CallId, snapshot: &Snapshot) -> Self {
        let (sender, inputs) = mpsc::unbounded_channel();
        let role = Arc::new(Role::of(call, snapshot));
        Self { sender, inputs, role, abort: CancellationToken::new(), inbox: None }
    }

    /// Starts it in the current runtime. The slot is given back when it has ended.
    pub(super) fn start(&mut self, shared: &Arc<Shared>, slot: Option<Slot>, parties: Parties) {
        let inbox = run_tool(shared, &self.role, self.sender.clone(), self.abort.clone(), slot, parties);
        self.inbox = Some(inbox);
    }
}

/// A call that this worker owns. Its beats go on from the moment that this is made.
pub(super) struct Driver {
    shared: Arc<Shared>,
    start: Start,
    delivery: Delivery,
    inputs: mpsc::UnboundedReceiver<Input>,
    looks: mpsc::Receiver<()>,
    subscribed: Arc<AtomicBool>,
    seen: Arc<AtomicBool>,
    /// The way to the tool; `None` when it does not run.
    inbox: Option<mpsc::Sender<Inbound>>,
    /// Number of the last message of the client that went to the tool.
    received: u64,
    abort: CancellationToken,
    /// The record is missing from a store that lost its memory.
    missing: bool,
    role: Arc<Role>,
}

/// Runs a call to its end on this worker. The slot is given back when the tool has ended.
pub(super) async fn drive(shared: Arc<Shared>, start: Start, delivery: Delivery, slot: Option<Slot>) {
    let mut tool = Tool::new(start.call, &start.snapshot);
    let parties = start.snapshot.order.parties();
    if start.run {
        tool.start(&shared, slot, parties);
    }
    Driver::new(shared, start, delivery, tool).run_out().await;
}

/// Starts the tool in a task of its own: what it blocks is not its delivery.
fn run_tool(
    shared: &Arc<Shared>,
    role: &Arc<Role>,
    inputs: mpsc::UnboundedSender<Input>,
    abort: CancellationToken,
    slot: Option<Slot>,
    parties: Parties,
) -> mpsc::Sender<Inbound> {
    let (inbox, messages) = mpsc::channel(INBOX);
    let outbox = Arc::new(JobOutbox::new(inputs.clone(), shared.config.events));
    let (shared, role) = (shared.clone(), role.clone());
    tokio::spawn(async move {
        let slot = match slot {
            Some(slot) => Some(slot),
            None => role.slots(&shared).acquire(&parties).await,
        };
        let work = role.run(&shared, outbox, messages, abort);
        let answer = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Some(role.lost()));
        let most = role.answer_bytes(&shared.config);
        let answer = answer.map(|text| if text.len() > most { too_large(&text, most) } else { text });
        let _ = inputs.send(Input::Finished(answer));
        drop(slot);
    });
    inbox
}

/// The error in place of an answer that is over the limit.
fn too_large(answer: &str, most: usize) -> Message {
    let bytes = answer.len();
    let why =
        format!("The result has {bytes} bytes; the limit is {most}. Ask for less, or for a part of it.");
    events::in_place_of(answer, &why)
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, start: Start, delivery: Delivery, tool: Tool) -> Self {
        let (look, looks) = mpsc::channel(1);
        let subscribed = Arc::new(AtomicBool::new(true));
        let seen = Arc::new(AtomicBool::new(false));
        let handle = Handle {
            epoch: start.snapshot.epoch,
            stream: start.snapshot.order.stream.clone(),
            inputs: tool.sender,
            subscribed: subscribed.clone(),
            seen: seen.clone(),
            look,
        };
        {
            let mut state = shared.state();
            let subscriptions = state.streams.of(start.call);
            subscriptions.into_iter().for_each(|input| handle.input(input));
            let order = &start.snapshot.order;
            if let Some(stream) = &order.stream {
                let backend = order.via == Via::Backend;
                let at = if backend { Some(BACKEND) } else { state.streams.long_lived(stream) };
                at.into_iter().for_each(|pushpin| handle.input(Input::Subscribed { pushpin, channel: 1 }));
            }
            state.jobs.insert(start.call, handle);
        }
        let Tool { inputs, role, abort, inbox, .. } = tool;
        let (received, missing) = (0, false);
        Self {
            shared,
            start,
            delivery,
            inputs,
            looks,
            subscribed,
            seen,
            inbox,
            received,
            abort,
            missing,
            role,
        }
    }

    pub(super) async fn run_out(mut self) {
        let (shared, call, epoch) = (self.shared.clone(), self.start.call, self.start.snapshot.epoch);
        let exit = tokio::select! {
            exit = self.run() => Some(exit),
            () = shared.ended.cancelled() => None,
        };
        self.abort.cancel();
        {
            let mut state = shared.state();
            if state.jobs.get(&call).is_some_and(|handle| handle.epoch == epoch) {
                state.jobs.remove(&call);
            }
        }
        let Some(exit) = exit else {
            return tracing::warn!(%call, "left to another worker: this one has ended");
        };
        match exit {
            Exit::Finished => tracing::debug!(%call, "finished"),
            Exit::Dropped => tracing::info!(%call, "cancelled"),
            // The backend took the answer.
            Exit::Gone(Gone::Missing) => tracing::debug!(%call, "over"),
            Exit::Gone(Gone::Fenced) => tracing::warn!(%call, "another worker took over"),
        }
    }

    async fn run(&mut self) -> Exit {
        loop {
            self.take_inputs();
            if std::mem::take(&mut self.missing) {
                if let Some(view) = self.or_restored(Err(Gone::Missing)).await {
                    self.delivery.input(Input::Seen(view));
                }
                continue;
            }
            let action = self.delivery.next(self.shared.now());
            match &action {
                Action::Exit(exit) => return *exit,
                Action::Wait { until } => self.wait(*until).await,
                Action::Send { pushpin, channel, items } => {
                    let outcome = self.send(*pushpin, *channel, items).await;
                    self.delivery.sent(items, outcome, self.shared.now());
                    if outcome == SendOutcome::NotSent {
                        self.pause().await;
                    }
                }
                Action::DropWork => {
                    let reply = self.shared.store.drop_work(self.start.call, self.fence()).await;
                    match reply {
                        Ok(reply) => {
                            if let Some(reply) = self.or_restored(reply).await {
                                if reply == Ok(None) {
                                    self.abort.cancel();
                                }
                                self.delivery.dropped(reply);
                            }
                        }
                        Err(_) => self.pause().await,
                    }
                }
                Action::Published if self.role.has_ended() => self.delivery.published(Ok(())),
                Action::Published => {
                    let reply = self.shared.store.published(self.start.call, self.fence()).await;
                    match reply {
                        Ok(reply) => {
                            if let Some(reply) = self.or_restored(reply).await {
                                self.delivery.published(reply);
                            }
                        }
                        Err(_) => self.pause().await,
                    }
                }
                Action::Finish { out } => match self.role.store(&self.shared, self.fence(), out).await {
                    Ok(stored) => self.stored(action, stored).await,
                    Err(_) => self.pause().await,
                },
                Action::Emit { .. } | Action::Gate { .. } | Action::Lost { .. } => {
                    match self.command(&action).await {
                        Ok(reply) => {
                            self.hint(&reply);
                            if let Some(reply) = self.or_restored(reply).await {
                                self.delivery.replied(&action, reply, self.shared.now());
                            }
                        }
                        Err(_) => self.pause().await,
                    }
                }
            }
        }
    }

    fn fence(&self) -> Fence<'_> {
        let linked = self.start.link.as_ref().filter(|link| !link.is_broken()).map(Peer::name);
        Fence { linked, ..self.shared.fence(self.start.snapshot.epoch) }
    }

    /// Says on the link that the record has changed, to the backend that waits there. A hint: if it is lost, that looks all
    /// the same.
    fn hint(&self, reply: &Result<State, Gone>) {
        if let (Some(link), Ok(State { reach: Reach::Node { node, .. }, .. })) = (&self.start.link, reply)
            && link.name() == node
        {
            link.hint(self.start.call);
        }
    }

    async fn command(&self, action: &Action) -> crate::store::Result<Result<State, Gone>> {
        let (store, call, fence) = (&self.shared.store, self.start.call, self.fence());
        match action {
            Action::Emit { first, events } => store.emit(call, fence, *first, events).await,
            Action::Gate { channel } => store.gate(call, fence, *channel).await,
            Action::Lost { channel } => store.lost(call, fence, *channel).await,
            _ => Ok(Err(Gone::Missing)),
        }
    }

    async fn stored(&mut self, action: Action, stored: Stored) {
        let (action, reply) = match stored {
            Stored::Reply(reply) => (action, reply),
            Stored::Other(out, reply) => (Action::Finish { out }, reply),
            Stored::Not(state) => return self.delivery.input(Input::Seen(Ok(state))),
        };
        self.hint(&reply);
        if let Some(reply) = self.or_restored(reply).await {
            self.delivery.replied(&action, reply, self.shared.now());
        }
    }

    /// The reply; or nothing when the record was missing because the store lost its memory, and this worker
    /// has just registered the call again: then the action is simply due again. Only a worker whose lease is
    /// fresh may do that: any other may have lost the call already.
    async fn or_restored<T>(&mut self, reply: Result<T, Gone>) -> Option<Result<T, Gone>> {
        if !matches!(reply, Err(Gone::Missing)) || self.delivery.is_over() {
            return Some(reply);
        }
        let shared = &self.shared;
        // Not the last beat's: that one may be older than the loss.
        let Ok(beaten) = shared.store.beat(&shared.config.name, &[]).await else {
            self.pause().await;
            return None;
        };
        let fresh = shared.fresh_until().is_some_and(|until| Instant::now() < until);
        if beaten.generation == self.start.generation || !fresh {
            return Some(reply);
        }
        let (run, state, out, log) = self.delivery.remembered();
        let snapshot = Snapshot { run, state, out, log, ..self.start.snapshot.clone() };
        match shared.store.restore(self.start.call, &shared.config.name, snapshot).await {
            Ok(view) => {
                tracing::warn!(call = %self.start.call, "registered again after the store lost its memory");
                self.start.generation = beaten.generation;
                // The new record counts from the beginning.
                self.received = 0;
                self.delivery.input(Input::Seen(view));
            }
            Err(_) => self.pause().await,
        }
        None
    }

    async fn send(&self, pushpin: usize, number: u32, items: &[crate::call::Send]) -> SendOutcome {
        if pushpin == BACKEND {
            return self.cast(items).await;
        }
        let (Some(publisher), Some(until)) = (&self.shared.publisher, self.shared.fresh_until()) else {
            return SendOutcome::NotSent;
        };
        let channel = CallChannel { call: self.start.call, number };
        let stream = Stream::of(&self.start.snapshot.order);
        let items = items.iter().map(|send| stream.item(channel, send)).collect();
        match publisher.send_until(pushpin, items, until).await {
            Ok(()) => SendOutcome::Sent,
            Err(error) => {
                tracing::warn!(%error, %channel, "not published; it will be sent again");
                SendOutcome::NotSent
            }
        }
    }

    /// Sends to a long-lived stream that a backend holds.
    async fn cast(&self, items: &[crate::call::Send]) -> SendOutcome {
        let Some(stream) = &self.start.snapshot.order.stream else { return SendOutcome::NotSent };
        for item in items {
            let messages = match item {
                crate::call::Send::Event(_, message) | crate::call::Send::Final(_, message) => {
                    std::slice::from_ref(message)
                }
                crate::call::Send::Events(_, messages) => messages,
                crate::call::Send::Burn(_) | crate::call::Send::Close => continue,
            };
            for message in messages {
                if self.shared.store.cast(stream, message.clone()).await.is_err() {
                    return SendOutcome::NotSent;
                }
            }
        }
        SendOutcome::Sent
    }

    fn take_inputs(&mut self) {
        while let Ok(input) = self.inputs.try_recv() {
            self.take_input(input);
        }
        self.subscribed.store(self.delivery.sees_subscription(), Ordering::Release);
    }

    fn take_input(&mut self, input: Input) {
        if matches!(input, Input::Seen(_)) {
            self.seen.store(false, Ordering::Release);
        }
        match input {
            // The usual end of a quick call: its backend took the answer. Unless the store lost its memory.
            Input::Seen(Err(Gone::Missing)) if self.shared.state().generation != self.start.generation => {
                self.missing = true;
            }
            input => self.delivery.input(input),
        }
    }

    async fn wait(&mut self, until: Option<u64>) {
        let deadline = until.map(|until| self.shared.start + Duration::from_millis(until));
        let sleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            input = self.inputs.recv() => {
                if let Some(input) = input {
                    self.take_input(input);
                }
            }
            Some(()) = self.looks.recv() => self.refresh().await,
            () = sleep => {}
        }
    }

    async fn pause(&self) {
        tokio::time::sleep(AGAIN).await;
    }

    /// Reads the record, and what the client sent.
    async fn refresh(&mut self) {
        let (call, epoch) = (self.start.call, self.start.snapshot.epoch);
        let subscribed = !self.shared.links_replayed() || self.delivery.sees_subscription();
        let beat = Beat { call, epoch, subscribed };
        if let Ok(beaten) = self.shared.store.beat(&self.shared.config.name, &[beat]).await
            && let Some(view) = beaten.views.into_iter().next()
        {
            if view == Err(Gone::Missing) && beaten.generation != self.start.generation {
                self.missing = true;
            } else {
                self.delivery.input(Input::Seen(view));
            }
        }
        if self.start.snapshot.order.era == Era::Stateful
            && let Some(inbox) = &self.inbox
            && let Ok(waiting) = self.shared.store.inbox(call, self.fence(), self.received).await
        {
            self.received = waiting.last;
            for message in waiting.messages {
                let Some(inbound) = inbound(&message) else { continue };
                if inbox.send(inbound).await.is_err() {
                    break;
                }
            }
        }
    }
}

/// A message of the client for its running call: a notification has a method, an answer has none.
fn inbound(message: &str) -> Option<Inbound> {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(default)]
        method: Option<serde::de::IgnoredAny>,
    }
    let kind: Kind = serde_json::from_str(message).ok()?;
    let raw = serde_json::value::RawValue::from_string(message.to_owned()).ok()?;
    Some(if kind.method.is_some() { Inbound::Notification(raw) } else { Inbound::Response(raw) })
}
