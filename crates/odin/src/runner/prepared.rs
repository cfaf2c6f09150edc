//! A client's request, read and checked, as rmcp's handlers take it.

use rmcp::model::{
    ClientRequest, ErrorData, GetMeta, NumberOrString, ProgressToken, ProtocolVersion, RequestId,
    RequestMetaObject,
};
use serde_json::value::RawValue;

use super::{envelope, methods};
use crate::call::Job;
use crate::protocol::{Era, jsonrpc};

/// A request in rmcp's types, with what rmcp's types can't hold beside it.
pub(super) struct Prepared {
    pub(super) request: ClientRequest,
    pub(super) inner_id: RequestId,
    pub(super) meta: RequestMetaObject,
    pub(super) progress: Option<(ProgressToken, Box<RawValue>)>,
    pub(super) odd_id: Option<Box<RawValue>>,
}

/// rmcp's own reading tries one kind of request after the other; the common ones are read at once.
pub(super) fn read(method: &str, text: &str) -> Result<ClientRequest, serde_json::Error> {
    match method {
        "tools/call" => serde_json::from_str(text).map(ClientRequest::CallToolRequest),
        "tools/list" => serde_json::from_str(text).map(ClientRequest::ListToolsRequest),
        _ => serde_json::from_str(text),
    }
}

impl Prepared {
    pub(super) fn new(job: &Job, message: &jsonrpc::Request<'_>, id: &RawValue) -> Result<Self, ErrorData> {
        methods::gate(&message.method, job.era)?;
        let mut request = read(&message.method, job.message.get()).map_err(|error| {
            methods::bad_params(&message.method, message.params, true).unwrap_or_else(|| {
                ErrorData::invalid_request(format!("not a JSON-RPC request: {error}"), None)
            })
        })?;
        let mut meta = std::mem::take(request.get_meta_mut());
        match job.era {
            Era::Stateless => {
                let missing = meta.missing_required_keys(&ProtocolVersion::V_2026_07_28);
                if !missing.is_empty() {
                    let keys = missing.join(", ");
                    return Err(ErrorData::invalid_params(
                        format!("_meta lacks, or has malformed: {keys}"),
                        None,
                    ));
                }
            }
            // The session has its revision; a message can't change it.
            Era::Stateful => {
                meta.remove(RequestMetaObject::DRAFT_REQUIRED_KEYS[0]);
            }
        }
        let misread = matches!(request, ClientRequest::CustomRequest(_));
        if let Some(error) = methods::bad_params(&message.method, message.params, misread) {
            return Err(error);
        }
        let stand_in = || NumberOrString::String(job.call.as_str().into());
        let inner_id: RequestId = serde_json::from_str(id.get()).unwrap_or_else(|_| stand_in());
        let odd_id =
            (serde_json::to_string(&inner_id).ok().as_deref() != Some(id.get())).then(|| id.to_owned());
        let progress = envelope::progress_token(message.params).map(|text| {
            let token = meta.get_progress_token().unwrap_or_else(|| {
                let token = ProgressToken(stand_in());
                meta.set_progress_token(token.clone());
                token
            });
            (token, text.to_owned())
        });
        // What the work of a task reports becomes the task's note.
        let progress = progress.or_else(|| {
            job.task.as_ref()?;
            let token = ProgressToken(stand_in());
            meta.set_progress_token(token.clone());
            Some((token, serde_json::value::to_raw_value(&job.call).ok()?))
        });
        Ok(Self { request, inner_id, meta, progress, odd_id })
    }
}
