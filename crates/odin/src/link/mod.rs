//! Links between backends and workers: a call goes straight to a worker, and a quick answer straight back.
//!
//! A link is one TCP connection, one Unix socket, or a pipe within the process, between two sides that know each
//! other by a key ([`LinkKeys`]). Each sends numbered heartbeats; each sees by itself that it is broken: after an error,
//! or a lease of silence. What the messages mean, [`crate::call::direct`] says.
//!
//! [`Links`] is the backend's side: it keeps links to some workers of a server and chooses one for each call.
//! [`Listener`] is the worker's. Without TLS a link is as private as the network that it goes over: as that of Redis.

mod address;
mod backend;
mod discovery;
mod frame;
mod greeting;
mod listen;
mod message;
mod queue;
#[cfg(test)]
mod tests;
mod wire;
mod worker;

use std::time::Duration;

pub use address::{Address, InvalidAddress};
pub use backend::{DirectCall, Links};
pub use discovery::announce;
pub use greeting::{Identity, InvalidLinkKeys, LinkKeys, NoLink};
pub use listen::Listener;
pub use message::{Dispatch, MESSAGE};
pub use worker::{Calls, Peer, serve};

/// Times and bounds of a link; the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkLimits {
    /// How often each side sends a heartbeat.
    pub beat: Duration,
    /// After that time of silence, or without progress in writing, it is broken.
    pub lease: Duration,
    /// Calls of which something waits to be written.
    pub calls: usize,
    /// Bytes that wait to be written.
    pub bytes: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            beat: Duration::from_millis(500),
            lease: Duration::from_millis(1500),
            calls: 256,
            bytes: 4 * 1024 * 1024,
        }
    }
}

setters!(LinkLimits {
    with_beat => beat: Duration,
    with_lease => lease: Duration,
    with_calls => calls: usize,
    with_bytes => bytes: usize,
});
