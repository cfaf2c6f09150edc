//! `tasks/get`, `tasks/update` and `tasks/cancel` (tasks extension): answered from the task's record, on any node,
//! without a worker.

use std::collections::BTreeMap;

use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::call::{
    Message,
    task::{TaskView, unix_millis},
};
use crate::front::{
    calls::{Context, policy},
    error::Error,
    state::Front,
};
use crate::id::CallId;
use crate::protocol::{
    Refusal, Request, jsonrpc,
    tasks::{declared, missing_extension},
};

/// Bytes of the answers in one `tasks/update`.
const ANSWERS: usize = 1024 * 1024;

/// What a client may ask of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Update,
    Cancel,
}

impl Method {
    /// The method of that name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "tasks/get" => Self::Get,
            "tasks/update" => Self::Update,
            "tasks/cancel" => Self::Cancel,
            _ => return None,
        })
    }
}

/// Answers a request of the stateless era.
pub(crate) async fn serve(
    front: &Front,
    context: &Context,
    method: Method,
    request: &Request<'_>,
) -> Response {
    match ask(front, context, method, request).await {
        Ok(result) => {
            let body = jsonrpc::result(request.id.as_json(), result);
            front.json(context.revision, body.into())
        }
        Err(refusal) => front.refuse(refusal.for_id(request.id)),
    }
}

async fn ask(
    front: &Front,
    context: &Context,
    method: Method,
    request: &Request<'_>,
) -> Result<Box<RawValue>, Refusal> {
    policy::permit(&front.config.policy, &context.caller.principal, request)?;
    let params = &request.params;
    if !declared(params.meta.client_capabilities) {
        return Err(missing_extension());
    }
    let Some(name) = &params.task_id else {
        return Err(Refusal::invalid_params("Invalid params: \"taskId\" must be a string."));
    };
    let answers = match method {
        Method::Update => answers(params.raw)?,
        Method::Get | Method::Cancel => Vec::new(),
    };
    // Made up, expired, another's: all the same.
    let task: CallId = name.parse().map_err(|_| Error::UnknownTask)?;
    let (principal, at) = (context.caller.principal.key(), unix_millis());
    let store = &front.store;
    let reply = match method {
        Method::Get => return Ok(known(store.task(task, &principal, at).await)?.detailed()),
        Method::Update => {
            let next = CallId::random();
            known(store.answer_task(task, &principal, &answers, next, at).await)?
        }
        Method::Cancel => known(store.cancel_task(task, &principal, at).await)?,
    };
    if reply.changed {
        tell(front, &reply.view);
    }
    Ok(reply.view.acknowledgement())
}

/// Tells who listens that a task changed.
fn tell(front: &Front, view: &TaskView) {
    tracing::debug!(task = %view.id, status = %view.status, "a task changed");
    front.broadcaster.task_status_soon(view.id, &view.notification());
}

fn known<T>(reply: crate::store::Result<Option<T>>) -> Result<T, Error> {
    reply?.ok_or(Error::UnknownTask)
}

/// The answers of a `tasks/update`.
fn answers(params: Option<&RawValue>) -> Result<Vec<(String, Message)>, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Update<'a> {
        #[serde(borrow)]
        input_responses: BTreeMap<String, &'a RawValue>,
    }
    let update: Option<Update<'_>> = params.and_then(|params| serde_json::from_str(params.get()).ok());
    let Some(Update { input_responses }) = update else {
        return Err(Refusal::invalid_params("Invalid params: \"inputResponses\" must be an object."));
    };
    let bytes: usize = input_responses.iter().map(|(key, answer)| key.len() + answer.get().len()).sum();
    if bytes > ANSWERS {
        return Err(Refusal::invalid_params(format!(
            "Invalid params: \"inputResponses\" is larger than {ANSWERS} bytes, which is the limit here."
        )));
    }
    Ok(input_responses.into_iter().map(|(key, answer)| (key, answer.get().into())).collect())
}
