//! `Mcp-Param-*`: headers that repeat arguments of a tool, as its schema asks for (`x-mcp-header`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::headers::{PARAM_PREFIX, decode_value, mirrored};
use super::message::{Message, is_object, text};
use super::refusal::{Refusal, excerpt};

/// Annotations of a schema that are used.
const RULES: usize = 64;

/// Nesting of properties that is looked into.
const DEPTH: usize = 16;

/// Which headers a tool's calls must carry: made once from its input schema, asked at each call.
///
/// Only for revision 2026-07-28. Call [`ParamRules::check`] for `tools/call`, with the rules of the tool that
/// `params.name` names, where the tool is known: in the worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamRules(Vec<ParamRule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ParamRule {
    /// Property names from the root of the arguments.
    path: Vec<String>,
    header: HeaderName,
    /// The header's name as the schema spells it, for messages.
    shown: String,
}

impl ParamRules {
    /// The annotations of an input schema. Annotations that break the specification's rules (not a token, of
    /// a type that is not string, integer or boolean, or a name twice) make a tool invalid for clients; here
    /// they are passed over.
    pub fn of_schema(input_schema: &Map<String, Value>) -> Self {
        let mut rules = Vec::new();
        collect(input_schema, &mut Vec::new(), &mut rules);
        Self(rules)
    }

    /// True for nearly all tools: nothing to check.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares the headers with `params.arguments`: numbers as numbers, all else as text.
    ///
    /// # Errors
    /// 400 with -32020.
    pub fn check(&self, headers: &HeaderMap, arguments: Option<&RawValue>) -> Result<(), Refusal> {
        self.0.iter().try_for_each(|rule| rule.check(headers, arguments))
    }
}

/// The `Mcp-Param-*` lines of a `tools/call`, for [`Job::headers`](crate::call::Job::headers). Bytes that are no
/// text come out as characters that [`ParamRules::check`] refuses.
pub fn param_headers(headers: &HeaderMap, message: &Message<'_>) -> Vec<(String, String)> {
    if !matches!(message, Message::Request(request) if request.method == "tools/call") {
        return Vec::new();
    }
    let lines = headers.iter().filter(|(name, _)| name.as_str().starts_with(PARAM_PREFIX));
    lines
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// The same lines as headers again.
pub(crate) fn header_map(lines: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    headers
}

fn collect(schema: &Map<String, Value>, path: &mut Vec<String>, rules: &mut Vec<ParamRule>) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    for (name, property) in properties {
        path.push(name.clone());
        let typed =
            matches!(property.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"));
        let header =
            property.get("x-mcp-header").and_then(Value::as_str).filter(|name| typed && !name.is_empty());
        if let Some(name) = header
            && let Ok(header) = HeaderName::from_bytes(format!("{PARAM_PREFIX}{name}").as_bytes())
            && rules.len() < RULES
            && rules.iter().all(|rule| rule.header != header)
        {
            rules.push(ParamRule { path: path.clone(), header, shown: format!("Mcp-Param-{name}") });
        }
        if let (Some(property), true) = (property.as_object(), path.len() < DEPTH) {
            collect(property, path, rules);
        }
        path.pop();
    }
}

impl ParamRule {
    fn check(&self, headers: &HeaderMap, arguments: Option<&RawValue>) -> Result<(), Refusal> {
        let header = match mirrored(headers, self.header.as_str())? {
            None => None,
            Some(value) => Some(decode_value(value).ok_or_else(|| {
                Refusal::header_mismatch(format!(
                    "Header mismatch: {} is not base64 of UTF-8 inside =?base64?…?=.",
                    self.shown
                ))
            })?),
        };
        let argument = arguments.and_then(|arguments| at(arguments, &self.path));
        let path = || format!("params.arguments.{}", self.path.join("."));
        match (header, argument.filter(|value| value.get() != "null")) {
            (None, None) => Ok(()),
            (Some(header), Some(value)) if equal(&header, value) => Ok(()),
            (Some(header), Some(value)) => Err(Refusal::header_mismatch(format!(
                "Header mismatch: {} is {:?}, but {} is {}. Send the same in both.",
                self.shown,
                excerpt(&header),
                path(),
                excerpt(value.get())
            ))),
            (None, Some(_)) => Err(Refusal::header_mismatch(format!(
                "Header mismatch: {} is missing. Send the value of {} in it; tools/list has the tool's schema.",
                self.shown,
                path()
            ))),
            (Some(_), None) => Err(Refusal::header_mismatch(format!(
                "Header mismatch: {} was sent, but the body has no {}.",
                self.shown,
                path()
            ))),
        }
    }
}

/// The value at a path of property names. Members are unique: [`read_body`](super::read_body) saw to it.
fn at<'a>(arguments: &'a RawValue, path: &[String]) -> Option<&'a RawValue> {
    path.iter().try_fold(arguments, |value, name| {
        if !is_object(value) {
            return None;
        }
        let mut members: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(value.get()).ok()?;
        members.remove(name.as_str())
    })
}

fn equal(header: &str, value: &RawValue) -> bool {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => text(value).is_some_and(|text| text == header),
        Some(b'-' | b'0'..=b'9') => {
            header == json || decimal(header).is_some_and(|h| Some(h) == decimal(json))
        }
        Some(b't' | b'f') => header == json,
        // Objects and arrays have no form as a header.
        _ => false,
    }
}

/// A number in JSON's notation as sign, digits without zeros at either end, and power of ten of the last digit:
/// equal numbers are equal, of any size, without rounding.
pub(crate) fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let trimmed = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - trimmed.len()).ok()?;
    let digits = trimmed.trim_start_matches('0');
    if digits.is_empty() {
        return Some((false, String::new(), 0));
    }
    let power = i64::from(exponent) - i64::try_from(fraction.len()).ok()? + zeros;
    Some((negative, digits.to_owned(), power))
}
