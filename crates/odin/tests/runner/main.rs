//! The runner with real rmcp handlers. Each rule that rmcp's behaviour made necessary has its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod aborts;
mod answers;
mod dialogue;
mod emissions;
mod handler;
mod reruns;
mod rounds;
mod speed;
mod support;
