//! Kong's error log, kept for the tests.

use std::sync::{Arc, Mutex, PoisonError};

/// The severity of a line, by the names of nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// trace and debug
    Debug,
    /// info
    Info,
    /// warn
    Warn,
    /// error
    Error,
    /// crit
    Crit,
}

/// The log; clones share their lines. At most 10,000 are kept.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<(Severity, String)>>>);

impl Log {
    /// Adds a line.
    pub fn write(&self, severity: Severity, line: impl Into<String>) {
        let line = line.into();
        tracing::debug!(?severity, line);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < 10_000 {
            lines.push((severity, line));
        }
    }

    /// All lines.
    pub fn lines(&self) -> Vec<(Severity, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a line of at least this severity holds `text`.
    pub fn has(&self, severity: Severity, text: &str) -> bool {
        self.lines().iter().any(|(s, line)| *s >= severity && line.contains(text))
    }
}
