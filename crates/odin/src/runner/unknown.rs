//! Errors about what does not exist say what that was.

use rmcp::model::{ClientRequest, ErrorCode, ErrorData};

/// Characters of a name that an error repeats.
const SHOWN: usize = 80;

/// The tool or prompt that a request names.
pub(super) fn asked(request: &ClientRequest) -> Option<String> {
    match request {
        ClientRequest::CallToolRequest(call) => Some(call.params.name.clone().into_owned()),
        ClientRequest::GetPromptRequest(get) => Some(get.params.name.clone()),
        _ => None,
    }
}

/// The error with the name of what is unknown. rmcp's own "tool not found" names nothing, and its "prompt not found"
/// names all other prompts as well, which the caller may not be allowed to see. What a handler says in its own words
/// stays.
pub(super) fn named(error: ErrorData, method: &str, name: Option<&str>) -> ErrorData {
    let said = error.message.trim();
    if error.code == ErrorCode::METHOD_NOT_FOUND {
        let shown = excerpt(method);
        let message = match said {
            "" => format!("Method not found: {shown:?}."),
            said if said == method || said.eq_ignore_ascii_case("method not found") => {
                format!("Method not found: {shown:?}.")
            }
            said if said.contains(method) => return error,
            said => format!("Method not found: {shown:?} ({said})."),
        };
        return ErrorData { message: message.into(), ..error };
    }
    let Some(name) = name.filter(|_| error.code == ErrorCode::INVALID_PARAMS) else { return error };
    let (kind, list) = match method {
        "tools/call" if said == "tool not found" => ("tool", "tools/list"),
        "prompts/get" if said == format!("prompt '{name}' not found") => ("prompt", "prompts/list"),
        _ => return error,
    };
    ErrorData::invalid_params(
        format!("Unknown {kind}: {:?}. {list} has those that there are.", excerpt(name)),
        None,
    )
}

fn excerpt(text: &str) -> &str {
    text.char_indices().nth(SHOWN).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
