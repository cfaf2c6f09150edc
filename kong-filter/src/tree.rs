//! Reads serde types out of a JSON value and remembers where it stands, so that an error can name the
//! place. (A tracking wrapper around serde_json's own reader would compile every type twice, which a
//! WebAssembly module of bounded size can't afford.)

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde_json::Value;

/// Where an error is, as `issuers[0].jwks.path`, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The path; empty for the whole document.
    pub path: String,
    /// What is wrong. Shows no value, only its kind: it could be a secret.
    pub message: String,
}

/// Reads a type out of a value. An empty object is taken for an empty list where a list is wanted: Kong
/// hands over `{}` for both.
///
/// # Errors
/// [`Error`], the first that comes up.
pub fn read<T: de::DeserializeOwned>(value: &Value) -> Result<T, Error> {
    let trail = RefCell::new(Vec::new());
    T::deserialize(Node { value, trail: &trail }).map_err(|Message(message)| {
        let mut path = String::new();
        for step in trail.borrow().iter() {
            match step {
                Step::Member(name) if path.is_empty() => path.push_str(name),
                Step::Member(name) => path.push_str(&format!(".{name}")),
                Step::Item(index) => path.push_str(&format!("[{index}]")),
            }
        }
        Error { path, message }
    })
}

#[derive(Debug)]
struct Message(String);

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Message {}

impl de::Error for Message {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self(format!("give {wanted}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self(format!("give {wanted}"))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self(format!("there is no such setting; the settings here are {}", known.join(", ")))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self(format!("this is not one of {}", known.join(", ")))
    }

    fn missing_field(name: &'static str) -> Self {
        Self(format!("the setting {name} is missing"))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

enum Step<'a> {
    Member(&'a str),
    Item(usize),
}

#[derive(Clone, Copy)]
struct Node<'a, 't> {
    value: &'a Value,
    trail: &'t RefCell<Vec<Step<'a>>>,
}

impl<'a> Node<'a, '_> {
    fn wanted<T>(self, what: &str) -> Result<T, Message> {
        Err(Message(format!("this is {}; give {what}", kind(self.value))))
    }

    /// Reads a child. When that fails its step stays in the trail, for the error.
    fn child<'de, T: DeserializeSeed<'de>>(
        self,
        step: Step<'a>,
        seed: T,
        value: &'a Value,
    ) -> Result<T::Value, Message> {
        self.trail.borrow_mut().push(step);
        let read = seed.deserialize(Node { value, trail: self.trail })?;
        self.trail.borrow_mut().pop();
        Ok(read)
    }
}

impl<'de> Deserializer<'de> for Node<'_, '_> {
    type Error = Message;

    // Each hint is followed to the letter, and nothing else is offered to the visitor: what a visitor
    // could do with other types is code that never runs.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Message> {
        Err(Message::custom("settings of any type are not supported"))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => self.wanted("true or false"),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        let number = self.value.as_u64().or_else(|| {
            // Kong's Lua has doubles only: 10.0 is 10.
            let value = self.value.as_f64()?;
            (value.fract() == 0.0 && (0.0..9e15).contains(&value)).then_some(value as u64)
        });
        match number {
            Some(number) => visitor.visit_u64(number),
            None => self.wanted("a whole number, not negative"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::String(text) => visitor.visit_str(text),
            _ => self.wanted("a string"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        self.deserialize_str(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        match self.value {
            Value::Object(members) => {
                visitor.visit_map(Members { node: self, members: members.iter(), value: None })
            }
            _ => self.wanted("an object"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Message> {
        self.deserialize_map(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Message> {
        let items = match self.value {
            Value::Array(items) => items.as_slice(),
            Value::Object(members) if members.is_empty() => &[],
            _ => return self.wanted("a list"),
        };
        visitor.visit_seq(Items { node: self, items: items.iter().enumerate() })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Message> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Message> {
        match self.value {
            Value::String(name) => visitor.visit_enum(Variant(name)),
            _ => self.wanted("a name"),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 u16 u32 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'a, 't> {
    node: Node<'a, 't>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Message;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Message> {
        match self.items.next() {
            Some((index, value)) => self.node.child(Step::Item(index), seed, value).map(Some),
            None => Ok(None),
        }
    }
}

struct Members<'a, 't> {
    node: Node<'a, 't>,
    members: serde_json::map::Iter<'a>,
    value: Option<(&'a str, &'a Value)>,
}

impl<'de> MapAccess<'de> for Members<'_, '_> {
    type Error = Message;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Message> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        self.value = Some((name, value));
        // An unknown name is an error of this member's.
        self.node.trail.borrow_mut().push(Step::Member(name));
        let key = seed.deserialize(name.as_str().into_deserializer())?;
        self.node.trail.borrow_mut().pop();
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Message> {
        let (name, value) = self.value.take().ok_or_else(|| Message::custom("a value without a name"))?;
        self.node.child(Step::Member(name), seed, value)
    }
}

/// An enumeration's variant without content.
struct Variant<'a>(&'a str);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Message;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Message> {
        Ok((seed.deserialize(self.0.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Message;

    fn unit_variant(self) -> Result<(), Message> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Message> {
        Err(Message::custom("give a name alone"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Message> {
        Err(Message::custom("give a name alone"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Message> {
        Err(Message::custom("give a name alone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        list: Vec<Inner>,
        #[serde(default)]
        size: u64,
        #[serde(default)]
        maybe: Option<bool>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        kind: Kind,
        name: Name,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(transparent)]
    struct Name(String);

    #[test]
    fn reads_what_serde_reads() {
        let value = json!({"list": [{"kind": "one", "name": "a"}, {"kind": "two", "name": "b"}], "size": 3, "maybe": null});
        assert_eq!(read::<Outer>(&value).unwrap(), Outer::deserialize(&value).unwrap());
        assert_eq!(
            read::<Outer>(&json!({"list": {}, "size": 3.0})).unwrap(),
            Outer { list: vec![], size: 3, maybe: None }
        );
    }

    #[test]
    fn errors_name_the_place_and_no_value() {
        for (value, path, part) in [
            (
                json!({"list": [{"kind": "one", "name": "a"}, {"kind": "secret", "name": "b"}]}),
                "list[1].kind",
                "one, two",
            ),
            (json!({"list": [{"kind": "one", "name": 7}]}), "list[0].name", "a number; give a string"),
            (json!({"list": [{"kind": "one"}]}), "list[0]", "name is missing"),
            (json!({"list": [{"kind": "one", "name": "a", "x": 1}]}), "list[0].x", "kind, name"),
            (json!({"list": {"x": "secret"}}), "list", "an object; give a list"),
            (json!({"list": [], "size": "secret"}), "size", "a string; give a whole number"),
            (json!({"list": [], "size": -1}), "size", "a number"),
            (json!({"list": [], "maybe": "secret"}), "maybe", "true or false"),
            (json!([]), "", "a list"),
            (json!({}), "", "list is missing"),
        ] {
            let error = read::<Outer>(&value).unwrap_err();
            assert_eq!(error.path, path, "{error:?}");
            assert!(error.message.contains(part) && !error.message.contains("secret"), "{error:?}");
        }
    }
}
