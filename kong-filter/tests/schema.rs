//! What is made of the configuration's types: the JSON Schema that Kong reads beside the module, and the
//! reference page. Fails when a file is not as the types say; `ASGARD_WRITE=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kong_filter::config::Config;
use kong_filter::filter::Service;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

const META: &str = "kong/kong_filter.meta.json";
const PAGE: &str = "docs/filter-configuration.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The schema of the types, with every part in its place.
fn schema() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

fn is_as_generated(file: &str, wanted: &str) {
    let path = root().join(file);
    if std::env::var_os("ASGARD_WRITE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == wanted,
        "{file} is stale: run ASGARD_WRITE=1 cargo test -p kong-filter --test schema, and commit it"
    );
}

/// In the words of draft 4, the one that Kong knows; an empty object is taken for an empty list, since
/// Kong's Lua can't tell them apart.
fn draft4(schema: &Value) -> Value {
    let Value::Object(members) = schema else {
        return schema.clone();
    };
    let mut out = Map::new();
    for (name, value) in members {
        match name.as_str() {
            "$schema" | "title" | "format" | "default" => {}
            "const" => {
                out.insert("enum".into(), json!([value]));
            }
            "properties" => {
                let properties = value.as_object().unwrap().iter();
                let properties = properties.map(|(name, value)| (name.clone(), draft4(value)));
                out.insert(name.clone(), properties.collect::<Map<_, _>>().into());
            }
            "description" => {
                out.insert(name.clone(), words(value).into());
            }
            _ => {
                let value = match value {
                    Value::Array(items) => items.iter().map(draft4).collect::<Vec<_>>().into(),
                    other => draft4(other),
                };
                out.insert(name.clone(), value);
            }
        }
    }
    let names = out.get("oneOf").and_then(Value::as_array);
    let names =
        names.and_then(|list| list.iter().map(|one| one["enum"].get(0).cloned()).collect::<Option<Vec<_>>>());
    if let Some(names) = names {
        // One list of names makes a better error than many schemas.
        out.remove("oneOf");
        out.insert("enum".into(), names.into());
    }
    if out.get("type") == Some(&json!("array")) {
        let description = out.remove("description");
        let mut either = json!({"anyOf": [out, {"type": "object", "maxProperties": 0}]});
        if let Some(description) = description {
            either["description"] = description;
        }
        return either;
    }
    out.into()
}

/// A doc comment as one line.
fn words(description: &Value) -> String {
    description.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn kongs_schema_is_that_of_the_types() {
    let mut config = draft4(&schema());
    config["$schema"] = "http://json-schema.org/draft-04/schema#".into();
    let meta = json!({ "config_schema": config });
    let text = serde_json::to_string_pretty(&meta).unwrap();
    assert!(!text.contains("$ref") && !text.contains("\"const\""));
    is_as_generated(META, &format!("{text}\n"));
}

/// The schema of an object in it, when it is one or may be one.
fn object(schema: &Value) -> Option<&Value> {
    if schema["properties"].is_object() {
        return Some(schema);
    }
    let mut either = schema["anyOf"].as_array().into_iter().flatten();
    either.find(|one| one["properties"].is_object())
}

/// What a setting takes, in a few words.
fn kind(schema: &Value) -> String {
    let names = |list: &Value| {
        let one = |value: &Value| value["const"].as_str().map(|name| format!("`{name}`"));
        let names = list.as_array().into_iter().flatten();
        let plain = names.clone().filter_map(|name| name.as_str().map(|name| format!("`{name}`")));
        names.clone().filter_map(one).chain(plain).collect::<Vec<_>>()
    };
    if object(schema).is_some() {
        return "object".into();
    }
    let mut either = schema["anyOf"].as_array().into_iter().flatten();
    if let Some(one) = either.find(|one| one["type"] != "null") {
        return kind(one);
    }
    for list in [&schema["oneOf"], &schema["enum"]] {
        let names = names(list);
        if !names.is_empty() {
            return names.join(", ");
        }
    }
    let name = match &schema["type"] {
        Value::Array(types) => types[0].as_str().unwrap(),
        name => name.as_str().unwrap_or("any"),
    };
    match name {
        "array" => format!("list: {}", kind(&schema["items"])),
        "object" => format!("map of names to: {}", kind(&schema["additionalProperties"])),
        "boolean" => "true or false".into(),
        "integer" => match (&schema["minimum"], &schema["maximum"]) {
            (Value::Null, _) | (_, Value::Null) => "whole number".into(),
            (least, most) => format!("{least} to {most}"),
        },
        name => name.into(),
    }
}

fn section(page: &mut String, path: &str, schema: &Value) {
    let name = if path.is_empty() { "The whole".to_owned() } else { format!("`{path}`") };
    writeln!(page, "\n## {name}\n\n{}\n", words(&schema["description"]).replace('|', "\\|")).unwrap();
    page.push_str("| setting | what it takes | default | meaning |\n|---|---|---|---|\n");
    let mut nested = Vec::new();
    for (name, setting) in schema["properties"].as_object().unwrap() {
        let required = schema["required"].as_array().is_some_and(|list| list.contains(&json!(name)));
        let inner = object(setting).or_else(|| object(&setting["items"]));
        let default = match &setting["default"] {
            _ if required => "required".to_owned(),
            Value::Null => "none".to_owned(),
            Value::Object(_) if inner.is_some() => "see below".to_owned(),
            value => format!("`{value}`"),
        };
        let meaning = words(&setting["description"]).replace('|', "\\|");
        writeln!(page, "| `{name}` | {} | {default} | {meaning} |", kind(setting)).unwrap();
        if let Some(inner) = inner {
            let list = if setting["items"].is_object() { "[]" } else { "" };
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            nested.push((format!("{path}{list}"), inner));
        }
    }
    for (path, inner) in nested {
        section(page, &path, inner);
    }
}

#[test]
fn the_reference_page_is_that_of_the_types() {
    let mut page = String::from(
        "# The filter's configuration\n\nMade of the doc comments in `kong-filter/src/config` and \
         `crates/identity/src/policy.rs` by `ASGARD_WRITE=1 cargo test -p kong-filter --test schema`; do not edit \
         it.\nThe configuration is one JSON object. Settings that are not listed here are errors. An empty list may \
         be written `{}`.\n`kong-filter/README.md` says what the filter does with it.\n",
    );
    section(&mut page, "", &schema());
    is_as_generated(PAGE, &page);
}

/// A configuration that sets everything.
fn full() -> Value {
    let table: Value = serde_json::from_str(include_str!("../../tests/corpus/rows/base.json")).unwrap();
    let mut config: Value = serde_json::from_str(include_str!("../examples/config.json")).unwrap();
    for (name, value) in table["config"].as_object().unwrap() {
        config[name] = value.clone();
    }
    let both = config["issuers"][1].clone();
    config["issuers"] = json!([both]);
    config["issuers"][0]["jwks"]["refresh_s"] = 5.into();
    config["token_cache"] = json!({});
    config["accepted_hosts"] = json!(["inner.example"]);
    config
}

/// All numbers with bounds: JSON pointer, least, most.
fn bounded(schema: &Value, at: &str, found: &mut Vec<(String, u64, u64)>) {
    if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        found.push((at.to_owned(), least, most));
    }
    for (name, inner) in object(schema).into_iter().flat_map(|s| s["properties"].as_object().unwrap()) {
        bounded(inner, &format!("{at}/{name}"), found);
    }
    if let Some(items) = schema.get("items") {
        bounded(items, &format!("{at}/0"), found);
    }
}

#[test]
fn bounds_in_the_schema_are_those_that_hold() {
    let mut numbers = Vec::new();
    bounded(&schema(), "", &mut numbers);
    assert!(numbers.len() >= 13, "{numbers:?}");
    for (pointer, least, most) in numbers {
        let with = |value: u64| {
            let mut config = full();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[name] = value.into();
            match Service::new(config.to_string().as_bytes()) {
                Service::Ready(_) => None,
                Service::Refusing(why) => Some(why),
            }
        };
        let mut out = vec![most + 1];
        out.extend(least.checked_sub(1));
        for value in out {
            let why = with(value).unwrap_or_else(|| panic!("{pointer}: {value} is accepted"));
            let path = pointer[1..].replace("/0/", "[0].").replace('/', ".");
            assert_eq!(why, format!("{path}: {value} is out of range; give {least} to {most}"));
        }
        for value in [least, most] {
            // The keys are kept at least until they are fetched anew.
            assert!(with(value).is_none() || pointer.ends_with("refresh_s"), "{pointer}: {:?}", with(value));
        }
    }
}

#[test]
fn errors_say_where_and_what_to_do() {
    for (pointer, value, why) in [
        (
            "/issuers/0/jwks/upstream",
            json!("http://keycloak:8080"),
            "issuers[0].jwks.upstream: give the name of a cluster",
        ),
        (
            "/issuers/0/introspection/client_secret",
            json!(""),
            "issuers[0].introspection.client_secret: give 1 to",
        ),
        (
            "/issuers/0/introspection/secret",
            json!("x"),
            "issuers[0].introspection.secret: there is no such setting",
        ),
        ("/issuers/0/algorithms", json!(["HS256"]), "issuers[0].algorithms[0]: this is not one of RS256, "),
        ("/issuers/0/algorithms", json!({}), "issuers[0].algorithms: name at least one of RS256"),
        ("/issuers/0/audiences", json!([""]), "issuers[0].audiences[0]: an audience has"),
        ("/scopes/implied", json!({"a b": ["c"]}), "scopes.implied[0]: a scope is"),
        ("/scopes/implied", json!({"a": ["b", ""]}), "scopes.implied.a[1]: a scope is"),
        ("/hosts/0/url", json!("tools.org1.example"), "hosts[0].url: give scheme and host"),
        ("/hosts/1/url", json!("http://localhost:9000"), "hosts[1].url: this host name comes twice"),
        ("/hosts/0/organisation", json!("mcp"), "hosts[0].organisation: this can't be"),
        ("/hosts/0/path", json!("/api/v1/mcp"), "hosts[0].path: give a path such as /mcp"),
        ("/accepted_hosts", json!(["http://x"]), "accepted_hosts[0]: give a host name without scheme"),
        ("/kong_scheme", json!("ftp"), "kong_scheme: this is not one of http, https"),
    ] {
        let mut config = full();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        match Service::new(config.to_string().as_bytes()) {
            Service::Refusing(reason) => assert!(reason.starts_with(why), "{reason}"),
            Service::Ready(_) => panic!("{pointer} is accepted"),
        }
    }
    let mut none = full();
    let issuer = none["issuers"][0].as_object_mut().unwrap();
    issuer.remove("jwks");
    issuer.remove("introspection");
    assert!(
        matches!(Service::new(none.to_string().as_bytes()), Service::Refusing(why) if why.starts_with("issuers[0]: give jwks, or"))
    );
    assert!(matches!(Service::new(full().to_string().as_bytes()), Service::Ready(_)));
}
