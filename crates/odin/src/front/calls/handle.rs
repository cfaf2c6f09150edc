//! The handle of a call: what a request has of it while it waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::direct::Direct;
use crate::call::{Enqueue, Message, Offer, Order, Read, Withdraw};
use crate::front::{
    error::{Error, Result},
    state::Front,
};
use crate::id::{CallId, Ticket};
use crate::store;

/// How long to wait before the store is asked again without a hint.
pub(super) const AGAIN: Duration = Duration::from_millis(250);
/// The same for a stream: hints are seldom lost, and there may be many streams.
const STREAM_AGAIN: Duration = Duration::from_millis(500);
/// How long a record may be missing before its call is given up: its worker registers it again after the
/// store lost its memory.
const MISSING: Duration = Duration::from_secs(3);
/// How long the store may be silent before a request is given up.
const SILENT: Duration = Duration::from_secs(4);
/// A number beyond all events: what is read from there on is the answer alone.
pub(crate) const ANSWER_ALONE: u32 = u32::MAX;

/// What a request wants of its call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    /// The answer, however long it takes.
    Answer,
    /// The answer; after [`FrontConfig::hold_after`](crate::front::FrontConfig::hold_after) the client is offered to
    /// Pushpin.
    AnswerOrHold,
    /// What comes after event `after` ([`ANSWER_ALONE`]: the answer). Nothing is an event as well once `until` is
    /// over and the call runs; without it, it is waited for.
    Events { after: u32, until: Option<Instant> },
}

impl Want {
    /// When to look at the call that runs, without a hint.
    fn look(self, front: &Front, first: bool) -> Instant {
        let now = Instant::now();
        match self {
            Self::AnswerOrHold if first => now + front.config.hold_after,
            Self::Answer | Self::AnswerOrHold => now + AGAIN,
            Self::Events { until, .. } => until.unwrap_or(now + STREAM_AGAIN),
        }
    }
}

/// What comes of a call.
#[derive(Debug)]
pub(crate) enum Next {
    /// The answer; it is the last.
    Answer(Message),
    /// Events in their order, and the answer after them if it is there. Both may be missing: the call runs.
    Events(Vec<Message>, Option<Message>),
    /// The client is to go to Pushpin with [`Handle::ticket`].
    Offered,
    /// The client cancelled the call. There is no answer.
    Cancelled,
    /// Nothing more will come.
    Failed(Error),
}

/// The handle of a call. Dropped before it is settled, it gives the call up: the client is gone.
pub(crate) struct Handle {
    pub(super) front: Arc<Front>,
    /// Its place among the waiters.
    place: u64,
    /// The call.
    pub(crate) call: CallId,
    /// What the record calls this request.
    pub(super) request: u64,
    /// One for the whole wait: an offer whose reply was lost is asked for again under it.
    ticket: Ticket,
    pub(super) notify: Arc<Notify>,
    settled: bool,
    pub(super) started: Instant,
    /// The link to its worker, as long as something may come over it.
    pub(super) direct: Option<Direct>,
    /// Session and request id of a call that a notification may cancel here.
    pub(super) name: Option<(String, String)>,
    /// Nobody has looked at the call yet.
    first: bool,
    /// When the store last answered.
    heard: Instant,
    /// Since when the record has been missing.
    missing: Option<Instant>,
    /// Since when the call can't be withdrawn, although its record is there.
    stuck: Option<Instant>,
    /// What it counts for in the limits of calls in flight.
    counted: Vec<String>,
}

impl Handle {
    /// Registers a request, before its call is enqueued: no hint may come too early.
    pub(crate) fn register(front: &Arc<Front>, call: CallId, counted: Vec<String>) -> Self {
        let place = front.waiters.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        front.waiters.lock().insert(place, notify.clone());
        let now = Instant::now();
        Self {
            front: front.clone(),
            place,
            call,
            request: place,
            ticket: Ticket::random(),
            notify,
            settled: false,
            started: now,
            direct: None,
            name: None,
            first: true,
            heard: now,
            missing: None,
            stuck: None,
            counted,
        }
    }

    /// The ticket under which the client is offered to Pushpin.
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The request's place in the record: node and number.
    pub(crate) fn place(&self) -> (&str, u64) {
        (&self.front.config.node, self.request)
    }

    pub(super) fn waiter_is_cancelled(&self) -> bool {
        self.front.waiters.lock().is_cancelled(self.place)
    }

    /// One that waits for no call: it only counts, as long as it lives.
    pub(crate) fn uncalled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// The call needs this request no more.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
    }

    /// Waits for what comes next. It may be dropped at any time, and asked for again.
    pub(crate) async fn next(&mut self, want: Want) -> Next {
        if let Some(next) = self.next_direct().await {
            return next;
        }
        // A direct call that was just written down: what became of it is in the record.
        let is_new = self.first && self.direct.is_some();
        let mut look = if is_new { Instant::now() } else { want.look(&self.front, self.first) };
        loop {
            tokio::select! {
                () = self.notify.notified() => {}
                () = Direct::hint(&mut self.direct) => {}
                () = sleep_until(look) => {}
            }
            self.first = false;
            let seen = match self.look(want).await {
                Ok(next) => {
                    // The record knows of these that nobody waits any more.
                    if matches!(
                        next,
                        Next::Answer(_) | Next::Events(_, Some(_)) | Next::Offered | Next::Cancelled
                    ) {
                        self.settle();
                    }
                    return next;
                }
                Err(seen) => seen,
            };
            look = match seen {
                Seen::Running => want.look(&self.front, false),
                _ => Instant::now() + AGAIN,
            };
            if let Some(error) = self.weigh(seen).await {
                return Next::Failed(error);
            }
        }
    }

    /// One look at the record. An error: nothing new has come.
    async fn look(&self, want: Want) -> std::result::Result<Next, Seen> {
        match want {
            Want::Answer => self.offer(false).await,
            Want::AnswerOrHold => self.offer(self.front.can_hold()).await,
            Want::Events { after, until } => self.read(after, until).await,
        }
    }

    async fn offer(&self, may_hold: bool) -> std::result::Result<Next, Seen> {
        let (node, request) = self.place();
        match self.front.store.offer(self.call, node, request, self.ticket, may_hold).await {
            Ok(Offer::Done(out)) => Ok(Next::Answer(out)),
            Ok(Offer::Offered) => {
                self.front.holds.count();
                Ok(Next::Offered)
            }
            Ok(Offer::Cancelled) => Ok(Next::Cancelled),
            Ok(Offer::Queued) => Err(Seen::Queued),
            Ok(Offer::Wait) => Err(Seen::Running),
            Ok(Offer::Missing) => Err(Seen::Missing),
            Err(error) => Err(silent(&error)),
        }
    }

    async fn read(&self, after: u32, until: Option<Instant>) -> std::result::Result<Next, Seen> {
        let (node, request) = self.place();
        let is_over = until.is_some_and(|until| Instant::now() >= until);
        match self.front.store.read(self.call, node, request, after).await {
            Ok(Read::Events { events, out: Some(out) }) if events.is_empty() => Ok(Next::Answer(out)),
            Ok(Read::Events { events, out }) if !events.is_empty() || is_over => {
                Ok(Next::Events(events, out))
            }
            Ok(Read::Events { .. }) => Err(Seen::Running),
            Ok(Read::Cancelled) => Ok(Next::Cancelled),
            Ok(Read::Queued) => Err(Seen::Queued),
            Ok(Read::Missing) => Err(Seen::Missing),
            Err(error) => Err(silent(&error)),
        }
    }

    /// What a look that brought nothing means for the client: an error, once its patience is over. However a
    /// request waits, this is the one patience.
    async fn weigh(&mut self, seen: Seen) -> Option<Error> {
        let now = Instant::now();
        if seen != Seen::Silent {
            self.heard = now;
        }
        if seen != Seen::Missing {
            self.missing = None;
        }
        match seen {
            Seen::Running => None,
            Seen::Queued if now < self.started + self.front.config.limits.queue_patience => None,
            // Not before it is certain that the call never begins. If it has begun, or the store does not
            // answer, the next look tells; but a queue that is damaged may never let go of it.
            Seen::Queued => match self.withdraw().await {
                Ok(Withdraw::Withdrawn) => {
                    self.settle();
                    Some(Error::NotTaken)
                }
                Ok(Withdraw::Running | Withdraw::Missing) => None,
                Err(error) => {
                    let since = *self.stuck.get_or_insert(now);
                    (now > since + SILENT).then_some(Error::OutcomeUnknown(Some(error)))
                }
            },
            Seen::Missing if now > *self.missing.get_or_insert(now) + MISSING => Some(Error::Lost),
            Seen::Silent if now > self.heard + SILENT => Some(Error::OutcomeUnknown(None)),
            Seen::Missing | Seen::Silent => None,
        }
    }

    /// Hands the call to the queue. None: it is there; else what the client gets in place of it.
    pub(super) async fn enqueue(&mut self, order: Order) -> Result<Option<Instead>> {
        let refused = match self.front.store.enqueue(self.call, order).await {
            Ok(Enqueue::Accepted) => return Ok(None),
            Ok(Enqueue::Unanswered) => return self.settle_unanswered().await.map(|()| None),
            Ok(Enqueue::Known { call, same }) => return Ok(Some(Instead::Known { call, same })),
            Ok(Enqueue::Cancelled) => Ok(Some(Instead::Cancelled)),
            Ok(Enqueue::Full) => Err(Error::QueueFull),
            Ok(Enqueue::TooMany(whose)) => Err(Error::TooManyOpen(whose)),
            Err(error) => Err(Error::NotBegun(Some(error))),
        };
        self.settle();
        refused
    }

    /// Settles what became of an ENQ that was not answered: nothing when a worker has begun, else why there is
    /// nothing to wait for.
    pub(super) async fn settle_unanswered(&mut self) -> Result<()> {
        loop {
            match self.withdraw().await {
                Ok(Withdraw::Running) => return Ok(()),
                Ok(Withdraw::Withdrawn) => {
                    self.settle();
                    return Err(Error::NotBegun(None));
                }
                Ok(Withdraw::Missing) => return Err(Error::OutcomeUnknown(None)),
                Err(error) if Instant::now() > self.heard + SILENT => {
                    return Err(Error::OutcomeUnknown(Some(error)));
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Takes the call back, if no worker has begun.
    async fn withdraw(&self) -> store::Result<Withdraw> {
        let (node, request) = self.place();
        self.front.store.withdraw(self.call, node, request).await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.front.waiters.lock().remove(self.place, self.name.as_ref());
        let mut in_flight = self.front.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.counted {
            if let Some(count) = in_flight.get_mut(key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    in_flight.remove(key);
                }
            }
        }
        drop(in_flight);
        if self.settled || self.direct.as_mut().is_some_and(|direct| !direct.client_gone()) {
            return;
        }
        let (front, call, request) = (self.front.clone(), self.call, self.request);
        tokio::spawn(async move {
            if let Err(error) = front.store.abandon(call, &front.config.node, request).await {
                // The worker finds out by itself when this node's silence or the lease tells.
                tracing::warn!(%error, %call, "a client that is gone can't be reported");
            }
        });
    }
}

/// What there is in place of a call that was handed in.
pub(super) enum Instead {
    /// Its client cancelled it before.
    Cancelled,
    /// It repeats a call, with the same parameters or not.
    Known { call: CallId, same: bool },
}

/// What a look at a call's record brought, when it is neither an answer nor an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// No worker has begun.
    Queued,
    /// A worker runs it.
    Running,
    /// There is no record.
    Missing,
    /// The store does not answer.
    Silent,
}

fn silent(error: &store::Unavailable) -> Seen {
    tracing::warn!(%error, "the store is silent");
    Seen::Silent
}
