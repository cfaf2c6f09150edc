//! What a front end is made of.

use std::time::Duration;

use identity::policy::Policy;

use crate::broadcast::BroadcastKey;
use crate::call::Timing;
use crate::front::config::{FrontLimits, Handover};
use crate::front::http::Access;
use crate::link::Links;
use crate::protocol::session::SessionKeys;

/// Configuration of a front end.
#[non_exhaustive]
pub struct FrontConfig {
    /// Name of this node, unique among all that ever shared this store: a restarted one needs a new one.
    pub node: String,
    /// Named server that requests are for.
    pub server: String,
    /// Who is believed.
    pub access: Access,
    /// How clients are handed over.
    pub handover: Handover,
    /// How long to wait for a result before the client is handed over.
    pub hold_after: Duration,
    /// Keys of session ids.
    pub sessions: SessionKeys,
    /// Issuer and key of `Grip-Sig`; none where no Pushpin is used.
    pub grip: Option<(String, Vec<u8>)>,
    /// Names of the channels that notifications go out on; the same on all backends and workers.
    pub broadcast: BroadcastKey,
    /// Who may use what; the same as the gateway's.
    pub policy: Policy,
    /// Bounds.
    pub limits: FrontLimits,
    /// The lease of [`crate::call::Timing`].
    pub lease: Duration,
    /// Links to workers, for calls that are handed straight to them. None: all calls go through the queue.
    pub links: Option<Links>,
}

impl FrontConfig {
    /// The defaults of what need not be chosen: a random name, no Pushpin, a policy that allows all, and the usual bounds.
    #[must_use]
    pub fn new(
        server: impl Into<String>,
        access: Access,
        sessions: SessionKeys,
        broadcast: BroadcastKey,
    ) -> Self {
        Self {
            node: format!("front-{:016x}", rand::random::<u64>()),
            server: server.into(),
            access,
            handover: Handover::None,
            hold_after: Duration::from_millis(100),
            sessions,
            grip: None,
            broadcast,
            policy: Policy::default(),
            limits: FrontLimits::default(),
            lease: Timing::default().lease,
            links: None,
        }
    }
}

setters!(FrontConfig {
    with_node => node: String,
    with_server => server: String,
    with_access => access: Access,
    with_handover => handover: Handover,
    with_hold_after => hold_after: Duration,
    with_sessions => sessions: SessionKeys,
    with_grip => grip: Option<(String, Vec<u8>)>,
    with_broadcast => broadcast: BroadcastKey,
    with_policy => policy: Policy,
    with_limits => limits: FrontLimits,
    with_lease => lease: Duration,
    with_links => links: Option<Links>,
});
