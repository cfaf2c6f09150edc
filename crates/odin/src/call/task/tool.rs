//! What a tool says about running as a task.

use std::time::Duration;

/// Whether a tool runs as a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Support {
    /// No, unless it asks for it by answering `odin::later()`.
    #[default]
    Never,
    /// Yes for clients that declare the extension; as an ordinary call for others.
    Optional,
    /// Yes; clients that don't declare the extension are refused.
    Required,
}

/// What a tool says about running as a task. Goes into its `_meta`, where clients see it as well:
///
/// ```
/// use std::time::Duration;
/// use odin::call::task::TaskTool;
/// use rmcp::model::MetaObject;
///
/// // #[tool(meta = as_task())]
/// fn as_task() -> MetaObject {
///     TaskTool::optional().ttl(Duration::from_secs(3600)).meta()
/// }
/// assert_eq!(as_task().0["asgard/task"], serde_json::json!({ "support": "optional", "ttlMs": 3_600_000 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TaskTool {
    /// Whether it runs as a task.
    pub support: Support,
    /// How long its tasks are kept; the worker's default when none.
    pub ttl: Option<Duration>,
    /// How often clients should ask; the worker's default when none.
    pub poll: Option<Duration>,
}

impl TaskTool {
    /// A tool that runs as a task for clients that know tasks.
    pub const fn optional() -> Self {
        Self { support: Support::Optional, ttl: None, poll: None }
    }

    /// A tool that runs as a task only.
    pub const fn required() -> Self {
        Self { support: Support::Required, ttl: None, poll: None }
    }

    /// Keeps its tasks for this time from their creation, results included. The work is stopped then as well.
    #[must_use]
    pub const fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Tells clients how often to ask.
    #[must_use]
    pub const fn poll(self, poll: Duration) -> Self {
        Self { poll: Some(poll), ..self }
    }
}
