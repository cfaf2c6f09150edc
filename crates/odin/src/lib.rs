//! Turns any rmcp `ServerHandler` into a distributed MCP server.
