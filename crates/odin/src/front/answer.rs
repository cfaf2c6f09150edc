//! From a request to its answer.

use std::sync::{Arc, PoisonError};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use identity::{Principal, Road};
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use super::access::Caller;
use super::cache::Cache;
use super::waiting::{AGAIN, Look, Waiting, given_up, not_taken, silent};
use super::{Counters, Front, Handover, hold, into_axum, policy, refuse_in, retry, standing, stream};
use crate::call::{Enqueue, Job, Join, Message, Offer, Order, Retry, Via, Whose, Withdraw};
use crate::id::{CallId, Ticket};
use crate::protocol::{self, Era, Refusal, Request, Revision, sse};

/// In place of a request's number: nobody waits.
const NOBODY: u64 = u64::MAX;
/// How often a call that was not taken is withdrawn while the store does not answer.
const WATCH_TRIES: u32 = 240;

/// What a call needs beside the client's message.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) caller: Caller,
    pub(super) era: Era,
    pub(super) revision: Revision,
    /// Key of the session, and `params` of its `initialize`.
    pub(super) session: Option<(String, Box<RawValue>)>,
    pub(super) log_level: Option<String>,
    /// Channel of the standing stream that the answer goes to, in HTTP+SSE.
    pub(super) stream: Option<String>,
    /// The client's `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// `Mcp-Param-*` of a modern tool call.
    pub(super) headers: Vec<(String, String)>,
    /// Bytes of the request's body.
    pub(super) body: usize,
}

impl Context {
    fn retry(&self, front: &Front, request: &Request<'_>) -> Option<Retry> {
        let key = self.key.as_deref()?;
        let name = request.params.name.as_deref().unwrap_or_default();
        let principal = self.caller.principal.key();
        Some(Retry {
            name: retry::name(&[&principal, &front.config.server, &request.method, name, key]),
            print: retry::print(request.raw),
        })
    }
}

/// Who holds a stream, if the answer becomes one.
pub(super) fn via(front: &Front, road: Road, body: usize) -> Via {
    let limits = &front.config.limits;
    let held = match road {
        Road::Hermod => body <= limits.held_body,
        Road::Bifrost => front.config.handover != Handover::None && body <= limits.handover_body,
        Road::Direct => false,
    };
    if held && front.publisher.is_some() { Via::Pushpin } else { Via::Backend }
}

/// How a call ended, for who wants one JSON document.
pub(super) enum Outcome {
    Answer(Message),
    /// The client cancelled it, in a session: there is no answer.
    Cancelled,
    Refused(Refusal),
}

/// Runs a request and answers it in the best form that there is.
pub(super) async fn answer(front: &Arc<Front>, context: Context, request: &Request<'_>) -> Response {
    if policy::looks_through(&front.config.policy, &request.method) {
        return listed(front, &context, request).await;
    }
    // While a link is down nothing can be held: a slow call then goes through this backend.
    let via = match via(front, context.caller.road, context.body) {
        Via::Pushpin if !front.links_stand() => Via::Backend,
        via => via,
    };
    let revision = context.revision;
    let refused = |refusal: Refusal| refuse_in(front, revision, refusal.for_id(request.id));
    let names = Cache::names(&front.config.server, &context.caller.principal, revision, request);
    if let Some(out) = names.as_ref().and_then(|names| front.cache.get(names, request)) {
        Counters::count(&front.counters.cached);
        return json(front, revision, out);
    }
    let mut waiting = match begin(front, &context, request, via).await {
        Ok(Begun::Waiting(waiting)) => waiting,
        Ok(Begun::Joined(waiting)) => return stream::joined(front, revision, waiting, request).await,
        Ok(Begun::Answer(out)) => return json(front, revision, out),
        Ok(Begun::Cancelled) => return no_answer(),
        Err(refusal) => return refused(refusal),
    };
    if via == Via::Backend {
        return stream::answer(front, context.era, revision, waiting, request, names.as_ref()).await;
    }
    let ticket = Ticket::random();
    match wait(front, &mut waiting, Some(ticket)).await {
        Waited::Answer(out) => {
            if let Some(names) = &names {
                front.cache.put(names, &request.method, &out);
            }
            json(front, revision, out)
        }
        Waited::Cancelled if context.era == Era::Modern => refused(given_up()),
        Waited::Cancelled => no_answer(),
        Waited::Refused(refusal) => refused(refusal),
        Waited::Offered => {
            Counters::count(&front.counters.held);
            match context.caller.road {
                Road::Hermod => match front.store.hold(ticket, &context.caller.assertion).await {
                    Ok(Some(held)) => hold::held_response(&held, revision),
                    // The call goes on, or has ended.
                    _ => refused(super::waiting::lost()),
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
        return json(front, context.revision, out);
    }
    match outcome(front, context, request).await {
        Outcome::Answer(out) => {
            if let Some(names) = &names {
                front.cache.put(names, &request.method, &out);
            }
            json(front, context.revision, out)
        }
        Outcome::Cancelled => no_answer(),
        Outcome::Refused(refusal) => refuse_in(front, context.revision, refusal),
    }
}

/// Runs a request and waits for its answer; no stream. Lists show what the caller may use.
pub(super) async fn outcome(front: &Arc<Front>, context: &Context, request: &Request<'_>) -> Outcome {
    let (rules, caller) = (&front.config.policy, &context.caller.principal);
    let shown = |out: Message| policy::shown(rules, caller, &request.method, &out);
    let mut waiting = match begin(front, context, request, Via::Pushpin).await {
        Ok(Begun::Waiting(waiting) | Begun::Joined(waiting)) => waiting,
        Ok(Begun::Answer(out)) => return Outcome::Answer(shown(out)),
        Ok(Begun::Cancelled) => return Outcome::Cancelled,
        Err(refusal) => return Outcome::Refused(refusal.for_id(request.id)),
    };
    match wait(front, &mut waiting, None).await {
        Waited::Answer(out) => Outcome::Answer(shown(out)),
        Waited::Cancelled if context.era == Era::Modern => Outcome::Refused(given_up().for_id(request.id)),
        Waited::Cancelled | Waited::Offered => Outcome::Cancelled,
        Waited::Refused(refusal) => Outcome::Refused(refusal.for_id(request.id)),
    }
}

/// Puts a notification into the queue; nobody waits for it.
pub(super) async fn notify(front: &Arc<Front>, context: &Context, message: &RawValue) -> Result<(), Refusal> {
    submit(front, context, message, None).await
}

/// Puts a message into the queue whose answer, if it has one, goes to the context's standing stream.
pub(super) async fn submit(
    front: &Arc<Front>,
    context: &Context,
    message: &RawValue,
    request: Option<&Request<'_>>,
) -> Result<(), Refusal> {
    if let Some(request) = request {
        policy::permit(&front.config.policy, &context.caller.principal, request)?;
    }
    let call = CallId::random();
    // How large the message is says nothing of who holds the stream that the answer goes to.
    let body = if context.stream.is_some() { 0 } else { context.body };
    let via = via(front, context.caller.road, body);
    let order = order(front, context, call, message, request, via, NOBODY);
    match front.store.enqueue(call, order?).await {
        Ok(Enqueue::Accepted) => {
            if let (Some(request), Some(stream)) = (request, &context.stream) {
                let watch = watch(front.clone(), call, stream.clone(), request.id.raw().to_owned());
                let ended = front.ended.clone();
                tokio::spawn(async move { ended.run_until_cancelled(watch).await });
            }
            Ok(())
        }
        Ok(Enqueue::Cancelled | Enqueue::Known { .. }) => Ok(()),
        Ok(Enqueue::Full) => Err(full()),
        Ok(Enqueue::TooMany(whose)) => Err(too_many(whose)),
        Ok(Enqueue::Unanswered) if request.is_some() => {
            let mut waiting = Waiting::register(front, call, Vec::new());
            waiting.request = NOBODY;
            let settled = waiting.settle_unanswered().await;
            waiting.settle();
            settled
        }
        Ok(Enqueue::Unanswered) | Err(_) => Err(silent()),
    }
}

/// Withdraws a call of HTTP+SSE that no worker took in time. Nobody waits for such a call: what is said of it goes to
/// the session's stream. When this node ends before, the call stays in the queue for the next worker.
async fn watch(front: Arc<Front>, call: CallId, stream: String, id: Box<RawValue>) {
    tokio::time::sleep(front.config.limits.queue_patience).await;
    for _ in 0..WATCH_TRIES {
        match front.store.withdraw(call, &front.config.node, NOBODY).await {
            Ok(Withdraw::Begun) => return,
            Ok(said) => {
                let refusal = if said == Withdraw::Withdrawn { not_taken() } else { super::waiting::lost() };
                front.counters.refused(&refusal);
                return standing::say_refusal(&front, &stream, refusal.for_raw_id(&id)).await;
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// One JSON document.
pub(super) fn json(front: &Front, revision: Revision, out: Message) -> Response {
    Counters::count(&front.counters.json);
    let status = protocol::answer_status(revision, out.as_bytes());
    into_axum(protocol::json_response(status, Bytes::copy_from_slice(out.as_bytes())))
}

/// The answer to a cancelled request: a stream that ends without a message.
pub(super) fn no_answer() -> Response {
    let mut response = StatusCode::OK.into_response();
    sse::stream_headers(response.headers_mut());
    response
}

fn session_key(context: &Context) -> Option<&str> {
    context.session.as_ref().map(|(key, _)| key.as_str())
}

/// What became of a request that was handed in.
enum Begun {
    Waiting(Waiting),
    /// It repeats a call that still runs.
    Joined(Waiting),
    /// It repeats a call that has ended.
    Answer(Message),
    /// The client's cancellation came first.
    Cancelled,
}

/// Counts the call, registers the request, and enqueues.
async fn begin(
    front: &Arc<Front>,
    context: &Context,
    request: &Request<'_>,
    via: Via,
) -> Result<Begun, Refusal> {
    policy::permit(&front.config.policy, &context.caller.principal, request)?;
    let counted = count(front, &context.caller.principal)?;
    let retry = context.retry(front, request);
    let call = CallId::random();
    let mut waiting = Waiting::register(front, call, counted);
    let order = order(front, context, call, request.raw, Some(request), via, waiting.request)?;
    match front.store.enqueue(call, order).await {
        Ok(Enqueue::Accepted) => Ok(Begun::Waiting(waiting)),
        Ok(Enqueue::Cancelled) => {
            waiting.settle();
            Ok(Begun::Cancelled)
        }
        Ok(Enqueue::Full) => {
            waiting.settle();
            Err(full())
        }
        Ok(Enqueue::TooMany(whose)) => {
            waiting.settle();
            Err(too_many(whose))
        }
        Ok(Enqueue::Known { call, same }) => {
            waiting.call = call;
            match retry.filter(|_| same) {
                Some(retry) => join(front, waiting, &retry, request).await,
                None => {
                    waiting.settle();
                    Err(retry::reused())
                }
            }
        }
        Ok(Enqueue::Unanswered) => waiting.settle_unanswered().await.map(|()| Begun::Waiting(waiting)),
        Err(error) => {
            waiting.settle();
            tracing::warn!(%error, "a call can't be enqueued");
            Err(silent())
        }
    }
}

/// Joins the call that a request repeats.
async fn join(
    front: &Arc<Front>,
    mut waiting: Waiting,
    retry: &Retry,
    request: &Request<'_>,
) -> Result<Begun, Refusal> {
    let reply = front.store.join(waiting.call, &retry.name, &front.config.node, waiting.request).await;
    if !matches!(reply, Ok(Join::Waits)) {
        waiting.settle();
    }
    match reply {
        Ok(Join::Waits) => Ok(Begun::Joined(waiting)),
        Ok(Join::Done(out)) => Ok(Begun::Answer(retry::under_id(&out, request.id.as_json()))),
        Ok(Join::Cancelled) => Err(retry::cancelled()),
        // It was forgotten in this very moment.
        Ok(Join::Unknown) => Err(Refusal::unavailable("The call has just expired. Ask again.", 1)),
        Err(_) => Err(silent()),
    }
}

fn full() -> Refusal {
    Refusal::unavailable("The queue is full. Try again in a few seconds.", 5)
}

fn too_many(whose: Whose) -> Refusal {
    Refusal::too_many(
        match whose {
            Whose::Principal => {
                "You have too many calls that are queued, running or not yet delivered. Wait for some to end."
            }
            Whose::Organisation => {
                "Your organisation has too many calls that are queued, running or not yet delivered. Wait for some to end."
            }
        },
        1,
    )
}

/// Counts a call for its principal and organisation.
pub(super) fn count(front: &Front, principal: &Principal) -> Result<Vec<String>, Refusal> {
    let limits = &front.config.limits;
    let own = principal.key();
    let organisation = format!("{}|{}", principal.issuer, principal.organisation);
    let mut in_flight = front.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |key: &String| in_flight.get(key).copied().unwrap_or_default();
    if of(&own) >= limits.calls_of_principal {
        return Err(Refusal::too_many(
            "You have too many requests that wait at this node. Wait for some to end.",
            1,
        ));
    }
    if of(&organisation) >= limits.calls_of_organisation {
        return Err(Refusal::too_many("Your organisation has too many requests that wait at this node.", 1));
    }
    let counted = vec![own, organisation];
    for key in &counted {
        *in_flight.entry(key.clone()).or_default() += 1;
    }
    Ok(counted)
}

fn order(
    front: &Front,
    context: &Context,
    call: CallId,
    message: &RawValue,
    request: Option<&Request<'_>>,
    via: Via,
    number: u64,
) -> Result<Order, Refusal> {
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
        task: None,
        message: message.to_owned(),
    };
    let job = to_raw_value(&job).map_err(|_| Refusal::invalid("The message can't be stored."))?;
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
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32603,\"message\":\"The worker that ran \
         this call was lost, so its outcome is unknown. Check whether it took effect before you ask \
         again.\"}}}}"
    )
}

enum Waited {
    Answer(Message),
    Offered,
    Cancelled,
    Refused(Refusal),
}

/// Waits until the call is answered, or, with a ticket, until the client is to be handed over.
async fn wait(front: &Arc<Front>, waiting: &mut Waiting, ticket: Option<Ticket>) -> Waited {
    let mut look = Instant::now() + if ticket.is_some() { front.config.hold_after } else { AGAIN };
    // One for the whole wait: an offer whose reply was lost is asked for again under it.
    let shown = ticket.unwrap_or_else(Ticket::random);
    loop {
        waiting.hint_until(look).await;
        let may_hold = ticket.is_some() && front.can_hold();
        let reply =
            front.store.offer(waiting.call, &front.config.node, waiting.request, shown, may_hold).await;
        look = Instant::now() + AGAIN;
        let seen = match reply {
            Ok(Offer::Done(out)) => {
                waiting.settle();
                return Waited::Answer(out);
            }
            Ok(Offer::Offered) => {
                front.holds.count();
                waiting.settle();
                return Waited::Offered;
            }
            Ok(Offer::Cancelled) => {
                waiting.settle();
                return Waited::Cancelled;
            }
            Ok(Offer::Queued) => Look::Queued,
            Ok(Offer::Wait) => Look::Running,
            Ok(Offer::Missing) => Look::Missing,
            Err(error) => {
                tracing::warn!(%error, "the store is silent");
                Look::Silent
            }
        };
        if let Some(refusal) = waiting.weigh(seen).await {
            return Waited::Refused(refusal);
        }
    }
}
