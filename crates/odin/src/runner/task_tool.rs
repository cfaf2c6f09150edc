//! How a tool's `_meta` says that it runs as a task.

use std::time::Duration;

use rmcp::model::{JsonObject, MetaObject};
use serde::Deserialize;
use serde_json::Value;

use crate::call::task::{Support, TaskTool};

/// Key in a tool's `_meta` under which [`TaskTool::meta`] puts what it says.
pub const TASK_META: &str = "asgard/task";

impl TaskTool {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
}
