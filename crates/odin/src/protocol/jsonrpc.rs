//! JSON-RPC 2.0: messages read without copying, and written.
//!
//! Reading takes the members that decide; what is inside of them stays raw. Whether an incoming message of a client is
//! one at all is judged elsewhere ([`super::read_body`]): what is read here was written by this server's own side.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::code;

/// A request, or, without an id, a notification (JSON-RPC 2.0, 4).
#[derive(Debug, Clone, Deserialize)]
pub struct Request<'a> {
    /// Absent in notifications. `null` is no id either (MCP forbids it).
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// The method.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// The parameters.
    #[serde(borrow, default)]
    pub params: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is not an object, or names no method.
    pub fn read(message: &'a RawValue) -> Result<Self, serde_json::Error> {
        serde_json::from_str(message.get())
    }
}

/// A response (JSON-RPC 2.0, 5): a result or an error.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Response<'a> {
    /// The id of the request, as it was sent.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// The result. None when there is an error.
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    /// The error object.
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
}

impl<'a> Response<'a> {
    /// Reads a response; none when the text is not one object.
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The result as a type; none when there is none, or it does not fit.
    pub fn result_as<T: Deserialize<'a>>(&self) -> Option<T> {
        serde_json::from_str(self.result?.get()).ok()
    }

    /// The id as JSON; `null` when there is none.
    pub fn id(&self) -> &'a str {
        self.id.map_or("null", RawValue::get)
    }
}

/// The result of a response as a type, read from its text.
pub fn result_of<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    Response::read(text)?.result_as()
}

/// An error object (JSON-RPC 2.0, 5.1).
#[derive(Debug, Clone, Deserialize)]
pub struct ErrorObject<'a> {
    /// The code.
    #[serde(default)]
    pub code: i64,
    /// One sentence for people.
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
}

/// The error of a response, read from its text; none when it has none.
pub fn error_in(text: &str) -> Option<ErrorObject<'_>> {
    serde_json::from_str(Response::read(text)?.error?.get()).ok()
}

/// Writes a response with a result. `id` and `result` are JSON.
pub fn result(id: impl Display, result: impl Display) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// Writes a response with an error. `id` and `error` are JSON: see [`error_object`].
pub fn error(id: impl Display, error: impl Display) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Writes an error object. `data` is JSON.
pub fn error_object(code: i32, message: &str, data: Option<&RawValue>) -> String {
    let message = serde_json::Value::from(message);
    match data {
        Some(data) => format!(r#"{{"code":{code},"message":{message},"data":{data}}}"#),
        None => format!(r#"{{"code":{code},"message":{message}}}"#),
    }
}

/// Writes a request. `id` and `params` are JSON.
pub fn request(id: impl Display, method: &str, params: impl Display) -> String {
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#)
}

/// Writes a notification. `params` is JSON.
pub fn notification(method: &str, params: impl Display) -> String {
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","method":{method},"params":{params}}}"#)
}

/// Writes a notification without parameters.
pub fn bare_notification(method: &str) -> String {
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","method":{method}}}"#)
}

/// The response under another id, as JSON. One that can't be read becomes an error.
pub fn with_id(response: &str, id: impl Display) -> String {
    match Response::read(response) {
        Some(Response { result: Some(of), .. }) => result(id, of),
        Some(Response { error: Some(of), .. }) => error(id, of),
        _ => error(id, error_object(code::INTERNAL_ERROR, "The stored answer can't be read.", None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = result(r#""a\"b""#, r#"{"x":[1,2]}"#);
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":"a\"b","result":{"x":[1,2]}}"#);
        let read = Response::read(&text).unwrap();
        assert_eq!((read.id(), read.result.unwrap().get()), (r#""a\"b""#, r#"{"x":[1,2]}"#));
        assert!(read.error.is_none());

        let text = error(7, error_object(-32603, "say \"no\"", None));
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"say \"no\""}}"#);
        let read = Response::read(&text).unwrap();
        let object: ErrorObject<'_> = serde_json::from_str(read.error.unwrap().get()).unwrap();
        assert_eq!((object.code, &*object.message), (-32603, "say \"no\""));

        let data = RawValue::from_string(r#"{"a": 1}"#.into()).unwrap();
        assert_eq!(error_object(1, "m", Some(&data)), r#"{"code":1,"message":"m","data":{"a": 1}}"#);
        assert_eq!(
            notification("notifications/x", r#"{"y":1}"#),
            r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"y":1}}"#
        );
        assert_eq!(request(0, "m", "{}"), r#"{"jsonrpc":"2.0","id":0,"method":"m","params":{}}"#);
    }

    #[test]
    fn a_stored_response_gets_the_new_id() {
        let out = r#"{"jsonrpc":"2.0","id":1,"result":{"x":[1,2]}}"#;
        assert_eq!(with_id(out, "\"n\""), r#"{"jsonrpc":"2.0","id":"n","result":{"x":[1,2]}}"#);
        let out = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}"#;
        assert_eq!(with_id(out, "2"), r#"{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"m"}}"#);
        for broken in ["", "[]", "{}"] {
            assert!(with_id(broken, "3").starts_with(r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32603"#));
        }
    }
}
