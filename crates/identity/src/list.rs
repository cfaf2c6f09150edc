//! Lists in configuration that came through Kong.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Reads a list, and takes `{}` for an empty one: for `#[serde(deserialize_with = "…")]`.
///
/// Kong keeps configuration in Lua tables, which can't tell an empty list from an empty object, and
/// hands `{}` to a WebAssembly filter for both.
///
/// # Errors
/// The deserializer's, when the value is neither a list nor an empty object.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = access.next_element()? {
                items.push(item);
            }
            Ok(items)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
            match access.next_key::<String>()? {
                None => Ok(Vec::new()),
                Some(_) => Err(A::Error::custom("invalid type: object, expected a list")),
            }
        }
    }
    deserializer.deserialize_any(List(PhantomData))
}
