//! One pass over a JSON text that makes sure that all who read it later read the same.
//!
//! The front end scans a message for a few members and passes its bytes on; the worker parses the same bytes
//! in full. Where a text has two meanings (a repeated member: first or last wins) the two could differ, and
//! a check made here would not hold there. So such texts are refused (RFC 7493, I-JSON, section 2.3).
//! What this pass accepts, `serde_json::Value` parses.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Members of objects up to which repeats are looked for one by one.
const LINEAR: usize = 16;

/// serde_json reads a member with such a name as an instruction to itself, not as data.
const RESERVED: &str = "$serde_json::private::";

/// Parses `text` and checks nesting (at most `depth` arrays and objects within one another) and that no
/// object has two members of one name.
pub(super) fn check(text: &str, depth: usize) -> Result<(), serde_json::Error> {
    let mut keys = Vec::new();
    let mut parser = serde_json::Deserializer::from_str(text);
    Walk { keys: &mut keys, depth }.deserialize(&mut parser)?;
    parser.end()
}

/// `keys` is a stack: each open object has its members' names on top.
struct Walk<'k, 'de> {
    keys: &'k mut Vec<Cow<'de, str>>,
    depth: usize,
}

impl<'de> Walk<'_, 'de> {
    fn inner<E: Error>(&mut self) -> Result<Walk<'_, 'de>, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Walk { keys: self.keys, depth }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(Walk { keys: inner.keys, depth: inner.depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let start = inner.keys.len();
        let mut many: Option<HashSet<Cow<'de, str>>> = None;
        while let Some(key) = members.next_key_seed(Key)? {
            if key.starts_with(RESERVED) {
                return Err(A::Error::custom("reserved member name"));
            }
            let repeated = match &mut many {
                Some(set) => !set.insert(key),
                None => {
                    let mine = inner.keys.get(start..).unwrap_or_default();
                    let repeated = mine.contains(&key);
                    inner.keys.push(key);
                    if inner.keys.len() - start > LINEAR {
                        many = Some(inner.keys.drain(start..).collect());
                    }
                    repeated
                }
            };
            if repeated {
                return Err(A::Error::custom("an object has two members of one name"));
            }
            members.next_value_seed(Walk { keys: inner.keys, depth: inner.depth })?;
        }
        inner.keys.truncate(start);
        Ok(())
    }
}

/// Reads a member's name, borrowed where it has no escapes.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// The first escape in a JSON text that is half of a character: a surrogate without its other half. JSON's grammar
/// has it (RFC 8259, section 8.2), and no text in Unicode can hold it.
pub(super) fn lone_surrogate(text: &str) -> Option<&str> {
    // JSON has backslashes in strings alone.
    let mut at = 0;
    loop {
        at += text.get(at..)?.find('\\')?;
        match code_unit(text, at) {
            Some(0xd800..=0xdbff) => match code_unit(text, at + 6) {
                Some(0xdc00..=0xdfff) => at += 12,
                _ => return text.get(at..at + 6),
            },
            Some(0xdc00..=0xdfff) => return text.get(at..at + 6),
            _ => at += 2,
        }
    }
}

/// The UTF-16 code unit that is escaped at a place.
fn code_unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}
