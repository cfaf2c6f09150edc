//! The record of a task and its transitions, as pure functions of the record and the time.
//!
//! `store/lua/task_*.lua` hold the same transitions for Redis; a test drives both with the same random commands
//! and compares every reply.

use std::collections::BTreeMap;

use super::round::TaskEnd;
use super::view::{Status, TaskView};
use crate::call::{Message, Order, Via};
use crate::id::CallId;
use crate::protocol::Era;

/// A task as a worker begins it, out of a call that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// Name of the first round's call.
    pub run: CallId,
    /// The [`crate::call::Job`] of the call as JSON text: what every round runs.
    pub job: Message,
    /// The tool.
    pub tool: String,
    /// The JSON-RPC error object when a round is lost that may not run again.
    pub lost: Message,
    /// The server's `Implementation`, as JSON.
    pub server_info: Option<Message>,
    /// How long the task is kept, in milliseconds.
    pub ttl: u64,
    /// How often a client should ask, in milliseconds.
    pub poll: u64,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
}

/// What a round works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskWork {
    /// The job of the call that began the task.
    pub job: Message,
    /// Number of the round, from 1.
    pub round: u32,
    /// The client's answers to the questions of the round before: key → answer, as JSON.
    pub answers: BTreeMap<String, Message>,
    /// The request state of the round before, as the tool wrote it.
    pub state: Option<Message>,
    /// How long the task is still kept, in milliseconds.
    pub left: u64,
}

/// What the client's answers changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Nothing: no question has those keys.
    Nothing,
    /// Questions are left.
    Some,
    /// The next round begins.
    All,
}

/// The queue of the rounds of a server's tasks, in place of the server's name. No server has such a name.
pub fn queue(server: &str) -> String {
    format!("{server}/tasks")
}

/// Everything that is known of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// [`identity::Principal::key`] of its owner.
    pub principal: String,
    /// [`identity::Principal::organisation_key`] of its owner.
    pub organisation: String,
    /// Named server that runs it.
    pub server: String,
    /// What was ordered. Its long parts are emptied once it is over.
    pub new: NewTask,
    /// When it last changed, in milliseconds since 1970.
    pub updated: u64,
    /// When it is removed, in milliseconds of the store's clock.
    pub expires: u64,
    /// How far it is.
    pub status: Status,
    /// For people.
    pub note: Option<String>,
    /// Number of the last round.
    pub round: u32,
    /// The call of the round that is queued or running.
    pub run: Option<CallId>,
    /// The call of the last round that has ended: its END may be repeated.
    pub ended: Option<CallId>,
    /// Questions without an answer.
    pub asks: BTreeMap<String, Message>,
    /// The answers so far.
    pub answers: BTreeMap<String, Message>,
    /// The request state of the last round.
    pub state: Option<Message>,
    /// The result, or the error.
    pub outcome: Option<Message>,
}

impl TaskRecord {
    /// BEGIN. `call` is the order of the call that begins the task; `now` in milliseconds of the store's clock.
    pub fn new(call: &Order, new: NewTask, now: u64) -> Self {
        Self {
            principal: call.principal.clone(),
            organisation: call.organisation.clone(),
            server: call.server.clone(),
            updated: new.created,
            expires: now.saturating_add(new.ttl),
            status: Status::Working,
            note: None,
            round: 1,
            ended: None,
            run: Some(new.run),
            asks: BTreeMap::new(),
            answers: BTreeMap::new(),
            state: None,
            outcome: None,
            new,
        }
    }

    /// The order of the round that is to be queued. Nobody waits for it, and it goes on all the same: so its era
    /// is that of sessions. What it runs is with the task. It has a queue of its own, so that long work does not
    /// keep calls waiting.
    pub fn order(&self, task: CallId) -> Order {
        Order {
            server: queue(&self.server),
            job: "".into(),
            era: Era::Stateful,
            via: Via::Backend,
            tool: Some(self.new.tool.clone()),
            assertion: String::new(),
            principal: self.principal.clone(),
            organisation: self.organisation.clone(),
            session: None,
            request_id: None,
            lost: self.new.lost.clone(),
            node: String::new(),
            request: 0,
            stream: None,
            retry: None,
            task: Some(task),
        }
    }

    /// Its owner's view.
    pub fn view(&self, id: CallId) -> TaskView {
        TaskView {
            id,
            status: self.status,
            note: self.note.clone(),
            created: self.new.created,
            updated: self.updated,
            ttl: self.new.ttl,
            poll: self.new.poll,
            asks: self.asks.clone(),
            outcome: self.outcome.clone(),
            server_info: self.new.server_info.clone(),
        }
    }

    /// WORK: what the round `run` works on; none when the task goes on without it.
    pub fn work(&self, run: CallId, now: u64) -> Option<TaskWork> {
        self.is_at(run).then(|| TaskWork {
            job: self.new.job.clone(),
            round: self.round,
            answers: self.answers.clone(),
            state: self.state.clone(),
            left: self.expires.saturating_sub(now),
        })
    }

    /// NOTE: the running round says what it does. Whether that changed anything.
    pub fn note(&mut self, run: CallId, note: &str, at: u64) -> bool {
        let changed = self.is_at(run) && self.note.as_deref() != Some(note);
        if changed {
            self.note = Some(note.to_owned());
            self.touch(at);
        }
        changed
    }

    /// END of the round `run`. `next` names the call of the next round, if there is one at once. Whether it
    /// changed anything.
    pub fn end(&mut self, run: CallId, end: &TaskEnd, next: CallId, at: u64) -> bool {
        if !self.is_at(run) {
            return false;
        }
        self.run = None;
        self.ended = Some(run);
        self.answers.clear();
        self.touch(at);
        match end {
            TaskEnd::Asks { asks, state } => {
                self.asks.clone_from(asks);
                self.state.clone_from(state);
                self.note = None;
                if asks.is_empty() {
                    self.go_on(next);
                } else {
                    self.status = Status::InputRequired;
                }
            }
            TaskEnd::Completed(result) => self.close(Status::Completed, Some(result.clone()), None),
            TaskEnd::Failed { error, note } => {
                self.close(Status::Failed, Some(error.clone()), note.clone());
            }
        }
        true
    }

    /// ANSWER: the client's answers. Those to no open question are ignored.
    pub fn answer(&mut self, answers: &[(String, Message)], next: CallId, at: u64) -> Answered {
        if self.status != Status::InputRequired {
            return Answered::Nothing;
        }
        let mut changed = false;
        for (key, answer) in answers {
            if self.asks.remove(key).is_some() {
                self.answers.insert(key.clone(), answer.clone());
                changed = true;
            }
        }
        if !changed {
            return Answered::Nothing;
        }
        self.touch(at);
        if !self.asks.is_empty() {
            return Answered::Some;
        }
        self.go_on(next);
        Answered::All
    }

    /// CANCEL: the round to be stopped, and whether it changed anything.
    pub fn cancel(&mut self, at: u64) -> (Option<CallId>, bool) {
        if self.status.is_over() {
            return (None, false);
        }
        let run = self.run.take();
        self.touch(at);
        self.close(Status::Cancelled, None, None);
        (run, true)
    }

    /// The call of the current round is nowhere: the store lost it.
    pub fn lose(&mut self, at: u64) {
        self.touch(at);
        let lost = self.new.lost.clone();
        self.close(Status::Failed, Some(lost), None);
    }

    fn is_at(&self, run: CallId) -> bool {
        self.status == Status::Working && self.run == Some(run)
    }

    fn go_on(&mut self, next: CallId) {
        self.status = Status::Working;
        self.round += 1;
        self.run = Some(next);
    }

    fn close(&mut self, status: Status, outcome: Option<Message>, note: Option<String>) {
        self.status = status;
        self.outcome = outcome;
        self.note = note;
        self.run = None;
        self.state = None;
        self.asks.clear();
        self.answers.clear();
        self.new.job = "".into();
    }

    /// Clocks of several machines differ; time does not go back.
    fn touch(&mut self, at: u64) {
        self.updated = self.updated.max(at);
    }
}
