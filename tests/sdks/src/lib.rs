//! The official SDKs' clients, exactly as they are released, against a whole running stack.
//!
//! `client.py` and `client.mjs` drive the Python and the TypeScript SDK, [`rust`] drives rmcp's. Each does the
//! same things ([`Seen`]) and says what it saw; `tests/sdks.rs` judges, with the tools' journal at hand.
//! `clients/` has scripts for many more lines of clients, which do less; `tests/clients.rs` judges those.
//! The versions are pinned in `environments/` and the workspace's `Cargo.toml`.
//!
//! All of this panics freely: a test that can't go on has failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod guide;
pub mod kit;
pub mod proxy;
pub mod rust;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// What a client saw, by case: `connect`, `list`, `progress`, `elicit`, `cancel`, `refused`, `cut`, `ended` (with a
/// session), and of Python `leave`.
/// Whatever went wrong is under `error`.
pub type Seen = BTreeMap<String, Value>;

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 2026-07-28, without sessions.
    Modern,
    /// Streamable HTTP with a session: the newest revision that the client knows before 2026-07-28.
    Session,
    /// HTTP+SSE, the transport of 2024-11-05.
    Sse,
}

impl Mode {
    /// Its name in the scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Session => "session",
            Self::Sse => "sse",
        }
    }
}

/// The guide; its code in Rust is compiled with the documentation tests.
#[doc = include_str!("../../../docs/clients.md")]
#[derive(Debug)]
pub struct Guide;
