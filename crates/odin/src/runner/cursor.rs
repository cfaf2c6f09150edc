//! Cursors of lists: only those that were given out are taken.
//!
//! A handler that has no pages gives out no cursor and looks at none, and one that has pages may take any text for one.
//! So the runner signs the cursors of all handlers on the way out, and refuses what it has not signed (MCP, pagination:
//! invalid cursors are -32602). The handler sees its own text.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use rmcp::model::{ClientRequest, ErrorData, ServerResult};
use sha2::Sha256;

use super::state::StateKeys;
use crate::call::Job;

/// Bytes of a signature.
const TAG: usize = 16;
/// Characters of a signature in base64url.
const TAG_TEXT: usize = 22;

/// Puts the handler's own cursor into a request.
///
/// # Errors
/// -32602 for a cursor that was not given out for this list.
pub(super) fn open(keys: &StateKeys, job: &Job, request: &mut ClientRequest) -> Result<(), ErrorData> {
    let method = request.method().to_owned();
    let Some(cursor) = of_request(request) else { return Ok(()) };
    let own = cursor.split_at_checked(TAG_TEXT).and_then(|(tag, own)| {
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        let is_its = |key: &Hmac<Sha256>| signed(key, job, &method, own).verify_truncated_left(&tag).is_ok();
        (tag.len() == TAG && keys.cursors().iter().any(is_its)).then(|| own.to_owned())
    });
    *cursor = own.ok_or_else(|| {
        let message = format!(
            "Invalid params: this cursor was not given out by {method}. Ask without a cursor for the first page, and go \
             on with the nextCursor of each answer."
        );
        ErrorData::invalid_params(message, None)
    })?;
    Ok(())
}

/// Signs the cursor of an answer, if it has one.
pub(super) fn seal(keys: &StateKeys, job: &Job, method: &str, result: &mut ServerResult) {
    let cursor = match result {
        ServerResult::ListToolsResult(list) => &mut list.next_cursor,
        ServerResult::ListPromptsResult(list) => &mut list.next_cursor,
        ServerResult::ListResourcesResult(list) => &mut list.next_cursor,
        ServerResult::ListResourceTemplatesResult(list) => &mut list.next_cursor,
        ServerResult::ListSkillsResult(list) => &mut list.next_cursor,
        _ => return,
    };
    if let (Some(cursor), Some(key)) = (cursor, keys.cursors().first()) {
        let tag = signed(key, job, method, cursor).finalize().into_bytes();
        let tag = BASE64_URL_SAFE_NO_PAD.encode(tag.get(..TAG).unwrap_or_default());
        cursor.insert_str(0, &tag);
    }
}

fn of_request(request: &mut ClientRequest) -> Option<&mut String> {
    let params = match request {
        ClientRequest::ListToolsRequest(list) => list.params.as_mut(),
        ClientRequest::ListPromptsRequest(list) => list.params.as_mut(),
        ClientRequest::ListResourcesRequest(list) => list.params.as_mut(),
        ClientRequest::ListResourceTemplatesRequest(list) => list.params.as_mut(),
        ClientRequest::ListSkillsRequest(list) => list.params.as_mut(),
        ClientRequest::ReadResourceDirectoryRequest(read) => return read.params.cursor.as_mut(),
        _ => None,
    };
    params?.cursor.as_mut()
}

/// A cursor is good for one list of one organisation: its members share what is listed for all of them.
fn signed(key: &Hmac<Sha256>, job: &Job, method: &str, cursor: &str) -> Hmac<Sha256> {
    let mut mac = key.clone();
    for part in [&job.principal.issuer, &job.principal.organisation, &job.server, method, cursor] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac
}
