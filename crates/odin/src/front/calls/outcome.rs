//! Requests whose answer is wanted as one JSON document.

use std::sync::Arc;

use crate::call::{Message, Via};
use crate::front::{
    calls::{Context, Handle, Next, Submitted, Want, policy},
    error::Error,
    state::Front,
};
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
    let mut handle = match Handle::submit(front, context, request, Via::Pushpin).await {
        Ok(Submitted::Call(handle) | Submitted::Joined(handle)) => handle,
        Ok(Submitted::Answer(out)) => return Outcome::Answer(shown(out)),
        Ok(Submitted::Cancelled) => return Outcome::Cancelled,
        Err(error) => return Outcome::Refused(error.for_id(request.id)),
    };
    match handle.next(Want::Answer).await {
        Next::Answer(out) => Outcome::Answer(shown(out)),
        Next::Failed(error) => Outcome::Refused(error.for_id(request.id)),
        Next::Cancelled if context.era == Era::Stateless => {
            Outcome::Refused(Error::GivenUp.for_id(request.id))
        }
        Next::Cancelled | Next::Offered | Next::Events(..) => Outcome::Cancelled,
    }
}
