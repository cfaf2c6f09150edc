//! How processes reach each other: hints, casts, and groups, in the memory of one process.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::MemoryStore;
use super::NUDGES;
use super::millis;
use super::state::Hints;
use crate::call::Message;
use crate::store::{Bus, Cast, NodeHint, Result, WorkerHint};

#[async_trait]
impl Bus for MemoryStore {
    async fn node_hints(&self, node: &str) -> Result<mpsc::Receiver<NodeHint>> {
        let (sender, receiver) = mpsc::channel(NUDGES);
        self.memory().node_hints.insert(node.to_owned(), Hints { sender, missed: false });
        Ok(receiver)
    }

    async fn worker_hints(&self, worker: &str) -> Result<mpsc::Receiver<WorkerHint>> {
        let (sender, receiver) = mpsc::channel(NUDGES);
        self.memory().worker_hints.insert(worker.to_owned(), Hints { sender, missed: false });
        Ok(receiver)
    }

    async fn cast(&self, topic: &str, message: Message) -> Result<()> {
        self.memory().followers.pass(topic, &message);
        Ok(())
    }

    async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        Ok(memory.followers.add(topics))
    }

    async fn enter(&self, group: &str, member: &str, live: Duration, most: usize) -> Result<bool> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        let members = memory.groups.entry(group.to_owned()).or_default();
        members.retain(|_, until| now < *until);
        if members.len() >= most && !members.contains_key(member) {
            return Ok(false);
        }
        members.insert(member.to_owned(), now.saturating_add(millis(live)));
        Ok(true)
    }

    async fn leave(&self, group: &str, member: &str) -> Result<()> {
        if let Some(members) = self.memory().groups.get_mut(group) {
            members.remove(member);
        }
        Ok(())
    }

    async fn members(&self, group: &str) -> Result<Vec<String>> {
        let now = self.now();
        let memory = self.memory();
        let members = memory.groups.get(group).into_iter().flatten();
        Ok(members.filter(|(_, until)| now < **until).map(|(member, _)| member.clone()).collect())
    }
}
