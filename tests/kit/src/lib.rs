//! What the integration tests are made of.
//!
//! - [`site`]: front ends and workers of this process over one store, and what a client sends them;
//! - [`redis`], [`pushpin`]: the real programs, each on ports and in a folder of its own;
//! - [`values`]: keys, principals and assertions;
//! - [`layers`]: which part of a crate uses which.
//!
//! Crates that this one depends on (odin, grip, identity) use it in integration tests alone: in their unit tests, types of
//! theirs would be others than the kit's. [`redis`] has none of them, and is for all.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers fail as tests do"
)]

pub mod layers;
pub mod pushpin;
pub mod redis;
pub mod site;
pub mod values;

use std::time::{Duration, Instant};

pub use pushpin::Pushpin;
pub use redis::RedisServer;
pub use site::{Events, Site};

/// How long a condition may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until it is so, for at most [`PATIENCE`].
pub async fn wait(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
