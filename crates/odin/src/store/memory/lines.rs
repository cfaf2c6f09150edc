//! The queue of one server, by turns, and the calls that are open there: as `store/lua/queue.lua` has them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::super::{Entry, Room};
use crate::call::Parties;
use crate::id::CallId;

/// Who is next: names by their turns.
#[derive(Default)]
struct Turns {
    order: BTreeSet<(u64, String)>,
    of: HashMap<String, u64>,
}

impl Turns {
    fn add_new(&mut self, name: &str, turn: u64) {
        if !self.of.contains_key(name) {
            self.set(name, turn);
        }
    }

    fn set(&mut self, name: &str, turn: u64) {
        self.remove(name);
        self.of.insert(name.to_owned(), turn);
        self.order.insert((turn, name.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        if let Some(turn) = self.of.remove(name) {
            self.order.remove(&(turn, name.to_owned()));
        }
    }

    fn names(&self) -> Vec<String> {
        self.order.iter().map(|(_, name)| name.clone()).collect()
    }
}

/// A call that waits.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) call: CallId,
    pub(super) tool: Option<String>,
    pub(super) parties: Parties,
    number: u64,
}

impl Line {
    pub(super) fn entry(&self) -> Entry {
        let Self { call, tool, parties, number } = self.clone();
        Entry { call, tool, parties, receipt: number.to_string() }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    /// The last number of a line, and the last turn.
    number: u64,
    waiting: HashMap<CallId, Line>,
    /// Each principal's waiting calls, in their order.
    lines: HashMap<String, BTreeSet<(u64, CallId)>>,
    /// Each organisation's principals that have any.
    principals: HashMap<String, Turns>,
    organisations: Turns,
    /// Lines that were read and not yet taken, and when.
    read: BTreeMap<CallId, (Line, u64)>,
    /// Lines that came so far, and how many of them each worker has looked for.
    arrived: u64,
    seen: HashMap<String, u64>,
}

impl Queue {
    /// Lines that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Puts a new call into the queue.
    pub(super) fn push(&mut self, call: CallId, tool: Option<String>, parties: Parties) {
        self.number += 1;
        self.arrived += 1;
        self.add(Line { call, tool, parties, number: self.number });
    }

    fn add(&mut self, line: Line) {
        let Parties { principal, organisation } = &line.parties;
        self.lines.entry(principal.clone()).or_default().insert((line.number, line.call));
        self.principals.entry(organisation.clone()).or_default().add_new(principal, line.number);
        self.organisations.add_new(organisation, line.number);
        self.waiting.insert(line.call, line);
    }

    /// Takes a call out of the queue. `served`: it was its principal's and organisation's turn, and is now the
    /// others'.
    fn remove(&mut self, call: CallId, served: bool) -> Option<Line> {
        let line = self.waiting.remove(&call)?;
        if served {
            self.number += 1;
        }
        let turn = Some(self.number).filter(|_| served);
        let Parties { principal, organisation } = &line.parties;
        let lines = self.lines.entry(principal.clone()).or_default();
        lines.remove(&(line.number, call));
        let principals = self.principals.entry(organisation.clone()).or_default();
        if lines.is_empty() {
            self.lines.remove(principal);
            principals.remove(principal);
        } else if let Some(turn) = turn {
            principals.set(principal, turn);
        }
        if principals.of.is_empty() {
            self.principals.remove(organisation);
            self.organisations.remove(organisation);
        } else if let Some(turn) = turn {
            self.organisations.set(organisation, turn);
        }
        Some(line)
    }

    /// The call is taken, or over.
    pub(super) fn leave(&mut self, call: CallId, taken: bool) {
        self.read.remove(&call);
        self.remove(call, taken);
    }

    /// NEXT; what was read before `idle` comes back. `is_queued`: its record says that it waits.
    pub(super) fn next(
        &mut self,
        worker: &str,
        room: &Room,
        now: u64,
        idle: u64,
        is_queued: impl Fn(CallId) -> bool,
    ) -> Vec<Entry> {
        self.seen.insert(worker.to_owned(), self.arrived);
        let mut old: Vec<(u64, CallId)> = self
            .read
            .iter()
            .filter(|(_, (_, at))| now >= at + idle)
            .map(|(call, (_, at))| (*at, *call))
            .collect();
        old.sort_unstable();
        for (_, call) in old.into_iter().take(room.most) {
            if let Some((line, _)) = self.read.remove(&call)
                && is_queued(call)
            {
                self.add(line);
            }
        }
        let (mut room, mut picked) = (room.clone(), Vec::new());
        loop {
            let mut moved = false;
            for organisation in self.organisations.names() {
                let principals = self.principals.get(&organisation).map(Turns::names).unwrap_or_default();
                let call = principals.into_iter().find_map(|principal| {
                    let (_, call) = self.lines.get(&principal)?.first()?;
                    let parties = Parties { principal, organisation: organisation.clone() };
                    room.fits(&parties).then_some(*call)
                });
                let Some(call) = call else { continue };
                moved = true;
                let queued = is_queued(call);
                if let Some(line) = self.remove(call, queued).filter(|_| queued) {
                    room.take(&line.parties);
                    picked.push(line.entry());
                    self.read.insert(line.call, (line, now));
                }
            }
            if !moved {
                return picked;
            }
        }
    }

    /// Whether a line came after the worker's last look.
    pub(super) fn has_news(&self, worker: &str) -> bool {
        self.seen.get(worker) != Some(&self.arrived)
    }
}

/// Open calls of principals and organisations, by server and name.
#[derive(Default)]
pub(super) struct Open(HashMap<(String, String), HashSet<CallId>>);

impl Open {
    pub(super) fn count(&self, server: &str, name: &str) -> usize {
        self.0.get(&(server.to_owned(), name.to_owned())).map_or(0, HashSet::len)
    }

    pub(super) fn add(&mut self, server: &str, parties: &Parties, call: CallId) {
        for name in [&parties.principal, &parties.organisation] {
            self.0.entry((server.to_owned(), name.clone())).or_default().insert(call);
        }
    }

    pub(super) fn release(&mut self, server: &str, parties: &Parties, call: CallId) {
        for name in [&parties.principal, &parties.organisation] {
            let key = (server.to_owned(), name.clone());
            if let Some(calls) = self.0.get_mut(&key) {
                calls.remove(&call);
                if calls.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of(&self, server: &str) -> OpenCalls {
        let own = self.0.iter().filter(|((at, _), _)| at == server);
        own.map(|((_, name), calls)| (name.clone(), calls.iter().copied().collect())).collect()
    }
}

/// Calls by the name of whom they count for.
#[cfg(test)]
pub(super) type OpenCalls = BTreeMap<String, BTreeSet<CallId>>;
