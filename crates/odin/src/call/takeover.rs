//! How a record gets an owner but by the queue: a worker registers a call that came straight to it, another claims the
//! call of a lost one, and the owner registers it again after the store lost its memory.

use super::record::{Record, millis};
use super::types::{Claim, Fence, Gone, Order, Reach, Registrant, Rerun, Run, Snapshot, State, Timing};
use crate::protocol::Era;

/// A worker beats that often within a lease.
const BEATS: u32 = 3;
/// In place of the name of a TAKE: a backend made the record, and its worker has not registered yet.
const ADOPTED: &str = "adopted";

impl Record {
    /// REGISTER and ADOPT of a call that no record is known of. `cancelled`: its cancellation came before; the
    /// record says so to whoever asks.
    pub fn registered(
        order: Order,
        worker: &str,
        by: Registrant,
        cancelled: bool,
        now: u64,
        timing: &Timing,
    ) -> Self {
        let mut record = Self::new(order, now);
        record.run = Run::Running;
        record.epoch = 1;
        record.rerun = by.rerun();
        record.own(worker, now, timing);
        if by == Registrant::Backend {
            // A worker that lives, and has just seen the break itself, comes in time.
            record.lease += millis(timing.lease / BEATS);
            record.attempt = ADOPTED.into();
        }
        if cancelled {
            record.close_cancelled();
        }
        record
    }

    /// REGISTER and ADOPT of a call that is known: only its first owner finds it. Anybody else lost it, and stops
    /// its run.
    pub fn register(
        &mut self,
        worker: &str,
        by: Registrant,
        now: u64,
        timing: &Timing,
    ) -> Result<State, Gone> {
        if !self.is_adopted_of(Fence::new(worker, 1)) {
            self.owned(Fence::new(worker, 1))?;
        } else if matches!(by, Registrant::Worker(_)) {
            self.attempt.clear();
        }
        self.rerun = self.rerun.or(by.rerun());
        self.own(worker, now, timing);
        Ok(self.state())
    }

    /// Whether a backend made this record in the worker's name, and the worker has not registered yet. To a worker that
    /// registered before, it is as if there was none: what the call said is not in it, since the store has lost that.
    pub(crate) fn is_adopted_of(&self, fence: Fence<'_>) -> bool {
        self.attempt == ADOPTED && !self.closed && self.epoch == fence.epoch && self.owner == fence.worker
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
        self.attempt.clear();
        self.own(worker, now, timing);
        self.drop_silent_node(now, timing);
        let mut close = None;
        match &mut self.reach {
            Reach::Offered { since, .. } => *since = now,
            // The stream is not the call's own, and can't be resumed: what was accepted counts as sent.
            Reach::Held { gate, from, since, .. } if *gate && self.order.stream.is_some() => {
                (*gate, *from, *since) = (false, self.event_count, now);
            }
            // The client's last event is not known here, so it resumes with Last-Event-ID.
            Reach::Held { gate: true, channel, .. } if self.order.era == Era::Stateful => {
                close = Some(*channel);
                self.reach = Reach::None;
            }
            Reach::Held { since, .. } => *since = now,
            _ => {}
        }
        let claim = match (&self.out, self.run, self.rerun) {
            (Some(out), ..) => Claim::Publish { out: out.clone() },
            (None, Run::Running, Some(Rerun::Safe) | None) => Claim::Run,
            (None, ..) => {
                self.run = Run::Done;
                self.out = Some(self.order.lost.clone());
                Claim::Publish { out: self.order.lost.clone() }
            }
        };
        Some((claim, close))
    }

    /// A worker registers its call again after the store lost its memory. `adopted`: what a backend made of it meanwhile,
    /// which knows where the client is.
    pub fn restored(
        snapshot: Snapshot,
        adopted: Option<&Self>,
        worker: &str,
        now: u64,
        timing: &Timing,
    ) -> Self {
        let mut record = Self::new(snapshot.order, now);
        record.run = snapshot.run;
        record.epoch = snapshot.epoch;
        record.rerun = snapshot.rerun;
        record.reach = snapshot.state.reach;
        record.event_count = snapshot.state.event_count;
        record.cancel = snapshot.state.cancel;
        record.out = snapshot.out;
        record.log = snapshot.log;
        record.channels = snapshot.channels;
        match &mut record.reach {
            Reach::Offered { since, .. } | Reach::Held { since, .. } => *since = now,
            // A backend that lives asks again soon; until then it has the benefit of the doubt.
            Reach::Node { asked, .. } => *asked = now,
            Reach::None => {}
        }
        if let Some(adopted) = adopted {
            record.reach = adopted.reach.clone();
            record.channels = record.channels.max(adopted.channels);
            record.cancel |= adopted.cancel;
            (record.order.node, record.order.request) = (adopted.order.node.clone(), adopted.order.request);
        }
        record.own(worker, now, timing);
        record
    }
}
