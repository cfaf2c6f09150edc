//! The worker's end of the queues.

use std::time::Duration;

use redis::{Client, Value, cmd};
use tokio::sync::Mutex;

use super::super::{Arrived, Entry, Result, Room};
use super::codec;
use super::link::{Link, unavailable};
use crate::call::Parties;

/// How long a worker waits for a line.
const WAIT: Duration = Duration::from_secs(1);
/// How long its connection may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A worker that asks again at once while Redis is gone is held up for this time.
const PAUSE: Duration = Duration::from_millis(200);
/// A line that so many workers could not take wakes no more of them: they look by themselves.
const PASSES: u8 = 8;

/// Where one worker waits for lines of one queue, on a connection of its own.
pub(super) struct Waiting {
    link: Link,
    /// Key of the queue's bell.
    bell: String,
    /// One at a time: Redis would answer a second only after the first.
    turn: Mutex<()>,
}

impl Waiting {
    pub(super) fn new(client: Client, bell: String) -> Self {
        Self { link: Link::new(client, PATIENCE), bell, turn: Mutex::default() }
    }

    /// Waits until a line comes, at most for about a second.
    pub(super) async fn line(&self) -> Result<Option<Arrived>> {
        let _turn = self.turn.lock().await;
        let mut wait = cmd("BLPOP");
        wait.arg(&self.bell).arg(WAIT.as_secs());
        match self.link.command(&wait).await.map_err(unavailable) {
            Ok(Value::Nil) => Ok(None),
            Ok(reply) => {
                let [_, line] = codec::fixed(reply)?;
                Ok(arrived(&codec::text(line)?))
            }
            Err(error) => {
                tokio::time::sleep(PAUSE).await;
                Err(error)
            }
        }
    }
}

/// As `ring()` in `queue.lua` writes it.
fn arrived(text: &str) -> Option<Arrived> {
    let mut parts = text.splitn(6, ' ');
    let mut part = || parts.next();
    let (call, receipt) = (part()?.parse().ok()?, part()?.to_owned());
    let parties = Parties { principal: part()?.to_owned(), organisation: part()?.to_owned() };
    let passed = part()?.parse().ok()?;
    let tool = part()?.strip_prefix('+').map(str::to_owned);
    Some(Arrived { entry: Entry { call, tool, parties, receipt }, passed })
}

/// The same for the next worker, if one is to be woken.
pub(super) fn passed_on(line: &Arrived) -> Option<[String; 6]> {
    let Entry { call, tool, parties, receipt } = line.entry.clone();
    let passed = line.passed.checked_add(1).filter(|passed| *passed < PASSES)?;
    let tool = tool.map_or("-".to_owned(), |tool| format!("+{tool}"));
    Some([call.to_string(), receipt, parties.principal, parties.organisation, passed.to_string(), tool])
}

/// A line as the script `next` returns it.
pub(super) fn entry(line: Value) -> Result<Entry> {
    let [call, tool, principal, organisation, receipt] = codec::fixed(line)?;
    let parties = Parties { principal: codec::text(principal)?, organisation: codec::text(organisation)? };
    let tool = if tool == Value::Nil { None } else { Some(codec::text(tool)?) };
    Ok(Entry { call: codec::number(call)?, tool, parties, receipt: codec::text(receipt)? })
}

/// What the script `next` needs to know of the slots: those who could come to their bound with `most` more lines.
pub(super) fn named(room: &Room, most: usize) -> impl Iterator<Item = (&String, &usize)> {
    let smaller = room.organisation.min(room.principal);
    room.taken.iter().filter(move |(_, taken)| taken.saturating_add(most) > smaller)
}
