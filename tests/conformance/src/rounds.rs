//! Tools that ask in the form of revision 2026-07-28: a result that asks, and the same request again with the
//! answers.
//!
//! What they put into `requestState` is plain: that a client can neither read nor change it is the work of the
//! library that runs them.

use std::collections::BTreeMap;

use rmcp::{
    ErrorData,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, InputRequiredResult,
    },
};
use serde_json::{Value, json};

use crate::typed;

type Responses = BTreeMap<String, Value>;

/// A result that asks.
pub(crate) fn ask<const N: usize>(
    questions: [(&str, Value); N],
    state: Option<&str>,
) -> Result<InputRequiredResult, ErrorData> {
    let questions: BTreeMap<&str, Value> = questions.into();
    let mut result = json!({"resultType": "input_required", "inputRequests": questions});
    if let (Some(state), Some(object)) = (state, result.as_object_mut()) {
        object.insert("requestState".into(), state.into());
    }
    typed(result)
}

/// A question with one field, which must be answered.
pub(crate) fn elicit(message: &str, field: &str, schema: &Value) -> Value {
    json!({"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema":
        {"type": "object", "properties": {field: schema}, "required": [field]}}})
}

fn sample(prompt: &str) -> Value {
    json!({"method": "sampling/createMessage", "params": {"maxTokens": 100,
        "messages": [{"role": "user", "content": {"type": "text", "text": prompt}}]}})
}

fn roots() -> Value {
    json!({"method": "roots/list"})
}

/// The field of an accepted elicitation.
pub(crate) fn field<'a>(responses: Option<&'a Responses>, question: &str, field: &str) -> Option<&'a Value> {
    let response = responses?.get(question)?;
    (response.get("action")? == "accept").then_some(response.get("content")?.get(field)?)
}

/// The same, if it is a text.
pub(crate) fn text_of<'a>(responses: Option<&'a Responses>, question: &str, name: &str) -> Option<&'a str> {
    field(responses, question, name)?.as_str()
}

fn sampled<'a>(responses: Option<&'a Responses>, question: &str) -> Option<&'a str> {
    responses?.get(question)?.get("content")?.get("text")?.as_str()
}

fn listed(responses: Option<&Responses>, question: &str) -> Option<usize> {
    Some(responses?.get(question)?.get("roots")?.as_array()?.len())
}

/// One of the tools, if it is one.
pub(crate) fn call(
    request: &CallToolRequestParams,
    client: &ClientCapabilities,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let given = request.input_responses.as_ref();
    let state = request.request_state.as_deref();
    Some(match request.name.as_ref().strip_prefix("test_input_required_result_")? {
        "elicitation" => match text_of(given, "user_name", "name") {
            Some(name) => done(format!("Hello, {name}!")),
            None => asked([("user_name", name_question())], None),
        },
        "sampling" => match sampled(given, "sample_request") {
            Some(text) => done(format!("The client's model says: {text}")),
            None => asked([("sample_request", sample("What is the capital of France?"))], None),
        },
        "list_roots" => match listed(given, "roots_request") {
            Some(count) => done(format!("Found {count} root(s)")),
            None => asked([("roots_request", roots())], None),
        },
        "request_state" | "tampered_state" => match (state, field(given, "confirm", "ok")) {
            (Some("asked"), Some(ok)) => done(format!("state-ok: {ok}")),
            _ => {
                let question = elicit("Please confirm", "ok", &json!({"type": "boolean"}));
                asked([("confirm", question)], Some("asked"))
            }
        },
        "multiple_inputs" => {
            let answers = (
                text_of(given, "user_name", "name"),
                sampled(given, "greeting"),
                listed(given, "client_roots"),
            );
            match (state, answers) {
                (Some("asked"), (Some(name), Some(greeting), Some(count))) => {
                    done(format!("{greeting} {name}, with {count} root(s)"))
                }
                _ => asked(
                    [
                        ("user_name", name_question()),
                        ("greeting", sample("Generate a greeting")),
                        ("client_roots", roots()),
                    ],
                    Some("asked"),
                ),
            }
        }
        "multi_round" => multi_round(given, state),
        "capabilities" => by_capabilities(given, client),
        _ => return None,
    })
}

fn multi_round(given: Option<&Responses>, state: Option<&str>) -> Result<CallToolResponse, ErrorData> {
    let second = |name: &str| {
        let question = elicit("Step 2: What is your favorite color?", "color", &json!({"type": "string"}));
        asked([("step2", question)], Some(&format!("named {name}")))
    };
    let named = state.and_then(|state| state.strip_prefix("named "));
    match (state, named) {
        (_, Some(name)) => match text_of(given, "step2", "color") {
            Some(color) => done(format!("{name} likes {color}")),
            None => second(name),
        },
        (Some("begun"), _) if let Some(name) = text_of(given, "step1", "name") => second(name),
        _ => {
            let question = elicit("Step 1: What is your name?", "name", &json!({"type": "string"}));
            asked([("step1", question)], Some("begun"))
        }
    }
}

/// Asks by sampling, or else by elicitation; whichever the client can do.
fn by_capabilities(
    given: Option<&Responses>,
    client: &ClientCapabilities,
) -> Result<CallToolResponse, ErrorData> {
    if let Some(text) = sampled(given, "sample").or_else(|| text_of(given, "user_name", "name")) {
        return done(format!("You said: {text}"));
    }
    match (client.sampling.is_some(), client.elicitation.is_some()) {
        (true, true) => asked([("sample", sample("Say something")), ("user_name", name_question())], None),
        (true, false) => asked([("sample", sample("Say something"))], None),
        (false, true) => asked([("user_name", name_question())], None),
        (false, false) => done("There is nobody to ask.".into()),
    }
}

fn name_question() -> Value {
    elicit("What is your name?", "name", &json!({"type": "string"}))
}

fn asked<const N: usize>(
    questions: [(&str, Value); N],
    state: Option<&str>,
) -> Result<CallToolResponse, ErrorData> {
    ask(questions, state).map(Into::into)
}

fn done(text: String) -> Result<CallToolResponse, ErrorData> {
    Ok(typed::<CallToolResult>(json!({"content": [{"type": "text", "text": text}]}))?.into())
}
