//! The record of a call and its transitions, as pure functions of the record and the time.
//!
//! `store/lua/` holds the same transitions for Redis; a test drives both with the same random commands and
//! compares every reply.

use std::time::Duration;

use super::types::{
    Fence, Gone, Join, Message, Offer, Order, OrphanedStream, Reach, Read, Rerun, Resume, Run, Snapshot,
    State, Timing, Via, Withdraw,
};
use crate::id::Ticket;
use crate::protocol::Era;

/// Everything that is known of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The order as it came.
    pub order: Order,
    /// When it was enqueued, in milliseconds of the store's clock.
    pub enqueued: u64,
    /// How far the work is.
    pub run: Run,
    /// Raised by each worker that takes the call; writes of an older epoch are refused.
    pub epoch: u32,
    /// The worker that owns it; empty when none does.
    pub owner: String,
    /// When the owner's lease ends, in milliseconds of the store's clock; 0 when nobody owns it.
    pub lease: u64,
    /// Names the TAKE by which the owner has it, so that the same TAKE can be repeated; empty after CLAIM.
    pub attempt: String,
    /// Whether it may run again; none: a backend registered it, and whoever claims it decides.
    pub rerun: Option<Rerun>,
    /// Where the client is.
    pub reach: Reach,
    /// How many channels were handed out.
    pub channels: u32,
    /// How many events were accepted.
    pub event_count: u32,
    /// The answer.
    pub out: Option<Message>,
    /// The events, where they are kept: stateful eras, and streams of the backend's own.
    pub log: Vec<Message>,
    /// The client asked to cancel.
    pub cancel: bool,
    /// The call is over; only what a retry or a resumption needs is left, until it expires.
    pub closed: bool,
}

impl Record {
    /// ENQ.
    pub fn new(order: Order, now: u64) -> Self {
        let (reach, channels) = match &order.stream {
            // The stream stands already.
            Some(_) => (Reach::Held { channel: 1, from: 0, gate: false, since: now, ticket: None }, 1),
            None => (Reach::Node { node: order.node.clone(), request: order.request, asked: now }, 0),
        };
        Self {
            order,
            enqueued: now,
            run: Run::Queued,
            epoch: 0,
            owner: String::new(),
            lease: 0,
            attempt: String::new(),
            rerun: Some(Rerun::Unsafe),
            reach,
            channels,
            event_count: 0,
            out: None,
            log: Vec::new(),
            cancel: false,
            closed: false,
        }
    }

    /// Whether events are kept in the record.
    pub fn keeps_log(&self) -> bool {
        self.order.keeps_log()
    }

    /// Whether somebody may ask for it again, so that it goes on without a client: in the stateful eras by
    /// `Last-Event-ID`, else by the key of a retry.
    pub(crate) fn is_kept(&self) -> bool {
        self.order.era == Era::Stateful || self.order.retry.is_some()
    }

    /// Whether the worker owns the call.
    pub(crate) fn is_owned(&self, fence: Fence<'_>) -> bool {
        self.owned(fence).is_ok()
    }

    /// The owner's view.
    pub fn state(&self) -> State {
        State { reach: self.reach.clone(), event_count: self.event_count, cancel: self.cancel }
    }

    /// Copy for the worker that now owns it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            order: self.order.clone(),
            epoch: self.epoch,
            run: self.run,
            rerun: self.rerun,
            state: self.state(),
            out: self.out.clone(),
            log: self.log.clone(),
            channels: self.channels,
        }
    }

    /// TAKE: only queued → running. A stateless call whose client is gone, and one that was cancelled, is not
    /// begun. `attempt` names this TAKE: repeated under the same name, because its reply was lost, it succeeds
    /// again; else nobody would run the call.
    pub fn take(&mut self, worker: &str, attempt: &str, rerun: Rerun, now: u64, timing: &Timing) -> bool {
        if self.closed {
            return false;
        }
        if self.run == Run::Running && self.owner == worker && self.attempt == attempt {
            self.own(worker, now, timing);
            return true;
        }
        if self.run != Run::Queued {
            return false;
        }
        self.drop_silent_node(now, timing);
        let nobody = self.reach == Reach::None && !self.is_kept();
        if self.cancel || nobody {
            self.close_cancelled();
            return false;
        }
        self.run = Run::Running;
        self.epoch += 1;
        self.rerun = Some(rerun);
        attempt.clone_into(&mut self.attempt);
        self.own(worker, now, timing);
        true
    }

    /// OFFER by the backend that waits. `may_hold`: its link to Pushpin is up, and a stream is wanted.
    pub fn offer(
        &mut self,
        node: &str,
        request: u64,
        ticket: Ticket,
        may_hold: bool,
        now: u64,
        timing: &Timing,
    ) -> Offer {
        if !self.is_of(node, request) {
            return Offer::Missing;
        }
        if self.run == Run::Cancelled {
            return Offer::Cancelled;
        }
        // Asked again, because the reply was lost: no answer after an offer, and no offer after an answer.
        match (&self.reach, &self.out) {
            (Reach::Offered { ticket: known, .. } | Reach::Held { ticket: Some(known), .. }, _)
                if *known == ticket =>
            {
                return Offer::Offered;
            }
            (_, Some(out)) if self.closed => return Offer::Done(out.clone()),
            _ => {}
        }
        if !self.ask(node, request, now) {
            return Offer::Missing;
        }
        match (self.run, &self.out) {
            // Progress is a courtesy: with no way to hold, the answer alone is better than none.
            (Run::Done, Some(out))
                if self.event_count == 0 || !may_hold || self.order.via == Via::Backend =>
            {
                let out = out.clone();
                self.finish();
                Offer::Done(out)
            }
            // A long queue must not turn quick calls into holds.
            (Run::Queued, _) if now < self.enqueued + millis(timing.start) => Offer::Queued,
            _ if may_hold && self.order.via == Via::Pushpin => {
                self.reach = Reach::Offered { ticket, since: now };
                Offer::Offered
            }
            (Run::Queued, _) => Offer::Queued,
            _ => Offer::Wait,
        }
    }

    /// WITHDRAW by the backend that waits: its client is about to be told that the call will not run, and that
    /// has to be true.
    pub fn withdraw(&mut self, node: &str, request: u64) -> Withdraw {
        match self.run {
            _ if !self.is_of(node, request) => Withdraw::Missing,
            // A call that was cancelled while it ran has run.
            Run::Cancelled if self.epoch == 0 => Withdraw::Withdrawn,
            Run::Queued => {
                self.close_cancelled();
                Withdraw::Withdrawn
            }
            Run::Running | Run::Done | Run::Cancelled => Withdraw::Running,
        }
    }

    /// HOLD by the backend that got the hold request. Each success mints a new channel, so that a repeated
    /// request does not break the call; once the gate was open a second hold would tear the stream in two.
    pub fn hold(&mut self, shown: Ticket, assertion: &str, now: u64) -> Option<u32> {
        let fits = match &self.reach {
            Reach::Offered { ticket, .. } => *ticket == shown,
            Reach::Held { gate: false, ticket: Some(ticket), .. } => *ticket == shown,
            _ => false,
        };
        if self.closed || !fits || self.order.assertion != assertion {
            return None;
        }
        self.channels += 1;
        self.reach =
            Reach::Held { channel: self.channels, from: 0, gate: false, since: now, ticket: Some(shown) };
        Some(self.channels)
    }

    /// GATE: the owner saw the subscription and is about to write.
    pub fn gate(&mut self, fence: Fence<'_>, seen: u32) -> Result<State, Gone> {
        self.owned(fence)?;
        if let Reach::Held { channel, gate, .. } = &mut self.reach
            && *channel == seen
        {
            *gate = true;
        }
        Ok(self.state())
    }

    /// EMIT (and APPEND): the owner accepted events. `first` is the number of the first of them.
    pub fn emit(
        &mut self,
        fence: Fence<'_>,
        first: u32,
        events: &[Message],
        now: u64,
        timing: &Timing,
    ) -> Result<State, Gone> {
        self.owned(fence)?;
        if self.run != Run::Running {
            return Err(Gone::Fenced);
        }
        self.drop_silent_node(now, timing);
        for (number, event) in (first..).zip(events) {
            // A repeated command, after a reply was lost, changes nothing.
            if number > self.event_count {
                self.event_count = number;
                if self.keeps_log() {
                    self.log.push(event.clone());
                }
            }
        }
        Ok(self.state())
    }

    /// FINISH: the answer is stored before anybody may see it.
    pub fn finish_run(
        &mut self,
        fence: Fence<'_>,
        out: &Message,
        now: u64,
        timing: &Timing,
    ) -> Result<State, Gone> {
        self.owned(fence)?;
        match self.run {
            Run::Running => {
                self.run = Run::Done;
                self.out = Some(out.clone());
            }
            Run::Done if self.out.as_ref() == Some(out) => {}
            _ => return Err(Gone::Fenced),
        }
        self.drop_silent_node(now, timing);
        Ok(self.state())
    }

    /// PUBLISHED: everything went out on the channel and it was closed; or nobody is there to send it to.
    pub fn published(&mut self, fence: Fence<'_>) -> Result<(), Gone> {
        self.owned(fence)?;
        if self.cancel && self.run != Run::Done {
            self.close_cancelled();
        } else {
            self.finish();
        }
        Ok(())
    }

    /// The subscription of the channel went away: the client is gone.
    pub fn lost(&mut self, fence: Fence<'_>, unsubscribed: u32) -> Result<State, Gone> {
        self.owned(fence)?;
        if let Reach::Held { channel, .. } = self.reach
            && channel == unsubscribed
        {
            self.reach = Reach::None;
        }
        Ok(self.state())
    }

    /// Gives the work up because nobody is there (stateless era) or because the client asked. A compare-and-set:
    /// a client that is there again keeps its call.
    pub fn drop_work(&mut self, fence: Fence<'_>) -> Result<Option<State>, Gone> {
        self.owned(fence)?;
        let nobody = self.order.era == Era::Stateless && self.reach == Reach::None;
        if nobody || self.cancel {
            self.close_cancelled();
            return Ok(None);
        }
        Ok(Some(self.state()))
    }

    /// The backend's connection to the client went away before anything was offered.
    pub fn abandon(&mut self, node: &str, request: u64) -> bool {
        let at = !self.closed && self.is_at(node, request);
        if at {
            self.reach = Reach::None;
        }
        at
    }

    /// CANCEL by the client's notification. Returns whether it changed anything.
    pub fn cancel(&mut self) -> bool {
        if self.closed || self.cancel || self.run == Run::Done {
            return false;
        }
        self.cancel = true;
        if self.run == Run::Queued {
            self.close_cancelled();
        }
        true
    }

    /// BEAT: renews the lease and runs the record's only timers. `subscribed`: the owner sees the current
    /// channel's subscription, or can't know because a link of its own is down.
    pub fn beat(
        &mut self,
        fence: Fence<'_>,
        subscribed: bool,
        now: u64,
        timing: &Timing,
    ) -> Result<State, Gone> {
        self.owned(fence)?;
        self.own(fence.worker, now, timing);
        self.drop_silent_node(now, timing);
        let late = match self.reach {
            Reach::Offered { since, .. } => now >= since + millis(timing.offer),
            Reach::Held { since, .. } => !subscribed && now >= since + millis(timing.gate),
            Reach::Node { .. } | Reach::None => false,
        };
        if late {
            self.reach = Reach::None;
        }
        Ok(self.state())
    }

    /// READ by a backend that streams by itself: events after `from`, and the answer. Repeated, because the reply
    /// was lost, it says the same again.
    pub fn read(&mut self, node: &str, request: u64, from: u32, now: u64) -> Read {
        if !self.is_of(node, request) {
            return Read::Missing;
        }
        if self.run == Run::Cancelled {
            return Read::Cancelled;
        }
        let fetched = self.closed && self.out.is_some();
        if !fetched && !self.ask(node, request, now) {
            return Read::Missing;
        }
        if self.run == Run::Queued {
            return Read::Queued;
        }
        let events = self.log.iter().skip(from as usize).cloned().collect();
        let out = self.out.clone();
        if out.is_some() && !self.closed {
            self.finish();
        }
        Read::Events { events, out }
    }

    /// RESUME in a stateful era. The caller has checked that the session is the asking principal's own. With
    /// `at`, a backend and its request, that backend streams the rest; else Pushpin holds it.
    pub fn resume(&mut self, session: &str, last: u32, at: Option<(&str, u64)>, now: u64) -> Resume {
        if self.order.era != Era::Stateful
            || self.order.session.as_deref() != Some(session)
            || self.order.stream.is_some()
        {
            return Resume::Unknown;
        }
        if self.run == Run::Cancelled {
            return Resume::Replay { events: Vec::new() };
        }
        let mut events: Vec<Message> = self.log.iter().skip(last as usize).cloned().collect();
        if let Some(out) = &self.out {
            if last as usize <= self.log.len() {
                events.push(out.clone());
            }
            return Resume::Replay { events };
        }
        if self.closed {
            return Resume::Unknown;
        }
        if let Some((node, request)) = at {
            self.wait_at(node, request, now);
            return Resume::Joined;
        }
        self.channels += 1;
        let from = u32::try_from(self.log.len()).unwrap_or(u32::MAX);
        self.reach = Reach::Held { channel: self.channels, from, gate: false, since: now, ticket: None };
        Resume::Held { events, channel: self.channels }
    }

    /// JOIN of a repeated request: the answer comes to it, and no longer to the one before it.
    pub fn join(&mut self, name: &str, node: &str, request: u64, now: u64) -> Join {
        if self.order.retry.as_ref().is_none_or(|retry| retry.name != name) {
            return Join::Unknown;
        }
        match (&self.out, self.run) {
            (Some(out), _) => Join::Done(out.clone()),
            (None, Run::Cancelled) => Join::Cancelled,
            (None, _) if self.closed => Join::Unknown,
            _ => {
                self.order.via = Via::Backend;
                self.wait_at(node, request, now);
                Join::Waits
            }
        }
    }

    /// What to say on a subscribed channel that is not the one that this call is held on.
    pub fn orphaned(&self, subscribed: u32) -> Option<OrphanedStream> {
        let held = matches!(self.reach, Reach::Held { channel, .. } if channel == subscribed);
        if held && !self.closed {
            return None;
        }
        let final_message = (self.order.era == Era::Stateless).then(|| self.order.lost.clone());
        Some(OrphanedStream { event_count: self.event_count, final_message })
    }

    /// Whether the record is to be deleted rather than kept until it expires: nothing could ask for it.
    pub fn is_forgettable(&self) -> bool {
        self.closed && self.run != Run::Cancelled && self.out.is_none()
    }

    pub(super) fn own(&mut self, worker: &str, now: u64, timing: &Timing) {
        worker.clone_into(&mut self.owner);
        self.lease = now + millis(timing.lease);
    }

    pub(super) fn owned(&self, fence: Fence<'_>) -> Result<(), Gone> {
        if self.closed || self.is_adopted_of(fence) {
            Err(Gone::Missing)
        } else if self.epoch != fence.epoch || self.owner != fence.worker {
            Err(Gone::Fenced)
        } else {
            Ok(())
        }
    }

    fn is_at(&self, at: &str, number: u64) -> bool {
        matches!(&self.reach, Reach::Node { node, request, .. } if node == at && *request == number)
    }

    /// Whether the call is this request's: it came with it, or joined or resumed it last.
    fn is_of(&self, node: &str, request: u64) -> bool {
        self.order.node == node && self.order.request == request
    }

    /// The client is at this request from now on.
    fn wait_at(&mut self, node: &str, request: u64, now: u64) {
        node.clone_into(&mut self.order.node);
        self.order.request = request;
        self.reach = Reach::Node { node: node.to_owned(), request, asked: now };
    }

    /// The call's own request asks for it. One that was taken for dead, and is not, has it again. False when the
    /// call is over, or the client went on to Pushpin.
    fn ask(&mut self, node: &str, request: u64, now: u64) -> bool {
        match &mut self.reach {
            _ if self.closed => return false,
            Reach::Node { asked, .. } => *asked = now,
            Reach::None => self.reach = Reach::Node { node: node.to_owned(), request, asked: now },
            Reach::Offered { .. } | Reach::Held { .. } => return false,
        }
        true
    }

    pub(super) fn drop_silent_node(&mut self, now: u64, timing: &Timing) {
        if matches!(self.reach, Reach::Node { asked, .. } if now >= asked + millis(timing.silence)) {
            self.reach = Reach::None;
        }
    }

    fn finish(&mut self) {
        self.closed = true;
        self.lease = 0;
        self.owner.clear();
        self.reach = Reach::None;
        self.attempt.clear();
        self.order.job = Message::from("");
    }

    pub(super) fn close_cancelled(&mut self) {
        self.finish();
        self.run = Run::Cancelled;
        self.log.clear();
        self.out = None;
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
