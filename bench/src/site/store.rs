//! The stack's Redis: its commands, and what lies in it.

use std::collections::{BTreeMap, HashMap};

use redis::{ConnectionLike, cmd};

use super::stack::Stack;
use crate::Result;

/// A connection of its own.
pub struct Store(redis::Connection);

impl Store {
    /// Connects to the Redis of a stack.
    pub async fn open(stack: &Stack) -> Result<Self> {
        let socket = stack.part("redis").await?.address;
        Ok(Self(redis::Client::open(format!("unix://{socket}"))?.get_connection()?))
    }

    /// How often each command was executed since the start, those of scripts included; but for our own.
    pub fn commands(&mut self) -> Result<BTreeMap<String, u64>> {
        let text: String = cmd("INFO").arg("commandstats").query(&mut self.0)?;
        let lines = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let count = rest.split(',').next()?.parse().ok()?;
            (!["info", "ping"].contains(&name)).then(|| (name.to_owned(), count))
        });
        Ok(lines.collect())
    }

    /// All keys, with the bytes that each takes.
    pub fn keys(&mut self) -> Result<HashMap<Vec<u8>, u64>> {
        let keys: Vec<Vec<u8>> = cmd("SCAN")
            .cursor_arg(0)
            .arg("COUNT")
            .arg(1000)
            .clone()
            .iter(&mut self.0)?
            .collect::<std::result::Result<_, _>>()?;
        let mut sizes = HashMap::new();
        for key in keys {
            let command = cmd("MEMORY").arg("USAGE").arg(&key).arg("SAMPLES").arg(0).get_packed_command();
            // A key may have gone meanwhile.
            if let redis::Value::Int(size) = self.0.req_packed_command(&command)? {
                sizes.insert(key, size.unsigned_abs());
            }
        }
        Ok(sizes)
    }
}

/// The bytes of the keys that are new since then.
pub fn bytes_of_new(now: &HashMap<Vec<u8>, u64>, before: &HashMap<Vec<u8>, u64>) -> u64 {
    now.iter().filter(|(key, _)| !before.contains_key(*key)).map(|(_, size)| size).sum()
}
