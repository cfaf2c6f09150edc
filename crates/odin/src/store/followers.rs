//! Who follows which topic of the bus, in this process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Cast;
use crate::call::Message;

/// Casts that wait for one follower. One that is further behind is ended: it has missed something.
const BACKLOG: usize = 256;

/// The followers of this process, by topic.
#[derive(Default)]
pub(super) struct Followers {
    next: u64,
    followers: HashMap<u64, Follower>,
    topics: HashMap<Arc<str>, BTreeSet<u64>>,
}

struct Follower {
    topics: Vec<Arc<str>>,
    sender: mpsc::Sender<Cast>,
}

impl Followers {
    /// A new follower of these topics.
    pub(super) fn add(&mut self, topics: &[String]) -> mpsc::Receiver<Cast> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.next += 1;
        let mut followed: Vec<Arc<str>> = Vec::with_capacity(topics.len());
        for topic in topics {
            let topic = match self.topics.get_key_value(topic.as_str()) {
                Some((topic, _)) => topic.clone(),
                None => Arc::from(topic.as_str()),
            };
            self.topics.entry(topic.clone()).or_default().insert(self.next);
            followed.push(topic);
        }
        self.followers.insert(self.next, Follower { topics: followed, sender });
        receiver
    }

    /// Passes a cast to the topic's followers, and ends those that can't take it.
    pub(super) fn pass(&mut self, topic: &str, message: &Message) {
        let Some((topic, followers)) = self.topics.get_key_value(topic) else { return };
        let cast = |follower: &u64| {
            let sender = &self.followers.get(follower)?.sender;
            sender.try_send((topic.clone(), message.clone())).err().map(|_| *follower)
        };
        let ended: Vec<u64> = followers.iter().filter_map(cast).collect();
        for follower in ended {
            self.remove(follower);
        }
    }

    /// Forgets followers that are gone.
    pub(super) fn sweep(&mut self) {
        let gone = |(number, follower): (&u64, &Follower)| follower.sender.is_closed().then_some(*number);
        let gone: Vec<u64> = self.followers.iter().filter_map(gone).collect();
        for follower in gone {
            self.remove(follower);
        }
    }

    /// Whether somebody follows the topic.
    #[cfg(any(feature = "redis", test))]
    pub(super) fn has(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Ends all followers.
    #[cfg(any(feature = "redis", test))]
    pub(super) fn clear(&mut self) {
        self.followers.clear();
        self.topics.clear();
    }

    fn remove(&mut self, follower: u64) {
        let Some(Follower { topics, .. }) = self.followers.remove(&follower) else { return };
        for topic in topics {
            if let Some(followers) = self.topics.get_mut(&topic) {
                followers.remove(&follower);
                if followers.is_empty() {
                    self.topics.remove(&topic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_follower_gets_its_topics_in_order() {
        let mut followers = Followers::default();
        let mut both = followers.add(&topics(&["a", "b"]));
        let mut one = followers.add(&topics(&["b"]));
        for (topic, message) in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")] {
            followers.pass(topic, &message.into());
        }
        let mut seen = Vec::new();
        while let Ok((topic, message)) = both.try_recv() {
            seen.push((topic.to_string(), message.to_string()));
        }
        assert_eq!(seen, [("a", "1"), ("b", "2"), ("a", "4")].map(|(t, m)| (t.to_owned(), m.to_owned())));
        assert_eq!(one.try_recv().unwrap(), ("b".into(), "2".into()));
        assert!(one.try_recv().is_err());
    }

    #[test]
    fn who_lags_is_ended_and_who_left_is_forgotten() {
        let mut followers = Followers::default();
        let mut slow = followers.add(&topics(&["a", "b"]));
        let mut quick = followers.add(&topics(&["a"]));
        for number in 0..=BACKLOG {
            followers.pass("a", &number.to_string().into());
            assert_eq!(&*quick.try_recv().unwrap().1, number.to_string());
        }
        for number in 0..BACKLOG {
            assert_eq!(&*slow.try_recv().unwrap().1, number.to_string());
        }
        assert_eq!(slow.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert!(followers.has("a") && !followers.has("b"));
        drop(quick);
        followers.sweep();
        assert!(!followers.has("a") && followers.followers.is_empty());
    }
}
