//! Whether a call is a round of a task, and how it becomes one.

use rmcp::ErrorData;
use rmcp::handler::server::common::{AsRequestContext, FromContextPart};
use rmcp::model::{CreateTaskResult, Task, TaskStatus};

use crate::call::TaskContext;

/// What a tool answers that wants its call to be run again, as a task. Only for clients that declare the extension
/// (`RequestContext::client_capabilities().supports_tasks()`): others get -32021.
///
/// Its time to live and its poll interval count, if they are set; the rest of the handle is made by the worker.
pub fn later() -> CreateTaskResult {
    CreateTaskResult::new(Task::new("", TaskStatus::Working, "", ""))
}

/// Argument of a tool that wants to know whether it runs as a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTask(pub Option<TaskContext>);

impl<C: AsRequestContext> FromContextPart<C> for InTask {
    fn from_context_part(context: &mut C) -> Result<Self, ErrorData> {
        Ok(Self(context.as_request_context().extensions.get::<TaskContext>().cloned()))
    }
}
