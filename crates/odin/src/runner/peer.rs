//! What a handler sees of its client, built from the job: rmcp keeps it in a `Peer`, which without it
//! neither knows the client's capabilities nor refuses what the revision forbids.

use std::str::FromStr;
use std::sync::Arc;

use http::request::Parts;
use rmcp::model::{
    ClientCapabilities, Extensions, Implementation, InitializeRequestParams, ProtocolVersion,
    RequestMetaObject,
};

use super::channel::Link;
use crate::call::Job;
use crate::protocol::Era;
use crate::worker::Closed;

/// The call that a handler works for; handlers get it by `Extension<CallContext>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallContext {
    /// Id of the call, the same for every worker that runs it.
    pub id: String,
    /// Name of the server that the message is for.
    pub server: String,
    /// Session id, in the stateful era once there is a session.
    pub session: Option<String>,
}

/// The stream that a call's messages go out on; handlers get it by `Extension<ResponseStream>`.
#[derive(Clone)]
pub struct ResponseStream {
    link: Arc<Link>,
}

impl ResponseStream {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// Ends the client's connection while the call goes on. The client comes back for the rest, after a while
    /// and from whichever node it reaches, so that a long call does not keep a connection open (revision
    /// 2025-11-25, sending messages). In other revisions nothing happens.
    ///
    /// # Errors
    /// [`Closed`] when the call takes nothing more.
    pub fn hang_up(&self) -> Result<(), Closed> {
        self.link.hang_up()
    }
}

/// The job's protocol revision in rmcp's type.
pub(super) fn protocol(job: &Job) -> Option<ProtocolVersion> {
    serde_json::from_value(serde_json::Value::String(job.protocol.clone())).ok()
}

/// The client as its session's `initialize` or the message's own `_meta` describes it, at the revision
/// that the job names. `None` for `initialize` itself: the handler decides the revision.
pub(super) fn info(job: &Job, method: &str, meta: &RequestMetaObject) -> Option<InitializeRequestParams> {
    let described = match job.era {
        Era::Stateless => InitializeRequestParams::new(
            meta.client_capabilities().unwrap_or_default(),
            meta.client_info().unwrap_or_else(unnamed),
        ),
        Era::Stateful if method == "initialize" => return None,
        Era::Stateful => job
            .peer
            .as_deref()
            .and_then(|peer| serde_json::from_str(peer.get()).ok())
            .unwrap_or_else(|| InitializeRequestParams::new(ClientCapabilities::default(), unnamed())),
    };
    Some(match protocol(job) {
        Some(protocol) => described.with_protocol_version(protocol),
        None => described,
    })
}

/// Client information is optional, also in a modern `_meta`.
fn unnamed() -> Implementation {
    Implementation::new("unknown", "0")
}

/// Puts into a message's extensions what handlers may ask for: the caller, the call, and the head of an
/// HTTP request as handlers written for rmcp's own HTTP server expect it (without `Authorization`).
pub(super) fn extend(extensions: &mut Extensions, job: &Job) {
    if let Some(parts) = parts(job) {
        extensions.insert(parts);
    }
    extensions.insert(job.principal.clone());
    if let Some(task) = &job.task {
        extensions.insert(task.clone());
    }
    extensions.insert(CallContext {
        id: job.call.clone(),
        server: job.server.clone(),
        session: job.session.clone(),
    });
}

fn parts(job: &Job) -> Option<Parts> {
    let mut request = http::Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_str(&format!("/api/v1/mcp/{}", job.principal.organisation)).ok()?;
    let headers = request.headers_mut();
    headers.insert("mcp-protocol-version", job.protocol.parse().ok()?);
    if let Some(session) = &job.session {
        headers.insert("mcp-session-id", session.parse().ok()?);
    }
    let (mut parts, ()) = request.into_parts();
    parts.extensions.insert(job.principal.clone());
    Some(parts)
}
