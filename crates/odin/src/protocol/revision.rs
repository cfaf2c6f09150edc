//! The revisions of MCP and the methods that each of them has.

use std::fmt;

/// A revision of the MCP specification that this server speaks, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2024-11-05: HTTP+SSE; also negotiated by `initialize` on Streamable HTTP.
    V2024_11_05,
    /// 2025-03-26: first Streamable HTTP; the only revision with JSON-RPC batches over it.
    V2025_03_26,
    /// 2025-06-18: the `MCP-Protocol-Version` header; no batches.
    V2025_06_18,
    /// 2025-11-25: last revision with sessions.
    V2025_11_25,
    /// 2026-07-28: stateless, metadata in every request.
    V2026_07_28,
}

impl Revision {
    /// All revisions, newest first: the order in which `data.supported` of error -32022 lists them.
    pub const ALL: [Self; 5] =
        [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26, Self::V2024_11_05];

    /// The newest revision that `initialize` can negotiate.
    pub const LATEST_SESSION: Self = Self::V2025_11_25;

    /// The revision's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision of that name, if this server speaks it. Exact: no spaces, no other spelling.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == name)
    }

    /// True for revisions without a handshake: every request carries its own metadata.
    pub const fn is_stateless(self) -> bool {
        matches!(self, Self::V2026_07_28)
    }

    /// What `initialize` answers to a client that asks for `requested`: the same where this server has it
    /// as a revision with sessions, else the newest such (lifecycle, version negotiation).
    pub fn negotiate(requested: &str) -> Self {
        Self::parse(requested).filter(|revision| !revision.is_stateless()).unwrap_or(Self::LATEST_SESSION)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who answers a request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A worker; also for methods that no revision knows (a server may have its own, and else answers
    /// -32601 itself).
    Worker,
    /// A worker, and the answer is a session: only in stateful eras.
    Initialize,
    /// The front end, with an empty result: `ping`.
    Ping,
    /// The front end, with an empty result, after it has stored `params.level` with the session:
    /// `logging/setLevel`.
    SetLevel,
    /// `resources/subscribe`: a worker says whether the resource exists; the front end keeps the
    /// subscription with the session.
    Subscribe,
    /// `resources/unsubscribe`: as [`Route::Subscribe`].
    Unsubscribe,
    /// `subscriptions/listen`: a stream by nature.
    Listen,
    /// The specification has the method, but not in this revision: error -32601.
    NotInRevision,
}

/// What becomes of a notification of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationRoute {
    /// Nothing is left to do: `notifications/initialized`.
    Nothing,
    /// The call with id `params.requestId` of this session is to be cancelled. (In the stateless era over
    /// HTTP closing the stream cancels, so there it is accepted and has no effect.)
    Cancel,
    /// Goes to the running call that `params.progressToken` names (see [`Id::call`](super::Id::call)).
    Progress,
    /// A worker.
    Worker,
}

use Revision::{V2024_11_05, V2025_03_26, V2025_11_25, V2026_07_28};

/// Requests of clients: name, first and last revision that has it, who answers. From the `ClientRequest`
/// union of each revision's schema; `tasks/*` of 2026-07-28 from the tasks extension.
const REQUESTS: &[(&str, Revision, Revision, Route)] = &[
    ("completion/complete", V2024_11_05, V2026_07_28, Route::Worker),
    ("initialize", V2024_11_05, V2025_11_25, Route::Initialize),
    ("logging/setLevel", V2024_11_05, V2025_11_25, Route::SetLevel),
    ("ping", V2024_11_05, V2025_11_25, Route::Ping),
    ("prompts/get", V2024_11_05, V2026_07_28, Route::Worker),
    ("prompts/list", V2024_11_05, V2026_07_28, Route::Worker),
    ("resources/list", V2024_11_05, V2026_07_28, Route::Worker),
    ("resources/read", V2024_11_05, V2026_07_28, Route::Worker),
    ("resources/subscribe", V2024_11_05, V2025_11_25, Route::Subscribe),
    ("resources/templates/list", V2024_11_05, V2026_07_28, Route::Worker),
    ("resources/unsubscribe", V2024_11_05, V2025_11_25, Route::Unsubscribe),
    ("server/discover", V2026_07_28, V2026_07_28, Route::Worker),
    ("subscriptions/listen", V2026_07_28, V2026_07_28, Route::Listen),
    ("tasks/cancel", V2025_11_25, V2026_07_28, Route::Worker),
    ("tasks/get", V2025_11_25, V2026_07_28, Route::Worker),
    ("tasks/list", V2025_11_25, V2025_11_25, Route::Worker),
    ("tasks/result", V2025_11_25, V2025_11_25, Route::Worker),
    ("tasks/update", V2026_07_28, V2026_07_28, Route::Worker),
    ("tools/call", V2024_11_05, V2026_07_28, Route::Worker),
    ("tools/list", V2024_11_05, V2026_07_28, Route::Worker),
];

/// Methods that are MCP's, but of extensions, or no requests: their routes are those of unknown methods.
const OTHERS: [&str; 7] = [
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "resources/directory/read",
    "skills/get",
    "skills/list",
];

/// Whether MCP says what the parameters of `method` are.
pub(super) fn is_defined(method: &str) -> bool {
    OTHERS.contains(&method) || REQUESTS.iter().any(|(name, ..)| *name == method)
}

impl Route {
    /// Who answers the request `method` in `revision`. Method names are case-sensitive.
    pub fn of(revision: Revision, method: &str) -> Self {
        match REQUESTS.iter().find(|(name, ..)| *name == method) {
            Some((_, first, last, route)) if *first <= revision && revision <= *last => *route,
            Some(_) => Self::NotInRevision,
            None => Self::Worker,
        }
    }
}

impl NotificationRoute {
    /// What becomes of the notification `method` in `revision`.
    pub fn of(revision: Revision, method: &str) -> Self {
        match method {
            "notifications/initialized" => Self::Nothing,
            "notifications/cancelled" if revision.is_stateless() => Self::Nothing,
            "notifications/cancelled" => Self::Cancel,
            "notifications/progress" if revision.is_stateless() => Self::Nothing,
            "notifications/progress" => Self::Progress,
            _ => Self::Worker,
        }
    }
}

/// True when clients of `revision` may send several messages in one body, as a JSON array.
pub(super) fn has_batches(revision: Revision) -> bool {
    revision == V2025_03_26
}

/// The member of `params` that the `Mcp-Name` header repeats for `method` (transports, request metadata;
/// tasks extension, routing headers).
pub(super) fn name_source(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}
