//! A request that a worker answers, in the best form that there is.

use std::sync::Arc;

use axum::response::Response;

use crate::call::Via;
use crate::front::{
    calls::{Context, Handle, Outcome, Submitted, outcome, policy, via},
    http::no_answer,
    state::{Cache, Counters, Front},
    streams::{self, Asked},
};
use crate::protocol::{Request, Revision};

/// Runs a request and answers it in the best form that there is.
pub(crate) async fn answer(front: &Arc<Front>, context: Context, request: &Request<'_>) -> Response {
    let revision = context.revision;
    let names = Cache::names(&front.config.server, &context.caller.principal, revision, request);
    if let Some(out) = names.as_ref().and_then(|names| front.cache.get(names, request)) {
        Counters::count(&front.counters.cached);
        return front.json(revision, out);
    }
    if policy::looks_through(&front.config.policy, &request.method) {
        // It is no stream: all of it is looked through.
        let outcome = outcome(front, &context, request).await;
        if let (Outcome::Answer(out), Some(names)) = (&outcome, &names) {
            front.cache.put(names, &request.method, out);
        }
        return answered(front, revision, outcome);
    }
    // While a link is down nothing can be held: a slow call then goes through this backend.
    let via = match via(front, context.caller.entry_point, context.body) {
        Via::Pushpin if !front.links_stand() => Via::Backend,
        via => via,
    };
    match Handle::submit(front, &context, request, via).await {
        Ok(Submitted::Call(handle)) => {
            let asked = Asked { context: &context, request, names };
            streams::of(via).answer(front, asked, handle).await
        }
        Ok(Submitted::Joined(handle)) => streams::joined(front, revision, handle, request).await,
        Ok(Submitted::Answer(out)) => front.json(revision, out),
        Ok(Submitted::Cancelled) => no_answer(),
        Err(error) => front.refuse_in(revision, error.for_id(request.id)),
    }
}

/// The answer to a request whose outcome is known.
pub(crate) fn answered(front: &Front, revision: Revision, outcome: Outcome) -> Response {
    match outcome {
        Outcome::Answer(out) => front.json(revision, out),
        Outcome::Cancelled => no_answer(),
        Outcome::Refused(refusal) => front.refuse_in(revision, refusal),
    }
}
