//! The schema of a filter's configuration (`NAME.meta.json`), as far as ours has such words: Kong checks each
//! configuration by it before it starts.

use serde_json::Value;

use crate::config::ConfigError;

/// A schema, in the words of JSON Schema's draft 4.
#[derive(Clone, Debug)]
pub struct Schema(Value);

/// Words that say nothing of a value.
const SILENT: [&str; 2] = ["$schema", "description"];

impl Schema {
    /// The `config_schema` in the text of a `NAME.meta.json`.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(meta: &str) -> Result<Self, ConfigError> {
        let meta: Value = serde_json::from_str(meta).map_err(|e| ConfigError(format!("meta.json: {e}")))?;
        match meta.get("config_schema") {
            Some(schema) => Ok(Self(schema.clone())),
            None => Err(ConfigError("meta.json: no config_schema".into())),
        }
    }

    /// Checks a configuration.
    ///
    /// # Errors
    /// Where it is not as the schema says, and why.
    pub fn check(&self, config: &Value) -> Result<(), String> {
        check(&self.0, config, "config")
    }
}

fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let words = schema.as_object().ok_or_else(|| format!("{at}: the schema is no object"))?;
    for (word, says) in words.iter().filter(|(word, _)| !SILENT.contains(&word.as_str())) {
        let holds = match word.as_str() {
            "type" => match says {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "enum" => says.as_array().is_some_and(|list| list.contains(value)),
            "minimum" => number(value).zip(number(says)).is_none_or(|(value, least)| value >= least),
            "maximum" => number(value).zip(number(says)).is_none_or(|(value, most)| value <= most),
            "maxProperties" => value
                .as_object()
                .is_none_or(|members| says.as_u64().is_some_and(|most| members.len() as u64 <= most)),
            "required" => {
                // Lua's empty object may come as an empty list.
                let has = |name: &str| value.get(name).is_some();
                let demanded = value.is_object() || value.is_array();
                let names = says.as_array().into_iter().flatten();
                !demanded || names.into_iter().all(|name| name.as_str().is_some_and(has))
            }
            "anyOf" => {
                says.as_array().is_some_and(|list| list.iter().any(|one| check(one, value, at).is_ok()))
            }
            "properties" => {
                for (name, inner) in says.as_object().into_iter().flatten() {
                    value.get(name).map_or(Ok(()), |value| check(inner, value, &format!("{at}.{name}")))?;
                }
                true
            }
            "additionalProperties" => {
                let known = words.get("properties").and_then(Value::as_object);
                for (name, value) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    match says {
                        Value::Bool(true) => {}
                        Value::Bool(false) => return Err(format!("{at}: additional property {name}")),
                        inner => check(inner, value, &format!("{at}.{name}"))?,
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(says, value, &format!("{at}[{index}]"))?;
                }
                true
            }
            other => return Err(format!("{at}: {other} is not played here")),
        };
        if !holds {
            return Err(format!("{at}: {word} is {says}"));
        }
    }
    Ok(())
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        // Lua can't tell an empty list from an empty object.
        Some("array") => value.is_array() || value.as_object().is_some_and(serde_json::Map::is_empty),
        Some("object") => value.is_object() || value.as_array().is_some_and(Vec::is_empty),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_is_as_the_schema_says_or_the_error_says_where() {
        let schema = json!({
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {
                "a": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 3}},
                "b": {"anyOf": [{"type": "null"}, {"enum": ["x"]}]},
                "c": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        });
        let schema = Schema(schema);
        for good in
            [json!({"a": [1, 3]}), json!({"a": {}, "b": null, "c": {"any": "x"}}), json!({"a": [], "b": "x"})]
        {
            assert!(schema.check(&good).is_ok(), "{good}");
        }
        for (bad, why) in [
            (json!([]), "required"),
            (json!({"a": [1, 4]}), "config.a[1]: maximum"),
            (json!({"a": [0]}), "minimum"),
            (json!({"a": {"b": 1}}), "config.a: type"),
            (json!({"a": [], "b": "y"}), "config.b: anyOf"),
            (json!({"a": [], "c": {"d": 1}}), "config.c.d: type"),
            (json!({"a": [], "d": 1}), "additional property d"),
        ] {
            let error = schema.check(&bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
