//! How tools say that they run as tasks, how clients say that they know tasks, and what a tool sees of its task.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use rmcp::ErrorData;
use rmcp::handler::server::common::{AsRequestContext, FromContextPart};
use rmcp::model::{CreateTaskResult, JsonObject, MetaObject, Task, TaskStatus};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::EXTENSION;
use crate::protocol::{Refusal, code};

/// Key in a tool's `_meta` under which [`TaskTool::meta`] puts what it says.
pub const TASK_META: &str = "asgard/task";

/// Whether a tool runs as a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Support {
    /// No, unless it asks for it by answering [`later`].
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
/// use odin::tasks::TaskTool;
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

    /// For the tool's `_meta`.
    pub fn meta(self) -> MetaObject {
        let mut said = JsonObject::new();
        match self.support {
            Support::Never => return MetaObject::default(),
            Support::Optional => said.insert("support".to_owned(), "optional".into()),
            Support::Required => said.insert("support".to_owned(), "required".into()),
        };
        for (name, time) in [("ttlMs", self.ttl), ("pollIntervalMs", self.poll)] {
            if let Some(time) = time {
                said.insert(name.to_owned(), millis(time).into());
            }
        }
        let mut meta = MetaObject::default();
        meta.0.insert(TASK_META.to_owned(), Value::Object(said));
        meta
    }

    /// What a tool's `_meta` says; [`Support::Never`] when it says nothing that can be read.
    pub fn of(meta: Option<&MetaObject>) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Said {
            support: String,
            #[serde(default)]
            ttl_ms: Option<u64>,
            #[serde(default)]
            poll_interval_ms: Option<u64>,
        }
        let said = meta.and_then(|meta| meta.0.get(TASK_META));
        let Some(said) = said.and_then(|said| Said::deserialize(said).ok()) else { return Self::default() };
        let support = match said.support.as_str() {
            "optional" => Support::Optional,
            "required" => Support::Required,
            _ => return Self::default(),
        };
        let time = |millis: Option<u64>| millis.filter(|millis| *millis > 0).map(Duration::from_millis);
        Self { support, ttl: time(said.ttl_ms), poll: time(said.poll_interval_ms) }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a tool answers that wants its call to be run again, as a task. Only for clients that declare the extension
/// (`RequestContext::client_capabilities().supports_tasks()`): others get -32021.
///
/// Its time to live and its poll interval count, if they are set; the rest of the handle is made by the worker.
pub fn later() -> CreateTaskResult {
    CreateTaskResult::new(Task::new("", TaskStatus::Working, "", ""))
}

/// The task that a call runs for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
pub struct TaskContext {
    /// The task's id: the same for all of its rounds, and for every worker that runs them.
    pub id: String,
    /// Number of the round, from 1.
    pub round: u32,
}

/// Argument of a tool that wants to know whether it runs as a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTask(pub Option<TaskContext>);

impl<C: AsRequestContext> FromContextPart<C> for InTask {
    fn from_context_part(context: &mut C) -> Result<Self, ErrorData> {
        Ok(Self(context.as_request_context().extensions.get::<TaskContext>().cloned()))
    }
}

/// Whether a client with these capabilities knows tasks.
pub fn declared(capabilities: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Capabilities<'a> {
        #[serde(borrow, default)]
        extensions: Option<HashMap<std::borrow::Cow<'a, str>, &'a RawValue>>,
    }
    let capabilities =
        capabilities.and_then(|text| serde_json::from_str::<Capabilities<'_>>(text.get()).ok());
    capabilities
        .and_then(|capabilities| capabilities.extensions)
        .is_some_and(|extensions| extensions.get(EXTENSION).is_some_and(|said| said.get().starts_with('{')))
}

/// `data` of error -32021.
pub(crate) fn required() -> Value {
    json!({ "requiredCapabilities": { "extensions": { (EXTENSION): {} } } })
}

/// Why a client that does not know tasks is refused.
pub(crate) const UNDECLARED: &str = "This needs the tasks extension: declare io.modelcontextprotocol/tasks under \
                                     extensions in the client capabilities of the request.";

/// 400 and -32021: the client does not declare the extension.
pub fn missing_extension() -> Refusal {
    let refusal = Refusal::new(StatusCode::BAD_REQUEST, code::MISSING_CLIENT_CAPABILITY, UNDECLARED);
    match serde_json::value::to_raw_value(&required()) {
        Ok(data) => refusal.with_data(data),
        Err(_) => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_read_as_it_was_written() {
        let all = TaskTool::required().ttl(Duration::from_secs(5)).poll(Duration::from_millis(200));
        for said in [TaskTool::default(), TaskTool::optional(), TaskTool::required(), all] {
            assert_eq!(TaskTool::of(Some(&said.meta())), said);
        }
        assert_eq!(TaskTool::of(None), TaskTool::default());
        for odd in [json!("optional"), json!({ "support": "maybe" }), json!({ "support": 1 }), json!(null)] {
            let mut meta = MetaObject::default();
            meta.0.insert(TASK_META.to_owned(), odd);
            assert_eq!(TaskTool::of(Some(&meta)), TaskTool::default());
        }
    }

    #[test]
    fn a_client_declares_the_extension_with_an_object() {
        let declares = |text: &str| declared(Some(&RawValue::from_string(text.to_owned()).unwrap()));
        assert!(declares(r#"{"extensions":{"io.modelcontextprotocol/tasks":{}},"sampling":{}}"#));
        assert!(declares(r#"{"extensions":{"io.modelcontextprotocol\/tasks":{"x":1}}}"#));
        for other in [
            "{}",
            r#"{"extensions":null}"#,
            r#"{"extensions":{}}"#,
            r#"{"tasks":{}}"#,
            r#"{"extensions":{"io.modelcontextprotocol/tasks":null}}"#,
            r#"{"extensions":{"io.modelcontextprotocol/tasks":false}}"#,
            r#"{"extensions":[]}"#,
            "7",
        ] {
            assert!(!declares(other), "{other}");
        }
        assert!(!declared(None));
    }
}
