//! Which log messages a client gets.
// Logging is deprecated in MCP, and served to the clients that use it.
#![expect(deprecated)]

use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam, RequestMetaObject};

use crate::call::Job;
use crate::protocol::Era;

/// Which log messages a client gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LogFilter {
    /// A session that never said.
    All,
    /// A stateless request that did not ask.
    None,
    /// This level and the more severe ones.
    From(LoggingLevel),
}

impl LogFilter {
    pub(super) fn new(job: &Job, meta: &RequestMetaObject) -> Self {
        match job.era {
            Era::Stateless => meta.log_level().map_or(Self::None, Self::From),
            Era::Stateful => job
                .log_level
                .as_ref()
                .and_then(|level| serde_json::from_value(serde_json::Value::String(level.clone())).ok())
                .map_or(Self::All, Self::From),
        }
    }

    pub(super) fn passes(self, message: &LoggingMessageNotificationParam) -> bool {
        self.passes_level(message.level)
    }

    fn passes_level(self, level: LoggingLevel) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::From(lowest) => severity(level) >= severity(lowest),
        }
    }
}

fn severity(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_severe_levels_pass() {
        let filter = LogFilter::From(LoggingLevel::Warning);
        assert!(!filter.passes_level(LoggingLevel::Notice));
        assert!(filter.passes_level(LoggingLevel::Warning));
        assert!(filter.passes_level(LoggingLevel::Emergency));
        assert!(LogFilter::All.passes_level(LoggingLevel::Debug));
        assert!(!LogFilter::None.passes_level(LoggingLevel::Emergency));
    }
}
