//! Schemas as data: which of them hold for a value, and how they are advertised.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::{Map, Value, json};

/// Schemas that hold for one value, at most; others are passed over.
const MOST: usize = 256;

/// Members of a schema that are schemas.
const SCHEMAS: [&str; 13] = [
    "items",
    "additionalItems",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contains",
    "contentSchema",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "prefixItems",
];

/// Members of a schema that are objects of schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Members of a schema that are lists of schemas for the same value.
const COMBINED: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Integers of Rust and what they can hold, of 64 bits the largest that every reader of JSON can hold as well.
const INTEGERS: [(&str, i64, u64); 12] = [
    ("int8", i8::MIN as i64, i8::MAX as u64),
    ("int16", i16::MIN as i64, i16::MAX as u64),
    ("int32", i32::MIN as i64, i32::MAX as u64),
    ("int64", i64::MIN, 9_223_372_036_854_774_784),
    ("int", i64::MIN, 9_223_372_036_854_774_784),
    ("int128", i64::MIN, 18_446_744_073_709_549_568),
    ("uint8", 0, u8::MAX as u64),
    ("uint16", 0, u16::MAX as u64),
    ("uint32", 0, u32::MAX as u64),
    ("uint64", 0, 18_446_744_073_709_549_568),
    ("uint", 0, 18_446_744_073_709_549_568),
    ("uint128", 0, 18_446_744_073_709_549_568),
];

/// A schema in the words of JSON Schema: formats of numbers (`uint64`, `double`) are Rust's own and become bounds.
/// Without them a client takes for valid what the reader can't hold, and validators of some clients warn about each.
/// None when there is nothing to change.
pub(in crate::runner) fn plain(schema: &Arc<JsonObject>) -> Option<Arc<JsonObject>> {
    let mut changed = schema.as_ref().clone();
    plain_object(&mut changed);
    (changed != **schema).then(|| Arc::new(changed))
}

fn plain_object(schema: &mut Map<String, Value>) {
    let is_number = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number"));
    let of_number = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(is_number),
        Some(kind) => is_number(kind),
        None => false,
    };
    if of_number && let Some(Value::String(format)) = schema.get("format").cloned() {
        schema.remove("format");
        if let Some((_, least, most)) = INTEGERS.iter().find(|(name, ..)| *name == format) {
            schema.entry("minimum").or_insert(json!(least));
            schema.entry("maximum").or_insert(json!(most));
        }
    }
    for (name, member) in schema.iter_mut() {
        let name = name.as_str();
        match member {
            Value::Object(named) if NAMED.contains(&name) => named.values_mut().for_each(plain_value),
            Value::Object(schema) if SCHEMAS.contains(&name) => plain_object(schema),
            Value::Array(list) if SCHEMAS.contains(&name) || COMBINED.contains(&name) => {
                list.iter_mut().for_each(plain_value);
            }
            _ => {}
        }
    }
}

fn plain_value(schema: &mut Value) {
    if let Value::Object(schema) = schema {
        plain_object(schema);
    }
}

/// Schemas that hold, or may hold, for one value.
pub(super) struct Applied<'s>(Vec<&'s Map<String, Value>>);

/// The schemas with all that they refer to and combine.
pub(super) fn applied<'s>(root: &'s Value, schemas: impl IntoIterator<Item = &'s Value>) -> Applied<'s> {
    let mut found: Vec<&Map<String, Value>> = Vec::new();
    let mut open: Vec<&Value> = schemas.into_iter().collect();
    while let Some(schema) = open.pop() {
        let Value::Object(schema) = schema else { continue };
        if found.len() >= MOST || found.iter().any(|known| std::ptr::eq(*known, schema)) {
            continue;
        }
        found.push(schema);
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        open.extend(reference.and_then(|pointer| root.pointer(pointer)));
        open.extend(COMBINED.iter().filter_map(|name| schema.get(*name)?.as_array()).flatten());
        open.extend(["then", "else"].iter().filter_map(|name| schema.get(*name)));
    }
    Applied(found)
}

/// The schemas of a member of an object.
pub(super) fn members_of<'s>(schemas: &Applied<'s>, name: &str) -> Vec<&'s Value> {
    let mut found = Vec::new();
    for schema in &schemas.0 {
        let named = schema.get("properties").and_then(|named| named.get(name));
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        found.extend(named);
        if named.is_none() {
            // Which pattern fits does not matter: what is wrong, the schema itself says.
            found.extend(patterns.into_iter().flat_map(Map::values));
            found.extend(
                ["additionalProperties", "unevaluatedProperties"].iter().filter_map(|rest| schema.get(*rest)),
            );
        }
    }
    found
}

impl<'s> Applied<'s> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them asks for a type.
    pub(super) fn allow_type(&self, kind: &str) -> bool {
        self.types().contains(&kind)
    }

    /// The types that they ask for, in JSON Schema's words.
    pub(super) fn types(&self) -> Vec<&'s str> {
        let mut types = Vec::new();
        for kind in self.0.iter().filter_map(|schema| schema.get("type")) {
            let kinds = kind.as_array().map_or(std::slice::from_ref(kind), Vec::as_slice);
            for kind in kinds.iter().filter_map(Value::as_str) {
                if !types.contains(&kind) {
                    types.push(kind);
                }
            }
        }
        types
    }

    /// The names of the members that they know.
    pub(super) fn names(&self) -> Vec<&'s str> {
        let named = self.0.iter().filter_map(|schema| schema.get("properties")?.as_object());
        named.flat_map(Map::keys).map(String::as_str).collect()
    }

    /// The schemas of an item of an array.
    pub(super) fn of_item(&self, index: usize) -> Vec<&'s Value> {
        let mut found = Vec::new();
        for schema in &self.0 {
            let at = |name: &str| schema.get(name)?.as_array()?.get(index);
            let item = at("prefixItems").or_else(|| at("items"));
            found.extend(item);
            if item.is_none() {
                let rest = ["items", "additionalItems", "unevaluatedItems"];
                found.extend(rest.iter().filter_map(|name| schema.get(*name)));
            }
            found.extend(schema.get("contains"));
        }
        found
    }
}
