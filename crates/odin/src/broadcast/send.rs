//! The way out: Pushpins and the bus.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use futures::{StreamExt, stream};
use grip::{Item, MIN_CLOSE_DELAY, Payload, Publisher, SendError};

use super::streams::{self, REQUIRED, SKIPPED};
use super::{Broadcaster, Inner, text};
use crate::call::Message;
use crate::events::{is_carried, not_carried};
use crate::store;

/// Commands of one notice that are under way to the store at once.
const AT_ONCE: usize = 64;
/// Items of one send.
const BATCH: usize = 256;
/// How long a Pushpin is tried that can't be written to, and how often.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// Sends that may wait for one Pushpin, and bytes of their contents.
const LATE: usize = 1024;
const LATE_BYTES: usize = 64 * 1024 * 1024;

/// What could not be written to one Pushpin yet. What comes later waits behind it, so that the order is kept.
#[derive(Default)]
pub(super) struct Late(Mutex<VecDeque<Waiting>>);

#[derive(Clone)]
struct Waiting {
    items: Vec<Item>,
    since: Instant,
    /// The items end streams.
    end: bool,
}

impl Waiting {
    fn bytes(&self) -> usize {
        let of = |item: &Item| if let Payload::Content(content) = &item.payload { content.len() } else { 0 };
        self.items.iter().map(of).sum()
    }
}

impl Late {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the queue; `None` when it is full, else whether it was empty, and nobody works on it.
    fn push(&self, waiting: Waiting) -> Option<bool> {
        let mut queue = self.queue();
        let bytes: usize = queue.iter().map(Waiting::bytes).sum();
        if queue.len() >= LATE || bytes + waiting.bytes() > LATE_BYTES {
            return None;
        }
        queue.push_back(waiting);
        Some(queue.len() == 1)
    }

    /// Takes the first away; gives the next.
    fn advance(&self) -> Option<Waiting> {
        let mut queue = self.queue();
        queue.pop_front();
        queue.front().cloned()
    }
}

/// Something for one channel.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) channel: String,
    required: Option<String>,
    /// Names of streams that are left out, separated by commas.
    skipped: String,
    content: String,
    end: bool,
}

impl Outgoing {
    pub(super) fn content(channel: String, required: Option<String>, content: String) -> Self {
        Self { channel, required, skipped: String::new(), content, end: false }
    }

    pub(super) fn bytes(&self) -> usize {
        self.channel.len() + self.content.len()
    }

    /// The same for all streams of the channel but some.
    pub(super) fn without(self, skipped: &[&str]) -> Self {
        Self { skipped: skipped.join(","), ..self }
    }

    /// The same for one stream alone, if that also has the channel `with`, where one is named.
    pub(super) fn to_one(&self, channel: String, with: Option<String>) -> Self {
        let required = self.required.clone().or(with);
        Self { channel, required, skipped: String::new(), content: self.content.clone(), end: self.end }
    }

    /// A last word, if any, and the end of the channel's streams.
    pub(super) fn end(channel: String, content: String) -> Self {
        Self { channel, required: None, skipped: String::new(), content, end: true }
    }
}

impl Broadcaster {
    pub(super) async fn send(&self, out: &[Outgoing]) -> store::Result<()> {
        let (published, cast) = join(self.publish(out), self.cast(out)).await;
        let () = published;
        cast
    }

    /// Sends an answer on a channel that carries messages as they are: of one stream, whoever holds it. To Pushpin, in
    /// place of one that is too large for it, goes an error.
    ///
    /// # Errors
    /// [`store::Unavailable`]: a stream that a backend holds may not get it.
    pub(crate) async fn say(&self, channel: &str, message: Message) -> store::Result<()> {
        let carried = if is_carried(&message) { message.clone() } else { not_carried(&message) };
        let out = [Outgoing::content(channel.to_owned(), None, text::event(&carried))];
        join(self.publish(&out), self.inner.store.cast(channel, message)).await.1
    }

    pub(super) async fn publish(&self, out: &[Outgoing]) {
        let Some(publisher) = &self.inner.publisher else { return };
        let contents = out.iter().filter(|out| !out.content.is_empty()).map(|out| {
            // The same on all Pushpins, and when it is sent again: no stream gets it twice.
            let id = format!("{:032x}", rand::random::<u128>());
            let item = Item::content(&out.channel, out.content.clone()).id(id);
            let item = out.required.iter().fold(item, |item, required| item.meta(REQUIRED, required));
            if out.skipped.is_empty() { item } else { item.meta(SKIPPED, &out.skipped) }
        });
        let contents: Vec<Item> = contents.collect();
        self.deliver(publisher, &contents, false).await;
        let ends: Vec<Item> = out.iter().filter(|out| out.end).map(|out| Item::close(&out.channel)).collect();
        if !ends.is_empty() {
            tokio::time::sleep(MIN_CLOSE_DELAY).await;
            self.deliver(publisher, &ends, true).await;
        }
    }

    async fn deliver(&self, publisher: &Publisher, items: &[Item], end: bool) {
        for batch in items.chunks(BATCH) {
            let sends =
                (0..publisher.pushpins()).map(|pushpin| self.deliver_to(publisher, pushpin, batch, end));
            join_all(sends).await;
        }
    }

    /// Writes items to one Pushpin; if it can't be written to, goes on trying in the background.
    async fn deliver_to(&self, publisher: &Publisher, pushpin: usize, items: &[Item], end: bool) {
        let Some(late) = self.inner.late.get(pushpin) else { return };
        let since = Instant::now();
        let behind = !late.queue().is_empty();
        if !behind && attempt(&self.inner, publisher, pushpin, items, since).await {
            return;
        }
        match late.push(Waiting { items: items.to_vec(), since, end }) {
            Some(true) => {
                tokio::spawn(catch_up(self.inner.clone(), publisher.clone(), pushpin));
            }
            Some(false) => {}
            None => tracing::warn!(pushpin, "too many notices wait for a Pushpin; one is dropped"),
        }
    }

    async fn cast(&self, out: &[Outgoing]) -> store::Result<()> {
        let casts: Vec<(String, Message)> = out
            .iter()
            .map(|out| {
                let item = streams::Item {
                    required: out.required.as_deref().map(Cow::Borrowed),
                    skipped: Cow::Borrowed(&out.skipped),
                    content: Cow::Borrowed(&out.content),
                    end: out.end,
                };
                // It holds text alone: that has a form in JSON.
                let text = serde_json::to_string(&item).unwrap_or_default();
                (out.channel.clone(), text.as_str().into())
            })
            .collect();
        let store = &self.inner.store;
        let casts = stream::iter(casts).map(|(channel, text)| {
            let store = store.clone();
            async move { store.cast(&channel, text).await }
        });
        let casts: Vec<store::Result<()>> = casts.buffered(AT_ONCE).collect().await;
        casts.into_iter().collect()
    }
}

/// Writes what is late for one Pushpin, in its order, until nothing is.
async fn catch_up(inner: Arc<Inner>, publisher: Publisher, pushpin: usize) {
    let Some(late) = inner.late.get(pushpin) else { return };
    let mut next = late.queue().front().cloned();
    while let Some(Waiting { items, since, end }) = next {
        if end {
            tokio::time::sleep(MIN_CLOSE_DELAY).await;
        }
        while !attempt(&inner, &publisher, pushpin, &items, since).await {
            if since.elapsed() >= PATIENCE {
                tracing::warn!(pushpin, "a notice did not reach a Pushpin");
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        next = late.advance();
    }
}

/// Whether nothing is left to do. A link that has just come up is written to once Pushpin's subscriptions are
/// known: before, everything would be dropped.
async fn attempt(
    inner: &Inner,
    publisher: &Publisher,
    pushpin: usize,
    items: &[Item],
    begun: Instant,
) -> bool {
    if !publisher.link_replayed(pushpin) {
        return false;
    }
    match publisher.send(pushpin, items.to_vec()).await {
        Ok(()) => {
            inner.items.fetch_add(items.len() as u64, Ordering::Relaxed);
            true
        }
        Err(SendError::Down | SendError::Timeout | SendError::Overloaded) => false,
        Err(error) => {
            tracing::error!(%error, pushpin, since = ?begun.elapsed(), "a notice can't be published");
            true
        }
    }
}
