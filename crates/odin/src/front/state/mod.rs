//! What the requests of one front end share.

mod cache;
mod config;
mod counters;
mod waiters;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::response::Response;
use bytes::Bytes;
use grip::Publisher;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::broadcast::Broadcaster;
use crate::call::Message;
use crate::front::http::{Bodies, in_era, into_axum, unix_seconds};
use crate::protocol::{self, Refusal, Revision};
use crate::store::Store;

pub use config::FrontConfig;

pub(crate) use cache::{Cache, Names, forget_changed};
pub(crate) use counters::{Counters, HoldBudget};
pub(crate) use waiters::{Waiters, ping, wake_waiters};

/// The state of a front end.
pub struct Front {
    pub(super) config: FrontConfig,
    pub(super) store: Arc<dyn Store>,
    pub(super) publisher: Option<Publisher>,
    pub(super) broadcaster: Broadcaster,
    pub(super) waiters: Arc<Waiters>,
    pub(super) in_flight: Mutex<HashMap<String, usize>>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) cache: Arc<Cache>,
    pub(super) holds: HoldBudget,
    /// Counters since the start.
    pub(super) counters: Counters,
    /// When the store last answered an announcement.
    pub(super) announced: Arc<Mutex<Option<Instant>>>,
    /// Streams that stand by themselves end, and nothing new is to come here.
    pub(super) stopping: CancellationToken,
    /// All requests and streams, and the tasks, end. Implies `stopping`.
    pub(super) ended: CancellationToken,
    /// The tasks end with the last reference to the front end.
    pub(super) _alive: DropGuard,
}

impl Front {
    /// Whether the links to all Pushpins stand. Without them a call that begins now is not to wait for a hold.
    pub(crate) fn links_stand(&self) -> bool {
        self.publisher.as_ref().is_none_or(Publisher::all_up)
    }

    /// Whether a stream could be held now.
    pub(crate) fn can_hold(&self) -> bool {
        self.publisher.as_ref().is_some_and(Publisher::all_settled)
            && self.holds.has_room(unix_seconds(), self.config.limits.holds_per_second)
    }
    /// Counts a refusal, and writes it.
    pub(crate) fn refuse(&self, refusal: impl Into<Refusal>) -> Response {
        let refusal = refusal.into();
        self.counters.refused(&refusal);
        into_axum(refusal.into_response())
    }

    /// Refuses a request of a revision, in the form that its era has for that.
    pub(crate) fn refuse_in(&self, revision: Revision, refusal: Refusal) -> Response {
        self.counters.refused(&refusal);
        into_axum(in_era(revision, refusal).into_response())
    }

    /// One JSON document.
    pub(crate) fn json(&self, revision: Revision, out: Message) -> Response {
        Counters::count(&self.counters.json);
        let status = protocol::answer_status(revision, out.as_bytes());
        into_axum(protocol::json_response(status, Bytes::copy_from_slice(out.as_bytes())))
    }
}
