//! What a front end is made of.

use std::time::Duration;

use identity::policy::Policy;

use crate::broadcast::BroadcastKey;
use crate::front::config::{FrontLimits, Handover};
use crate::front::http::Access;
use crate::protocol::session::SessionKeys;

/// Configuration of a front end.
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
}
