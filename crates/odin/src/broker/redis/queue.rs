//! The reading end of the queues.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use redis::streams::{StreamId, StreamReadReply};
use redis::{Client, Cmd, FromRedisValue, RedisError, Value, cmd};
use tokio::sync::{Mutex, oneshot};

use super::super::{Entry, Result, Unavailable};
use super::codec;
use super::link::{Link, unavailable};

/// The consumer group of every queue; `prelude.lua` names it as well.
const GROUP: &str = "workers";
/// How long [`Reader::next`] waits for a line.
const WAIT: Duration = Duration::from_secs(1);
/// How long its connection may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A worker that asks again at once while Redis is gone is held up for this time.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads one server's queue for one worker, on a connection of its own.
pub(super) struct Reader {
    link: Link,
    worker: String,
    /// Keys of the queue, one for each shard.
    queues: Vec<String>,
    /// How long a queue outlives its last use.
    life: Duration,
    /// Lines that were read and that nobody has asked for yet.
    spare: Mutex<VecDeque<Entry>>,
}

impl Reader {
    pub(super) fn new(client: Client, worker: &str, queues: Vec<String>, life: Duration) -> Self {
        let link = Link::new(client, PATIENCE);
        Self { link, worker: worker.to_owned(), queues, life, spare: Mutex::default() }
    }

    /// The next lines. May be dropped at any time: what was read then is there for the next call.
    pub(super) async fn next(self: Arc<Self>, most: usize) -> Result<Vec<Entry>> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let mut spare = self.spare.lock().await;
            if sender.is_closed() {
                return;
            }
            let lines = self.lines(&mut spare, most).await;
            if lines.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            if let Err(Ok(lines)) = sender.send(lines) {
                for line in lines.into_iter().rev() {
                    spare.push_front(line);
                }
            }
        });
        receiver.await.map_err(|_| Unavailable("the reader stopped".to_owned()))?
    }

    async fn lines(&self, spare: &mut VecDeque<Entry>, most: usize) -> Result<Vec<Entry>> {
        if most == 0 {
            tokio::time::sleep(WAIT).await;
        } else if spare.is_empty() {
            match self.read(most).await {
                Err(error) if lost_group(&error) => {
                    self.make_groups().await.map_err(unavailable)?;
                    spare.extend(self.read(most).await.map_err(unavailable)?);
                }
                lines => spare.extend(lines.map_err(unavailable)?),
            }
        }
        let count = most.min(spare.len());
        Ok(spare.drain(..count).collect())
    }

    async fn read(&self, most: usize) -> std::result::Result<Vec<Entry>, RedisError> {
        let share = (most / self.queues.len().max(1)).max(1);
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.worker).arg("COUNT").arg(share);
        read.arg("BLOCK").arg(WAIT.as_millis() as u64).arg("STREAMS").arg(&self.queues);
        for _ in &self.queues {
            read.arg(">");
        }
        let reply = match self.link.command(&read).await? {
            Value::Nil => return Ok(Vec::new()),
            reply => StreamReadReply::from_redis_value(reply)?,
        };
        let mut lines = Vec::new();
        for queue in reply.keys {
            for line in queue.ids {
                match entry(line) {
                    Ok(entry) => lines.push(entry),
                    // Nobody could ever take it.
                    Err(receipt) => self.discard(&queue.key, &receipt).await?,
                }
            }
        }
        Ok(lines)
    }

    async fn discard(&self, queue: &str, receipt: &str) -> std::result::Result<(), RedisError> {
        tracing::warn!(queue, receipt, "a line that names no call");
        self.link.command(cmd("XACK").arg(queue).arg(GROUP).arg(receipt)).await?;
        self.link.command(cmd("XDEL").arg(queue).arg(receipt)).await?;
        Ok(())
    }

    async fn make_groups(&self) -> std::result::Result<(), RedisError> {
        for queue in &self.queues {
            let mut make: Cmd = cmd("XGROUP");
            make.arg("CREATE").arg(queue).arg(GROUP).arg("0").arg("MKSTREAM");
            match self.link.command(&make).await {
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                reply => drop(reply?),
            }
            self.link.command(cmd("PEXPIRE").arg(queue).arg(self.life.as_millis() as u64)).await?;
        }
        Ok(())
    }
}

/// The group, or the whole queue, is not there: it was never made, or Redis lost it (also while a read
/// waited on it).
fn lost_group(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
}

/// A line of a queue, or the receipt of one that names no call.
fn entry(line: StreamId) -> std::result::Result<Entry, String> {
    let StreamId { id: receipt, map, .. } = line;
    let mut texts: HashMap<String, String> =
        map.into_iter().filter_map(|(name, value)| Some((name, codec::text(value).ok()?))).collect();
    match texts.get("call").and_then(|call| call.parse().ok()) {
        Some(call) => Ok(Entry { call, tool: texts.remove("tool"), receipt }),
        None => Err(receipt),
    }
}

/// Lines as the script `undelivered` returns them.
pub(super) fn entries(reply: Value) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for line in codec::items(reply)? {
        let [receipt, fields] = codec::fixed(line)?;
        let mut fields = codec::map(fields)?;
        let call = fields.get("call").and_then(|call| call.parse().ok());
        if let Some(call) = call {
            entries.push(Entry { call, tool: fields.remove("tool"), receipt: codec::text(receipt)? });
        }
    }
    Ok(entries)
}
