//! What the end-to-end tests share: the running stack, tokens, an MCP client that looks closely, the
//! tools' journal.
//!
//! The tests use the stack whose state folder `ASGARD_HOME` names, and kill its parts. `./asgard test` starts
//! one for them. Plain `cargo test` leaves them out, and says so. By hand:
//!
//! ```text
//! export ASGARD_HOME=/tmp/e2e
//! ./asgard up -d --ports free --no-inspector
//! cargo test -p e2e -- --ignored
//! ```
//!
//! `E2E_SEED` chooses the moments and calls that are drawn, `E2E_KILLS` how often the killing tests do it,
//! `E2E_LINK_CALLS` how many calls there are while links break,
//! `E2E_SOAK_S` how many seconds the soak takes.
//! The workers of the stack need `ASGARD_JOURNAL` (`[env.worker]` in its state file), as `./asgard test` sets it.
//!
//! All of this panics freely: a test that can't go on has failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod breaks;
pub mod client;
pub mod documents;
pub mod exchange;
pub mod http_sse;
pub mod journal;
pub mod keycloak;
pub mod leftovers;
pub mod login;
pub mod random;
pub mod sse;
pub mod stack;
pub mod tokens;

pub use breaks::Breaks;
pub use client::{Client, Era};
pub use exchange::{Exchange, Form, comparable_headers};
pub use http_sse::SseClient;
pub use journal::Journal;
pub use stack::{EntryPoint, Stack};
