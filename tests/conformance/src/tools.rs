//! The tools, but for those that ask in rounds.
// Logging and sampling are deprecated in MCP, and part of what the suite tests.
#![expect(deprecated)]

use std::time::Duration;

use odin::runner::ResponseStream;
use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities,
        CreateMessageRequestParams, ElicitRequestParams, LoggingMessageNotificationParam,
        ProgressNotificationParam, Tool,
    },
    service::{RequestContext, ServiceError},
};
use serde_json::{Map, Value, json};

use crate::{jobs, media, rounds, typed};

/// Between the messages of a tool that sends some.
const PAUSE: Duration = Duration::from_millis(50);

/// Tools without arguments, and what they do.
const PLAIN: [(&str, &str); 24] = [
    ("test_simple_text", "Returns a text"),
    ("test_image_content", "Returns a picture"),
    ("test_audio_content", "Returns a sound"),
    ("test_embedded_resource", "Returns a resource"),
    ("test_multiple_content_types", "Returns a text, a picture and a resource"),
    ("test_tool_with_logging", "Logs while it runs"),
    ("test_tool_with_progress", "Reports progress"),
    ("test_error_handling", "Always fails"),
    ("test_reconnection", "Closes its stream before it is done"),
    ("test_elicitation_sep1034_defaults", "Asks the user, with defaults"),
    ("test_elicitation_sep1330_enums", "Asks the user to choose"),
    ("test_missing_capability", "Needs a client that samples"),
    ("test_input_required_result_elicitation", "Asks for a name"),
    ("test_input_required_result_sampling", "Asks the client's model"),
    ("test_input_required_result_list_roots", "Asks for the client's roots"),
    ("test_input_required_result_request_state", "Asks, with a state"),
    ("test_input_required_result_multiple_inputs", "Asks for three things at once"),
    ("test_input_required_result_multi_round", "Asks twice"),
    ("test_input_required_result_tampered_state", "Asks, with a state that must come back unchanged"),
    ("test_input_required_result_capabilities", "Asks in a way that the client has"),
    ("test_streaming_elicitation", "Reports progress, then asks"),
    ("test_logging_tool", "Logs, if the client wants it"),
    ("test_trigger_tool_change", "Says that the list of tools has changed"),
    ("test_trigger_prompt_change", "Says that the list of prompts has changed"),
];

/// All tools, in the order in which they are listed.
pub(crate) fn all() -> Result<Vec<Tool>, ErrorData> {
    let text = |name: &str| json!({"type": "object", "properties": {name: {"type": "string", "description": name}}, "required": [name]});
    let plain = PLAIN.map(|(name, description)| (name, description, json!({"type": "object"})));
    let others = [
        ("test_sampling", "Asks the client's model", text("prompt")),
        ("test_elicitation", "Asks the user", text("message")),
        ("test_mirrored_parameter", "Repeats a parameter that a header repeats as well", mirrored_schema()),
        ("json_schema_2020_12_tool", "Has a schema with much of JSON Schema 2020-12", rich_schema()),
    ];
    plain
        .into_iter()
        .chain(others)
        .map(|(name, description, schema)| {
            typed(json!({"name": name, "description": description, "inputSchema": schema}))
        })
        .collect()
}

fn mirrored_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "region": {"type": "string", "description": "Any text", "x-mcp-header": "Region"},
            "count": {"type": "integer", "description": "Any number", "x-mcp-header": "Count"},
        },
        "required": ["region"],
    })
}

fn rich_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties":
            {"street": {"type": "string"}, "city": {"type": "string"}}}},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": false,
    })
}

/// Calls a tool.
pub(crate) async fn call(
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    if let Some(answered) = jobs::call(&request, &context).await {
        return answered;
    }
    let client = context.client_capabilities().unwrap_or_default();
    if let Some(answered) = rounds::call(&request, &client) {
        return answered;
    }
    let picture = || json!({"type": "image", "mimeType": "image/png", "data": media::PNG});
    let resource = |uri: &str, kind: &str, text: &str| json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}});
    match request.name.as_ref() {
        "test_simple_text" => said("This is a simple text response for testing."),
        "test_image_content" => content(&[picture()]),
        "test_audio_content" => {
            content(&[json!({"type": "audio", "mimeType": "audio/wav", "data": media::WAV})])
        }
        "test_embedded_resource" => content(&[resource(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )]),
        "test_multiple_content_types" => content(&[
            json!({"type": "text", "text": "Multiple content types test:"}),
            picture(),
            resource("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ]),
        "test_tool_with_logging" | "test_logging_tool" => log(&context).await,
        "test_tool_with_progress" => report(&context).await,
        "test_error_handling" => failed("This tool intentionally returns an error for testing"),
        "test_reconnection" => {
            tokio::time::sleep(PAUSE).await;
            if let Some(stream) = context.extensions.get::<ResponseStream>() {
                stream.hang_up().map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            }
            // Meanwhile the client comes back.
            tokio::time::sleep(PAUSE * 2).await;
            said("The stream was closed, and resumed.")
        }
        "test_sampling" => sample(&request, &context).await,
        "test_elicitation" => {
            let message = argument(&request, "message")?;
            let schema = json!({"type": "object", "properties": {"response": {"type": "string",
                "description": "Your answer"}}, "required": ["response"]});
            elicit(&context, message, schema, "User response").await
        }
        "test_elicitation_sep1034_defaults" => {
            elicit(&context, "Please look at these values.", defaults(), "Elicitation completed").await
        }
        "test_elicitation_sep1330_enums" => {
            elicit(&context, "Please choose.", choices(), "Elicitation completed").await
        }
        "test_missing_capability" => {
            if client.sampling.is_none() {
                let mut missing = ClientCapabilities::default();
                missing.sampling = Some(Default::default());
                return Err(ErrorData::missing_required_client_capability(missing));
            }
            said("Success")
        }
        "test_streaming_elicitation" => {
            if let Some(name) = rounds::text_of(request.input_responses.as_ref(), "user_name", "name") {
                return said(&format!("Hello, {name}!"));
            }
            report(&context).await?;
            let question = rounds::elicit("What is your name?", "name", &json!({"type": "string"}));
            rounds::ask([("user_name", question)], None).map(Into::into)
        }
        "test_trigger_tool_change" => {
            context.peer.notify_tool_list_changed().await.map_err(|error| unsent(&error))?;
            said("The list of tools has changed.")
        }
        "test_trigger_prompt_change" => {
            context.peer.notify_prompt_list_changed().await.map_err(|error| unsent(&error))?;
            said("The list of prompts has changed.")
        }
        "test_mirrored_parameter" => said(&format!("The region is {}.", argument(&request, "region")?)),
        "json_schema_2020_12_tool" => said(&Value::Object(request.arguments.unwrap_or_default()).to_string()),
        other => Err(ErrorData::invalid_params(format!("there is no tool {other}"), None)),
    }
}

fn content(blocks: &[Value]) -> Result<CallToolResponse, ErrorData> {
    Ok(typed::<CallToolResult>(json!({"content": blocks}))?.into())
}

pub(crate) fn failed(text: &str) -> Result<CallToolResponse, ErrorData> {
    let result = json!({"isError": true, "content": [{"type": "text", "text": text}]});
    Ok(typed::<CallToolResult>(result)?.into())
}

pub(crate) fn said(text: &str) -> Result<CallToolResponse, ErrorData> {
    content(&[json!({"type": "text", "text": text})])
}

fn argument<'a>(request: &'a CallToolRequestParams, name: &str) -> Result<&'a str, ErrorData> {
    let value = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
    value
        .and_then(Value::as_str)
        .ok_or_else(|| ErrorData::invalid_params(format!("the argument {name} must be a string"), None))
}

fn unsent(error: &ServiceError) -> ErrorData {
    ErrorData::internal_error(format!("not sent: {error}"), None)
}

async fn log(context: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    for (number, text) in ["started", "processing data", "completed"].into_iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let data = format!("Tool execution {text}");
        let message: LoggingMessageNotificationParam =
            typed(json!({"level": "info", "logger": "fixture", "data": data}))?;
        context.peer.notify_logging_message(message).await.map_err(|error| unsent(&error))?;
    }
    said("Tool execution completed, with three messages logged.")
}

async fn report(context: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
    let Some(token) = context.meta.get_progress_token() else {
        return said("No progress was asked for.");
    };
    for (number, progress) in [0, 50, 100].into_iter().enumerate() {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let message: ProgressNotificationParam = typed(json!({"progressToken": token, "progress": progress,
            "total": 100, "message": format!("Completed {progress} of 100")}))?;
        context.peer.notify_progress(message).await.map_err(|error| unsent(&error))?;
    }
    said(&json!(token).to_string())
}

async fn sample(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let params: CreateMessageRequestParams = typed(json!({"maxTokens": 100, "messages":
        [{"role": "user", "content": {"type": "text", "text": argument(request, "prompt")?}}]}))?;
    let answer = context.peer.create_message(params).await.map_err(|error| unsent(&error))?;
    let answer = json!(answer);
    let text = answer.pointer("/content/text").and_then(Value::as_str).unwrap_or("(no text)");
    said(&format!("LLM response: {text}"))
}

async fn elicit(
    context: &RequestContext<RoleServer>,
    message: &str,
    schema: Value,
    begin: &str,
) -> Result<CallToolResponse, ErrorData> {
    let params: ElicitRequestParams =
        typed(json!({"mode": "form", "message": message, "requestedSchema": schema}))?;
    let answer = context.peer.create_elicitation(params).await.map_err(|error| unsent(&error))?;
    let answer: Map<String, Value> = typed(json!(answer))?;
    let action = answer.get("action").and_then(Value::as_str).unwrap_or_default();
    let content = answer.get("content").unwrap_or(&Value::Null);
    said(&format!("{begin}: action={action}, content={content}"))
}

fn defaults() -> Value {
    json!({"type": "object", "required": [], "properties": {
        "name": {"type": "string", "description": "A name", "default": "John Doe"},
        "age": {"type": "integer", "description": "An age", "default": 30},
        "score": {"type": "number", "description": "A score", "default": 95.5},
        "status": {"type": "string", "description": "A status", "enum": ["active", "inactive", "pending"],
            "default": "active"},
        "verified": {"type": "boolean", "description": "Verified or not", "default": true},
    }})
}

fn choices() -> Value {
    let titled = |word: &str| {
        json!([
            {"const": "value1", "title": format!("First {word}")},
            {"const": "value2", "title": format!("Second {word}")},
            {"const": "value3", "title": format!("Third {word}")},
        ])
    };
    json!({"type": "object", "required": [], "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": titled("Option")},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("Choice")}},
    }})
}
