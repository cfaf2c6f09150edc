//! Where tasks live: the part of the store that keeps them.

use async_trait::async_trait;

use super::Result;
use crate::call::{
    Fence, Gone, Message, State,
    task::{NewTask, TaskEnd, TaskView, TaskWork},
};
use crate::id::CallId;

/// What became of a call that wanted to be a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskBegin {
    /// The task is there, its first round is in the queue, and the call has its answer: the handle.
    Created(State),
    /// Nothing was made: the client that would get the handle is gone.
    Nobody(State),
    /// Nothing was made: its principal has too many tasks.
    Full,
}

/// A task after its owner asked for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReply {
    /// The task as it is now.
    pub view: TaskView,
    /// Whether anything changed.
    pub changed: bool,
}

/// The store's commands for tasks.
///
/// A task's name is the call that began it. `at` is the
/// time of the one who asks, in milliseconds since 1970: for people to read. What expires does so by the store's
/// own clock. A task of another principal, one that expired, and one that never was are all the same: none.
#[async_trait]
pub trait Tasks: Send + Sync + 'static {
    /// BEGIN: a running call becomes a task, and `out`, the handle, is its answer. All in one step, so that no
    /// handle is without its task, and no task without its handle.
    async fn begin_task(
        &self,
        call: CallId,
        fence: Fence<'_>,
        task: &NewTask,
        out: &Message,
    ) -> Result<std::result::Result<TaskBegin, Gone>>;
    /// WORK: what a round works on; none when the task goes on without it.
    async fn task_work(&self, task: CallId, run: CallId) -> Result<Option<TaskWork>>;
    /// NOTE: the running round says for people what it does. None when that changed nothing.
    async fn note_task(
        &self,
        task: CallId,
        run: CallId,
        fence: Fence<'_>,
        note: &str,
        at: u64,
    ) -> Result<Option<TaskView>>;
    /// END of a round: closes its call, and changes the task. `next` names the call of a round that follows at
    /// once. None when the task went on without the round: it was cancelled, or expired. Repeated, because the reply
    /// was lost, it says how the task is now: else who listens to the task would never hear of its end.
    async fn end_run(
        &self,
        task: CallId,
        run: CallId,
        fence: Fence<'_>,
        end: &TaskEnd,
        next: CallId,
        at: u64,
    ) -> Result<std::result::Result<Option<TaskView>, Gone>>;

    /// GET. A task whose round the store has lost fails here.
    async fn task(&self, task: CallId, principal: &str, at: u64) -> Result<Option<TaskView>>;
    /// ANSWER: the client's answers; `next` names the call of the next round, which begins with the last answer.
    async fn answer_task(
        &self,
        task: CallId,
        principal: &str,
        answers: &[(String, Message)],
        next: CallId,
        at: u64,
    ) -> Result<Option<TaskReply>>;
    /// CANCEL: the task is over, and the round that runs is stopped.
    async fn cancel_task(&self, task: CallId, principal: &str, at: u64) -> Result<Option<TaskReply>>;
}
