//! What can be sent to many at once.

use std::collections::BTreeMap;

use identity::Principal;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::text::Members;
use crate::id::CallId;
use crate::protocol::LOG_LEVELS;

/// Bytes that the parameters of a notice may have. Pushpin drops what a slow client has not taken when about
/// 200 kB are in flight for it.
pub const MAX_NOTICE: usize = 32 * 1024;

/// Whom a notice is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// One session of the stateful eras, by its key (as handlers find it in
    /// [`CallContext::session`](crate::runner::CallContext)).
    Session(String),
    /// One user in one organisation, by [`Principal::key`]: all streams of all clients.
    Principal(String),
    /// All users of an organisation.
    Organisation {
        /// Issuer of the organisation's tokens.
        issuer: String,
        /// Its alias.
        organisation: String,
    },
    /// Everybody who is connected to this server.
    Everyone,
}

impl Audience {
    /// One user in one organisation.
    pub fn principal(principal: &Principal) -> Self {
        Self::Principal(principal.key())
    }

    /// All users of the principal's organisation.
    pub fn organisation_of(principal: &Principal) -> Self {
        Self::Organisation { issuer: principal.issuer.clone(), organisation: principal.organisation.clone() }
    }
}

/// Severity of a log message (RFC 5424).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LogLevel {
    /// As MCP writes it.
    pub fn as_str(self) -> &'static str {
        LOG_LEVELS.get(self as usize).copied().unwrap_or("emergency")
    }
}

/// A notification of MCP that belongs to no request.
#[derive(Debug, Clone)]
pub struct Notice {
    pub(super) topic: Topic,
    pub(super) params: Members,
}

/// What a notice is about; streams choose by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    Tools,
    Prompts,
    Resources,
    Resource(String),
    Task(CallId),
    Log(LogLevel),
}

/// Why a notice can't be sent to anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoticeError {
    /// There is no such notification, or it belongs to a request.
    #[error(
        "{0:?} can't be sent to an audience; use notifications/tools/list_changed, \
         notifications/prompts/list_changed, notifications/resources/list_changed, \
         notifications/resources/updated or notifications/message"
    )]
    Method(String),
    /// The parameters don't fit.
    #[error("invalid params of {method}: {why}")]
    Params {
        /// The notification.
        method: String,
        /// What is wrong.
        why: String,
    },
    /// The parameters are longer than [`MAX_NOTICE`].
    #[error("the params have {0} bytes; the limit is {MAX_NOTICE}")]
    TooLarge(usize),
}

impl Notice {
    /// `notifications/tools/list_changed`.
    pub fn tools_changed() -> Self {
        Self { topic: Topic::Tools, params: Members::new() }
    }

    /// `notifications/prompts/list_changed`.
    pub fn prompts_changed() -> Self {
        Self { topic: Topic::Prompts, params: Members::new() }
    }

    /// `notifications/resources/list_changed`.
    pub fn resources_changed() -> Self {
        Self { topic: Topic::Resources, params: Members::new() }
    }

    /// `notifications/resources/updated`: reaches those who subscribed to this URI.
    ///
    /// # Errors
    /// [`NoticeError::TooLarge`].
    pub fn resource_updated(uri: &str) -> Result<Self, NoticeError> {
        let params = BTreeMap::from([("uri".to_owned(), raw(uri)?)]);
        Self { topic: Topic::Resource(uri.to_owned()), params }.bounded()
    }

    /// `notifications/message`: a log message, for sessions that want this level. Modern streams carry log
    /// messages only for the request that they answer, so it does not go there.
    ///
    /// # Errors
    /// [`NoticeError::TooLarge`]; [`NoticeError::Params`] when the data has no form in JSON.
    pub fn log(level: LogLevel, logger: Option<&str>, data: &impl Serialize) -> Result<Self, NoticeError> {
        let mut params =
            BTreeMap::from([("level".to_owned(), raw(level.as_str())?), ("data".to_owned(), raw(data)?)]);
        if let Some(logger) = logger {
            params.insert("logger".to_owned(), raw(logger)?);
        }
        Self { topic: Topic::Log(level), params }.bounded()
    }

    /// A notice from a notification in MCP's own form.
    ///
    /// # Errors
    /// [`NoticeError`] says what is wrong.
    pub fn read(method: &str, params: Option<&RawValue>) -> Result<Self, NoticeError> {
        let wrong = |why: String| NoticeError::Params { method: method.to_owned(), why };
        let params: Members = match params {
            Some(params) if params.get().len() > MAX_NOTICE => {
                return Err(NoticeError::TooLarge(params.get().len()));
            }
            Some(params) => {
                serde_json::from_str(params.get()).map_err(|_| wrong("they must be an object".to_owned()))?
            }
            None => Members::new(),
        };
        if let Some(meta) = params.get("_meta") {
            serde_json::from_str::<Members>(meta.get())
                .map_err(|_| wrong("\"_meta\" must be an object".to_owned()))?;
        }
        let member = |name: &str| params.get(name).map_or("null", |value| value.get());
        let topic = match method {
            "notifications/tools/list_changed" => Topic::Tools,
            "notifications/prompts/list_changed" => Topic::Prompts,
            "notifications/resources/list_changed" => Topic::Resources,
            "notifications/resources/updated" => Topic::Resource(
                serde_json::from_str(member("uri"))
                    .map_err(|_| wrong("\"uri\" must be a string".to_owned()))?,
            ),
            "notifications/message" => {
                if !params.contains_key("data") {
                    return Err(wrong("\"data\" is missing".to_owned()));
                }
                if params.contains_key("logger") && !member("logger").starts_with('"') {
                    return Err(wrong("\"logger\" must be a string".to_owned()));
                }
                Topic::Log(
                    serde_json::from_str(member("level"))
                        .map_err(|_| wrong(format!("\"level\" must be one of {}", LOG_LEVELS.join(", "))))?,
                )
            }
            _ => return Err(NoticeError::Method(method.to_owned())),
        };
        Self { topic, params }.bounded()
    }

    /// `notifications/tasks`; its length is the task store's affair.
    pub(super) fn task(id: CallId, params: &RawValue) -> Option<Self> {
        Some(Self { topic: Topic::Task(id), params: serde_json::from_str(params.get()).ok()? })
    }

    /// The name of the notification.
    pub fn method(&self) -> &'static str {
        match self.topic {
            Topic::Tools => "notifications/tools/list_changed",
            Topic::Prompts => "notifications/prompts/list_changed",
            Topic::Resources => "notifications/resources/list_changed",
            Topic::Resource(_) => "notifications/resources/updated",
            Topic::Task(_) => "notifications/tasks",
            Topic::Log(_) => "notifications/message",
        }
    }

    /// The beginning of the methods whose results are no longer true.
    pub(super) fn stale(&self) -> Option<&'static str> {
        match self.topic {
            Topic::Tools => Some("tools/"),
            Topic::Prompts => Some("prompts/"),
            Topic::Resources | Topic::Resource(_) => Some("resources/"),
            Topic::Task(_) | Topic::Log(_) => None,
        }
    }

    fn bounded(self) -> Result<Self, NoticeError> {
        let bytes = self.params.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum();
        if bytes > MAX_NOTICE { Err(NoticeError::TooLarge(bytes)) } else { Ok(self) }
    }
}

fn raw<T: Serialize + ?Sized>(value: &T) -> Result<Box<RawValue>, NoticeError> {
    to_raw_value(value).map_err(|error| NoticeError::Params {
        method: "a notice".to_owned(),
        why: format!("they have no form in JSON: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, params: &str) -> Result<Notice, NoticeError> {
        Notice::read(method, Some(&RawValue::from_string(params.to_owned()).unwrap()))
    }

    #[test]
    fn mcps_own_form_is_read() {
        assert_eq!(Notice::read("notifications/tools/list_changed", None).unwrap().topic, Topic::Tools);
        let updated = read("notifications/resources/updated", r#"{"uri":"a\u0062","x":1.0}"#).unwrap();
        assert_eq!(updated.topic, Topic::Resource("ab".into()));
        assert_eq!(updated.params["x"].get(), "1.0");
        let log = read("notifications/message", r#"{"level":"warning","data":null}"#).unwrap();
        assert_eq!(log.topic, Topic::Log(LogLevel::Warning));
        assert_eq!(log.method(), "notifications/message");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let long = format!("{{\"uri\":\"{}\"}}", "x".repeat(MAX_NOTICE));
        for (method, params, expected) in [
            ("notifications/progress", "{}", "can't be sent"),
            ("notifications/tasks", "{}", "can't be sent"),
            ("notifications/tools/list_changed", "[]", "object"),
            ("notifications/tools/list_changed", r#"{"_meta":7}"#, "_meta"),
            ("notifications/resources/updated", "{}", "uri"),
            ("notifications/resources/updated", r#"{"uri":7}"#, "uri"),
            ("notifications/resources/updated", &long, "limit"),
            ("notifications/message", r#"{"level":"loud","data":1}"#, "emergency"),
            ("notifications/message", r#"{"level":"info"}"#, "data"),
            ("notifications/message", r#"{"level":"info","data":1,"logger":7}"#, "logger"),
        ] {
            let error = read(method, params).unwrap_err().to_string();
            assert!(error.contains(expected), "{method} {error}");
        }
        assert!(matches!(
            Notice::log(LogLevel::Info, None, &"x".repeat(MAX_NOTICE)),
            Err(NoticeError::TooLarge(_))
        ));
    }

    #[test]
    fn levels_are_the_protocols() {
        for (level, name) in
            [(LogLevel::Debug, "debug"), (LogLevel::Warning, "warning"), (LogLevel::Emergency, "emergency")]
        {
            assert_eq!(level.as_str(), name);
            assert_eq!(serde_json::from_value::<LogLevel>(name.into()).unwrap(), level);
        }
    }
}
