//! The record of a call and its transitions, as pure functions of the record and the time.
//!
//! `broker/lua/` holds the same transitions for Redis; a test drives both with the same random commands and
//! compares every reply.

use std::time::Duration;

use super::types::{
    Claim, Gone, Join, Message, Offer, Order, Reach, Read, Resume, Run, Snapshot, State, Timing, Via,
};
use crate::broker::Stray;
use crate::id::Ticket;
use crate::job::Era;
use crate::runner::Rerun;

/// Everything that is known of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The order as it came.
    pub order: Order,
    /// When it was enqueued, in milliseconds of the broker's clock.
    pub enqueued: u64,
    /// How far the work is.
    pub run: Run,
    /// Raised by each worker that takes the call; writes of an older epoch are refused.
    pub epoch: u32,
    /// The worker that owns it; empty when none does.
    pub owner: String,
    /// When the owner's lease ends, in milliseconds of the broker's clock; 0 when nobody owns it.
    pub lease: u64,
    /// Whether it may run again.
    pub rerun: Rerun,
    /// Where the client is.
    pub reach: Reach,
    /// How many channels were handed out.
    pub channels: u32,
    /// How many events were accepted.
    pub hi: u32,
    /// When the answer came, in milliseconds of the broker's clock.
    pub finished: u64,
    /// The answer.
    pub out: Option<Message>,
    /// The events, where they are kept: session eras, and streams of the backend's own.
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
            None => (Reach::Node { node: order.node.clone(), request: order.request }, 0),
        };
        Self {
            order,
            enqueued: now,
            run: Run::Queued,
            epoch: 0,
            owner: String::new(),
            lease: 0,
            rerun: Rerun::Unsafe,
            reach,
            channels,
            hi: 0,
            finished: 0,
            out: None,
            log: Vec::new(),
            cancel: false,
            closed: false,
        }
    }

    /// Whether events are kept in the record.
    pub fn keeps_log(&self) -> bool {
        self.order.era == Era::Session || self.order.via == Via::Backend
    }

    /// Whether somebody may ask for it again, so that it goes on without a client: in the session eras by
    /// `Last-Event-ID`, else by the key of a retry.
    pub(crate) fn is_kept(&self) -> bool {
        self.order.era == Era::Session || self.order.retry.is_some()
    }

    /// The owner's view.
    pub fn state(&self) -> State {
        State { reach: self.reach.clone(), hi: self.hi, cancel: self.cancel }
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

    /// TAKE: only queued → running. A modern call whose client is gone, and one that was cancelled, is not
    /// begun.
    pub fn take(&mut self, worker: &str, rerun: Rerun, now: u64, timing: &Timing) -> bool {
        if self.closed || self.run != Run::Queued {
            return false;
        }
        let nobody = self.reach == Reach::None && !self.is_kept();
        if self.cancel || nobody {
            self.close_cancelled();
            return false;
        }
        self.run = Run::Running;
        self.epoch += 1;
        self.rerun = rerun;
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
        if self.run == Run::Cancelled {
            return Offer::Cancelled;
        }
        let own = self.order.node == node && self.order.request == request;
        match &self.out {
            // The backend was taken for dead while the call was finished, and is not.
            Some(out) if own && self.closed => return Offer::Done(out.clone()),
            _ if own && !self.closed && self.reach == Reach::None => {
                self.reach = Reach::Node { node: node.to_owned(), request };
            }
            _ if self.closed || !self.is_at(node, request) => return Offer::Missing,
            _ => {}
        }
        match (self.run, &self.out) {
            // Progress is a courtesy: with no way to hold, the answer alone is better than none.
            (Run::Done, Some(out)) if self.hi == 0 || !may_hold || self.order.via == Via::Backend => {
                let out = out.clone();
                self.finish();
                Offer::Done(out)
            }
            // A long queue must not turn quick calls into holds.
            (Run::Queued, _) if now < self.enqueued + millis(timing.start) => Offer::Wait,
            _ if may_hold && self.order.via == Via::Pushpin => {
                self.reach = Reach::Offered { ticket, since: now };
                Offer::Offered
            }
            _ => Offer::Wait,
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
    pub fn gate(&mut self, epoch: u32, seen: u32) -> Result<State, Gone> {
        self.owned(epoch)?;
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
        epoch: u32,
        first: u32,
        events: &[Message],
        node_alive: bool,
    ) -> Result<State, Gone> {
        self.owned(epoch)?;
        if self.run != Run::Running {
            return Err(Gone::Fenced);
        }
        self.drop_dead_node(node_alive);
        for (number, event) in (first..).zip(events) {
            // A repeated command, after a reply was lost, changes nothing.
            if number > self.hi {
                self.hi = number;
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
        epoch: u32,
        out: &Message,
        node_alive: bool,
        now: u64,
    ) -> Result<State, Gone> {
        self.owned(epoch)?;
        match self.run {
            Run::Running => {
                self.run = Run::Done;
                self.out = Some(out.clone());
                self.finished = now;
            }
            Run::Done if self.out.as_ref() == Some(out) => {}
            _ => return Err(Gone::Fenced),
        }
        self.drop_dead_node(node_alive);
        Ok(self.state())
    }

    /// PUBLISHED: everything went out on the channel and it was closed; or nobody is there to send it to.
    pub fn published(&mut self, epoch: u32) -> Result<(), Gone> {
        self.owned(epoch)?;
        if self.cancel && self.run != Run::Done {
            self.close_cancelled();
        } else {
            self.finish();
        }
        Ok(())
    }

    /// The subscription of the channel went away: the client is gone.
    pub fn lost(&mut self, epoch: u32, unsubscribed: u32) -> Result<State, Gone> {
        self.owned(epoch)?;
        if let Reach::Held { channel, .. } = self.reach
            && channel == unsubscribed
        {
            self.reach = Reach::None;
        }
        Ok(self.state())
    }

    /// Gives the work up because nobody is there (modern era) or because the client asked. A compare-and-set:
    /// a client that is there again keeps its call.
    pub fn drop_work(&mut self, epoch: u32) -> Result<Option<State>, Gone> {
        self.owned(epoch)?;
        let nobody = self.order.era == Era::Modern && self.reach == Reach::None;
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
        worker: &str,
        epoch: u32,
        subscribed: bool,
        node_alive: bool,
        now: u64,
        timing: &Timing,
    ) -> Result<State, Gone> {
        self.owned(epoch)?;
        self.own(worker, now, timing);
        self.drop_dead_node(node_alive);
        let late = match self.reach {
            Reach::Offered { since, .. } => now >= since + millis(timing.offer),
            Reach::Held { since, .. } => !subscribed && now >= since + millis(timing.gate),
            // A backend asks again within a second. This one has its answer, and the broker forgot that.
            Reach::Node { .. } => self.run == Run::Done && now >= self.finished + millis(timing.offer),
            Reach::None => false,
        };
        if late {
            self.reach = Reach::None;
        }
        Ok(self.state())
    }

    /// CLAIM of a call whose lease ran out. Always raises the epoch, for a finished call as well: nothing of
    /// the old worker may come through later. The second value is a channel to be closed.
    pub fn claim(&mut self, worker: &str, now: u64, timing: &Timing) -> Option<(Claim, Option<u32>)> {
        if self.closed || self.lease == 0 || now < self.lease {
            return None;
        }
        if self.run == Run::Running && self.cancel {
            self.close_cancelled();
            return None;
        }
        self.epoch += 1;
        self.own(worker, now, timing);
        let mut close = None;
        match &mut self.reach {
            Reach::Offered { since, .. } => *since = now,
            // The stream is not the call's own, and can't be resumed: what was accepted counts as sent.
            Reach::Held { gate, from, since, .. } if *gate && self.order.stream.is_some() => {
                (*gate, *from, *since) = (false, self.hi, now);
            }
            // The client's last event is not known here, so it resumes with Last-Event-ID.
            Reach::Held { gate: true, channel, .. } if self.order.era == Era::Session => {
                close = Some(*channel);
                self.reach = Reach::None;
            }
            Reach::Held { since, .. } => *since = now,
            _ => {}
        }
        let claim = match (&self.out, self.run, self.rerun) {
            (Some(out), ..) => Claim::Publish { out: out.clone() },
            (None, Run::Running, Rerun::Safe) => Claim::Run,
            (None, ..) => {
                self.run = Run::Done;
                self.out = Some(self.order.lost.clone());
                self.finished = now;
                Claim::Publish { out: self.order.lost.clone() }
            }
        };
        Some((claim, close))
    }

    /// READ by a backend that streams by itself: events after `from`, and the answer.
    pub fn read(&mut self, node: &str, request: u64, from: u32) -> Read {
        if self.closed || !self.is_at(node, request) {
            return Read { over: true, ..Read::default() };
        }
        let events = self.log.iter().skip(from as usize).cloned().collect();
        let out = self.out.clone();
        if out.is_some() {
            self.finish();
        }
        Read { events, out, over: false }
    }

    /// RESUME in a session era. The caller has checked that the session is the asking principal's own. With
    /// `at`, a backend and its request, that backend streams the rest; else Pushpin holds it.
    pub fn resume(&mut self, session: &str, last: u32, at: Option<(&str, u64)>, now: u64) -> Resume {
        if self.order.era != Era::Session
            || self.order.session.as_deref() != Some(session)
            || self.order.stream.is_some()
            || self.run == Run::Cancelled
        {
            return Resume::Unknown;
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
            self.reach = Reach::Node { node: node.to_owned(), request };
            return Resume::Joined;
        }
        self.channels += 1;
        let from = u32::try_from(self.log.len()).unwrap_or(u32::MAX);
        self.reach = Reach::Held { channel: self.channels, from, gate: false, since: now, ticket: None };
        Resume::Held { events, channel: self.channels }
    }

    /// JOIN of a repeated request: the answer comes to it, and no longer to the one before it.
    pub fn join(&mut self, name: &str, node: &str, request: u64) -> Join {
        if self.order.retry.as_ref().is_none_or(|retry| retry.name != name) {
            return Join::Unknown;
        }
        match (&self.out, self.run) {
            (Some(out), _) => Join::Done(out.clone()),
            (None, Run::Cancelled) => Join::Cancelled,
            (None, _) if self.closed => Join::Unknown,
            _ => {
                node.clone_into(&mut self.order.node);
                self.order.request = request;
                self.order.via = Via::Backend;
                self.reach = Reach::Node { node: node.to_owned(), request };
                Join::Waits
            }
        }
    }

    /// A worker registers its call again after the broker lost its memory.
    pub fn restored(snapshot: Snapshot, worker: &str, now: u64, timing: &Timing) -> Self {
        let mut record = Self::new(snapshot.order, now);
        record.run = snapshot.run;
        record.epoch = snapshot.epoch;
        record.rerun = snapshot.rerun;
        record.reach = snapshot.state.reach;
        record.hi = snapshot.state.hi;
        record.cancel = snapshot.state.cancel;
        record.finished = now;
        record.out = snapshot.out;
        record.log = snapshot.log;
        record.channels = snapshot.channels;
        match &mut record.reach {
            Reach::Offered { since, .. } | Reach::Held { since, .. } => *since = now,
            _ => {}
        }
        record.own(worker, now, timing);
        record
    }

    /// What to say on a subscribed channel that is not the one that this call is held on.
    pub fn stray(&self, subscribed: u32) -> Option<Stray> {
        let held = matches!(self.reach, Reach::Held { channel, .. } if channel == subscribed);
        if held && !self.closed {
            return None;
        }
        let farewell = (self.order.era == Era::Modern).then(|| self.order.lost.clone());
        Some(Stray { hi: self.hi, farewell })
    }

    /// Whether the record is to be deleted rather than kept until it expires: nothing could ask for it.
    pub fn is_forgettable(&self) -> bool {
        self.closed && self.run != Run::Cancelled && (!self.is_kept() || self.out.is_none())
    }

    fn own(&mut self, worker: &str, now: u64, timing: &Timing) {
        worker.clone_into(&mut self.owner);
        self.lease = now + millis(timing.lease);
    }

    fn owned(&self, epoch: u32) -> Result<(), Gone> {
        if self.closed {
            Err(Gone::Missing)
        } else if self.epoch != epoch {
            Err(Gone::Fenced)
        } else {
            Ok(())
        }
    }

    fn is_at(&self, at: &str, number: u64) -> bool {
        matches!(&self.reach, Reach::Node { node, request } if node == at && *request == number)
    }

    fn drop_dead_node(&mut self, alive: bool) {
        if !alive && matches!(self.reach, Reach::Node { .. }) {
            self.reach = Reach::None;
        }
    }

    fn finish(&mut self) {
        self.closed = true;
        self.lease = 0;
        self.owner.clear();
        self.reach = Reach::None;
        self.order.job = Message::from("");
        if self.order.era == Era::Modern {
            self.log.clear();
        }
    }

    fn close_cancelled(&mut self) {
        self.finish();
        self.run = Run::Cancelled;
        self.log.clear();
        self.out = None;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
