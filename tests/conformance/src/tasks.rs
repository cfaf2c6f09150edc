//! The tools that run as tasks. They are ordinary tools: what makes tasks of them is in their `_meta`.

use std::time::Duration;

use odin::tasks::{TaskContext, TaskTool, later};
use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolRequestParams, CallToolResponse, CallToolResult, Tool},
    service::RequestContext,
};
use serde_json::{Value, json};

use crate::typed;

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = Result<Tool, ErrorData>> {
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let quick = TaskTool::optional().poll(Duration::from_millis(200));
    let required = TaskTool::required().poll(Duration::from_millis(200));
    let text = || json!({"type": "string"});
    [
        ("greet", "Greets, at once", object(json!({"name": text()})), TaskTool::default()),
        (
            "slow_compute",
            "Takes its time",
            object(json!({"seconds": {"type": "number"}, "label": text()})),
            quick,
        ),
        ("failing_job", "Fails after a second", object(json!({})), required),
        ("protocol_error_job", "Answers with a JSON-RPC error", object(json!({})), quick),
        ("confirm_delete", "Asks before it deletes", object(json!({"filename": text()})), quick),
        ("multi_input", "Asks two questions at once", object(json!({})), quick),
        // It asks before it becomes a task, so it decides for itself when that is.
        (
            "test_tool_with_task",
            "Asks for a name, then becomes a task",
            object(json!({})),
            TaskTool::default(),
        ),
    ]
    .into_iter()
    .map(|(name, description, schema, task)| {
        let tool: Tool = typed(json!({"name": name, "description": description, "inputSchema": schema}))?;
        Ok(if task == TaskTool::default() { tool } else { tool.with_meta(task.meta()) })
    })
}

/// Calls one of them; none when it is not of these.
pub(crate) async fn call(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let arguments = request.arguments.clone().unwrap_or_default();
    let answers = request.input_responses.clone().unwrap_or_default();
    let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(match request.name.as_ref() {
        "greet" => said(&format!("Hello, {}!", argument("name"))),
        "slow_compute" => {
            let seconds = arguments.get("seconds").and_then(Value::as_f64).unwrap_or_default();
            tokio::time::sleep(Duration::from_secs_f64(seconds.clamp(0.0, 600.0))).await;
            said(&format!("computed {} for {seconds} s", argument("label")))
        }
        "failing_job" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            result(
                json!({"isError": true, "content": [{"type": "text", "text": "the job failed, as it always does"}]}),
            )
        }
        "protocol_error_job" => {
            Err(ErrorData::internal_error("the job broke the protocol, as it always does", None))
        }
        "confirm_delete" => match answers.get("confirm") {
            None => ask(&[("confirm", "Really delete it?", "confirm", "boolean")]),
            Some(answer) if answer["content"]["confirm"] == true => {
                said(&format!("deleted {}", argument("filename")))
            }
            Some(_) => said("nothing deleted"),
        },
        "multi_input" => match (answers.get("first"), answers.get("second")) {
            (Some(_), Some(_)) => said("both questions are answered"),
            _ => ask(&[
                ("first", "The first name?", "name", "string"),
                ("second", "The second name?", "name", "string"),
            ]),
        },
        "test_tool_with_task" => match answers.get("user_name") {
            None => ask(&[("user_name", "Your name?", "name", "string")]),
            Some(_) if context.extensions.get::<TaskContext>().is_none() => Ok(later().into()),
            Some(answer) => {
                said(&format!("Hello, {}!", answer["content"]["name"].as_str().unwrap_or("nobody")))
            }
        },
        _ => return None,
    })
}

fn said(text: &str) -> Result<CallToolResponse, ErrorData> {
    result(json!({"content": [{"type": "text", "text": text}]}))
}

fn result(result: Value) -> Result<CallToolResponse, ErrorData> {
    Ok(typed::<CallToolResult>(result)?.into())
}

/// Questions: key, text, the one member of the answer and its type.
fn ask(questions: &[(&str, &str, &str, &str)]) -> Result<CallToolResponse, ErrorData> {
    let requests: serde_json::Map<String, Value> = questions
        .iter()
        .map(|(key, message, member, kind)| {
            let schema =
                json!({"type": "object", "properties": {*member: {"type": kind}}, "required": [member]});
            let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
            ((*key).to_owned(), json!({"method": "elicitation/create", "params": params}))
        })
        .collect();
    let asked: rmcp::model::InputRequiredResult =
        typed(json!({"resultType": "input_required", "inputRequests": requests}))?;
    Ok(asked.into())
}
