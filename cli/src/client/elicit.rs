//! Answers a server's questions (elicitation in form mode) from lines of text.

use std::io::{BufRead, Write};

use serde_json::{Map, Value, json};

use crate::problem::{Problem, Result};

/// Asks a person, field by field, and gives the `ElicitResult`: `accept` with the content, or `cancel` when the
/// input ends.
///
/// # Errors
/// A request that is no form, or a terminal that cannot be written to.
pub fn ask(request: &Value, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<Value> {
    let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
    let params = request.get("params").unwrap_or(&Value::Null);
    let mode = params.get("mode").and_then(Value::as_str).unwrap_or("form");
    if method != "elicitation/create" || mode != "form" {
        return Err(Problem::new(format!(
            "the server wants {method} ({mode}), which this command cannot answer"
        )));
    }
    let lost = |e: std::io::Error| Problem::new(format!("cannot write to the terminal: {e}"));
    let message = params.get("message").and_then(Value::as_str).unwrap_or("The tool asks:");
    writeln!(output, "{message}").map_err(lost)?;
    let schema = params.get("requestedSchema").unwrap_or(&Value::Null);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut content = Map::new();
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let must = required.contains(&name.as_str());
        loop {
            write!(output, "  {}: ", question(name, field, must))
                .and_then(|()| output.flush())
                .map_err(lost)?;
            let mut line = String::new();
            match input.read_line(&mut line) {
                Ok(0) | Err(_) => return Ok(json!({"action": "cancel"})),
                Ok(_) => {}
            }
            match parse(field, line.trim()) {
                Ok(Some(value)) => {
                    content.insert(name.clone(), value);
                    break;
                }
                Ok(None) if !must => break,
                Ok(None) => writeln!(output, "  an answer is needed").map_err(lost)?,
                Err(hint) => writeln!(output, "  {hint}").map_err(lost)?,
            }
        }
    }
    Ok(json!({"action": "accept", "content": content}))
}

fn question(name: &str, field: &Value, must: bool) -> String {
    let text = |key: &str| field.get(key).and_then(Value::as_str);
    let mut notes = Vec::new();
    let choices = choices(field);
    match (text("type"), choices.is_empty()) {
        (_, false) => {
            notes.push(choices.iter().map(|(_, title)| title.as_str()).collect::<Vec<_>>().join(" | "))
        }
        (Some("boolean"), _) => notes.push("y/n".to_owned()),
        (Some(other), _) if other != "string" => notes.push(other.to_owned()),
        _ => {}
    }
    if let Some(default) = field.get("default") {
        notes.push(format!("default {default}"));
    } else if !must {
        notes.push("may be left empty".to_owned());
    }
    let label = text("title").or(text("description")).unwrap_or(name);
    if notes.is_empty() { label.to_owned() } else { format!("{label} ({})", notes.join("; ")) }
}

/// Values and titles of a field that has only some: `enum` (with `enumNames`) or `oneOf` of `const` and `title`.
fn choices(field: &Value) -> Vec<(Value, String)> {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        let names = field.get("enumNames").and_then(Value::as_array);
        let name = |i: usize| names.and_then(|names| names.get(i)).and_then(Value::as_str).map(str::to_owned);
        return values
            .iter()
            .enumerate()
            .map(|(i, value)| (value.clone(), name(i).unwrap_or_else(|| shown(value))))
            .collect();
    }
    let options = field.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    options
        .filter_map(|option| {
            let value = option.get("const")?;
            let title =
                option.get("title").and_then(Value::as_str).map_or_else(|| shown(value), str::to_owned);
            Some((value.clone(), title))
        })
        .collect()
}

/// The value of a line; `None` when it is empty and there is no default.
fn parse(field: &Value, line: &str) -> std::result::Result<Option<Value>, String> {
    if line.is_empty() {
        return Ok(field.get("default").cloned());
    }
    let choices = choices(field);
    if !choices.is_empty() {
        let lower = line.to_lowercase();
        let plain =
            |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).to_lowercase();
        return choices
            .iter()
            .find(|(value, title)| title.to_lowercase() == lower || plain(value) == lower)
            .map(|(value, _)| Some(value.clone()))
            .ok_or_else(|| "please give one of the choices".to_owned());
    }
    match field.get("type").and_then(Value::as_str) {
        Some("boolean") => match line.to_lowercase().as_str() {
            "y" | "yes" | "true" => Ok(Some(json!(true))),
            "n" | "no" | "false" => Ok(Some(json!(false))),
            _ => Err("please answer y or n".to_owned()),
        },
        Some("integer") => {
            line.parse::<i64>().map(|n| Some(json!(n))).map_err(|_| "please give a whole number".into())
        }
        Some("number") => {
            line.parse::<f64>().map(|n| Some(json!(n))).map_err(|_| "please give a number".into())
        }
        Some("array") => {
            let items = field.get("items").unwrap_or(&Value::Null);
            let values: std::result::Result<Vec<_>, _> =
                line.split(',').map(|item| parse(items, item.trim())).collect();
            Ok(Some(Value::Array(values?.into_iter().flatten().collect())))
        }
        _ => Ok(Some(json!(line))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Value {
        json!({"method": "elicitation/create", "params": {"message": "What do you wish for?", "requestedSchema": {
            "type": "object",
            "properties": {
                "count": {"type": "integer", "default": 3},
                "dry": {"type": "boolean"},
                "measure": {"type": "string", "oneOf": [{"const": "temp", "title": "Temperature"}, {"const": "wind", "title": "Wind"}]},
                "note": {"type": "string"},
            },
            "required": ["dry", "measure"],
        }}})
    }

    fn answer(lines: &str) -> (Value, String) {
        let mut output = Vec::new();
        let result = ask(&form(), &mut lines.as_bytes(), &mut output).unwrap();
        (result, String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_form_is_filled_in() {
        let (result, shown) = answer("\nmaybe\nyes\n\nwind\n\n");
        assert_eq!(
            result,
            json!({"action": "accept", "content": {"count": 3, "dry": true, "measure": "wind"}})
        );
        assert!(shown.contains("What do you wish for?") && shown.contains("please answer y or n"), "{shown}");
        assert!(shown.contains("Temperature | Wind") && shown.contains("an answer is needed"), "{shown}");
    }

    #[test]
    fn the_end_of_the_input_cancels() {
        assert_eq!(answer("5\n").0, json!({"action": "cancel"}));
    }

    #[test]
    fn other_requests_are_refused() {
        let sampling = json!({"method": "sampling/createMessage", "params": {}});
        assert!(ask(&sampling, &mut "".as_bytes(), &mut Vec::new()).is_err());
        let url = json!({"method": "elicitation/create", "params": {"mode": "url"}});
        assert!(ask(&url, &mut "".as_bytes(), &mut Vec::new()).is_err());
    }
}
