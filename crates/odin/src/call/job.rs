//! The unit of work: one message of a client, with all that a worker needs to run it.

use identity::Principal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::protocol::Era;

/// The task that a call runs for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskContext {
    /// The task's id: the same for all of its rounds, and for every worker that runs them.
    pub id: String,
    /// Number of the round, from 1.
    pub round: u32,
}

/// One message of a client, with all that a worker needs to run it. Stored as JSON in the call's
/// record, and read there by whichever worker runs the call.
///
/// Nothing here is checked again by the worker: the front end has bounded the sizes (the body limit
/// holds for [`message`](Self::message) and [`peer`](Self::peer)) and has verified the principal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Id of the call: lower-case hexadecimal. Prefix of the ids of the requests that the call sends
    /// to its client (`{call}:{n}`).
    pub call: String,
    /// Name of the server that the message is for; the workers that offer it take the job. At most
    /// 64 characters of `[a-z0-9-]`; `default` when the client named none.
    pub server: String,
    /// Era of the revision in [`protocol`](Self::protocol).
    pub era: Era,
    /// MCP revision of this message, as `YYYY-MM-DD`: from `_meta` in the stateless era, the negotiated
    /// one of the session otherwise (for `initialize` itself: the one that the client asks for).
    pub protocol: String,
    /// The caller.
    pub principal: Principal,
    /// Session id, in the stateful era once there is a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// `params` of the session's `initialize` request, unchanged. `None` in the stateless era, and for
    /// `initialize` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Box<RawValue>>,
    /// Lowest level of log messages that the session wants (`logging/setLevel`), as MCP writes it:
    /// `debug` … `emergency`. `None`: the client never said; all levels are sent. The stateless era has
    /// it in the message's `_meta` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// `Mcp-Param-*` headers of a modern `tools/call`, names in lower case, one entry for each line. Whoever
    /// runs the tool compares them with its arguments, as the tool's schema asks (`x-mcp-header`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Nothing but the answer reaches the client, as in a batch: the client can't be asked meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answer_only: bool,
    /// The task that this run belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskContext>,
    /// The client's JSON-RPC message, byte for byte: a request or a notification.
    pub message: Box<RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_storage_with_the_message_byte_for_byte() {
        let message = r#"{"jsonrpc":"2.0", "id":1.0,"method":"tools/list"}"#;
        let job = Job {
            call: "00ff".into(),
            server: "default".into(),
            era: Era::Stateful,
            protocol: "2025-11-25".into(),
            principal: Principal::new("https://issuer.example", "thor", "org-1"),
            session: Some("s".into()),
            peer: Some(RawValue::from_string(r#"{ "capabilities":{}}"#.into()).unwrap()),
            log_level: Some("warning".into()),
            headers: vec![("mcp-param-region".into(), "eu".into())],
            answer_only: false,
            task: Some(TaskContext { id: "01ff".into(), round: 2 }),
            message: RawValue::from_string(message.into()).unwrap(),
        };
        let stored = serde_json::to_string(&job).unwrap();
        let read: Job = serde_json::from_str(&stored).unwrap();
        assert_eq!(read.message.get(), message);
        assert_eq!(read.peer.unwrap().get(), r#"{ "capabilities":{}}"#);
        assert_eq!(read.era, Era::Stateful);
        assert_eq!(read.task, job.task);
        assert_eq!(read.principal, job.principal);
        assert_eq!(read.log_level.as_deref(), Some("warning"));
        assert_eq!(read.headers, job.headers);
    }

    #[test]
    fn what_is_absent_takes_no_room() {
        let text = r#"{"call":"0","server":"default","era":"stateless","protocol":"2026-07-28",
            "principal":{"issuer":"i","subject":"s","organisation":"o"},"message":{}}"#;
        let job: Job = serde_json::from_str(text).unwrap();
        assert_eq!(job.era, Era::Stateless);
        assert!(!serde_json::to_string(&job).unwrap().contains("null"));
    }
}
