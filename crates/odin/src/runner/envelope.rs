//! The outer form of JSON-RPC messages: what is read from the client's raw text, and how answers are
//! written. Ids and progress tokens stay raw text, so that the client gets back the very bytes it sent.

use std::collections::BTreeMap;

use rmcp::model::ErrorData;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::protocol::jsonrpc;

/// The client's progress token as it wrote it: a string or a number of any form.
pub(super) fn progress_token(params: Option<&RawValue>) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<Meta<'a>>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, default, rename = "progressToken")]
        token: Option<&'a RawValue>,
    }
    let params = params?;
    // Most requests have none: don't read their arguments twice.
    if !params.get().contains("progressToken") {
        return None;
    }
    let token = serde_json::from_str::<Params<'_>>(params.get()).ok()?.meta?.token?;
    token
        .get()
        .starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
        .then_some(token)
}

/// `arguments` of `params`.
pub(super) fn arguments(params: Option<&RawValue>) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, default)]
        arguments: Option<&'a RawValue>,
    }
    serde_json::from_str::<Params<'_>>(params?.get()).ok()?.arguments
}

/// A JSON-RPC answer with a result, under the client's id.
pub(super) fn result<T: Serialize>(id: &RawValue, result: &T) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(jsonrpc::result(id, to_raw_value(result)?))
}

/// A JSON-RPC answer with an error, under the client's id.
pub(super) fn error(id: &RawValue, error: &ErrorData) -> Box<RawValue> {
    // `ErrorData` is a number, a string and a JSON value: that can't fail to be written.
    let error = to_raw_value(error).unwrap_or_default();
    RawValue::from_string(jsonrpc::error(id, error)).unwrap_or_default()
}

/// A copy of the JSON object `text` with a member, unless it has one of that name.
pub(super) fn with_default(
    text: &RawValue,
    name: &str,
    value: impl FnOnce() -> Result<Box<RawValue>, serde_json::Error>,
) -> Result<Box<RawValue>, serde_json::Error> {
    let mut object: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text.get())?;
    if !object.contains_key(name) {
        object.insert(name.to_owned(), value()?);
    }
    to_raw_value(&object)
}

/// A copy of the JSON object `text` with `value` at `_meta.{key}`. What the object holds is not read.
pub(super) fn with_meta(
    text: &RawValue,
    key: &str,
    value: Box<RawValue>,
) -> Result<Box<RawValue>, serde_json::Error> {
    type Object = BTreeMap<String, Box<RawValue>>;
    let mut object: Object = serde_json::from_str(text.get())?;
    let mut meta: Object = match object.get("_meta") {
        Some(meta) => serde_json::from_str(meta.get())?,
        None => Object::new(),
    };
    meta.insert(key.to_owned(), value);
    object.insert("_meta".to_owned(), to_raw_value(&meta)?);
    to_raw_value(&object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn reads_ids_and_tokens_as_written() {
        for id in ["7", "1.0", "1e2", "-0", "12345678901234567890123", r#""\u0061""#, r#""""#] {
            let text = raw(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"x","params":{{"_meta":{{"progressToken":{id}}}}}}}"#
            ));
            let message = jsonrpc::Request::read(&text).unwrap();
            assert_eq!(message.id.unwrap().get(), id);
            assert_eq!(progress_token(message.params).unwrap().get(), id);
            let answer = error(message.id.unwrap(), &ErrorData::internal_error("x", None));
            assert!(answer.get().starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error""#)), "{answer}");
        }
    }

    #[test]
    fn what_is_neither_string_nor_number_is_no_token() {
        for token in ["null", "{}", "[1]", "true"] {
            let text = raw(&format!(r#"{{"method":"x","params":{{"_meta":{{"progressToken":{token}}}}}}}"#));
            assert!(progress_token(jsonrpc::Request::read(&text).unwrap().params).is_none(), "{token}");
        }
    }

    #[test]
    fn a_doubled_key_is_refused() {
        assert!(jsonrpc::Request::read(&raw(r#"{"id":1,"method":"a","method":"b"}"#)).is_err());
        assert!(jsonrpc::Request::read(&raw(r#"{"id":1,"id":2,"method":"a"}"#)).is_err());
    }

    #[test]
    fn patches_meta_and_leaves_the_rest() {
        let patched =
            with_meta(&raw(r#"{"a":[1.0,2],"_meta":{"k":1e2,"o":"p"}}"#), "k", raw("1.50")).unwrap();
        assert_eq!(patched.get(), r#"{"_meta":{"k":1.50,"o":"p"},"a":[1.0,2]}"#);
        let added = with_meta(&raw("{}"), "k", raw("1")).unwrap();
        assert_eq!(added.get(), r#"{"_meta":{"k":1}}"#);
        assert!(with_meta(&raw("[]"), "k", raw("1")).is_err());
    }
}
