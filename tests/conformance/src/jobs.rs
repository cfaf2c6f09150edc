//! Tools that run as tasks, for clients that know tasks (`io.modelcontextprotocol/tasks`).

use std::time::Duration;

use crate::rounds;
use crate::tools::said;
use crate::typed;
use odin::call::{TaskContext, task::TaskTool};
use odin::later;
use rmcp::{
    ErrorData, RoleServer,
    model::{CallToolRequestParams, CallToolResponse, ClientCapabilities, Tool},
    service::RequestContext,
};
use serde_json::{Value, json};

/// The longest time that `slow_compute` takes.
const LONGEST: Duration = Duration::from_secs(600);
/// The suite asks five times a second.
const POLL: Duration = Duration::from_millis(200);

/// The tools.
pub(crate) fn all() -> Result<Vec<Tool>, ErrorData> {
    let optional = TaskTool::optional().poll(POLL);
    let named =
        |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
    let slow = json!({"type": "object", "required": ["seconds"], "properties": {
        "seconds": {"type": "number", "minimum": 0, "description": "Time that it takes"},
        "label": {"type": "string", "description": "Any text"}}});
    let nothing = || json!({"type": "object"});
    [
        ("greet", "Greets at once", named("name"), None),
        ("slow_compute", "Takes its time", slow, Some(optional)),
        ("failing_job", "Always fails, and only as a task", nothing(), Some(TaskTool::required().poll(POLL))),
        ("protocol_error_job", "Ends with an error of the protocol", nothing(), Some(optional)),
        ("confirm_delete", "Asks before it deletes (nothing)", named("filename"), Some(optional)),
        ("multi_input", "Asks for two things at once", nothing(), Some(optional)),
        ("test_tool_with_task", "Asks first, then goes on as a task", nothing(), None),
    ]
    .into_iter()
    .map(|(name, description, schema, task)| {
        let tool: Tool = typed(json!({"name": name, "description": description, "inputSchema": schema}))?;
        Ok(match task {
            Some(task) => tool.with_meta(task.meta()),
            None => tool,
        })
    })
    .collect()
}

/// One of the tools, if it is one.
pub(crate) async fn call(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let given = request.input_responses.as_ref();
    let argument = |name: &str| request.arguments.as_ref().and_then(|arguments| arguments.get(name));
    let text = |name: &str| argument(name).and_then(Value::as_str).unwrap_or("nobody");
    let question = || rounds::elicit("What is your name?", "name", &json!({"type": "string"}));
    Some(match request.name.as_ref() {
        "greet" => said(&format!("Hello, {}!", text("name"))),
        "slow_compute" => {
            let seconds = argument("seconds").and_then(Value::as_f64).unwrap_or_default();
            let time = Duration::try_from_secs_f64(seconds).unwrap_or_default().min(LONGEST);
            tokio::time::sleep(time).await;
            said(&format!("Computed {} for {} s.", text("label"), time.as_secs_f64()))
        }
        "failing_job" => crate::tools::failed("This job fails, as it should."),
        "protocol_error_job" => {
            Err(ErrorData::internal_error("this job ends with an error of the protocol", None))
        }
        "confirm_delete" => match rounds::field(given, "confirm", "confirm") {
            Some(Value::Bool(true)) => said(&format!("{} is deleted.", text("filename"))),
            Some(_) => said(&format!("{} is kept.", text("filename"))),
            None => {
                let question = rounds::elicit("Really delete it?", "confirm", &json!({"type": "boolean"}));
                rounds::ask([("confirm", question)], None).map(Into::into)
            }
        },
        "multi_input" => {
            match (rounds::text_of(given, "first", "name"), rounds::text_of(given, "second", "name")) {
                (Some(first), Some(second)) => said(&format!("{first} and {second}")),
                _ => rounds::ask([("first", question()), ("second", question())], None).map(Into::into),
            }
        }
        "test_tool_with_task" => {
            let tasks = context.client_capabilities().is_some_and(|client| client.supports_tasks());
            match rounds::text_of(given, "user_name", "name") {
                _ if !tasks => Err(ErrorData::missing_required_client_capability(
                    ClientCapabilities::builder().enable_tasks().build(),
                )),
                None => rounds::ask([("user_name", question())], None).map(Into::into),
                Some(name) if context.extensions.get::<TaskContext>().is_some() => {
                    said(&format!("Hello, {name}!"))
                }
                Some(_) => Ok(later().into()),
            }
        }
        _ => return None,
    })
}
