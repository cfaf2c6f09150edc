//! What the schema accepts the reader takes; what it refuses gets an error that says what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{InputSchema, plain};

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        other => panic!("{other}"),
    }
}

fn schema(value: Value) -> InputSchema {
    let schema = InputSchema::new("t", Arc::new(object(value)));
    assert!(schema.compiled.is_some());
    schema
}

fn fitted(schema: &InputSchema, arguments: Value) -> Result<Value, String> {
    let mut arguments = Some(object(arguments));
    schema.fit("t", &mut arguments)?;
    Ok(Value::Object(arguments.unwrap()))
}

/// What is wrong, without the words around it.
fn wrong(schema: &InputSchema, arguments: Value) -> String {
    let why = fitted(schema, arguments).unwrap_err();
    let why = why.strip_prefix("Invalid arguments of tool \"t\": ").unwrap();
    why.strip_suffix(". Call it again with what its inputSchema allows.").unwrap().to_owned()
}

#[test]
fn numbers_without_a_fraction_are_integers_where_such_are_asked_for() {
    let schema = schema(json!({
        "type": "object",
        "$defs": { "count": { "type": "integer" } },
        "properties": {
            "whole": { "type": "integer" },
            "referred": { "$ref": "#/$defs/count" },
            "maybe": { "type": ["integer", "null"] },
            "either": { "anyOf": [{ "type": "string" }, { "$ref": "#/$defs/count" }] },
            "list": { "type": "array", "prefixItems": [{ "type": "number" }], "items": { "type": "integer" } },
            "real": { "type": "number" },
            "any": {},
        },
        "patternProperties": { "^n_": { "type": "integer" } },
        "additionalProperties": { "type": "object", "additionalProperties": { "type": "integer" } },
    }));
    let given = r#"{"whole":7.0,"referred":-7e0,"maybe":1e3,"either":2.0,"list":[1.0,2.0,3],"real":7.0,"any":7.0,"n_x":4.0,"more":{"y":5.0}}"#;
    let expected = r#"{"whole":7,"referred":-7,"maybe":1000,"either":2,"list":[1.0,2,3],"real":7.0,"any":7.0,"n_x":4,"more":{"y":5}}"#;
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(fitted(&schema, parsed(given)).unwrap(), parsed(expected));
    assert_eq!(wrong(&schema, json!({ "whole": 7.5 })), "`whole` must be an integer, but is 7.5");
    // Nothing stays nothing, where that is allowed.
    let mut nothing = None;
    assert_eq!((schema.fit("t", &mut nothing), nothing), (Ok(()), None));
}

#[test]
fn errors_name_the_member_what_is_expected_and_the_value() {
    let schema = schema(json!({
        "type": "object",
        "required": ["text", "count"],
        "additionalProperties": false,
        "properties": {
            "text": { "type": "string", "minLength": 1, "maxLength": 3 },
            "count": { "type": "integer", "minimum": 1, "maximum": 10 },
            "price": { "type": "number", "multipleOf": 0.01, "exclusiveMinimum": 0 },
            "kind": { "enum": ["dry", "warm"] },
            "wish": { "oneOf": [{ "const": "dry" }, { "const": "warm" }] },
            "tags": { "type": "array", "items": { "type": "string" }, "maxItems": 2, "uniqueItems": true },
            "maybe": { "anyOf": [{ "type": "object", "required": ["name"], "properties": { "name": { "type": "string" } } }, { "type": "null" }] },
            "code": { "type": "string", "pattern": "^[A-Z]+$" },
        },
    }));
    let with = |name: &str, value: Value| {
        let mut arguments = json!({ "text": "a", "count": 1 });
        arguments[name] = value;
        arguments
    };
    for (name, value, expected) in [
        ("text", json!(7), "`text` must be a string, but is 7"),
        ("text", json!("äöüß"), "`text` must be a string of at most 3 characters, but has 4: \"äöüß\""),
        ("text", json!(""), "`text` must be a string of at least 1 characters, but has 0: \"\""),
        ("count", json!("many"), "`count` must be an integer, but is \"many\""),
        ("count", json!(0), "`count` must be an integer of at least 1, but is 0"),
        ("count", json!(1.5), "`count` must be an integer, but is 1.5"),
        ("count", json!(null), "`count` must be an integer, but is null"),
        ("count", json!(11.0), "`count` must be an integer of at most 10, but is 11"),
        ("price", json!(0.015), "`price` must be a multiple of 0.01, but is 0.015"),
        ("price", json!(0), "`price` must be a number greater than 0, but is 0"),
        ("kind", json!("cold"), "`kind` must be one of \"dry\", \"warm\", but is \"cold\""),
        ("wish", json!("cold"), "`wish` must be \"dry\" or \"warm\", but is \"cold\""),
        ("tags", json!("a"), "`tags` must be an array, but is \"a\""),
        ("tags", json!(["a", 1]), "`tags[1]` must be a string, but is 1"),
        (
            "tags",
            json!(["a", "b", "c"]),
            "`tags` must be an array of at most 2 items, but has 3: [\"a\",\"b\",\"c\"]",
        ),
        ("maybe", json!(true), "`maybe` must be an object or null, but is true"),
        ("maybe", json!({}), "`maybe.name` is missing: it must be a string"),
        ("maybe", json!({ "name": 7 }), "`maybe.name` must be a string, but is 7"),
        ("code", json!("a1"), "`code` must be a string that matches ^[A-Z]+$, but is \"a1\""),
        (
            "colour",
            json!("red"),
            "`colour` is not known here (its value is \"red\"); the members are `code`, `count`, `kind`, `maybe`, `price`, `tags`, `text`, `wish`",
        ),
    ] {
        assert_eq!(wrong(&schema, with(name, value)), expected);
    }
    assert_eq!(
        wrong(&schema, json!({})),
        "`text` is missing: it must be a string; `count` is missing: it must be an integer"
    );
    for (name, value) in [
        ("text", json!("äöü")),
        ("text", json!("\u{1f600}")),
        ("count", json!(10.0)),
        // Exact, where a division of floating-point numbers is not.
        ("price", json!(0.07)),
        ("price", json!(1.1)),
        ("maybe", json!(null)),
    ] {
        assert!(fitted(&schema, with(name, value.clone())).is_ok(), "{name} {value}");
    }
    let many = wrong(
        &schema,
        json!({ "text": 1, "count": "x", "kind": 1, "tags": [1, 2, 3], "code": "x", "a": 1, "b": 2 }),
    );
    assert!(many.contains("more") && many.len() < 1000, "{many}");
    let long = wrong(&schema, with("count", json!("x".repeat(100_000))));
    assert!(long.len() < 200, "{long}");
}

#[test]
fn what_is_no_schema_of_its_own_is_not_used() {
    for bad in [
        json!({ "type": "objekt" }),
        json!({ "type": "object", "properties": { "a": { "$ref": "file:///etc/hostname" } } }),
        json!({ "type": "object", "properties": { "a": { "$ref": "https://example.com/a" } } }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/none" } } }),
    ] {
        let schema = InputSchema::new("t", Arc::new(object(bad)));
        assert!(schema.compiled.is_none());
        assert_eq!(fitted(&schema, json!({ "a": 7.0 })).unwrap(), json!({ "a": 7.0 }));
    }
    // One that refers to itself is one.
    let tree = schema(
        json!({ "type": "object", "properties": { "n": { "type": "integer" }, "inner": { "$ref": "#" } } }),
    );
    let fits = fitted(&tree, json!({ "n": 1.0, "inner": { "inner": { "n": 2.0 } } })).unwrap();
    assert_eq!(fits, json!({ "n": 1, "inner": { "inner": { "n": 2 } } }));
    assert_eq!(wrong(&tree, json!({ "inner": { "n": "x" } })), "`inner.n` must be an integer, but is \"x\"");
}

#[test]
fn formats_of_numbers_become_bounds_and_others_stay() {
    let source = json!({
        "type": "object",
        "properties": {
            "small": { "type": "integer", "format": "uint8", "minimum": 3 },
            "count": { "type": ["integer", "null"], "format": "uint64", "minimum": 0 },
            "real": { "anyOf": [{ "type": "number", "format": "double" }] },
            "day": { "type": "string", "format": "date" },
            "format": { "type": "string" },
        },
        "default": { "type": "integer", "format": "uint8" },
    });
    let schema = Value::Object(plain(&Arc::new(object(source))).unwrap().as_ref().clone());
    let properties = &schema["properties"];
    assert_eq!(properties["small"], json!({ "type": "integer", "minimum": 3, "maximum": 255 }));
    assert_eq!(
        properties["count"],
        json!({ "type": ["integer", "null"], "minimum": 0, "maximum": 18_446_744_073_709_549_568_u64 })
    );
    assert_eq!(properties["real"]["anyOf"], json!([{ "type": "number" }]));
    assert_eq!(properties["day"]["format"], "date");
    // Data is no schema.
    assert_eq!(schema["default"], json!({ "type": "integer", "format": "uint8" }));
    assert!(plain(&Arc::new(object(schema))).is_none());
}

/// Something of each type that a handler may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)] // only read from JSON
struct Everything {
    i8: i8,
    u16: u16,
    i32: i32,
    u32: Option<u32>,
    i64: i64,
    u64: u64,
    size: usize,
    f32: f32,
    f64: f64,
    flag: bool,
    #[schemars(length(min = 1, max = 3))]
    text: String,
    #[schemars(length(max = 3))]
    list: Vec<u8>,
    pair: (i16, String),
    map: BTreeMap<String, i64>,
    kind: Kind,
    nested: Option<Box<Nested>>,
    tagged: Tagged,
    either: Either,
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    step: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// Little rain.
    Dry,
    Warm,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Nested {
    n: u8,
    #[serde(default)]
    inner: Option<Box<Nested>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(dead_code)]
enum Tagged {
    Point { x: i32, y: i32 },
    Named { name: String },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum Either {
    Number(i64),
    Text(String),
}

fn everything() -> Value {
    json!({
        "i8": -1, "u16": 1, "i32": -1, "u32": null, "i64": -1, "u64": 1, "size": 1, "f32": 1.5, "f64": 2, "flag": true,
        "text": "äö", "list": [1, 2], "pair": [1, "x"], "map": { "a": 1 }, "kind": "dry",
        "nested": { "n": 1, "inner": { "n": 2 } }, "tagged": { "type": "point", "x": 1, "y": 2 }, "either": "x", "step": 3,
    })
}

/// A value that is somewhere right and somewhere wrong.
fn leaf() -> impl Strategy<Value = Value> {
    proptest::sample::select(vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-0.0),
        json!(7.0),
        json!(7.5),
        json!(-1),
        json!(-128.0),
        json!(-129),
        json!(255.0),
        json!(256),
        json!(65_536.0),
        json!(4_294_967_296_u64),
        json!(9_007_199_254_740_992.0),
        json!(9_223_372_036_854_775_808_u64),
        json!(-9_223_372_036_854_775_808_i64),
        json!(-9.3e18),
        json!(18_446_744_073_709_549_568_u64),
        json!(18_446_744_073_709_551_616.0),
        json!(1e300),
        json!(""),
        json!("dry"),
        json!("wet"),
        json!("äöü"),
        json!("äöüß"),
        json!("\u{1f600}\u{1f600}\u{1f600}"),
        json!([]),
        json!([1.0, 2]),
        json!([1, 2, 3, 4]),
        json!([1.0, "x"]),
        json!({}),
        json!({ "a": 7.0 }),
        json!({ "n": 3.0 }),
        json!({ "n": 3, "more": 1 }),
        json!({ "type": "named", "name": "x" }),
        json!({ "type": "point", "x": 1.0, "y": "2" }),
    ])
}

/// Puts a value at a place; which one, the picks say.
fn change(value: &mut Value, picks: &mut impl Iterator<Item = usize>, leaf: &Value, remove: bool) {
    let pick = picks.next().unwrap_or_default();
    let deeper = picks.next().unwrap_or_default().is_multiple_of(2);
    match value {
        Value::Object(members) if !members.is_empty() => {
            let name = members.keys().nth(pick % members.len()).cloned().unwrap_or_default();
            let member = members.get_mut(&name).unwrap();
            if deeper && (member.is_object() || member.is_array()) {
                change(member, picks, leaf, remove);
            } else if remove {
                members.remove(&name);
            } else {
                *member = leaf.clone();
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = pick % items.len();
            items[index] = leaf.clone();
        }
        other => *other = leaf.clone(),
    }
}

/// All numbers without a fraction as integers, whatever the schema.
fn all_whole(value: &Value) -> Value {
    match value {
        Value::Number(number) => super::whole(number).unwrap_or_else(|| number.clone()).into(),
        Value::Array(items) => items.iter().map(all_whole).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), all_whole(member)))
            .collect::<JsonObject>()
            .into(),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_schema_accepts_the_tool_accepts(
        changes in proptest::collection::vec((proptest::collection::vec(any::<usize>(), 8), leaf(), proptest::bool::weighted(0.2)), 0..3),
    ) {
        let source = rmcp::handler::server::tool::schema_for_type::<Everything>();
        let schema = InputSchema::new("t", source);
        prop_assert!(schema.compiled.is_some());
        let mut given = everything();
        for (picks, leaf, remove) in changes {
            change(&mut given, &mut picks.into_iter(), &leaf, remove);
        }
        let Value::Object(_) = &given else { return Ok(()) };
        let takes = |value: &Value| serde_json::from_value::<Everything>(value.clone());
        let within = |all: Everything| {
            (1..=3).contains(&all.text.chars().count()) && all.list.len() <= 3 && all.step <= 10
        };
        match fitted(&schema, given.clone()) {
            Ok(fits) => {
                prop_assert!(takes(&fits).is_ok(), "{given}: {:?}", takes(&fits));
                prop_assert_eq!(all_whole(&fits), all_whole(&given));
            }
            Err(why) => {
                prop_assert!(!takes(&all_whole(&given)).is_ok_and(within), "{given}: {why}");
                let says = ["must be", "is missing", "is not known", "fits none", "does not allow"];
                prop_assert!(why.contains('`') && says.iter().any(|says| why.contains(says)), "{given}: {why}");
            }
        }
    }
}
