//! What the store of one process keeps, and for how long.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::sync::mpsc;

use super::super::followers::Followers;
use super::super::{NodeHint, WorkerHint};
use super::lines::{Open, Queue};
use super::millis;
use crate::call::{Message, Reach, Record, Run, Timing, task::TaskRecord};
use crate::id::{CallId, Ticket};

#[derive(Default)]
pub(super) struct Memory {
    pub(super) generation: u64,
    pub(super) records: HashMap<CallId, Kept>,
    pub(super) queues: HashMap<String, Queue>,
    pub(super) open: Open,
    pub(super) tickets: HashMap<Ticket, (CallId, u64)>,
    pub(super) parked: HashMap<Ticket, (String, u64)>,
    pub(super) by_retry: HashMap<String, CallId>,
    /// Calls that are refused if they still come, and until when.
    pub(super) withdrawn: HashMap<CallId, u64>,
    /// Stored fields of sessions, and when they expire.
    pub(super) sessions: HashMap<String, (BTreeMap<String, String>, u64)>,
    pub(super) by_request: HashMap<(String, String), Vec<CallId>>,
    pub(super) cancelled_ahead: HashMap<(String, String), u64>,
    pub(super) tasks: HashMap<CallId, TaskRecord>,
    pub(super) node_hints: HashMap<String, Hints<NodeHint>>,
    pub(super) worker_hints: HashMap<String, Hints<WorkerHint>>,
    pub(super) followers: Followers,
    /// Members of groups, and when they expire.
    pub(super) groups: HashMap<String, HashMap<String, u64>>,
    /// What was used up: in whose name, and until when that matters.
    pub(super) used: HashMap<String, (String, u64)>,
    pub(super) swept: u64,
}

pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) inbox: VecDeque<Message>,
    /// How many messages were taken out of the inbox before.
    pub(super) fetched: u64,
    /// When a closed record is forgotten.
    pub(super) expires: Option<u64>,
}

impl Kept {
    pub(super) fn new(record: Record) -> Self {
        Self { record, inbox: VecDeque::new(), fetched: 0, expires: None }
    }
}

pub(super) struct Hints<T> {
    pub(super) sender: mpsc::Sender<T>,
    /// A hint did not fit.
    pub(super) missed: bool,
}

impl<T: Copy> Hints<T> {
    pub(super) fn hint(&mut self, hint: T, all: T) {
        let hint = if self.missed { all } else { hint };
        self.missed = self.sender.try_send(hint).is_err();
    }
}

impl Memory {
    /// `linked`: the node that the worker itself tells, on their link.
    pub(super) fn hint_waiting(&mut self, call: CallId, linked: Option<&str>) {
        if let Some(Reach::Node { node, request, .. }) =
            self.records.get(&call).map(|kept| &kept.record.reach)
            && linked != Some(node)
            && let Some(hints) = self.node_hints.get_mut(node)
        {
            hints.hint(NodeHint::Request(*request), NodeHint::All);
        }
    }

    pub(super) fn hint_owner(&mut self, call: CallId) {
        if let Some(owner) = self.records.get(&call).map(|kept| &kept.record.owner)
            && let Some(hints) = self.worker_hints.get_mut(owner)
        {
            hints.hint(WorkerHint::Call(call), WorkerHint::All);
        }
    }

    /// Gives a closed record its time, or forgets it at once.
    pub(super) fn settle(&mut self, call: CallId, now: u64, timing: &Timing) {
        let Some(kept) = self.records.get_mut(&call) else { return };
        if !kept.record.closed {
            return;
        }
        kept.inbox.clear();
        self.leave(call);
        let Some(kept) = self.records.get_mut(&call) else { return };
        if kept.record.is_forgettable() {
            self.forget_record(call);
        } else if kept.expires.is_none() {
            let kept_long = kept.record.run != Run::Cancelled && kept.record.is_kept();
            kept.expires = Some(now + millis(if kept_long { timing.keep } else { timing.tombstone }));
            self.forget_request(call);
        }
    }

    /// A call that is over waits in no queue, and counts for nobody.
    pub(super) fn leave(&mut self, call: CallId) {
        let Some(Kept { record: Record { order, .. }, .. }) = self.records.get(&call) else { return };
        if let Some(queue) = self.queues.get_mut(&order.server) {
            queue.leave(call, false);
        }
        self.open.release(&order.server, &order.parties(), call);
    }

    /// Nothing can cancel a call that is over.
    pub(super) fn forget_request(&mut self, call: CallId) {
        let Some(kept) = self.records.get(&call) else { return };
        if let (Some(session), Some(id)) = (&kept.record.order.session, &kept.record.order.request_id) {
            let key = (session.clone(), id.clone());
            if let Some(calls) = self.by_request.get_mut(&key) {
                calls.retain(|other| *other != call);
                if calls.is_empty() {
                    self.by_request.remove(&key);
                }
            }
        }
    }

    /// A repetition of the call's request is a call of its own from now on.
    pub(super) fn forget_retry(&mut self, call: CallId) {
        let retry = self.records.get(&call).and_then(|kept| kept.record.order.retry.as_ref());
        if let Some(name) = retry.map(|retry| retry.name.clone())
            && self.by_retry.get(&name) == Some(&call)
        {
            self.by_retry.remove(&name);
        }
    }

    pub(super) fn forget_record(&mut self, call: CallId) {
        self.leave(call);
        self.forget_retry(call);
        self.forget_request(call);
        self.records.remove(&call);
    }

    /// Once a second, what expired goes.
    pub(super) fn sweep(&mut self, now: u64) {
        if now < self.swept + 1000 {
            return;
        }
        self.swept = now;
        let expired: Vec<CallId> = self
            .records
            .iter()
            .filter(|(_, kept)| kept.expires.is_some_and(|at| now >= at))
            .map(|(call, _)| *call)
            .collect();
        for call in expired {
            self.forget_record(call);
        }
        self.tickets.retain(|_, (_, until)| now < *until);
        self.parked.retain(|_, (_, until)| now < *until);
        self.cancelled_ahead.retain(|_, until| now < *until);
        self.sessions.retain(|_, (_, until)| now < *until);
        self.withdrawn.retain(|_, until| now < *until);
        self.tasks.retain(|_, task| now < task.expires);
        self.node_hints.retain(|_, hints| !hints.sender.is_closed());
        self.worker_hints.retain(|_, hints| !hints.sender.is_closed());
        self.followers.sweep();
        self.used.retain(|_, (_, until)| now < *until);
        self.groups.retain(|_, members| {
            members.retain(|_, until| now < *until);
            !members.is_empty()
        });
    }
}
