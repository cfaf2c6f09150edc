//! A request that a worker answers, in the best form that there is.

use std::sync::Arc;

use axum::response::Response;
use identity::EntryPoint;

use crate::call::Via;
use crate::front::{
    calls::{
        Context, Outcome, Submitted, Waited, begin, outcome, policy, refusals, refusals::given_up, via, wait,
    },
    http::no_answer,
    state::{Cache, Counters, Front},
    streams::{hold, own},
};
use crate::id::Ticket;
use crate::protocol::{Era, Refusal, Request};

/// Runs a request and answers it in the best form that there is.
pub(crate) async fn answer(front: &Arc<Front>, context: Context, request: &Request<'_>) -> Response {
    if policy::looks_through(&front.config.policy, &request.method) {
        return listed(front, &context, request).await;
    }
    // While a link is down nothing can be held: a slow call then goes through this backend.
    let via = match via(front, context.caller.entry_point, context.body) {
        Via::Pushpin if !front.links_stand() => Via::Backend,
        via => via,
    };
    let revision = context.revision;
    let refused = |refusal: Refusal| front.refuse_in(revision, refusal.for_id(request.id));
    let names = Cache::names(&front.config.server, &context.caller.principal, revision, request);
    if let Some(out) = names.as_ref().and_then(|names| front.cache.get(names, request)) {
        Counters::count(&front.counters.cached);
        return front.json(revision, out);
    }
    let mut waiting = match begin(front, &context, request, via).await {
        Ok(Submitted::Waiting(waiting)) => waiting,
        Ok(Submitted::Joined(waiting)) => return own::joined(front, revision, waiting, request).await,
        Ok(Submitted::Answer(out)) => return front.json(revision, out),
        Ok(Submitted::Cancelled) => return no_answer(),
        Err(refusal) => return refused(refusal),
    };
    if via == Via::Backend {
        return own::answer(front, context.era, revision, waiting, request, names.as_ref()).await;
    }
    let ticket = Ticket::random();
    match wait(front, &mut waiting, Some(ticket)).await {
        Waited::Answer(out) => {
            if let Some(names) = &names {
                front.cache.put(names, &request.method, &out);
            }
            front.json(revision, out)
        }
        Waited::Cancelled if context.era == Era::Stateless => refused(given_up()),
        Waited::Cancelled => no_answer(),
        Waited::Refused(refusal) => refused(refusal),
        Waited::Offered => {
            Counters::count(&front.counters.held);
            match context.caller.entry_point {
                EntryPoint::Hermod => match front.store.hold(ticket, &context.caller.assertion).await {
                    Ok(Some(held)) => hold::held_response(&held, revision),
                    // The call goes on, or has ended.
                    _ => refused(refusals::lost()),
                },
                _ => hold::handover_response(front.config.handover, ticket),
            }
        }
    }
}

/// The answer to a list that shows each caller something else. It is no stream: all of it is looked through.
async fn listed(front: &Arc<Front>, context: &Context, request: &Request<'_>) -> Response {
    let names = Cache::names(&front.config.server, &context.caller.principal, context.revision, request);
    if let Some(out) = names.as_ref().and_then(|names| front.cache.get(names, request)) {
        Counters::count(&front.counters.cached);
        return front.json(context.revision, out);
    }
    match outcome(front, context, request).await {
        Outcome::Answer(out) => {
            if let Some(names) = &names {
                front.cache.put(names, &request.method, &out);
            }
            front.json(context.revision, out)
        }
        Outcome::Cancelled => no_answer(),
        Outcome::Refused(refusal) => front.refuse_in(context.revision, refusal),
    }
}
