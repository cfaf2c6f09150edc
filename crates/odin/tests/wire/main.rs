//! What clients send and get, over HTTP and through a whole server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod arguments;
mod extract;
mod http_server;
mod lists;
mod nulls;
mod server;
