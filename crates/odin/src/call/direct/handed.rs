//! The backend's side of a call that it handed straight to a worker.

use super::{Heard, Message};
use crate::protocol::Era;

/// How long the store may be silent before the client gets the error that the outcome is unknown, in milliseconds.
const SILENT: u64 = 4_000;
/// How often the record is read at least, in milliseconds: a hint may be lost.
const LOOK_EVERY: u64 = 1_000;
/// Workers that are tried before the call goes to the queue.
const WORKERS: u8 = 2;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something is heard, or the time is reached (milliseconds of the local clock).
    Wait {
        /// The time, if there is one.
        until: Option<u64>,
    },
    /// DISPATCH to one more worker; answer with [`Handed::dispatched`].
    Dispatch,
    /// Hand the call to the queue. Once: after a loss of the store's memory a repetition would start a tool twice.
    /// From then on it is a call like any other of the queue.
    Enqueue,
    /// Register the call in the worker's name; answer with [`Handed::adopted`].
    Adopt,
    /// Ask for the call as for one of the queue (OFFER or READ), then say so with [`Handed::looked`].
    Look,
    /// The client's answer, as one document.
    Answer(Message),
    /// The client gets an error: what became of the call is unknown.
    Fail,
    /// Nothing more.
    Over,
}

/// What is left to do for a client that is gone, or has cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// CANCEL on the link.
    Cancel,
    /// ABANDON in the store.
    Abandon,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Only what comes on the link counts.
    Direct,
    /// No worker has it.
    Refused,
    /// The link broke. Since when the store is asked in vain.
    Adopting {
        since: Option<u64>,
    },
    /// Only the record counts. When it was last read; none: it is to be read at once.
    Record {
        looked: Option<u64>,
    },
    /// The answer is here.
    Answered(Message),
    Over,
}

/// The backend's side of one call. It begins with the first DISPATCH. A call is direct until the record counts, and
/// never again after that: no JSON answer of the link after an offer, and no offer after an answer.
#[derive(Debug, Clone)]
pub struct Handed {
    era: Era,
    tried: u8,
    phase: Phase,
}

impl Handed {
    /// The call was sent to a worker.
    pub fn new(era: Era) -> Self {
        Self { era, tried: 1, phase: Phase::Direct }
    }

    /// Whether only what comes on the link counts. Until then the backend's own `hold_after` means nothing.
    pub fn is_direct(&self) -> bool {
        self.phase == Phase::Direct
    }

    /// Something came on the link of the current worker.
    pub fn heard(&mut self, heard: Heard) {
        match (&self.phase, heard) {
            (Phase::Direct, Heard::Busy) => self.phase = Phase::Refused,
            (Phase::Direct, Heard::Answer(out) | Heard::AnswerInDoubt(out)) => {
                self.phase = Phase::Answered(out);
            }
            (Phase::Direct, Heard::Registered) | (Phase::Record { .. }, Heard::Hint) => {
                self.phase = Phase::Record { looked: None };
            }
            (Phase::Direct, Heard::Broken) => self.phase = Phase::Adopting { since: None },
            _ => {}
        }
    }

    /// What to do now. `now` in milliseconds of the local clock.
    pub fn next(&mut self, now: u64) -> Next {
        match &mut self.phase {
            Phase::Direct => Next::Wait { until: None },
            Phase::Refused if self.tried < WORKERS => Next::Dispatch,
            Phase::Refused => {
                self.phase = Phase::Over;
                Next::Enqueue
            }
            Phase::Adopting { since } => {
                if now < *since.get_or_insert(now) + SILENT {
                    return Next::Adopt;
                }
                self.phase = Phase::Over;
                Next::Fail
            }
            Phase::Record { looked } => match looked.map(|at| at + LOOK_EVERY) {
                Some(due) if now < due => Next::Wait { until: Some(due) },
                _ => Next::Look,
            },
            Phase::Answered(out) => {
                let out = out.clone();
                self.phase = Phase::Over;
                Next::Answer(out)
            }
            Phase::Over => Next::Over,
        }
    }

    /// The reply to [`Next::Dispatch`]: whether a worker was there to take it.
    pub fn dispatched(&mut self, sent: bool) {
        if self.phase == Phase::Refused {
            self.tried = if sent { self.tried + 1 } else { WORKERS };
            self.phase = if sent { Phase::Direct } else { Phase::Refused };
        }
    }

    /// The reply to [`Next::Adopt`]: whether the store answered. What it said is in the record.
    pub fn adopted(&mut self, answered: bool) {
        if answered && matches!(self.phase, Phase::Adopting { .. }) {
            self.phase = Phase::Record { looked: None };
        }
    }

    /// The record was read. `now` in milliseconds of the local clock.
    pub fn looked(&mut self, now: u64) {
        if let Phase::Record { looked } = &mut self.phase {
            *looked = Some(now);
        }
    }

    /// The client has what it gets: its answer, its error, or the hand-over to Pushpin.
    pub fn end(&mut self) {
        self.phase = Phase::Over;
    }

    /// The client's connection is gone. A session's call goes on.
    pub fn client_gone(&mut self) -> Left {
        let left = match self.phase {
            Phase::Direct if self.era == Era::Stateless => Left::Cancel,
            Phase::Record { .. } => Left::Abandon,
            _ => Left::Nothing,
        };
        self.phase = Phase::Over;
        left
    }

    /// The client has cancelled the call by a notification that came to this backend. The store's CANCEL was sent
    /// already; where a record counts, it says what follows.
    pub fn cancelled(&mut self) -> Left {
        if self.phase != Phase::Direct {
            return Left::Nothing;
        }
        self.phase = Phase::Over;
        Left::Cancel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out() -> Message {
        "out".into()
    }

    #[test]
    fn a_quick_call_is_answered_without_the_store() {
        for heard in [Heard::Answer(out()), Heard::AnswerInDoubt(out())] {
            let mut call = Handed::new(Era::Stateless);
            assert_eq!(call.next(0), Next::Wait { until: None });
            call.heard(heard);
            assert_eq!(call.next(0), Next::Answer(out()));
            assert_eq!(call.next(0), Next::Over);
        }
    }

    #[test]
    fn a_second_worker_is_tried_and_then_the_queue_once() {
        for other in [true, false] {
            let mut call = Handed::new(Era::Stateless);
            call.heard(Heard::Busy);
            assert_eq!(call.next(0), Next::Dispatch);
            call.dispatched(other);
            if other {
                assert!(call.is_direct());
                call.heard(Heard::Busy);
            }
            assert_eq!(call.next(0), Next::Enqueue);
            assert_eq!(call.next(0), Next::Over);
        }
    }

    #[test]
    fn once_the_record_counts_the_link_answers_nothing() {
        for first in [Heard::Registered, Heard::Broken] {
            let mut call = Handed::new(Era::Stateful);
            call.heard(first.clone());
            if first == Heard::Broken {
                assert_eq!(call.next(5), Next::Adopt);
                assert_eq!(call.next(5), Next::Adopt, "repeated until it is answered");
                call.adopted(true);
            }
            for late in [Heard::Answer(out()), Heard::AnswerInDoubt(out()), Heard::Busy, Heard::Broken] {
                call.heard(late);
                assert_eq!(call.next(10), Next::Look);
            }
        }
    }

    #[test]
    fn the_record_is_read_at_once_at_hints_and_every_second() {
        let mut call = Handed::new(Era::Stateful);
        call.heard(Heard::Registered);
        assert_eq!(call.next(10), Next::Look);
        call.looked(10);
        assert_eq!(call.next(11), Next::Wait { until: Some(1_010) });
        call.heard(Heard::Hint);
        assert_eq!(call.next(12), Next::Look);
        call.looked(12);
        assert_eq!(call.next(1_012), Next::Look);
    }

    #[test]
    fn a_store_that_is_silent_for_four_seconds_is_an_error() {
        let mut call = Handed::new(Era::Stateless);
        call.heard(Heard::Broken);
        assert_eq!(call.next(1_000), Next::Adopt);
        call.adopted(false);
        assert_eq!(call.next(4_999), Next::Adopt);
        call.adopted(false);
        assert_eq!(call.next(5_000), Next::Fail);
        assert_eq!(call.next(5_000), Next::Over);
    }

    #[test]
    fn a_client_that_is_gone_leaves_what_its_era_says() {
        let recorded = |era| {
            let mut call = Handed::new(era);
            call.heard(Heard::Registered);
            call
        };
        assert_eq!(Handed::new(Era::Stateless).client_gone(), Left::Cancel);
        assert_eq!(Handed::new(Era::Stateful).client_gone(), Left::Nothing);
        assert_eq!(recorded(Era::Stateless).client_gone(), Left::Abandon);
        assert_eq!(recorded(Era::Stateful).client_gone(), Left::Abandon);
        assert_eq!(Handed::new(Era::Stateful).cancelled(), Left::Cancel);
        assert_eq!(recorded(Era::Stateful).cancelled(), Left::Nothing);
    }
}
