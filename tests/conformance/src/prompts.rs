//! The prompts.

use rmcp::{
    ErrorData,
    model::{GetPromptRequestParams, GetPromptResponse, GetPromptResult},
};
use serde_json::{Value, json};

use crate::{media, rounds, typed};

pub(crate) fn list() -> Value {
    let argument = |name: &str| json!({"name": name, "description": name, "required": true});
    json!([
        {"name": "test_simple_prompt", "description": "A prompt without arguments"},
        {"name": "test_prompt_with_arguments", "description": "A prompt with arguments",
            "arguments": [argument("arg1"), argument("arg2")]},
        {"name": "test_prompt_with_embedded_resource", "description": "A prompt with a resource in it",
            "arguments": [argument("resourceUri")]},
        {"name": "test_prompt_with_image", "description": "A prompt with a picture in it"},
        {"name": "test_input_required_result_prompt", "description": "A prompt that asks first"},
    ])
}

pub(crate) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let text = |text: &str| json!({"role": "user", "content": {"type": "text", "text": text}});
    let argument = |name: &str| {
        let value = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
        value
            .and_then(Value::as_str)
            .ok_or_else(|| ErrorData::invalid_params(format!("the argument {name} is missing"), None))
    };
    let messages = match request.name.as_str() {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.")]),
        "test_prompt_with_arguments" => {
            let (one, two) = (argument("arg1")?, argument("arg2")?);
            json!([text(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))])
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({"uri": argument("resourceUri")?, "mimeType": "text/plain",
                "text": "Embedded resource content for testing."});
            let embedded = json!({"role": "user", "content": {"type": "resource", "resource": resource}});
            json!([embedded, text("Please process the embedded resource above.")])
        }
        "test_prompt_with_image" => {
            let image = json!({"type": "image", "mimeType": "image/png", "data": media::PNG});
            json!([{"role": "user", "content": image}, text("Please analyze the image above.")])
        }
        "test_input_required_result_prompt" => {
            let responses = request.input_responses.as_ref();
            let Some(context) = rounds::text_of(responses, "user_context", "context") else {
                let question = rounds::elicit(
                    "What context should the prompt use?",
                    "context",
                    &json!({"type": "string"}),
                );
                return Ok(rounds::ask([("user_context", question)], None)?.into());
            };
            json!([text(&format!("The context is: {context}"))])
        }
        other => return Err(ErrorData::invalid_params(format!("there is no prompt {other}"), None)),
    };
    Ok(typed::<GetPromptResult>(json!({"messages": messages}))?.into())
}
