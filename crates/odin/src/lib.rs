//! Turns any rmcp `ServerHandler` into a distributed MCP server.

pub mod protocol;
