//! Which of the watched channels are held, and on which Pushpins.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The channels whose names begin with a prefix, as the links report them.
pub(super) struct Held {
    prefix: String,
    channels: Mutex<HashMap<String, BTreeSet<usize>>>,
    changed: watch::Sender<()>,
}

impl Held {
    /// An empty prefix watches nothing.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, channels: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub(super) fn watches(&self, channel: &str) -> bool {
        !self.prefix.is_empty() && channel.starts_with(&self.prefix)
    }

    /// Whether some Pushpin has all these channels.
    pub(super) fn has(&self, wanted: &[&str]) -> bool {
        let channels = self.channels();
        let mut held = wanted.iter().map(|channel| channels.get(*channel));
        let Some(Some(first)) = held.next() else { return false };
        let others: Vec<Option<&BTreeSet<usize>>> = held.collect();
        first.iter().any(|pushpin| others.iter().all(|held| held.is_some_and(|held| held.contains(pushpin))))
    }

    /// Waits until the channel is held.
    pub(super) async fn wait_for(&self, channel: &str) {
        let mut changes = self.changed.subscribe();
        while !self.has(&[channel]) {
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    pub(super) fn note(&self, pushpin: usize, channel: &str, subscribed: bool) {
        if !self.watches(channel) {
            return;
        }
        let mut channels = self.channels();
        if subscribed {
            channels.entry(channel.to_owned()).or_default().insert(pushpin);
        } else if let Some(pushpins) = channels.get_mut(channel) {
            pushpins.remove(&pushpin);
            if pushpins.is_empty() {
                channels.remove(channel);
            }
        }
        drop(channels);
        self.changed.send_replace(());
    }

    /// Forgets what a Pushpin held.
    pub(super) fn lose(&self, pushpin: usize) {
        self.channels().retain(|_, pushpins| {
            pushpins.remove(&pushpin);
            !pushpins.is_empty()
        });
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<usize>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_channel_is_held_as_long_as_one_pushpin_has_it() {
        let held = Held::new("o-".into());
        held.note(0, "o-a", true);
        held.note(1, "o-a", true);
        held.note(0, "x-a", true);
        held.wait_for("o-a").await;
        assert!(!held.has(&["x-a"]) && !held.watches("x-a"));
        held.note(0, "o-b", true);
        assert!(held.has(&["o-a", "o-b"]));
        held.note(0, "o-a", false);
        assert!(held.has(&["o-a"]) && held.has(&["o-b"]));
        assert!(!held.has(&["o-a", "o-b"]), "each on another Pushpin");
        held.lose(1);
        assert!(!held.has(&["o-a"]));
        assert!(!Held::new(String::new()).watches("o-a"));
    }
}
