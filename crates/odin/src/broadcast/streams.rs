//! What a long-lived stream is subscribed to, whoever holds it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use grip::Channel;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::long_lived::LongLivedStream;
use super::names::CHANNELS;
use super::text;
use crate::store::{self, Cast, Store};

/// Pushpin's filter that asks for a second channel.
pub(super) const REQUIRE: &str = "require-sub";
/// The value of an item that the filter reads.
pub(super) const REQUIRED: &str = "require_sub";
/// Pushpin's filter that leaves streams out, the value of an item that it reads, and that of a stream.
pub(super) const SKIP: &str = "skip-users";
pub(super) const SKIPPED: &str = "skip_users";
const USER: &str = "user";
/// Pushpin's filter that fills templates.
const SUBSTITUTE: &str = "var-subst";

/// The channel that one stream alone has.
pub(super) fn own_channel(name: &str) -> String {
    format!("{CHANNELS}own-{name}")
}

/// The channels of one long-lived stream, and the id of its subscription. The same for a stream that Pushpin
/// holds ([`Subscription::channels`]) and for one that a backend holds itself ([`Subscription::follow`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Channels that something is sent on.
    pub(super) channels: Vec<String>,
    /// Channels that nothing is sent on; a message may ask for one of them beside its own.
    pub(super) topics: Vec<String>,
    /// The subscription's id as JSON: on stateless streams.
    pub(super) id: Option<String>,
    /// The stream's name, once it has one: it then has a channel of its own as well.
    #[serde(default)]
    pub(super) name: Option<String>,
}

impl Subscription {
    /// How many channels it has; Pushpin takes [`grip::MAX_CHANNELS`] for a connection.
    pub fn len(&self) -> usize {
        self.channels.len() + self.topics.len() + usize::from(self.name.is_some())
    }

    /// Whether it has no channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The channels for the instruction that makes Pushpin hold the stream, with their filters.
    pub fn channels(&self) -> impl Iterator<Item = Channel> {
        let own = self.name.as_deref().map(own_channel);
        self.channels.iter().chain(&self.topics).cloned().chain(own).map(|name| {
            let channel = Channel::new(name).filter(REQUIRE).filter(SKIP);
            if self.id.is_some() { channel.filter(SUBSTITUTE) } else { channel }
        })
    }

    /// The values that the filters read, by their names.
    pub fn meta(&self) -> impl Iterator<Item = (&'static str, String)> {
        let id = self.id.as_deref().map(|id| (text::ID, text::ascii(id)));
        id.into_iter().chain(self.name.clone().map(|name| (USER, name)))
    }

    /// The same for a stream that has its name.
    pub(crate) fn of(self, stream: &LongLivedStream) -> Self {
        Self { name: Some(stream.name().to_owned()), ..self }
    }

    /// Follows the subscription over the bus, for a stream that this process holds.
    ///
    /// # Errors
    /// [`store::Unavailable`].
    pub async fn follow(self, store: &dyn Store) -> store::Result<Following> {
        let own = self.name.as_deref().map(own_channel);
        let followed: Vec<String> = self.channels.into_iter().chain(own).collect();
        let casts = store.follow(&followed).await?;
        let channels = followed.into_iter().chain(self.topics).collect();
        Ok(Following { casts, channels, id: self.id, name: self.name, ended: false })
    }
}

/// A message on the bus: what Pushpin gets as well.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Item<'a> {
    /// A channel that the stream must have as well.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) required: Option<Cow<'a, str>>,
    /// Names of streams that are left out.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(super) skipped: Cow<'a, str>,
    /// The event; a template on stateless streams.
    #[serde(borrow, default)]
    pub(super) content: Cow<'a, str>,
    /// The stream ends after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) end: bool,
}

/// What comes for a stream that this process holds.
#[derive(Debug)]
pub struct Following {
    casts: mpsc::Receiver<Cast>,
    channels: BTreeSet<String>,
    id: Option<String>,
    name: Option<String>,
    ended: bool,
}

impl Following {
    /// The next event, ready to be written. `None`: the stream is to be closed, because it was ended, or
    /// because something may have been missed; its client then connects again.
    pub async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let (_, message) = self.casts.recv().await?;
            let Ok(item) = serde_json::from_str::<Item<'_>>(&message) else {
                tracing::warn!("a cast that can't be read is dropped");
                continue;
            };
            if item.required.is_some_and(|channel| !self.channels.contains(&*channel)) {
                continue;
            }
            if self.name.as_deref().is_some_and(|name| item.skipped.split(',').any(|left| left == name)) {
                continue;
            }
            self.ended = item.end;
            if !item.content.is_empty() {
                let event = match &self.id {
                    Some(id) => text::fill(&item.content, id),
                    None => item.content.into_owned(),
                };
                return Some(event.into());
            }
        }
        None
    }
}
