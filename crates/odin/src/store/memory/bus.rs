//! How processes reach each other: hints, casts, and groups, in the memory of one process.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::MemoryStore;
use super::NUDGES;
use super::millis;
use super::state::Nudges;
use crate::call::Message;
use crate::store::{Bus, Cast, NodeNudge, Result, WorkerNudge};

#[async_trait]
impl Bus for MemoryStore {
    async fn node_nudges(&self, node: &str) -> Result<mpsc::Receiver<NodeNudge>> {
        let (sender, receiver) = mpsc::channel(NUDGES);
        self.memory().node_nudges.insert(node.to_owned(), Nudges { sender, missed: false });
        Ok(receiver)
    }

    async fn worker_nudges(&self, worker: &str) -> Result<mpsc::Receiver<WorkerNudge>> {
        let (sender, receiver) = mpsc::channel(NUDGES);
        self.memory().worker_nudges.insert(worker.to_owned(), Nudges { sender, missed: false });
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
