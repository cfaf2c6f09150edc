//! Runs messages of clients with an rmcp `ServerHandler`: all that knows rmcp is here.

mod arguments;
mod channel;
mod cursor;
mod envelope;
mod extract;
mod handler;
mod listen;
mod log;
mod methods;
mod peer;
mod prepared;
mod result;
mod session;
mod state;
mod task_tool;
mod tools;
mod unknown;

pub(crate) use arguments::InputSchema;
pub use extract::{Ask, Asked, Caller, Cancelled, InTask, Progress, ToolResult, later};
pub use handler::{CANCEL_GRACE, RmcpRunner};
pub use peer::{CallContext, ResponseStream};
pub use state::{STATE_LIFETIME, StateKeyError, StateKeys};
pub use task_tool::TASK_META;
