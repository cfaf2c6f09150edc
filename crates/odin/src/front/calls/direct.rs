//! Calls that are handed straight to a worker, until the record counts.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::{Handle, Next};
use crate::call::direct::{Handed, Heard, Left, Next as Step};
use crate::call::{Order, Registrant};
use crate::front::{
    error::Error,
    state::{Counters, Front},
};
use crate::link::DirectCall;

/// How long to wait before the store is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(100);

/// A call on a link.
pub(super) struct Direct {
    handed: Handed,
    link: DirectCall,
    order: Order,
}

impl Direct {
    /// What is left of the call for a client that is gone. True: the record is to be given up.
    pub(super) fn client_gone(&mut self) -> bool {
        match self.handed.client_gone() {
            Left::Cancel => {
                self.link.cancel();
                false
            }
            Left::Abandon => true,
            Left::Nothing => false,
        }
    }

    /// The client has cancelled the call by a notification to this backend. True: nothing is left to wait for.
    fn cancelled(&mut self) -> bool {
        let left = self.handed.cancelled();
        if left == Left::Cancel {
            self.link.cancel();
        }
        left == Left::Cancel
    }

    /// Waits until the record may have changed.
    pub(super) async fn hint(direct: &mut Option<Self>) {
        while let Some(call) = direct {
            match call.link.heard().await {
                Heard::Hint | Heard::Registered => return,
                // What was hinted last may be lost with it.
                Heard::Broken => {
                    *direct = None;
                    return;
                }
                Heard::Busy | Heard::Answer(_) | Heard::AnswerInDoubt(_) => {}
            }
        }
        std::future::pending().await
    }
}

/// What is left of the time after which a call that runs is written down.
fn left(front: &Front, started: Instant) -> Duration {
    front.config.hold_after.saturating_sub(started.elapsed())
}

impl Handle {
    /// Hands the call to a worker.
    ///
    /// # Errors
    /// The order, when there are no links, no worker has a free slot, or the call is too long for a link: it is one for
    /// the queue, which alone is fair.
    pub(super) fn dispatch(&mut self, order: Box<Order>) -> Result<(), Box<Order>> {
        let left = left(&self.front, self.started);
        let links = self.front.config.links.as_ref();
        let Some(link) = links.and_then(|links| links.dispatch(self.call, &order, left, None)) else {
            return Err(order);
        };
        Counters::count(&self.front.counters.direct);
        let names = order.session.as_deref().zip(order.request_id.as_deref());
        self.name = names.map(|(session, id)| (session.to_owned(), id.to_owned()));
        if let Some(name) = &self.name {
            self.front.waiters.lock().name(name.clone(), self.request);
        }
        self.direct = Some(Direct { handed: Handed::new(order.era), link, order: *order });
        Ok(())
    }

    /// Waits for what comes of a call that only its link knows of. None: from now on the record counts.
    pub(super) async fn next_direct(&mut self) -> Option<Next> {
        loop {
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let notify = self.notify.clone();
            let direct = self.direct.as_mut()?;
            match direct.handed.next(now) {
                Step::Wait { .. } => tokio::select! {
                    heard = direct.link.heard() => direct.handed.heard(heard),
                    () = notify.notified() => {
                        if self.waiter_is_cancelled() && self.direct.as_mut().is_some_and(Direct::cancelled) {
                            self.settle();
                            return Some(Next::Cancelled);
                        }
                    }
                },
                Step::Dispatch => self.dispatch_again(),
                Step::Enqueue => {
                    let order = self.direct.take()?.order;
                    match self.enqueue(order).await {
                        Ok(None) => return None,
                        Ok(Some(_)) => return Some(Next::Cancelled),
                        Err(error) => return Some(Next::Failed(error)),
                    }
                }
                Step::Adopt => {
                    let (store, worker) = (self.front.store.clone(), direct.link.worker().to_owned());
                    let reply = store.register(self.call, &direct.order, &worker, Registrant::Backend).await;
                    let Err(error) = reply else {
                        direct.handed.adopted(true);
                        continue;
                    };
                    tracing::warn!(%error, call = %self.call, "a call whose link broke can't be written down");
                    direct.handed.adopted(false);
                    tokio::time::sleep(AGAIN).await;
                }
                Step::Look => return None,
                Step::Answer(out) => {
                    self.settle();
                    return Some(Next::Answer(out));
                }
                Step::Fail | Step::Over => return Some(Next::Failed(Error::OutcomeUnknown(None))),
            }
        }
    }

    /// One more worker for a call that the first refused.
    fn dispatch_again(&mut self) {
        let left = left(&self.front, self.started);
        let (Some(links), Some(direct)) = (&self.front.config.links, &mut self.direct) else { return };
        let busy = direct.link.worker().to_owned();
        let link = links.dispatch(self.call, &direct.order, left, Some(&busy));
        direct.handed.dispatched(link.is_some());
        if let Some(link) = link {
            direct.link = link;
        }
    }
}
