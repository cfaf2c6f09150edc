//! The tasks extension (`io.modelcontextprotocol/tasks`): how a client says that it knows it.

use std::collections::HashMap;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::refusal::{Refusal, code};

/// The extension's name in capabilities.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";

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
