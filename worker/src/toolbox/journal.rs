//! A journal of what the tools did: one JSON line for each start, step and end, for whoever wants to count
//! runs (tests, audits). Several workers may write to one file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    process,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

/// Characters of a call's label, at most; a longer one is not in the journal.
pub(crate) const MAX_LABEL: usize = 64;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The tool began to run.
    Start,
    /// The tool did its `step`-th step (from 1).
    Step,
    /// The tool ended by itself, well or with an error.
    End,
    /// The tool was dropped: cancelled or aborted.
    Dropped,
}

#[derive(Serialize)]
struct Line<'a> {
    call: &'a str,
    tool: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    pid: u32,
    at_ms: u64,
}

/// Where the tools write what they do; by default nowhere.
#[derive(Debug, Clone, Default)]
pub struct Journal(Option<Arc<File>>);

impl Journal {
    /// A journal that appends to the file at `path`, and makes it if it isn't there.
    ///
    /// # Errors
    /// The file can't be opened for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Some(Arc::new(OpenOptions::new().create(true).append(true).open(path)?))))
    }

    /// Appends one line, in one write: lines of several processes don't mix.
    pub(crate) fn write(
        &self,
        call: &str,
        (tool, label): (&str, Option<&str>),
        event: Event,
        step: Option<u64>,
    ) {
        let Some(file) = &self.0 else { return };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let line = Line { call, tool, label, event, step, pid: process::id(), at_ms };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            (&**file).write_all(&line)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the journal can't be written");
        }
    }
}
