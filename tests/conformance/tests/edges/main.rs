//! What the conformance suite does not look at: the edges of the protocol, and whatever a client or a broken store
//! may send.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod blind;
mod cases;
mod client;
mod malformed;
mod records;
mod server;
