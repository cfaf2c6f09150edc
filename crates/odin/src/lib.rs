//! Turns any rmcp `ServerHandler` into a distributed MCP server.

pub mod admin;
pub mod broadcast;
pub mod call;
mod events;
pub mod front;
pub mod health;
pub mod id;
pub mod program;
pub mod protocol;
pub mod runner;
pub mod serve;
pub mod store;
pub mod worker;

pub use call::task::{Support, TaskTool};
pub use identity;
pub use program::Program;
pub use rmcp;
pub use runner::{Ask, Asked, Caller, Cancelled, InTask, Progress, ToolResult, later};
