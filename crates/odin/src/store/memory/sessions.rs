//! What is kept for sessions and streams, and what is good for once, in the memory of one process.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use super::PARKED;
use super::millis;
use crate::id::Ticket;
use crate::store::{Result, Sessions, Unavailable};

#[async_trait]
impl Sessions for MemoryStore {
    async fn park(&self, ticket: Ticket, stream: &str) -> Result<()> {
        let until = self.now() + millis(PARKED);
        self.memory().parked.insert(ticket, (stream.to_owned(), until));
        Ok(())
    }

    async fn parked(&self, ticket: Ticket) -> Result<Option<String>> {
        let now = self.now();
        let memory = self.memory();
        Ok(memory.parked.get(&ticket).filter(|(_, until)| now < *until).map(|(stream, _)| stream.clone()))
    }

    async fn remember(&self, session: &str, field: &str, value: &str, live: Duration) -> Result<bool> {
        let until = self.now() + millis(live);
        let mut memory = self.memory();
        let (fields, expires) = memory.sessions.entry(session.to_owned()).or_default();
        *expires = until;
        if fields.len() >= self.limits.session_fields && !fields.contains_key(field) {
            return Ok(false);
        }
        fields.insert(field.to_owned(), value.to_owned());
        Ok(true)
    }

    async fn recall(&self, session: &str) -> Result<BTreeMap<String, String>> {
        let now = self.now();
        let memory = self.memory();
        let fields = memory.sessions.get(session).filter(|(_, until)| now < *until);
        Ok(fields.map(|(fields, _)| fields.clone()).unwrap_or_default())
    }

    async fn use_once(&self, name: &str, by: &str, live: Duration) -> Result<String> {
        let now = self.now();
        let mut memory = self.memory();
        memory.sweep(now);
        if let Some((by, until)) = memory.used.get(name)
            && now < *until
        {
            return Ok(by.clone());
        }
        if memory.used.len() >= self.limits.used {
            return Err(Unavailable("too much was used up".to_owned()));
        }
        memory.used.insert(name.to_owned(), (by.to_owned(), now.saturating_add(millis(live))));
        Ok(by.to_owned())
    }
}
