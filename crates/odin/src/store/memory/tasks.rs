//! Tasks in the memory of one process.

use async_trait::async_trait;

use super::super::{Result, TaskBegin, TaskReply, Tasks};
use super::{Kept, Memory, MemoryStore};
use crate::call::{
    Fence, Gone, Message, Reach, Record, Run,
    task::{Answered, NewTask, TaskEnd, TaskRecord, TaskView, TaskWork},
};
use crate::id::CallId;
use crate::store::WorkerHint;

#[cfg(test)]
use super::lines::{OpenCalls, Queue};
#[cfg(test)]
use crate::call::Order;

impl Memory {
    fn task(&mut self, task: CallId, now: u64) -> Option<&mut TaskRecord> {
        self.tasks.get_mut(&task).filter(|task| now < task.expires)
    }

    fn task_of(&mut self, task: CallId, principal: &str, now: u64) -> Option<&mut TaskRecord> {
        self.task(task, now).filter(|task| task.principal == principal)
    }

    /// Queues the task's current round. It is queued however long the queue is: its number is bounded by that
    /// of the tasks.
    fn start_run(&mut self, task: CallId, now: u64) {
        let Some(record) = self.tasks.get(&task) else { return };
        let Some(run) = record.run else { return };
        let order = record.order(task);
        let queue = self.queues.entry(order.server.clone()).or_default();
        queue.push(run, order.tool.clone(), order.parties());
        let mut record = Record::new(order, now);
        record.reach = Reach::None;
        self.records.insert(run, Kept::new(record));
    }

    /// Whether the principal may have one more task.
    fn has_room(&self, principal: &str, kept: usize, open: usize, now: u64) -> bool {
        let own = || self.tasks.values().filter(|task| task.principal == principal && now < task.expires);
        own().count() < kept && own().filter(|task| !task.status.is_over()).count() < open
    }
}

#[async_trait]
impl Tasks for MemoryStore {
    async fn begin_task(
        &self,
        call: CallId,
        fence: Fence<'_>,
        task: &NewTask,
        out: &Message,
    ) -> Result<std::result::Result<TaskBegin, Gone>> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        // An EMIT of nothing says whether the call is this worker's, and whether its client is there.
        let Some(kept) = memory.records.get_mut(&call) else { return Ok(Err(Gone::Missing)) };
        if kept.record.run == Run::Done && kept.record.out.as_ref() == Some(out) {
            let state = kept.record.finish_run(fence, out, now, &self.timing);
            return Ok(state.map(TaskBegin::Created));
        }
        let state = match kept.record.emit(fence, 0, &[], now, &self.timing) {
            Ok(state) => state,
            Err(gone) => return Ok(Err(gone)),
        };
        if state.reach == Reach::None && !kept.record.is_kept() {
            return Ok(Ok(TaskBegin::Nobody(state)));
        }
        let record = TaskRecord::new(&kept.record.order, task.clone(), now);
        if !memory.has_room(&record.principal, self.limits.tasks, self.limits.tasks_open, now) {
            return Ok(Ok(TaskBegin::Full));
        }
        memory.tasks.insert(call, record);
        memory.start_run(call, now);
        let Some(kept) = memory.records.get_mut(&call) else { return Ok(Err(Gone::Missing)) };
        let state = kept.record.finish_run(fence, out, now, &self.timing);
        memory.hint_waiting(call, None);
        drop(memory);
        self.arrived.notify_waiters();
        Ok(state.map(TaskBegin::Created))
    }

    async fn task_work(&self, task: CallId, run: CallId) -> Result<Option<TaskWork>> {
        let now = self.now();
        Ok(self.memory().task(task, now).and_then(|task| task.work(run, now)))
    }

    async fn note_task(
        &self,
        task: CallId,
        run: CallId,
        fence: Fence<'_>,
        note: &str,
        at: u64,
    ) -> Result<Option<TaskView>> {
        let now = self.now();
        let mut memory = self.memory();
        let owned = memory.records.get(&run).is_some_and(|kept| {
            let record = &kept.record;
            record.is_owned(fence) && record.run == Run::Running
        });
        let record = memory.task(task, now).filter(|_| owned);
        Ok(record.and_then(|record| record.note(run, note, at).then(|| record.view(task))))
    }

    async fn end_run(
        &self,
        task: CallId,
        run: CallId,
        fence: Fence<'_>,
        end: &TaskEnd,
        next: CallId,
        at: u64,
    ) -> Result<std::result::Result<Option<TaskView>, Gone>> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        if let Some(ended) = memory.task(task, now).filter(|task| task.ended == Some(run)) {
            return Ok(Ok(Some(ended.view(task))));
        }
        let Some(kept) = memory.records.get_mut(&run) else { return Ok(Err(Gone::Missing)) };
        let task = kept.record.order.task.filter(|of| *of == task);
        if let Err(gone) = kept.record.published(fence) {
            return Ok(Err(gone));
        }
        memory.settle(run, now, &self.timing);
        let Some(id) = task else { return Ok(Ok(None)) };
        let Some(record) = memory.task(id, now) else { return Ok(Ok(None)) };
        if !record.end(run, end, next, at) {
            return Ok(Ok(None));
        }
        let (view, goes_on) = (record.view(id), record.run.is_some());
        if goes_on {
            memory.start_run(id, now);
            drop(memory);
            self.arrived.notify_waiters();
        }
        Ok(Ok(Some(view)))
    }

    async fn task(&self, task: CallId, principal: &str, at: u64) -> Result<Option<TaskView>> {
        let now = self.now();
        let mut memory = self.memory();
        let Some(run) = memory.task_of(task, principal, now).map(|task| task.run) else { return Ok(None) };
        let lost = run.is_some_and(|run| memory.records.get(&run).is_none_or(|kept| kept.record.closed));
        Ok(memory.task(task, now).map(|record| {
            if lost {
                record.lose(at);
            }
            record.view(task)
        }))
    }

    async fn answer_task(
        &self,
        task: CallId,
        principal: &str,
        answers: &[(String, Message)],
        next: CallId,
        at: u64,
    ) -> Result<Option<TaskReply>> {
        let now = self.now();
        let mut memory = self.memory();
        let Some(record) = memory.task_of(task, principal, now) else { return Ok(None) };
        let answered = record.answer(answers, next, at);
        let reply = TaskReply { view: record.view(task), changed: answered != Answered::Nothing };
        if answered == Answered::All {
            memory.start_run(task, now);
            drop(memory);
            self.arrived.notify_waiters();
        }
        Ok(Some(reply))
    }

    async fn cancel_task(&self, task: CallId, principal: &str, at: u64) -> Result<Option<TaskReply>> {
        let now = self.now();
        let mut memory = self.memory();
        let Some(record) = memory.task_of(task, principal, now) else { return Ok(None) };
        let (run, changed) = record.cancel(at);
        let reply = TaskReply { view: record.view(task), changed };
        if let Some(run) = run
            && let Some(kept) = memory.records.get_mut(&run)
        {
            // A closed record no longer says whose it is.
            let owner = kept.record.owner.clone();
            if kept.record.cancel() {
                if let Some(hints) = memory.worker_hints.get_mut(&owner) {
                    hints.hint(WorkerHint::Call(run), WorkerHint::All);
                }
                memory.settle(run, now, &self.timing);
            }
        }
        Ok(Some(reply))
    }
}

#[cfg(test)]
impl MemoryStore {
    /// Lines in a server's queue.
    pub(crate) fn waiting(&self, server: &str) -> usize {
        self.memory().queues.get(server).map_or(0, Queue::len)
    }

    /// A copy of a task's record.
    pub(crate) fn peek_task(&self, task: CallId) -> Option<TaskRecord> {
        self.memory().tasks.get(&task).cloned()
    }

    /// For each principal and organisation of a server, by name: its open calls as their records say it, and
    /// those that count for it.
    pub(crate) fn open_calls(&self, server: &str) -> (OpenCalls, OpenCalls) {
        let memory = self.memory();
        let mut open = OpenCalls::new();
        for (call, Kept { record, .. }) in &memory.records {
            let Order { task, server: at, .. } = &record.order;
            if !record.closed && task.is_none() && at == server {
                let parties = record.order.parties();
                for name in [parties.principal, parties.organisation] {
                    open.entry(name).or_default().insert(*call);
                }
            }
        }
        (open, memory.open.of(server))
    }

    /// Forgets a call's record.
    pub(crate) fn lose(&self, call: CallId) {
        self.memory().forget_record(call);
    }
}
