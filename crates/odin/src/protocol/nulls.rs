//! `null` for "not there": what many serializers write for a member that has no value.
//!
//! MCP's schema has its optional members absent, not `null`; clients send both. [`without_nulls`] takes such members
//! out of a body before anything reads it, so that front end, store and worker all see the one form.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::message::is_object;
use super::revision::is_defined;

/// How deep MCP's own objects are looked into. They are not nested as deep as this.
const DEPTH: usize = 12;

/// A body in which the optional members of JSON-RPC's envelope and of MCP's `params` and `result` that are `null` are
/// absent. Unchanged are `id`, what is in `arguments`, `content` and `structuredContent`, what others put into `_meta`,
/// the parameters of methods that MCP does not define, and any body that is not JSON or names a member twice:
/// [`read_body`](super::read_body) refuses those as they were sent.
pub fn without_nulls(body: &[u8]) -> Cow<'_, [u8]> {
    let cleaned = std::str::from_utf8(body)
        .ok()
        .filter(|text| text.contains("null"))
        .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
        .and_then(|raw| clean(raw, Place::Message, DEPTH));
    match cleaned {
        Some(cleaned) => Cow::Owned(<Box<str>>::from(cleaned).into_string().into_bytes()),
        None => Cow::Borrowed(body),
    }
}

/// What an object is, and so which of its members may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A JSON-RPC message, or a batch of them.
    Message,
    /// A JSON-RPC error: its `data` is the server's or the client's own.
    Failure,
    /// `params` of a method that MCP does not define: only their `_meta` is MCP's.
    Opaque,
    /// `_meta`: MCP's keys and those of others.
    Meta,
    /// Something that MCP defines.
    Defined,
}

impl Place {
    /// Whether `null` for the member means that it is absent.
    fn is_optional(self, name: &str, message: &Shape) -> bool {
        match self {
            // A result that is nothing but `null` is still one.
            Self::Message if name == "result" => message.has_method || message.has_error,
            Self::Message => name != "id",
            Self::Opaque => name == "_meta",
            Self::Meta => is_key_of_mcp(name),
            Self::Failure | Self::Defined => true,
        }
    }

    /// What the member's value is; none when it is not looked into.
    fn of(self, name: &str, message: &Shape) -> Option<Self> {
        Some(match (self, name) {
            (Self::Message, "params") if message.is_defined => Self::Defined,
            (Self::Message, "params") => Self::Opaque,
            (Self::Message, "result") => Self::Defined,
            (Self::Message, "error") => Self::Failure,
            (Self::Message | Self::Failure, _) => return None,
            (_, "_meta") => Self::Meta,
            (Self::Opaque, _) | (Self::Defined, "arguments" | "content" | "structuredContent") => {
                return None;
            }
            (Self::Meta, name) if !is_key_of_mcp(name) => return None,
            (Self::Meta | Self::Defined, _) => Self::Defined,
        })
    }
}

fn is_key_of_mcp(name: &str) -> bool {
    name.starts_with("io.modelcontextprotocol/")
        || matches!(name, "progressToken" | "traceparent" | "tracestate" | "baggage")
}

/// What a message has.
#[derive(Debug, Default)]
struct Shape {
    has_method: bool,
    has_error: bool,
    /// Its method is one of MCP's.
    is_defined: bool,
}

impl Shape {
    fn of(members: &Members<'_>) -> Self {
        let member = |name: &str| {
            let (_, value) = members.0.iter().find(|(known, _)| known == name)?;
            (value.get() != "null").then_some(*value)
        };
        let method = member("method");
        Self {
            has_method: method.is_some(),
            has_error: member("error").is_some(),
            is_defined: method.and_then(super::message::text).is_some_and(|method| is_defined(&method)),
        }
    }
}

/// The value without its optional `null`s; none when there are none.
fn clean(raw: &RawValue, place: Place, depth: usize) -> Option<Box<RawValue>> {
    let depth = depth.checked_sub(1)?;
    if !raw.get().contains("null") {
        return None;
    }
    if raw.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
        let cleaned: Vec<_> = items.iter().map(|item| clean(item, place, depth)).collect();
        if cleaned.iter().all(Option::is_none) {
            return None;
        }
        let items: Vec<&RawValue> =
            items.iter().zip(&cleaned).map(|(item, cleaned)| cleaned.as_deref().unwrap_or(item)).collect();
        return to_raw_value(&items).ok();
    }
    if !is_object(raw) {
        return None;
    }
    let members: Members<'_> = serde_json::from_str(raw.get()).ok()?;
    let message = if place == Place::Message { Shape::of(&members) } else { Shape::default() };
    let (mut kept, mut changed) = (Vec::with_capacity(members.0.len()), false);
    for (name, value) in members.0 {
        if value.get() == "null" && place.is_optional(&name, &message) {
            changed = true;
            continue;
        }
        let cleaned = place.of(&name, &message).and_then(|place| clean(value, place, depth));
        changed |= cleaned.is_some();
        kept.push((name, cleaned.map_or(Cow::Borrowed(value), Cow::Owned)));
    }
    if changed { to_raw_value(&Kept(&kept)).ok() } else { None }
}

/// An object's members, in their order; no name twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReadMembers)
    }
}

struct ReadMembers;

impl<'de> Visitor<'de> for ReadMembers {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut names = std::collections::HashSet::new();
        let mut members = Vec::new();
        while let Some(name) = access.next_key_seed(super::structure::Key)? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("an object has two members of one name"));
            }
            members.push((name, access.next_value()?));
        }
        Ok(Members(members))
    }
}

struct Kept<'a>(&'a [(Cow<'a, str>, Cow<'a, RawValue>)]);

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
