//! Calls are waited for.

use std::sync::Arc;

use tokio::time::Instant;

use crate::call::{Message, Offer, Via};
use crate::front::{
    calls::{AGAIN, Context, Look, Submitted, Waiting, begin, policy, refusals::given_up},
    state::Front,
};
use crate::id::Ticket;
use crate::protocol::{Era, Refusal, Request};

/// How a call ended, for who wants one JSON document.
pub(crate) enum Outcome {
    Answer(Message),
    /// The client cancelled it, in a session: there is no answer.
    Cancelled,
    Refused(Refusal),
}

/// Runs a request and waits for its answer; no stream. Lists show what the caller may use.
pub(crate) async fn outcome(front: &Arc<Front>, context: &Context, request: &Request<'_>) -> Outcome {
    let context = &Context { answer_only: true, ..context.clone() };
    let (rules, caller) = (&front.config.policy, &context.caller.principal);
    let shown = |out: Message| policy::shown(rules, caller, &request.method, &out);
    let mut waiting = match begin(front, context, request, Via::Pushpin).await {
        Ok(Submitted::Waiting(waiting) | Submitted::Joined(waiting)) => waiting,
        Ok(Submitted::Answer(out)) => return Outcome::Answer(shown(out)),
        Ok(Submitted::Cancelled) => return Outcome::Cancelled,
        Err(refusal) => return Outcome::Refused(refusal.for_id(request.id)),
    };
    match wait(front, &mut waiting, None).await {
        Waited::Answer(out) => Outcome::Answer(shown(out)),
        Waited::Cancelled if context.era == Era::Stateless => Outcome::Refused(given_up().for_id(request.id)),
        Waited::Cancelled | Waited::Offered => Outcome::Cancelled,
        Waited::Refused(refusal) => Outcome::Refused(refusal.for_id(request.id)),
    }
}

pub(crate) enum Waited {
    Answer(Message),
    Offered,
    Cancelled,
    Refused(Refusal),
}

/// Waits until the call is answered, or, with a ticket, until the client is to be handed over.
pub(crate) async fn wait(front: &Arc<Front>, waiting: &mut Waiting, ticket: Option<Ticket>) -> Waited {
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
