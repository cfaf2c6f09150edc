//! The tools' own journal: what really ran, whatever the clients heard.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// One line.
#[derive(Debug, Clone, Deserialize)]
pub struct Line {
    /// The call's id.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// The name that the client gave the call.
    pub label: Option<String>,
    /// `start`, `step`, `end` or `dropped`.
    pub event: String,
    /// The step's number.
    pub step: Option<u64>,
    /// The worker's process.
    pub pid: u32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// What became of one call.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The tool.
    pub tool: String,
    /// Processes that began it, in order.
    pub starts: Vec<u32>,
    /// Steps that were done, in order.
    pub steps: Vec<u64>,
    /// It ended by itself.
    pub ends: usize,
    /// It was dropped.
    pub drops: usize,
}

/// The journal from a place on.
#[derive(Debug, Clone)]
pub struct Journal {
    file: PathBuf,
    from: u64,
}

impl Journal {
    /// The journal from its present end on.
    #[must_use]
    pub fn from_now(file: PathBuf) -> Self {
        let from = std::fs::metadata(&file).map_or(0, |file| file.len());
        Self { file, from }
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let Ok(mut file) = std::fs::File::open(&self.file) else { return Vec::new() };
        let mut text = String::new();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        file.read_to_string(&mut text).unwrap();
        // The last line may just be written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The runs so far, by call id.
    #[must_use]
    pub fn runs(&self) -> BTreeMap<String, Run> {
        let mut runs = BTreeMap::<String, Run>::new();
        for line in self.lines() {
            let run = runs.entry(line.call).or_default();
            run.tool = line.tool;
            match line.event.as_str() {
                "start" => run.starts.push(line.pid),
                "step" => run.steps.extend(line.step),
                "end" => run.ends += 1,
                _ => run.drops += 1,
            }
        }
        runs
    }

    /// How often tools were begun.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.runs().values().map(|run| run.starts.len()).sum()
    }

    /// Waits for the first run that fits.
    pub async fn wait_for(&self, what: &str, limit: Duration, fits: impl Fn(&Run) -> bool) -> (String, Run) {
        crate::stack::wait(what, limit, async || self.runs().into_iter().find(|(_, run)| fits(run))).await
    }
}
