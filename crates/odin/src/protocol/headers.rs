//! Headers of MCP over HTTP: reading them once, content negotiation, the base64 form of values.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::refusal::{Refusal, code};

/// `Mcp-Session-Id`.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Method`.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// `Last-Event-ID`.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What the names of headers begin with that repeat a tool's arguments.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// Why a header has no usable value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// Sent on more than one line: who picks which can't be known.
    Repeated,
    /// Other bytes than visible ASCII, space and tab.
    Characters,
}

/// The only value of a header, without white space around it (RFC 9110, 5.5); `None` if it was not sent.
pub(super) fn only(
    headers: &HeaderMap,
    name: impl http::header::AsHeaderName,
) -> Result<Option<&str>, HeaderFault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderFault::Repeated);
    }
    match value.to_str() {
        Ok(value) => Ok(Some(value.trim_matches([' ', '\t']))),
        Err(_) => Err(HeaderFault::Characters),
    }
}

/// As [`only`], refusing with -32020.
pub(super) fn mirrored<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    only(headers, name).map_err(|fault| match fault {
        HeaderFault::Repeated => Refusal::header_mismatch(format!(
            "Header mismatch: {name} was sent more than once. Send it once."
        )),
        HeaderFault::Characters => Refusal::header_mismatch(format!(
            "Header mismatch: {name} has characters that a header can't carry. Send it as =?base64?…?=."
        )),
    })
}

/// Undoes the base64 form of `Mcp-Name` and `Mcp-Param-*` (transports, value encoding): `=?base64?` and `?=`,
/// case-sensitive, around standard base64 with padding, of UTF-8. Any other value stands for itself.
/// `None` for the form with wrong content.
pub fn decode_value(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        None => Some(Cow::Borrowed(value)),
        Some(encoded) => {
            let bytes = BASE64_STANDARD.decode(encoded).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
    }
}

/// 406 unless `Accept` covers each of `types`. No `Accept` at all means any (RFC 9110, 12.5.1).
pub(super) fn check_accept(headers: &HeaderMap, types: &[(&str, &str)]) -> Result<(), Refusal> {
    if !headers.contains_key(ACCEPT) {
        return Ok(());
    }
    if types.iter().all(|(kind, subtype)| accepts(headers, kind, subtype)) {
        return Ok(());
    }
    let wanted: Vec<String> = types.iter().map(|(kind, subtype)| format!("{kind}/{subtype}")).collect();
    Err(Refusal::new(
        StatusCode::NOT_ACCEPTABLE,
        code::INVALID_REQUEST,
        format!("The answer may be of a type that Accept leaves out. Send Accept: {}.", wanted.join(", ")),
    ))
}

/// The most specific range that fits decides, by whether its weight is zero.
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let mut best: Option<(u8, bool)> = None;
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some((range_kind, range_subtype)) = parts.next().and_then(|range| range.split_once('/'))
            else {
                continue;
            };
            let rank = match (range_kind, range_subtype) {
                ("*", "*") => 0,
                (k, "*") if k.eq_ignore_ascii_case(kind) => 1,
                (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => 2,
                _ => continue,
            };
            let refused = parts
                .filter_map(|parameter| parameter.split_once('='))
                .any(|(name, weight)| name.trim().eq_ignore_ascii_case("q") && is_zero(weight.trim()));
            match best {
                Some((other, _)) if other > rank => {}
                // Of two alike, the one that accepts.
                Some((other, true)) if other == rank => {}
                _ => best = Some((rank, !refused)),
            }
        }
    }
    best.is_some_and(|(_, accepted)| accepted)
}

fn is_zero(weight: &str) -> bool {
    weight.starts_with('0') && weight.chars().all(|c| matches!(c, '0' | '.'))
}

/// 415 unless the body is said to be JSON in UTF-8, uncompressed. That a browser can't send this type to
/// another site without asking first is part of the protection against foreign web pages.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |message: &'static str| {
        Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code::INVALID_REQUEST, message))
    };
    let mut parts = match only(headers, CONTENT_TYPE) {
        Ok(Some(value)) => value.split(';').map(str::trim),
        _ => return refuse("Send Content-Type: application/json, once."),
    };
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return refuse("The body must be JSON. Send Content-Type: application/json.");
    }
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            return refuse("The body must be in UTF-8. Send Content-Type: application/json.");
        }
    }
    match only(headers, CONTENT_ENCODING) {
        Ok(None) => Ok(()),
        Ok(Some(coding)) if coding.eq_ignore_ascii_case("identity") => Ok(()),
        _ => refuse("Compressed bodies are not read here. Send it without Content-Encoding."),
    }
}
