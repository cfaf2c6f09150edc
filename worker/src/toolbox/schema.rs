//! Schemas as every client reads them.

use std::sync::Arc;

use rmcp::{handler::server::router::tool::ToolRouter, model::JsonObject};
use serde_json::Value;

/// Removes formats of numbers (`uint64`, `double`) from all tools' schemas. JSON Schema defines none, and
/// validators of some clients warn about each.
pub(super) fn plain<S>(tools: &mut ToolRouter<S>) {
    for route in tools.map.values_mut() {
        strip_object(Arc::make_mut(&mut route.attr.input_schema));
        if let Some(schema) = &mut route.attr.output_schema {
            strip_object(Arc::make_mut(schema));
        }
    }
}

fn strip_object(schema: &mut JsonObject) {
    let is_number = |kind: &Value| matches!(kind.as_str(), Some("integer" | "number"));
    let of_number = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(is_number),
        Some(kind) => is_number(kind),
        None => false,
    };
    if of_number && schema.get("format").is_some_and(Value::is_string) {
        schema.remove("format");
    }
    schema.values_mut().for_each(strip);
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(schema) => strip_object(schema),
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_numbers_go_others_stay() {
        let mut schema = serde_json::json!({
            "type": "object",
            "properties": {
                "count": {"type": ["integer", "null"], "format": "uint64", "minimum": 0},
                "day": {"type": "string", "format": "date"},
                "format": {"anyOf": [{"type": "number", "format": "double"}]},
            },
        });
        strip(&mut schema);
        let properties = &schema["properties"];
        assert_eq!(properties["count"], serde_json::json!({"type": ["integer", "null"], "minimum": 0}));
        assert_eq!(properties["day"]["format"], "date");
        assert_eq!(properties["format"]["anyOf"], serde_json::json!([{"type": "number"}]));
    }

    #[test]
    fn no_tool_has_one() {
        let mut tools = super::super::Toolbox::tools() + super::super::Toolbox::plan_tools();
        let before = serde_json::to_string(&tools.list_all()).unwrap();
        assert!(before.contains("\"uint64\""), "or there is nothing to do");
        plain(&mut tools);
        let after = serde_json::to_string(&tools.list_all()).unwrap();
        for format in ["uint", "int", "double", "float"] {
            assert!(!after.contains(&format!("\"format\":\"{format}")), "{format}: {after}");
        }
    }
}
