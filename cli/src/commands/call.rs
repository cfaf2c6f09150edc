//! `asgard call`: logs in, calls a tool, shows its progress as a bar, answers its questions, prints the result.

use std::process::ExitCode;
use std::sync::Arc;

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use crate::args::{Call, EntryPoint};
use crate::client::{Client, elicit};
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::state::State;
use crate::token;
use crate::ui;

/// Most rounds of questions and answers.
const MAX_ROUNDS: usize = 10;

/// Calls a tool. Exit code 1 when the tool reports an error.
///
/// # Errors
/// When there is no token, no such tool, an argument does not fit, or the call fails.
pub async fn run(paths: &Paths, call: &Call) -> Result<ExitCode> {
    let state = State::existing(paths)?;
    let (token, organisation) = token::for_user(&state, &call.user, call.org.as_deref()).await?;
    let organisation = organisation.ok_or_else(|| {
        Problem::new(format!("{} belongs to no organisation", call.user))
            .hint("name a user with --user, such as thor")
    })?;
    let url = match call.entry_point {
        EntryPoint::Bifrost => state.resource(&organisation),
        EntryPoint::Hermod => format!("http://127.0.0.1:{}/api/v1/mcp/{organisation}", state.ports.pushpin),
    };
    let client = Client::new(url, token)?;
    let tools = client.tools().await?;
    let tool = tools
        .iter()
        .find(|tool| tool.get("name").and_then(Value::as_str) == Some(&call.tool))
        .ok_or_else(|| {
            let names: Vec<&str> =
                tools.iter().filter_map(|tool| tool.get("name").and_then(Value::as_str)).collect();
            let hint = match names.as_slice() {
                [] => "no worker offers any; see ./asgard status".to_owned(),
                names => format!("the tools are {}", names.join(", ")),
            };
            Problem::new(format!("there is no tool {:?} for {} in {organisation}", call.tool, call.user))
                .hint(hint)
        })?;
    let schema = tool.get("inputSchema").cloned().unwrap_or(Value::Null);
    let arguments = arguments(&call.args, &schema)?;
    let headers = parameter_headers(&arguments, &schema);
    let result = converse(&client, call, arguments, &headers).await?;
    let failed = result.get("isError").and_then(Value::as_bool).unwrap_or(false);
    if call.json {
        println!("{result}");
    } else {
        print(&result);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Calls, and calls again with the answers for as long as the tool asks (multi round-trip requests).
async fn converse(
    client: &Client,
    call: &Call,
    arguments: Map<String, Value>,
    headers: &[(String, String)],
) -> Result<Value> {
    let mut params = json!({"name": call.tool, "arguments": arguments});
    for _ in 0..MAX_ROUNDS {
        let progress = Progress::new(!call.json);
        let shown = Arc::clone(&progress);
        let answer = client
            .request("tools/call", params.clone(), headers, move |method, p| shown.notified(method, p))
            .await;
        progress.end();
        let result = answer?.result;
        if result.get("resultType").and_then(Value::as_str) != Some("input_required") {
            return Ok(result);
        }
        let mut responses = Map::new();
        for (key, request) in result.get("inputRequests").and_then(Value::as_object).into_iter().flatten() {
            let said = elicit::ask(request, &mut std::io::stdin().lock(), &mut std::io::stderr())?;
            responses.insert(key.clone(), said);
        }
        if let Some(params) = params.as_object_mut() {
            params.insert("inputResponses".to_owned(), Value::Object(responses));
            match result.get("requestState") {
                Some(state) => params.insert("requestState".to_owned(), state.clone()),
                None => params.remove("requestState"),
            };
        }
    }
    Err(Problem::new(format!("the tool still asks after {MAX_ROUNDS} rounds")))
}

/// `NAME=VALUE`, read as the schema says; without a type there, as JSON if it is some, else as text.
fn arguments(given: &[String], schema: &Value) -> Result<Map<String, Value>> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut arguments = Map::new();
    for pair in given {
        let (name, text) = pair.split_once('=').ok_or_else(|| {
            Problem::new(format!("--arg {pair:?} is not NAME=VALUE")).hint("write --arg steps=20")
        })?;
        let field = properties.and_then(|all| all.get(name));
        if let (None, Some(all)) =
            (field, properties.filter(|_| schema.get("additionalProperties") == Some(&json!(false))))
        {
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            return Err(Problem::new(format!("the tool has no argument {name:?}"))
                .hint(format!("it has {}", names.join(", "))));
        }
        let value = value(text, &types(field)).ok_or_else(|| {
            Problem::new(format!("{name}={text} does not fit: the tool wants {}", types(field).join(" or ")))
        })?;
        arguments.insert(name.to_owned(), value);
    }
    let required =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<String> =
        required.filter(|name| !arguments.contains_key(*name)).map(str::to_owned).collect();
    if missing.is_empty() {
        return Ok(arguments);
    }
    let wanted: Vec<String> = missing.iter().map(|name| format!("--arg {name}=…")).collect();
    Err(Problem::new(format!("the tool needs {}", missing.join(", ")))
        .hint(format!("add {}", wanted.join(" "))))
}

fn types(field: Option<&Value>) -> Vec<&str> {
    match field.and_then(|field| field.get("type")) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn value(text: &str, types: &[&str]) -> Option<Value> {
    let parsed = serde_json::from_str::<Value>(text).ok();
    let fits = |value: &Value| {
        types.iter().any(|wanted| match *wanted {
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "null" => value.is_null(),
            _ => false,
        })
    };
    match parsed {
        _ if types.is_empty() => Some(serde_json::from_str(text).unwrap_or_else(|_| json!(text))),
        Some(value) if fits(&value) => Some(value),
        _ if types.contains(&"string") => Some(json!(text)),
        _ => None,
    }
}

/// The headers that mirror arguments whose schema has `x-mcp-header` (transports, custom headers).
fn parameter_headers(arguments: &Map<String, Value>, schema: &Value) -> Vec<(String, String)> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties
        .filter_map(|(name, field)| {
            let header = field.get("x-mcp-header")?.as_str()?;
            let value = match arguments.get(name)? {
                Value::String(text) => text.clone(),
                value @ (Value::Number(_) | Value::Bool(_)) => value.to_string(),
                _ => return None,
            };
            Some((format!("Mcp-Param-{header}"), value))
        })
        .collect()
}

/// A bar that appears with the first progress.
struct Progress {
    bar: ProgressBar,
    visible: bool,
}

impl Progress {
    fn new(visible: bool) -> Arc<Self> {
        let bar = if visible && ui::is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        bar.set_style(ui::style("  [{bar:40}] {pos}/{len} {wide_msg} {elapsed}"));
        Arc::new(Self { bar, visible })
    }

    fn notified(&self, method: &str, params: &Value) {
        if !self.visible {
            return;
        }
        match method {
            "notifications/progress" => {
                let number = |key: &str| params.get(key).and_then(Value::as_f64);
                let (done, total) = (number("progress").unwrap_or_default(), number("total"));
                let message = params.get("message").and_then(Value::as_str).unwrap_or_default();
                if !ui::is_terminal() {
                    let of = total.map(|total| format!("/{total}")).unwrap_or_default();
                    ui::say(format!("  {done}{of} {message}"));
                }
                // Fractions become steps of a thousandth.
                let whole = done.fract() == 0.0 && total.is_none_or(|total| total.fract() == 0.0);
                let scale = if whole { 1.0 } else { 1000.0 };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bar's length")]
                let steps = |value: f64| (value * scale).clamp(0.0, 1e15) as u64;
                if let Some(total) = total {
                    self.bar.set_length(steps(total));
                }
                self.bar.set_position(steps(done));
                self.bar.set_message(message.to_owned());
            }
            "notifications/message" => {
                let level = params.get("level").and_then(Value::as_str).unwrap_or("info");
                let data = params.get("data").unwrap_or(&Value::Null);
                let text = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
                self.bar.suspend(|| ui::say(format!("  {level}: {text}")));
            }
            _ => {}
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn print(result: &Value) {
    let blocks = result.get("content").and_then(Value::as_array);
    let mut any = false;
    for block in blocks.into_iter().flatten() {
        any = true;
        match block.get("text").and_then(Value::as_str) {
            Some(text) => println!("{text}"),
            None => println!("{block:#}"),
        }
    }
    if let (false, Some(structured)) = (any, result.get("structuredContent")) {
        println!("{structured:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": false, "required": ["steps"], "properties": {
            "steps": {"type": "integer"},
            "scale": {"type": ["number", "null"]},
            "text": {"type": "string", "x-mcp-header": "Text"},
            "dry": {"type": "boolean"},
            "any": {},
        }})
    }

    fn read(given: &[&str]) -> Result<Map<String, Value>> {
        arguments(&given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), &schema())
    }

    #[test]
    fn arguments_are_read_by_the_schema() {
        let read = read(&["steps=3", "scale=0.5", "text=12", "dry=true", "any={\"a\":1}"]).unwrap();
        assert_eq!(
            Value::Object(read),
            json!({"steps": 3, "scale": 0.5, "text": "12", "dry": true, "any": {"a": 1}})
        );
    }

    #[test]
    fn misfits_are_explained() {
        for (given, expected) in [
            (vec!["steps"], "is not NAME=VALUE"),
            (vec!["steps=x"], "the tool wants integer"),
            (vec!["stepz=3"], "it has any, dry, scale, steps, text"),
            (vec![], "add --arg steps=…"),
        ] {
            let problem = read(&given).unwrap_err().to_string();
            assert!(problem.to_lowercase().contains(&expected.to_lowercase()), "{given:?}: {problem}");
        }
    }

    #[test]
    fn arguments_are_mirrored_in_headers() {
        let given = read(&["steps=3", "text=a"]).unwrap();
        assert_eq!(parameter_headers(&given, &schema()), [("Mcp-Param-Text".to_owned(), "a".to_owned())]);
    }
}
