//! The tasks extension of MCP (`io.modelcontextprotocol/tasks`, for revision 2026-07-28).
//!
//! A server may answer `tools/call` with the handle of a task instead of a result. The client then asks for the
//! task (`tasks/get`) until it is over, answers what the tool wants to know on the way (`tasks/update`), and may
//! cancel it (`tasks/cancel`). Its connections don't matter to the work any more.
//!
//! A task is a [`TaskRecord`] in the store; the id of the call that began it is its name. Its work is done in
//! *rounds*. Each round is an ordinary call in the queue that nobody waits for, so a lost worker's round is taken
//! over by the rules of every call ([`crate::call`]). A tool that wants to know something ends its round with the
//! questions, as it does in a multi-round-trip request; the answers begin the next round. Nothing waits
//! anywhere meanwhile, so nothing can be lost but a running round.
//!
//! Any backend answers the three methods from the record, without a worker.
//!
//! # Which tools run as tasks
//! - A tool that says so in its `_meta`: [`TaskTool`]. With [`Support::Optional`] it runs as a task for clients that
//!   know tasks, and as an ordinary call for others; with [`Support::Required`] the others are refused with -32021.
//! - A tool that decides in the middle answers `odin::later()`. Its message is then run again, as a task; the tool
//!   sees that by `odin::InTask`. So a tool can ask questions before the task begins.
//!
//! The handler must declare the extension in its capabilities (`ServerCapabilities::builder().enable_tasks()`).

mod record;
mod round;
mod tool;
mod view;

pub use record::{Answered, NewTask, TaskRecord, TaskWork, queue};
pub(crate) use round::{Asked, clip, error_of, message_of};
pub use round::{TaskEnd, end_of};
pub use tool::{Support, TaskTool};
pub(crate) use view::unix_millis;
pub use view::{Status, TaskView};
