//! Which methods exist in which era, and what is wrong with the parameters of a known one.
//!
//! rmcp answers a known method with parameters that don't fit as if the method did not exist, and still
//! serves some methods that revision 2026-07-28 has removed. Both are decided here, by the method's name.

use rmcp::model::{self, ErrorCode, ErrorData};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::protocol::Era;

/// In which eras does a method exist?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lives {
    Always,
    In(Era),
}

/// Why parameters don't fit, in the words of the parser.
type Check = fn(&str) -> Option<String>;

fn fits<T: DeserializeOwned>(params: &str) -> Option<String> {
    serde_json::from_str::<T>(params).err().map(|error| error.to_string())
}

/// The requests that rmcp knows. Everything else is a custom method.
fn known(method: &str) -> Option<(Lives, Check)> {
    use Era::{Stateful, Stateless};
    use Lives::{Always, In};
    Some(match method {
        "initialize" => (In(Stateful), fits::<model::InitializeRequestParams>),
        "ping" => (In(Stateful), fits::<serde_json::Map<String, serde_json::Value>>),
        "logging/setLevel" => (In(Stateful), fits_set_level),
        "resources/subscribe" => (In(Stateful), fits::<model::SubscribeRequestParams>),
        "resources/unsubscribe" => (In(Stateful), fits::<model::UnsubscribeRequestParams>),
        "server/discover" => (In(Stateless), fits::<serde_json::Map<String, serde_json::Value>>),
        "subscriptions/listen" => (In(Stateless), fits::<model::SubscriptionsListenRequestParams>),
        "completion/complete" => (Always, fits::<model::CompleteRequestParams>),
        "prompts/get" => (Always, fits::<model::GetPromptRequestParams>),
        "prompts/list" | "resources/list" | "resources/templates/list" | "tools/list" | "skills/list" => {
            (Always, fits::<model::PaginatedRequestParams>)
        }
        "resources/read" => (Always, fits::<model::ReadResourceRequestParams>),
        "tools/call" => (Always, fits::<model::CallToolRequestParams>),
        "tasks/get" => (Always, fits::<model::GetTaskParams>),
        "tasks/update" => (Always, fits::<model::UpdateTaskParams>),
        "tasks/cancel" => (Always, fits::<model::CancelTaskParams>),
        "skills/get" => (Always, fits::<model::GetSkillRequestParams>),
        "resources/directory/read" => (Always, fits::<model::ReadResourceDirectoryRequestParams>),
        _ => return None,
    })
}

// Logging is deprecated in MCP, and served to the clients that use it.
#[expect(deprecated)]
fn fits_set_level(params: &str) -> Option<String> {
    fits::<model::SetLevelRequestParams>(params)
}

/// Refuses a method that does not exist in this era.
pub(super) fn gate(method: &str, era: Era) -> Result<(), ErrorData> {
    match known(method) {
        Some((Lives::In(lives), _)) if lives != era => {
            let message = format!("Method not found: this revision has no {method:?}.");
            Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
        }
        _ => Ok(()),
    }
}

/// The error for a known method whose parameters don't fit. `misread`: rmcp took it for a custom request.
pub(super) fn bad_params(method: &str, params: Option<&RawValue>, misread: bool) -> Option<ErrorData> {
    // Of optional parameters rmcp forgets what it can't read: a bad cursor would give the first page.
    if !misread && !method.ends_with("/list") {
        return None;
    }
    let (_, check) = known(method)?;
    let why = match params {
        None if misread => "there are none".to_owned(),
        None => return None,
        Some(params) => match check(params.get()) {
            Some(why) => why,
            None if misread => "they must be an object".to_owned(),
            None => return None,
        },
    };
    Some(ErrorData::invalid_params(format!("invalid parameters of {method}: {why}"), None))
}

/// A notification that rmcp knows: when it was read as a custom one, its parameters did not fit.
pub(super) fn known_notification(method: &str) -> bool {
    matches!(
        method,
        "notifications/cancelled"
            | "notifications/progress"
            | "notifications/initialized"
            | "notifications/roots/list_changed"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_era_has_its_methods() {
        let session =
            ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"];
        for method in session {
            assert_eq!(
                gate(method, Era::Stateless).unwrap_err().code,
                ErrorCode::METHOD_NOT_FOUND,
                "{method}"
            );
            assert!(gate(method, Era::Stateful).is_ok(), "{method}");
        }
        for method in ["server/discover", "subscriptions/listen"] {
            assert_eq!(
                gate(method, Era::Stateful).unwrap_err().code,
                ErrorCode::METHOD_NOT_FOUND,
                "{method}"
            );
            assert!(gate(method, Era::Stateless).is_ok(), "{method}");
        }
        for method in ["tools/call", "tools/list", "prompts/get", "x/own"] {
            assert!(gate(method, Era::Stateful).is_ok() && gate(method, Era::Stateless).is_ok(), "{method}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_parameters() {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        let error = bad_params("tools/call", Some(&raw(r#"{"arguments":{}}"#)), true).unwrap();
        assert_eq!(error.code, ErrorCode::INVALID_PARAMS);
        assert!(error.message.contains("name"), "{}", error.message);
        assert!(bad_params("tools/call", None, true).is_some());
        assert!(bad_params("tools/list", Some(&raw("7")), true).is_some());
        assert!(bad_params("x/own", None, true).is_none());
        assert!(bad_params("tools/list", Some(&raw(r#"{"cursor":7}"#)), false).is_some());
        assert!(bad_params("tools/list", Some(&raw(r#"{"cursor":"7"}"#)), false).is_none());
        assert!(bad_params("tools/list", None, false).is_none());
        assert!(bad_params("x/list", Some(&raw("7")), false).is_none());
    }
}
