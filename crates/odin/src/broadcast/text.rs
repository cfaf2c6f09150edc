//! Messages as they go out: to the stateful eras as they are, to stateless streams as a template that holds a
//! place for each stream's own subscription id.
//!
//! The template is what Pushpin's filter `var-subst` reads: `%(id)s` is the id, `%%` a percent sign, and
//! anything else after a `%` would end the stream.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::protocol::{SUBSCRIPTION_ID, jsonrpc, sse};

/// The name of the id among a stream's values, as Pushpin knows it.
pub(super) const ID: &str = "id";
/// Its place in a template.
const PLACE: &str = "%(id)s";

/// The members of a JSON object, each as it was written.
pub(super) type Members = BTreeMap<String, Box<RawValue>>;

/// An event of the stateful eras: a notification with these parameters, and no id.
pub(super) fn session(method: &str, params: &Members) -> String {
    if params.is_empty() {
        return event(&jsonrpc::bare_notification(method));
    }
    let mut text = String::new();
    object(&mut text, params);
    event(&jsonrpc::notification(method, text))
}

/// The template of an event for stateless streams: a notification with these parameters, and the subscription's
/// id in its `_meta`.
pub(super) fn modern(method: &str, params: &Members) -> String {
    let mut others = params.clone();
    let meta: Members =
        others.remove("_meta").and_then(|meta| serde_json::from_str(meta.get()).ok()).unwrap_or_default();
    let mut text = String::from("{");
    members(&mut text, &others);
    if !others.is_empty() {
        text.push(',');
    }
    let params = format!("{}{}}}", escape(&text), tag(meta));
    event(&jsonrpc::notification(&escape(method), params))
}

/// The template of the last event of a stateless stream that the server ends: the answer to the request that
/// opened it (2026-07-28, subscriptions, graceful closure).
pub(super) fn complete() -> String {
    let tag = tag(Members::new());
    event(&jsonrpc::result(PLACE, format!(r#"{{"resultType":"complete",{tag}}}"#)))
}

/// What a template becomes on the stream with this id. Pushpin does the same.
pub(super) fn fill(template: &str, id: &str) -> String {
    let mut text = String::with_capacity(template.len() + id.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        rest = match after.strip_prefix('%') {
            Some(after) => {
                text.push('%');
                after
            }
            None => {
                text.push_str(id);
                after.strip_prefix("(id)s").unwrap_or(after)
            }
        };
    }
    text + rest
}

/// The same JSON in ASCII: a header carries it to Pushpin.
pub(super) fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

/// One server-sent event. A line end in JSON stands between its tokens, where a space does as well.
pub(super) fn event(message: &str) -> String {
    sse::message(message.replace(['\n', '\r'], " "))
}

fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

/// `"_meta":{…}` as template.
fn tag(mut meta: Members) -> String {
    meta.remove(SUBSCRIPTION_ID);
    let mut text = String::from("\"_meta\":{");
    members(&mut text, &meta);
    if !meta.is_empty() {
        text.push(',');
    }
    format!("{}\"{SUBSCRIPTION_ID}\":{PLACE}}}", escape(&text))
}

fn object(text: &mut String, of: &Members) {
    text.push('{');
    members(text, of);
    text.push('}');
}

fn members(text: &mut String, of: &Members) {
    for (number, (name, value)) in of.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        text.push_str(&string(name));
        text.push(':');
        text.push_str(value.get());
    }
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn members(json: &Value) -> Members {
        serde_json::from_str(&json.to_string()).unwrap()
    }

    fn message(event: &str) -> Value {
        let data = event.strip_prefix("event: message\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\n', '\r']), "{data}");
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn each_era_has_its_form() {
        let params = members(&json!({ "uri": "file:///100%25/%(id)s" }));
        assert_eq!(
            session("notifications/resources/updated", &params),
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\
             \"params\":{\"uri\":\"file:///100%25/%(id)s\"}}\n\n"
        );
        let template = modern("notifications/resources/updated", &params);
        assert_eq!(
            message(&fill(&template, "\"a%%b\"")),
            json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {
                "uri": "file:///100%25/%(id)s",
                "_meta": { "io.modelcontextprotocol/subscriptionId": "a%%b" },
            }})
        );
        assert_eq!(
            session("notifications/tools/list_changed", &Members::new()),
            "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n"
        );
        assert_eq!(
            message(&fill(&complete(), "7")),
            json!({ "jsonrpc": "2.0", "id": 7, "result": {
                "resultType": "complete", "_meta": { "io.modelcontextprotocol/subscriptionId": 7 },
            }})
        );
    }

    #[test]
    fn numbers_stay_as_written_and_lines_whole() {
        let params: Members =
            serde_json::from_str("{\"n\": 1.50e3,\r\n \"o\": {\n\"big\": 12345678901234567890123}}").unwrap();
        let text = fill(&modern("notifications/tasks", &params), "1");
        message(&text);
        assert!(text.contains("1.50e3") && text.contains("12345678901234567890123"), "{text}");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
            "[%()ids]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop::collection::btree_map("[%()a-z\\n\"]{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn a_template_loses_nothing(params in prop::collection::btree_map("[%()a-z\"]{0,6}", any_json(), 0..4),
                                    meta in prop::collection::btree_map("[%a-z/]{0,6}", any_json(), 0..3),
                                    id in prop_oneof![any::<i64>().prop_map(Value::from), ".*".prop_map(Value::from)]) {
            let mut params = Value::Object(params.into_iter().collect());
            params["_meta"] = Value::Object(meta.into_iter().collect());
            let filled = fill(&modern("notifications/x", &members(&params)), &id.to_string());
            params["_meta"]["io.modelcontextprotocol/subscriptionId"] = id;
            prop_assert_eq!(message(&filled)["params"].clone(), params);
        }

        #[test]
        fn ascii_means_the_same(text in ".*") {
            let json = Value::from(text).to_string();
            let ascii = ascii(&json);
            prop_assert!(ascii.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(serde_json::from_str::<Value>(&ascii).unwrap(), serde_json::from_str::<Value>(&json).unwrap());
        }
    }
}
