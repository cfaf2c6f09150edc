//! A task as its owner sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::call::Message;
use crate::id::CallId;

/// How far a task is (tasks extension, task status).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A worker has it, or it is in the queue.
    Working,
    /// The client is asked something.
    InputRequired,
    /// The result is there, also one that says that the tool failed.
    Completed,
    /// A JSON-RPC error is there instead.
    Failed,
    /// The client cancelled it.
    Cancelled,
}

impl Status {
    const ALL: [Self; 5] =
        [Self::Working, Self::InputRequired, Self::Completed, Self::Failed, Self::Cancelled];

    /// Its name in MCP.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing more can change.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `tasks/get` and `notifications/tasks` say of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// The task.
    pub id: CallId,
    /// How far it is.
    pub status: Status,
    /// What it does just now, or why it failed, for people.
    pub note: Option<String>,
    /// When it was created, in milliseconds since 1970.
    pub created: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated: u64,
    /// How long it is kept, from its creation, in milliseconds.
    pub ttl: u64,
    /// How often a client should ask, in milliseconds.
    pub poll: u64,
    /// What the client is asked: key → request, as JSON.
    pub asks: BTreeMap<String, Message>,
    /// The result of a completed task, the error of a failed one, as JSON.
    pub outcome: Option<Message>,
    /// The server's `Implementation`, as JSON: every result names it.
    pub server_info: Option<Message>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result_type: Option<&'static str>,
    task_id: CallId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_message: Option<&'a str>,
    created_at: String,
    last_updated_at: String,
    ttl_ms: u64,
    poll_interval_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_requests: Option<BTreeMap<&'a str, &'a RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<Meta<'a>>,
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/serverInfo")]
    server: &'a RawValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Acknowledgement<'a> {
    result_type: &'static str,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<Meta<'a>>,
}

impl TaskView {
    /// The result of `tools/call` that hands the task out (`CreateTaskResult`).
    pub fn handle(&self) -> Box<RawValue> {
        self.write(Some("task"), false, self.meta())
    }

    /// The result of `tasks/get` (`GetTaskResult`).
    pub fn detailed(&self) -> Box<RawValue> {
        self.write(Some("complete"), true, self.meta())
    }

    /// The parameters of `notifications/tasks` (`DetailedTask`).
    pub fn notification(&self) -> Box<RawValue> {
        self.write(None, true, None)
    }

    /// The result of `tasks/update` and `tasks/cancel`.
    pub fn acknowledgement(&self) -> Box<RawValue> {
        to_raw_value(&Acknowledgement { result_type: "complete", meta: self.meta() }).unwrap_or_default()
    }

    fn meta(&self) -> Option<Meta<'_>> {
        Some(Meta { server: self.server_info.as_deref().and_then(raw)? })
    }

    fn write(
        &self,
        result_type: Option<&'static str>,
        detail: bool,
        meta: Option<Meta<'_>>,
    ) -> Box<RawValue> {
        let outcome =
            |status| self.outcome.as_deref().filter(|_| detail && self.status == status).and_then(raw);
        let asks = || self.asks.iter().filter_map(|(key, ask)| Some((key.as_str(), raw(ask)?))).collect();
        // All parts are text, numbers, and JSON that was JSON when it was stored.
        to_raw_value(&Wire {
            result_type,
            task_id: self.id,
            status: self.status.as_str(),
            status_message: self.note.as_deref(),
            created_at: time(self.created),
            last_updated_at: time(self.updated),
            ttl_ms: self.ttl,
            poll_interval_ms: self.poll,
            input_requests: (detail && self.status == Status::InputRequired).then(asks),
            result: outcome(Status::Completed),
            error: outcome(Status::Failed),
            meta,
        })
        .unwrap_or_default()
    }
}

fn raw(text: &str) -> Option<&RawValue> {
    serde_json::from_str(text).ok()
}

/// ISO 8601, with milliseconds, in UTC.
fn time(unix_millis: u64) -> String {
    i64::try_from(unix_millis)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The time of this machine, in milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(status: Status) -> TaskView {
        TaskView {
            id: CallId::from_bits([0xab; 16]),
            status,
            note: None,
            created: 1_785_196_800_000,
            updated: 1_785_196_800_250,
            ttl: 60_000,
            poll: 1000,
            asks: [("1:name".to_owned(), r#"{"method":"elicitation/create","params":{}}"#.into())].into(),
            outcome: Some(r#"{"code":-32603,"message":"no"}"#.into()),
            server_info: Some(r#"{"name":"s","version":"1"}"#.into()),
        }
    }

    #[expect(clippy::boxed_local, reason = "what the views return")]
    fn value(raw: Box<RawValue>) -> Value {
        serde_json::from_str(raw.get()).unwrap()
    }

    #[test]
    fn each_form_has_its_members_and_no_others() {
        let base = json!({
            "taskId": "00abababababababababababababababab", "status": "working",
            "createdAt": "2026-07-28T00:00:00.000Z", "lastUpdatedAt": "2026-07-28T00:00:00.250Z",
            "ttlMs": 60_000, "pollIntervalMs": 1000,
        });
        let meta = json!({ "io.modelcontextprotocol/serverInfo": { "name": "s", "version": "1" } });
        let with = |more: Value| {
            let mut all = base.clone();
            for (key, value) in more.as_object().unwrap() {
                all[key] = value.clone();
            }
            all
        };
        let working = view(Status::Working);
        assert_eq!(value(working.handle()), with(json!({ "resultType": "task", "_meta": meta })));
        assert_eq!(value(working.detailed()), with(json!({ "resultType": "complete", "_meta": meta })));
        assert_eq!(value(working.notification()), base);
        assert_eq!(value(working.acknowledgement()), json!({ "resultType": "complete", "_meta": meta }));

        let asks = json!({ "1:name": { "method": "elicitation/create", "params": {} } });
        assert_eq!(
            value(view(Status::InputRequired).notification()),
            with(json!({ "status": "input_required", "inputRequests": asks }))
        );
        assert_eq!(
            value(view(Status::Failed).notification()),
            with(json!({ "status": "failed", "error": { "code": -32603, "message": "no" } }))
        );
        let outcome = Some(r#"{"content":[]}"#.into());
        let completed = TaskView { outcome, note: Some("done".into()), ..view(Status::Completed) };
        assert_eq!(
            value(completed.notification()),
            with(json!({ "status": "completed", "statusMessage": "done", "result": { "content": [] } }))
        );
        assert_eq!(value(view(Status::Cancelled).notification()), with(json!({ "status": "cancelled" })));
        let status = with(json!({ "status": "failed", "resultType": "task", "_meta": meta }));
        assert_eq!(value(view(Status::Failed).handle()), status, "a handle has no outcome");
    }

    #[test]
    fn names_round_trip() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("done"), None);
    }
}
