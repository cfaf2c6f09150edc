//! Calls are handed in.

use std::sync::Arc;
use std::sync::PoisonError;

use identity::Principal;
use serde_json::value::RawValue;

use super::handle::{AGAIN, Instead};
use super::order;
use crate::call::{Enqueue, Join, Message, Retry, Via, Whose, Withdraw};
use crate::front::{
    calls::{Context, Handle, policy, via},
    error::{Error, Result},
    state::Front,
};
use crate::id::CallId;
use crate::protocol::{Refusal, Request, jsonrpc};

/// In place of a request's number: nobody waits.
const NOBODY: u64 = u64::MAX;
/// How often a call that was not taken is withdrawn while the store does not answer.
const WATCH_TRIES: u32 = 240;

/// What became of a request that was handed in.
pub(crate) enum Submitted {
    Call(Handle),
    /// It repeats a call that still runs.
    Joined(Handle),
    /// It repeats a call that has ended.
    Answer(Message),
    /// The client's cancellation came first.
    Cancelled,
}

impl Handle {
    /// Counts the call, registers the request, and hands the call to a worker, or to the queue.
    ///
    /// # Errors
    /// Why there is no call: nothing waits, and nothing will run, but after [`Error::OutcomeUnknown`].
    pub(crate) async fn submit(
        front: &Arc<Front>,
        context: &Context,
        request: &Request<'_>,
        via: Via,
    ) -> Result<Submitted> {
        policy::permit(&front.config.policy, &context.caller.principal, request)?;
        let counted = count(front, &context.caller.principal)?;
        let retry = context.retry(front, request);
        let call = CallId::random();
        let mut handle = Self::register(front, call, counted);
        let order = order(front, context, call, request.raw, Some(request), via, handle.request)?;
        // Only the queue knows a repetition.
        let order = Box::new(order);
        let handed = if retry.is_none() { handle.dispatch(order) } else { Err(order) };
        let Err(order) = handed else { return Ok(Submitted::Call(handle)) };
        match handle.enqueue(*order).await? {
            None => Ok(Submitted::Call(handle)),
            Some(Instead::Cancelled) => Ok(Submitted::Cancelled),
            Some(Instead::Known { call, same }) => match retry.filter(|_| same) {
                Some(retry) => {
                    handle.call = call;
                    handle.join(&retry, request).await
                }
                None => {
                    handle.settle();
                    Err(Error::KeyReused)
                }
            },
        }
    }

    /// Joins the call that a request repeats.
    async fn join(mut self, retry: &Retry, request: &Request<'_>) -> Result<Submitted> {
        let (node, number) = self.place();
        let reply = match self.front.store.join(self.call, &retry.name, node, number).await {
            Ok(Join::Waits) => return Ok(Submitted::Joined(self)),
            Ok(Join::Done(out)) => Ok(Submitted::Answer(jsonrpc::with_id(&out, request.id.as_json()).into())),
            Ok(Join::Cancelled) => Err(Error::KeyCancelled),
            // It was forgotten in this very moment.
            Ok(Join::Unknown) => Err(Error::KeyExpired),
            Err(error) => Err(Error::NotBegun(Some(error))),
        };
        self.settle();
        reply
    }
}

/// Counts a call for its principal and organisation.
pub(crate) fn count(front: &Front, principal: &Principal) -> Result<Vec<String>> {
    let limits = &front.config.limits;
    let own = principal.key();
    let organisation = format!("{}|{}", principal.issuer, principal.organisation);
    let mut in_flight = front.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |key: &String| in_flight.get(key).copied().unwrap_or_default();
    if of(&own) >= limits.calls_of_principal {
        return Err(Error::TooManyWaiting(Whose::Principal));
    }
    if of(&organisation) >= limits.calls_of_organisation {
        return Err(Error::TooManyWaiting(Whose::Organisation));
    }
    let counted = vec![own, organisation];
    for key in &counted {
        *in_flight.entry(key.clone()).or_default() += 1;
    }
    Ok(counted)
}

/// Puts a notification into the queue; nobody waits for it.
pub(crate) async fn notify(front: &Arc<Front>, context: &Context, message: &RawValue) -> Result<()> {
    submit(front, context, message, None).await
}

/// Puts a message into the queue whose answer, if it has one, goes to the context's long-lived stream.
pub(crate) async fn submit(
    front: &Arc<Front>,
    context: &Context,
    message: &RawValue,
    request: Option<&Request<'_>>,
) -> Result<()> {
    if let Some(request) = request {
        policy::permit(&front.config.policy, &context.caller.principal, request)?;
    }
    let call = CallId::random();
    // How large the message is says nothing of who holds the stream that the answer goes to.
    let body = if context.stream.is_some() { 0 } else { context.body };
    let via = via(front, context.caller.entry_point, body);
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
        Ok(Enqueue::Full) => Err(Error::QueueFull),
        Ok(Enqueue::TooMany(whose)) => Err(Error::TooManyOpen(whose)),
        Ok(Enqueue::Unanswered) if request.is_some() => {
            let mut handle = Handle::register(front, call, Vec::new());
            handle.request = NOBODY;
            let settled = handle.settle_unanswered().await;
            handle.settle();
            settled
        }
        Ok(Enqueue::Unanswered) => Err(Error::NotBegun(None)),
        Err(error) => Err(Error::NotBegun(Some(error))),
    }
}

/// Withdraws a call of HTTP+SSE that no worker took in time. Nobody waits for such a call: what is said of it goes to
/// the session's stream. When this node ends before, the call stays in the queue for the next worker.
async fn watch(front: Arc<Front>, call: CallId, stream: String, id: Box<RawValue>) {
    tokio::time::sleep(front.config.limits.queue_patience).await;
    let mut error = Error::OutcomeUnknown(None);
    for _ in 0..WATCH_TRIES {
        error = match front.store.withdraw(call, &front.config.node, NOBODY).await {
            Ok(Withdraw::Running) => return,
            Ok(Withdraw::Withdrawn) => Error::NotTaken,
            Ok(Withdraw::Missing) => Error::Lost,
            Err(silent) => {
                error = Error::OutcomeUnknown(Some(silent));
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        break;
    }
    let refusal = Refusal::from(error);
    front.counters.refused(&refusal);
    say_refusal(&front, &stream, refusal.for_raw_id(&id)).await;
}

/// Sends a message to a long-lived stream, whoever holds it.
pub(crate) async fn say(front: &Front, channel: &str, message: Message) {
    // A stream that the store can't reach now ends with its connection.
    let _ = front.broadcaster.say(channel, message).await;
}

/// Refuses a request whose answer goes to a long-lived stream, as the stateful eras do.
pub(crate) async fn say_refusal(front: &Front, channel: &str, refusal: Refusal) {
    let body = refusal.in_session().body();
    say(front, channel, String::from_utf8_lossy(&body).into_owned().into()).await;
}
