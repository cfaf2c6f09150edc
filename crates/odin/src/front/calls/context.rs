//! What a call needs beside the client's message, and the order that is made of both.

use identity::EntryPoint;
use serde_json::value::{RawValue, to_raw_value};

use crate::call::{Job, Order, Retry, Via};
use crate::front::{
    calls::retry,
    config::Handover,
    error::{Error, Result},
    http::Caller,
    state::Front,
};
use crate::id::CallId;
use crate::protocol::{Era, Request, Revision, code, jsonrpc};

/// What a call needs beside the client's message.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) caller: Caller,
    pub(crate) era: Era,
    pub(crate) revision: Revision,
    /// Key of the session, and `params` of its `initialize`.
    pub(crate) session: Option<(String, Box<RawValue>)>,
    pub(crate) log_level: Option<String>,
    /// Channel of the long-lived stream that the answer goes to, in HTTP+SSE.
    pub(crate) stream: Option<String>,
    /// The client's `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// `Mcp-Param-*` of a stateless tool call.
    pub(crate) headers: Vec<(String, String)>,
    /// Nothing but the answer reaches the client.
    pub(crate) answer_only: bool,
    /// Bytes of the request's body.
    pub(crate) body: usize,
}

impl Context {
    pub(crate) fn retry(&self, front: &Front, request: &Request<'_>) -> Option<Retry> {
        let key = self.key.as_deref()?;
        let name = request.params.name.as_deref().unwrap_or_default();
        let principal = self.caller.principal.key();
        Some(Retry {
            name: retry::name(&[&principal, &front.config.server, &request.method, name, key]),
            fingerprint: retry::fingerprint(request.raw),
        })
    }
}

/// Who holds a stream, if the answer becomes one.
pub(crate) fn via(front: &Front, entry_point: EntryPoint, body: usize) -> Via {
    let limits = &front.config.limits;
    let held = match entry_point {
        EntryPoint::Hermod => body <= limits.held_body,
        EntryPoint::Bifrost => front.config.handover != Handover::None && body <= limits.handover_body,
        EntryPoint::Direct => false,
    };
    if held && front.publisher.is_some() { Via::Pushpin } else { Via::Backend }
}

fn session_key(context: &Context) -> Option<&str> {
    context.session.as_ref().map(|(key, _)| key.as_str())
}

pub(crate) fn order(
    front: &Front,
    context: &Context,
    call: CallId,
    message: &RawValue,
    request: Option<&Request<'_>>,
    via: Via,
    number: u64,
) -> Result<Order> {
    let job = Job {
        call: call.to_string(),
        server: front.config.server.clone(),
        era: context.era,
        protocol: context.revision.as_str().into(),
        principal: context.caller.principal.clone(),
        session: context.session.as_ref().map(|(key, _)| key.clone()),
        peer: context.session.as_ref().map(|(_, peer)| peer.clone()),
        log_level: context.log_level.clone(),
        headers: context.headers.clone(),
        answer_only: context.answer_only,
        task: None,
        message: message.to_owned(),
    };
    let job = to_raw_value(&job).map_err(|_| Error::NotStorable)?;
    let id = request.map_or("null", |request| request.id.as_json());
    Ok(Order {
        server: front.config.server.clone(),
        job: job.get().into(),
        era: context.era,
        via,
        tool: request
            .filter(|request| request.method == "tools/call")
            .map(|request| request.params.name.as_deref().unwrap_or_default().to_owned()),
        assertion: context.caller.assertion.clone(),
        principal: context.caller.principal.key(),
        organisation: context.caller.principal.organisation_key(),
        session: session_key(context).map(str::to_owned),
        request_id: request.map(|request| request.id.key().into_owned()),
        lost: lost(id).into(),
        node: front.config.node.clone(),
        request: number,
        stream: context.stream.clone(),
        retry: request.and_then(|request| context.retry(front, request)),
        task: None,
    })
}

/// The answer when nobody knows what became of the call.
fn lost(id: &str) -> String {
    let why = "The worker that ran this call was lost, so its outcome is unknown. Check whether it took effect before you \
               ask again.";
    jsonrpc::error(id, jsonrpc::error_object(code::INTERNAL_ERROR, why, None))
}
