//! The two families of MCP revisions.

use serde::{Deserialize, Serialize};

/// The two families of MCP revisions; they differ in what a server has to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// Revision 2026-07-28 and later: every request stands alone and carries its own `_meta`
    /// (protocol version, client information, client capabilities). A closed stream cancels.
    Stateless,
    /// Revisions 2024-11-05 to 2025-11-25: a session begins with `initialize`; the server may send
    /// requests of its own. A closed stream cancels nothing.
    Stateful,
}
