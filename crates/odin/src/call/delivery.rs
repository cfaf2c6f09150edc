//! The worker's side of a call: what goes to the store, what goes to Pushpin, and when.
//!
//! [`Delivery`] is a state machine without any I/O. The worker's driver asks it for the next [`Action`],
//! carries that out, tells it the outcome, and waits for an [`Input`] when there is nothing to do. The
//! simulation drives the very same code, with crashes between any two actions.

use std::collections::BTreeMap;

use super::actions::{Action, DeliveryLimits, Exit, HANG_UP, Input, Link, Send, SendOutcome};
use super::record::millis;
use super::types::{Gone, Message, Order, Reach, Run, Snapshot, State};
use crate::protocol::Era;

/// A stream must not be closed sooner than this after its subscription was seen: Pushpin 1.36 can hang the
/// client otherwise. Milliseconds.
const CLOSE_AFTER: u64 = 50;
/// After this time Pushpin may have forgotten the item ids that it saw, so that a repeat would come through
/// twice. Milliseconds, with a margin to Pushpin's 60 s.
const IDS_REMEMBERED: u64 = 50_000;
/// On a stream that outlives its call nothing shows that the answer arrived. A link that breaks with the answer in it
/// shows within this time that it did not, in milliseconds.
const LINGER: u64 = 250;
/// How long to wait for the unsubscription that follows a close before the close is sent again, in
/// milliseconds; and how often.
const CLOSE_AGAIN: u64 = 2_000;
const CLOSE_TRIES: u32 = 5;
/// How long to wait, in milliseconds, after a subscription came and went before anything was written: the
/// gateway may have abandoned that hold request and be about to repeat it.
const VANISHED: u64 = 300;
/// How long, in milliseconds, a call of the stateless era that may be asked for again goes on without a client.
const RETRIED_WITHIN: u64 = 60_000;

#[derive(Debug, Clone, Copy)]
struct Gate {
    channel: u32,
    pushpin: usize,
    opened: u64,
    from: u32,
}

#[derive(Debug, Clone, Copy)]
struct Closing {
    sent: u64,
    tries: u32,
}

/// The worker's side of one call.
#[derive(Debug, Clone)]
pub struct Delivery {
    era: Era,
    /// The stream is the session's, and outlives the call.
    shared: bool,
    /// The record keeps the events.
    logged: bool,
    /// The client may come back with the key of a retry.
    retried: bool,
    limits: DeliveryLimits,
    /// The last known view of the record.
    state: State,
    /// Events of an earlier run up to this number are not repeated.
    suppressed: u32,
    /// Events that the tool sent in this run.
    counted: u32,
    /// Events that the record does not have yet, and their bytes.
    pending: Vec<Message>,
    pending_bytes: usize,
    /// One of them waits for no others.
    asked: bool,
    /// When the record took events last.
    emitted: Option<u64>,
    /// The tool's end, which the record does not have yet.
    ended: Option<Option<Message>>,
    /// What the tool said last went out before its end, or could not.
    last_words: bool,
    /// Everything that the record accepted, in order, for the stream.
    items: Vec<Send>,
    out: Option<Message>,
    /// Subscriptions of this call's channels: channel → Pushpin.
    subscriptions: BTreeMap<u32, usize>,
    gate: Option<Gate>,
    /// The channel whose gate was asked for before the record was known to be held on it.
    gate_asked: u32,
    /// How many of `items` went out on the open gate.
    written: usize,
    /// Which of `items` go out as one on a channel: for each first one, how many. What may have gone out as one item, under
    /// one id, is always one there: with more in it, Pushpin would drop what it has not seen.
    together: (u32, BTreeMap<usize, usize>),
    final_written: bool,
    /// When the answer went out, on a stream that outlives the call.
    final_at: u64,
    closing: Option<Closing>,
    /// When the first item went out on the current channel: `(channel, time)`.
    first_write: Option<(u32, u64)>,
    /// A channel whose subscription went away while its gate was open.
    unsubscribed: Option<u32>,
    /// A channel whose subscription went away before, and when that was noticed.
    vanished: Option<(u32, Option<u64>)>,
    /// Since when nobody is there.
    alone: Option<u64>,
    /// The client has the answer already.
    got: bool,
    gone: Option<Gone>,
    over: Option<Exit>,
}

impl Delivery {
    /// For a call that this worker has just taken.
    pub fn taken(order: &Order, state: State, limits: DeliveryLimits) -> Self {
        Self {
            era: order.era,
            shared: order.stream.is_some(),
            logged: order.keeps_log(),
            retried: order.retry.is_some(),
            limits,
            suppressed: state.event_count,
            state,
            counted: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            asked: false,
            emitted: None,
            ended: None,
            last_words: false,
            items: Vec::new(),
            out: None,
            subscriptions: BTreeMap::new(),
            gate: None,
            gate_asked: 0,
            written: 0,
            together: (0, BTreeMap::new()),
            final_written: false,
            final_at: 0,
            closing: None,
            first_write: None,
            unsubscribed: None,
            vanished: None,
            alone: None,
            got: false,
            gone: None,
            over: None,
        }
    }

    /// For a call that another worker lost.
    pub fn claimed(snapshot: &Snapshot, limits: DeliveryLimits) -> Self {
        let mut delivery = Self::taken(&snapshot.order, snapshot.state.clone(), limits);
        delivery.items = if delivery.logged {
            (1..).zip(&snapshot.log).map(|(n, event)| Send::Event(n, event.clone())).collect()
        } else {
            // What the lost worker wrote may still be on its way: its ids are used up first.
            (1..=snapshot.state.event_count).map(Send::Burn).collect()
        };
        delivery.out.clone_from(&snapshot.out);
        delivery
    }

    /// Takes an input in.
    pub fn input(&mut self, input: Input) {
        match input {
            Input::Emitted(event) => self.take_event(event, false),
            Input::Asked(event) => self.take_event(event, true),
            Input::Finished(answer) => {
                if self.out.is_none() && self.ended.is_none() {
                    self.ended = Some(answer);
                }
            }
            Input::Got => self.got = true,
            Input::Seen(view) => self.see(view),
            Input::Subscribed { pushpin, channel } => {
                self.subscriptions.insert(channel, pushpin);
                self.vanished = self.vanished.filter(|(gone, _)| *gone != channel);
            }
            Input::Unsubscribed { pushpin, channel } => {
                if self.subscriptions.get(&channel) == Some(&pushpin) {
                    self.subscriptions.remove(&channel);
                    if self.gate.is_some_and(|gate| gate.channel == channel) {
                        self.gate = None;
                        self.unsubscribed = Some(channel);
                    } else {
                        self.vanished = Some((channel, None));
                    }
                }
            }
            Input::Link { pushpin, link: Link::Down } => {
                self.subscriptions.retain(|_, at| *at != pushpin);
                if self.gate.is_some_and(|gate| gate.pushpin == pushpin) {
                    // What was in flight may be lost: all of it goes out again if the channel comes back.
                    self.gate = None;
                    self.closing = None;
                }
            }
            Input::Link { link: Link::Up, .. } => {}
        }
    }

    /// The reply to [`Action::Emit`], [`Action::Finish`], [`Action::Gate`] or [`Action::Lost`]. `now` in
    /// milliseconds of the local clock.
    pub fn replied(&mut self, action: &Action, reply: Result<State, Gone>, now: u64) {
        match (action, &reply) {
            (Action::Emit { first, events }, Ok(_)) => {
                self.pending.drain(..events.len().min(self.pending.len()));
                self.pending_bytes = self.pending.iter().map(|event| event.len()).sum();
                self.asked &= !self.pending.is_empty();
                self.emitted = Some(now);
                self.items.extend((*first..).zip(events).map(|(n, event)| Send::Event(n, event.clone())));
            }
            (Action::Finish { out }, Ok(_)) => {
                self.ended = None;
                self.out = Some(out.clone());
            }
            (Action::Gate { channel }, Ok(state)) => {
                let opened =
                    matches!(state.reach, Reach::Held { channel: held, gate: true, .. } if held == *channel);
                if opened && let Some(pushpin) = self.subscriptions.get(channel) {
                    self.open(*channel, *pushpin, state, now);
                }
            }
            (Action::Lost { .. }, Ok(_)) => {
                self.unsubscribed = None;
                self.vanished = None;
            }
            _ => {}
        }
        self.see(reply);
    }

    /// The reply to [`Action::DropWork`]: `None` when the call is over.
    pub fn dropped(&mut self, reply: Result<Option<State>, Gone>) {
        match reply {
            Ok(None) => self.over = Some(Exit::Dropped),
            Ok(Some(state)) => self.see(Ok(state)),
            Err(gone) => self.see(Err(gone)),
        }
    }

    /// The reply to [`Action::Published`].
    pub fn published(&mut self, reply: Result<(), Gone>) {
        self.over = Some(match reply {
            Ok(()) => Exit::Finished,
            Err(gone) => Exit::Gone(gone),
        });
    }

    /// The outcome of [`Action::Send`]. `now` in milliseconds of the local clock.
    pub fn sent(&mut self, items: &[Send], outcome: SendOutcome, now: u64) {
        let Some(gate) = self.gate else { return };
        if outcome == SendOutcome::NotSent {
            return;
        }
        if self.first_write.is_none_or(|(channel, _)| channel != gate.channel) {
            self.first_write = Some((gate.channel, now));
        }
        for item in items {
            match item {
                Send::Event(..) | Send::Burn(_) => self.written += 1,
                Send::Events(_, events) => self.written += events.len(),
                Send::Final(..) => {
                    self.final_written = true;
                    self.final_at = now;
                }
                Send::Close => {
                    let tries = self.closing.map_or(0, |closing| closing.tries);
                    self.closing = Some(Closing { sent: now, tries: tries + 1 });
                }
            }
        }
    }

    /// What to do now. `now` in milliseconds of the local clock.
    pub fn next(&mut self, now: u64) -> Action {
        if let Some(over) = self.over {
            return Action::Exit(over);
        }
        if let Some(gone) = self.gone {
            return Action::Exit(Exit::Gone(gone));
        }
        if let Some(channel) = self.unsubscribed {
            // After the answer and the close this is the proof that both arrived.
            return if self.closing.is_some() && self.final_written {
                Action::Published
            } else {
                Action::Lost { channel }
            };
        }
        self.alone = (self.state.reach == Reach::None).then(|| self.alone.unwrap_or(now));
        if self.is_unwanted(now) {
            return self.give_up(now);
        }
        let gathered = self.gathered(now);
        if gathered.is_some_and(|at| now >= at) {
            let first = self.number_after_items();
            return Action::Emit { first, events: self.pending.clone() };
        }
        match &self.ended {
            Some(Some(out)) => {
                let finish = Action::Finish { out: out.clone() };
                return self.last_words(now).unwrap_or(finish);
            }
            Some(None) => return Action::Published,
            None => {}
        }
        match (self.go_on(now), gathered) {
            (Action::Wait { until }, Some(at)) => {
                Action::Wait { until: Some(until.map_or(at, |until| until.min(at))) }
            }
            (action, _) => action,
        }
    }

    /// What the tool said last, before its answer is stored: a client may lose progress that comes together with the answer
    /// (TypeScript's SDK, over HTTP+SSE). Once, so that a Pushpin that is away holds no answer back.
    fn last_words(&mut self, now: u64) -> Option<Action> {
        let Reach::Held { channel, .. } = self.state.reach else { return None };
        if self.written >= self.items.len() || std::mem::replace(&mut self.last_words, true) {
            return None;
        }
        let action = self.deliver(channel, now);
        matches!(action, Action::Send { .. }).then_some(action)
    }

    /// When what the tool sent is to be written down; none: there is nothing.
    fn gathered(&self, now: u64) -> Option<u64> {
        let at_once = self.asked || self.ended.is_some() || self.pending_bytes >= self.limits.item_bytes;
        let wait = self.emitted.filter(|_| !at_once).map(|at| at + millis(self.limits.gather));
        (!self.pending.is_empty()).then(|| wait.unwrap_or(now))
    }

    /// What to do when the record has all that is due.
    fn go_on(&mut self, now: u64) -> Action {
        match &self.state.reach {
            _ if self.got && self.out.is_some() => Action::Published,
            Reach::Held { channel, .. } => self.deliver(*channel, now),
            // What Pushpin reports comes after the hold: nobody has to say that the record has changed. Once for a
            // channel: it may be an older one, of a client that went on.
            Reach::Offered { .. } if self.newest_channel() > self.gate_asked => {
                self.gate_asked = self.newest_channel();
                Action::Gate { channel: self.gate_asked }
            }
            // The events are kept: the client comes back for them.
            Reach::None if self.out.is_some() => Action::Published,
            Reach::None if self.era == Era::Stateless => {
                Action::Wait { until: self.alone.map(|since| since + RETRIED_WITHIN) }
            }
            _ => Action::Wait { until: None },
        }
    }

    /// Whether a beat may take the current channel for subscribed.
    pub fn sees_subscription(&self) -> bool {
        match &self.state.reach {
            Reach::Held { channel, .. } => self.subscriptions.contains_key(channel),
            _ => true,
        }
    }

    /// Whether this worker has nothing more to do with the call, so that it must not register it again.
    pub fn is_over(&self) -> bool {
        self.over.is_some() || self.gone.is_some()
    }

    /// The channel that is open for writing, with its Pushpin.
    pub fn open_channel(&self) -> Option<(usize, u32)> {
        self.gate.map(|gate| (gate.pushpin, gate.channel))
    }

    /// The answer, once the record has it.
    pub fn out(&self) -> Option<&Message> {
        self.out.as_ref()
    }

    /// What this worker would register again after the store lost its memory; completed by the driver with
    /// what does not change.
    pub fn remembered(&self) -> (Run, State, Option<Message>, Vec<Message>) {
        let run = if self.out.is_some() { Run::Done } else { Run::Running };
        let event = |item: &Send| match item {
            Send::Event(_, event) if self.logged => Some(event.clone()),
            _ => None,
        };
        let log = self.items.iter().filter_map(event).collect();
        // The lost record may have had events of an EMIT that was not answered: they come again, and must not count
        // already.
        let event_count = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        (run, State { event_count, ..self.state.clone() }, self.out.clone(), log)
    }

    fn take_event(&mut self, event: Message, asks: bool) {
        self.counted += 1;
        if self.counted > self.suppressed {
            self.asked |= asks;
            self.pending_bytes += event.len();
            self.pending.push(event);
        }
    }

    fn see(&mut self, view: Result<State, Gone>) {
        match view {
            Ok(state) => {
                if let Some(gate) = self.gate
                    && !matches!(state.reach, Reach::Held { channel, .. } if channel == gate.channel)
                {
                    self.gate = None;
                    self.closing = None;
                }
                self.state = state;
            }
            Err(gone) => self.gone = Some(gone),
        }
    }

    fn open(&mut self, channel: u32, pushpin: usize, state: &State, now: u64) {
        let Reach::Held { from, .. } = state.reach else { return };
        self.gate = Some(Gate { channel, pushpin, opened: now, from });
        self.closing = None;
        // All goes out again, and Pushpin drops what it has seen; but a stream that outlives the call can't be
        // closed when repeats might come through.
        let known = self.first_write.is_none_or(|(ch, at)| ch != channel || now < at + IDS_REMEMBERED);
        if self.together.0 != channel {
            self.together = (channel, BTreeMap::new());
        }
        if !self.shared || known {
            self.final_written = false;
            self.written = 0;
        }
    }

    fn is_unwanted(&self, now: u64) -> bool {
        if self.state.cancel && self.out.is_none() {
            return true;
        }
        let alone = self
            .alone
            .is_some_and(|since| !self.retried || (self.out.is_none() && now >= since + RETRIED_WITHIN));
        self.era == Era::Stateless && alone
    }

    fn give_up(&mut self, now: u64) -> Action {
        // The client of a cancelled call gets no answer, but the end of its stream.
        if let Some(gate) = self.gate
            && self.closing.is_none()
            && !self.shared
        {
            return self.close(gate, now);
        }
        Action::DropWork
    }

    fn deliver(&mut self, channel: u32, now: u64) -> Action {
        let Some(gate) = self.gate else {
            return if self.subscriptions.contains_key(&channel) {
                Action::Gate { channel }
            } else {
                self.await_subscription(channel, now)
            };
        };
        let too_late = self.first_write.is_some_and(|(ch, at)| ch == channel && now > at + IDS_REMEMBERED);
        if let Some(closing) = self.closing {
            return self.await_close(gate, closing, now);
        }
        if !self.shared && too_late && gate.opened > self.first_write.map_or(u64::MAX, |(_, at)| at) {
            // A second gate on the same channel, and the ids of the first writes are forgotten.
            return self.close(gate, now);
        }
        // A resumed stream began with the events up to `from`; one that outlives the call is not hung up.
        let had = |item: &Send| {
            matches!(item, Send::Event(n, _) if *n <= gate.from) || (self.shared && is_hang_up(item))
        };
        let mut written = self.written;
        while self.items.get(written).is_some_and(had) {
            written += 1;
        }
        self.written = written;
        let (mut items, count) = self.batch(written);
        if items.is_empty() && self.items.get(written).is_some_and(is_hang_up) {
            return self.close(gate, now);
        }
        if let Some(out) = &self.out
            && !self.final_written
            && self.written + count == self.items.len()
        {
            items.push(Send::Final(self.number_after_items(), out.clone()));
        }
        if !items.is_empty() {
            return Action::Send { pushpin: gate.pushpin, channel, items };
        }
        match (self.final_written, self.shared) {
            (true, true) if now < self.final_at + LINGER => {
                Action::Wait { until: Some(self.final_at + LINGER) }
            }
            (true, true) => Action::Published,
            (true, false) => self.close(gate, now),
            (false, _) => Action::Wait { until: None },
        }
    }

    /// What goes out next, and how many of `items` that is.
    fn batch(&mut self, from: usize) -> (Vec<Send>, usize) {
        let rest = self.items.iter().skip(from).take_while(|item| !is_hang_up(item));
        let burns: Vec<Send> = rest
            .clone()
            .take(self.limits.batch)
            .take_while(|item| matches!(item, Send::Burn(_)))
            .cloned()
            .collect();
        if !burns.is_empty() {
            let count = burns.len();
            return (burns, count);
        }
        let (mut bytes, most) = (0, self.limits.item_bytes);
        let fits = |event: &&Message| {
            bytes += event.len();
            bytes <= most
        };
        let events = rest.map_while(|item| match item {
            Send::Event(_, event) => Some(event),
            _ => None,
        });
        let together =
            self.together.1.entry(from).or_insert_with(|| events.clone().take_while(fits).count().max(1));
        let events: Vec<Message> = events.take(*together).cloned().collect();
        let count = events.len();
        let first = u32::try_from(from + 1).unwrap_or(u32::MAX);
        let item = match events.as_slice() {
            [] => return (Vec::new(), 0),
            [event] => Send::Event(first, event.clone()),
            _ => Send::Events(first, events),
        };
        (vec![item], count)
    }

    fn await_subscription(&mut self, channel: u32, now: u64) -> Action {
        match &mut self.vanished {
            Some((gone, since)) if *gone == channel => {
                let until = *since.get_or_insert(now) + VANISHED;
                if now < until { Action::Wait { until: Some(until) } } else { Action::Lost { channel } }
            }
            _ => Action::Wait { until: None },
        }
    }

    fn close(&self, gate: Gate, now: u64) -> Action {
        let earliest = gate.opened + CLOSE_AFTER;
        if now < earliest {
            return Action::Wait { until: Some(earliest) };
        }
        Action::Send { pushpin: gate.pushpin, channel: gate.channel, items: vec![Send::Close] }
    }

    fn await_close(&self, gate: Gate, closing: Closing, now: u64) -> Action {
        let again = closing.sent + CLOSE_AGAIN;
        if now < again {
            return Action::Wait { until: Some(again) };
        }
        if closing.tries < CLOSE_TRIES {
            return Action::Send { pushpin: gate.pushpin, channel: gate.channel, items: vec![Send::Close] };
        }
        if self.final_written { Action::Published } else { Action::Lost { channel: gate.channel } }
    }

    /// The newest channel that is subscribed; 0: none.
    fn newest_channel(&self) -> u32 {
        self.subscriptions.last_key_value().map_or(0, |(channel, _)| *channel)
    }

    fn number_after_items(&self) -> u32 {
        u32::try_from(self.items.len() + 1).unwrap_or(u32::MAX)
    }
}

/// Whether the tool asked for the stream's end here; the client resumes it ([`HANG_UP`]).
fn is_hang_up(item: &Send) -> bool {
    matches!(item, Send::Event(_, event) if event.as_ref() == HANG_UP)
}

#[cfg(test)]
mod tests;
