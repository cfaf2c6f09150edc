//! Turns any rmcp `ServerHandler` into a distributed MCP server.

pub mod admin;
mod ask;
pub mod broadcast;
pub mod broker;
pub mod call;
pub mod front;
pub mod id;
pub mod job;
pub mod node;
pub mod program;
pub mod protocol;
pub mod runner;
pub mod serve;
pub mod tasks;
pub mod worker;

pub use ask::{Ask, Asked};
pub use identity;
pub use program::Program;
