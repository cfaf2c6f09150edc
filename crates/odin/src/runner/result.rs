//! What a handler's result lacks before it is the client's answer.

use rmcp::model::{
    ClientCapabilities, ElicitationCapability, ErrorData, InputRequest, InputRequiredResult, MetaObject,
    ResultType, RootsCapabilities, ServerResult,
};
use serde_json::value::{RawValue, to_raw_value};

use super::envelope;
use crate::protocol::{Era, SUBSCRIPTION_ID};

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// Writes the answer of a request under the client's own id.
///
/// `server` is the server's `Implementation` as JSON: a modern result names it in its `_meta`.
/// `odd_id` is the client's id where rmcp can't hold it as written.
pub(super) fn answer(
    id: &RawValue,
    mut result: ServerResult,
    era: Era,
    server: &serde_json::Value,
    odd_id: Option<&RawValue>,
) -> Result<Box<RawValue>, serde_json::Error> {
    if era == Era::Stateful {
        return envelope::result(id, &result);
    }
    let listened = matches!(result, ServerResult::SubscriptionsListenResult(_));
    // The common ones have their members in reach; the others are patched as text.
    if let Some((result_type, meta)) = members(&mut result) {
        result_type.get_or_insert(ResultType::COMPLETE);
        meta.get_or_insert_default().0.entry(SERVER_INFO).or_insert_with(|| server.clone());
        return envelope::result(id, &result);
    }
    if let ServerResult::InputRequiredResult(asked) = &mut result {
        asked.meta.get_or_insert_default().0.entry(SERVER_INFO).or_insert_with(|| server.clone());
        return envelope::result(id, &result);
    }
    let mut text = to_raw_value(&result)?;
    if text.get().starts_with('{') {
        text = envelope::with_default(&text, "resultType", || to_raw_value(&ResultType::COMPLETE))?;
        text = envelope::with_meta(&text, SERVER_INFO, to_raw_value(server)?)?;
    }
    if let (true, Some(odd_id)) = (listened, odd_id) {
        text = envelope::with_meta(&text, SUBSCRIPTION_ID, odd_id.to_owned())?;
    }
    envelope::result(id, &text)
}

fn members(result: &mut ServerResult) -> Option<(&mut Option<ResultType>, &mut Option<MetaObject>)> {
    Some(match result {
        ServerResult::CallToolResult(result) => (&mut result.result_type, &mut result.meta),
        ServerResult::ListToolsResult(result) => (&mut result.result_type, &mut result.meta),
        ServerResult::ListPromptsResult(result) => (&mut result.result_type, &mut result.meta),
        ServerResult::ListResourcesResult(result) => (&mut result.result_type, &mut result.meta),
        ServerResult::ReadResourceResult(result) => (&mut result.result_type, &mut result.meta),
        ServerResult::GetPromptResult(result) => (&mut result.result_type, &mut result.meta),
        _ => return None,
    })
}

/// Refuses a result that asks the client for what the client can't do.
pub(super) fn check_input(
    result: &ServerResult,
    client: Option<&ClientCapabilities>,
) -> Result<(), ErrorData> {
    let ServerResult::InputRequiredResult(InputRequiredResult { input_requests: Some(requests), .. }) =
        result
    else {
        return Ok(());
    };
    let missing = missing(requests.values(), client.unwrap_or(&ClientCapabilities::default()));
    if missing == ClientCapabilities::default() {
        Ok(())
    } else {
        Err(ErrorData::missing_required_client_capability(missing))
    }
}

fn missing<'a>(
    requests: impl Iterator<Item = &'a InputRequest>,
    client: &ClientCapabilities,
) -> ClientCapabilities {
    let mut missing = ClientCapabilities::default();
    for request in requests {
        match request {
            InputRequest::Elicitation(_) if client.elicitation.is_none() => {
                missing.elicitation = Some(ElicitationCapability::default());
            }
            InputRequest::CreateMessage(_) if client.sampling.is_none() => {
                missing.sampling = Some(rmcp::model::SamplingCapability::default());
            }
            InputRequest::ListRoots(_) if client.roots.is_none() => {
                missing.roots = Some(RootsCapabilities::default());
            }
            _ => {}
        }
    }
    missing
}
