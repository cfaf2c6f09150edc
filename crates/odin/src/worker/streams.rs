//! What Pushpin reports: which channels of calls have a subscriber.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use grip::Event;
use tokio::sync::mpsc;

use super::Shared;
use crate::call::{Input, Link, Send};
use crate::events::Stream;
use crate::id::{CallChannel, CallId};
use crate::protocol::Era;

/// After this time, in milliseconds, a subscription that no call of this worker answers for is looked into;
/// then again after twice the time, and so on up to a minute.
const STRAY_AFTER: u64 = 5_000;
const STRAY_LOOKS: u64 = 60_000;

/// The subscriptions of calls' channels.
#[derive(Default)]
pub(super) struct Streams {
    by_channel: BTreeMap<CallChannel, Subscription>,
    /// Those of streams that stand by themselves, and carry calls of HTTP+SSE: channel → Pushpin.
    long_lived: HashMap<String, usize>,
}

struct Subscription {
    pushpin: usize,
    /// When it is to be looked into, in milliseconds since the worker's start, and when after that.
    look: u64,
    pause: u64,
}

impl Streams {
    /// The subscriptions of one call, as the inputs that reported them.
    pub(super) fn of(&self, call: CallId) -> Vec<Input> {
        let all = CallChannel { call, number: 0 }..=CallChannel { call, number: u32::MAX };
        self.by_channel
            .range(all)
            .map(|(channel, at)| Input::Subscribed { pushpin: at.pushpin, channel: channel.number })
            .collect()
    }

    /// The Pushpin that holds a long-lived stream.
    pub(super) fn long_lived(&self, channel: &str) -> Option<usize> {
        self.long_lived.get(channel).copied()
    }
}

/// What a call sees of the long-lived stream that carries it: always the one channel that it has.
fn long_lived(pushpin: usize, subscribed: bool) -> Input {
    let channel = 1;
    if subscribed { Input::Subscribed { pushpin, channel } } else { Input::Unsubscribed { pushpin, channel } }
}

/// Passes on what the publisher reports.
pub(super) async fn listen(shared: Arc<Shared>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let now = shared.now();
        let mut state = shared.state();
        match event {
            Event::Up { pushpin } => {
                state.jobs.values().for_each(|job| job.input(Input::Link { pushpin, link: Link::Up }));
            }
            Event::Replayed { .. } => {}
            Event::Down { pushpin } => {
                state.streams.by_channel.retain(|_, at| at.pushpin != pushpin);
                state.streams.long_lived.retain(|_, at| *at != pushpin);
                state.jobs.values().for_each(|job| job.input(Input::Link { pushpin, link: Link::Down }));
            }
            Event::Subscribed { pushpin, channel } => {
                let Ok(channel) = channel.parse::<CallChannel>() else {
                    state.carried_by(&channel).for_each(|job| job.input(long_lived(pushpin, true)));
                    state.streams.long_lived.insert(channel, pushpin);
                    continue;
                };
                let subscription = Subscription { pushpin, look: now + STRAY_AFTER, pause: STRAY_AFTER };
                state.streams.by_channel.insert(channel, subscription);
                if let Some(job) = state.jobs.get(&channel.call) {
                    job.input(Input::Subscribed { pushpin, channel: channel.number });
                }
            }
            Event::Unsubscribed { pushpin, channel } => {
                let Ok(channel) = channel.parse::<CallChannel>() else {
                    state.carried_by(&channel).for_each(|job| job.input(long_lived(pushpin, false)));
                    if state.streams.long_lived.get(&channel) == Some(&pushpin) {
                        state.streams.long_lived.remove(&channel);
                    }
                    continue;
                };
                if state.streams.by_channel.get(&channel).is_some_and(|at| at.pushpin == pushpin) {
                    state.streams.by_channel.remove(&channel);
                }
                if let Some(job) = state.jobs.get(&channel.call) {
                    job.input(Input::Unsubscribed { pushpin, channel: channel.number });
                }
            }
        }
    }
}

/// Ends streams that nobody will ever write to: holds that opened too late, or whose call is lost. Without
/// this they would hang on keep-alives for ever.
pub(super) async fn end_orphaned(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = shared.now();
        let due: Vec<(CallChannel, usize)> = {
            let mut state = shared.state();
            if !shared.is_settled(&state) {
                continue;
            }
            let due = state.streams.by_channel.iter_mut().filter(|(_, at)| now >= at.look);
            due.map(|(channel, at)| {
                at.pause = (at.pause * 2).min(STRAY_LOOKS);
                at.look = now + at.pause;
                (*channel, at.pushpin)
            })
            .collect()
        };
        for (channel, pushpin) in due {
            if let Ok(Some(orphaned)) = shared.store.orphaned(channel).await {
                let mut sends = Vec::new();
                if let Some(final_message) = orphaned.final_message {
                    sends.extend((1..=orphaned.event_count).map(Send::Burn));
                    sends.push(Send::Final(orphaned.event_count.saturating_add(1), final_message));
                }
                sends.push(Send::Close);
                let items =
                    sends.iter().map(|send| Stream::lost(Era::Stateless).item(channel, send)).collect();
                if let Some(publisher) = &shared.publisher {
                    tracing::info!(%channel, "ending a stream that no call answers for");
                    // A failure is no loss: the channel is looked into again.
                    let _ = publisher.send(pushpin, items).await;
                }
            }
        }
    }
}
