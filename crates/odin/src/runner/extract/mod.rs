//! What a tool can take as an argument beside its own parameters.

mod ask;
mod caller;
mod cancelled;
mod progress;
mod task;

pub use ask::{Ask, Asked};
pub use caller::Caller;
pub use cancelled::Cancelled;
pub use progress::Progress;
pub use task::{InTask, later};

/// What a tool gives that may also ask its user: a result, or with [`Asked::Later`] the next question.
pub type ToolResult = Result<rmcp::model::CallToolResponse, rmcp::ErrorData>;
