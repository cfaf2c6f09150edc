//! The bounds of a front end, and how clients are handed over.

use std::time::Duration;

use crate::protocol::Limits;

/// How a client's connection is handed over to Pushpin at the bifrost entry point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// `X-Accel-Redirect` to the named location `@hermod`, for the nginx in Kong.
    Kong,
    /// A 303 to `http://hermod/_hermod/hold/{ticket}`, for Envoy's `internal_redirect_policy`.
    Envoy,
    /// Not at all: the backend streams by itself.
    None,
}

impl std::str::FromStr for Handover {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kong" => Ok(Self::Kong),
            "envoy" => Ok(Self::Envoy),
            "none" => Ok(Self::None),
            other => Err(format!("{other:?} is not a way to hand over: use kong, envoy or none")),
        }
    }
}

/// Bounds of what the front end takes on, each with an error of its own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FrontLimits {
    /// Of a request's body and structure.
    pub request: Limits,
    /// Calls in flight for one principal on this node (429).
    pub calls_of_principal: usize,
    /// Calls in flight for one organisation on this node (429).
    pub calls_of_organisation: usize,
    /// Streams handed to Pushpin in a second. What is over it waits a little.
    pub holds_per_second: u64,
    /// Bytes of a body up to which a request can be held at the hermod entry point: Pushpin's own limit.
    pub held_body: usize,
    /// Bytes of a body up to which a request can be handed over: Envoy's default limit.
    pub handover_body: usize,
    /// How long a call may wait in the queue before the client is told that no worker took it (503).
    pub queue_patience: Duration,
    /// Bytes of all bodies that are being read, or whose requests are not yet answered (503). One organisation has
    /// at most half of it, one principal a quarter (429).
    pub bodies: usize,
    /// How long a body may take to arrive (408).
    pub body_time: Duration,
    /// How long nothing of a body may come meanwhile (408).
    pub body_pause: Duration,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            request: Limits::default(),
            calls_of_principal: 256,
            calls_of_organisation: 4096,
            holds_per_second: 1000,
            held_body: grip::MAX_REQUEST_BODY,
            handover_body: 1024 * 1024,
            queue_patience: Duration::from_secs(20),
            bodies: 128 * 1024 * 1024,
            body_time: Duration::from_secs(60),
            body_pause: Duration::from_secs(10),
        }
    }
}

setters!(FrontLimits {
    with_request => request: Limits,
    with_calls_of_principal => calls_of_principal: usize,
    with_calls_of_organisation => calls_of_organisation: usize,
    with_holds_per_second => holds_per_second: u64,
    with_held_body => held_body: usize,
    with_handover_body => handover_body: usize,
    with_queue_patience => queue_patience: Duration,
    with_bodies => bodies: usize,
    with_body_time => body_time: Duration,
    with_body_pause => body_pause: Duration,
});
