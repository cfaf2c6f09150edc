//! The way between a running handler and its client: rmcp's transport for one job.
//!
//! What the handler sends is filtered, rewritten and put out *inside* `send`: rmcp runs the futures that
//! `send` returns concurrently, and what is left for them loses its order.

use std::{
    future::{Future, pending, ready},
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{
    RoleServer,
    model::{
        CancelledNotification, ClientJsonRpcMessage, ClientNotification, ClientResult, ErrorData, GetMeta,
        JsonObject, JsonRpcMessage, NumberOrString, ProgressNotificationParam, ProgressToken,
        ProtocolVersion, RequestId, ServerJsonRpcMessage, ServerNotification, ServerRequest,
    },
    transport::Transport,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{envelope, log::LogFilter};
use crate::broadcast::{Audience, Broadcaster, Notice};
use crate::call::Job;
use crate::protocol::{Era, SUBSCRIPTION_ID, jsonrpc};
use crate::worker::{Closed, Emission, Inbound, Outbox};

/// What the handler's side and the runner's side of a job share.
pub(super) struct Link {
    pub(super) call: String,
    pub(super) era: Era,
    /// The client can't be asked: nothing but the answer reaches it.
    pub(super) answer_only: bool,
    /// The client's revision has it resume streams that end early.
    pub(super) resumable: bool,
    pub(super) log: LogFilter,
    /// The token that progress must carry: rmcp's view of it, and the client's own text.
    pub(super) progress: Option<(ProgressToken, Box<RawValue>)>,
    /// The client's id, where rmcp can't hold it as it was written.
    pub(super) odd_id: Option<Box<RawValue>>,
    pub(super) outbox: Arc<dyn Outbox>,
    /// Where notifications go that belong to no request, and for whom.
    pub(super) notices: Option<(Broadcaster, Audience)>,
    /// False once nothing more may go out: the work has ended or was cancelled.
    pub(super) open: Mutex<bool>,
    /// The outbox refused: the work is to be dropped.
    pub(super) refused: CancellationToken,
    /// The client cancelled the request.
    pub(super) cancelled: CancellationToken,
}

impl Link {
    /// A link of a job that is no request: it has no id and no progress.
    pub(super) fn of(job: &Job, log: LogFilter, outbox: Arc<dyn Outbox>) -> Self {
        Self {
            call: job.call.clone(),
            era: job.era,
            answer_only: job.answer_only,
            resumable: job.protocol == ProtocolVersion::V_2025_11_25.as_str(),
            log,
            progress: None,
            odd_id: None,
            outbox,
            notices: None,
            open: Mutex::new(true),
            refused: CancellationToken::new(),
            cancelled: CancellationToken::new(),
        }
    }

    /// Ends the client's connection, if the client knows how to resume.
    pub(super) fn hang_up(&self) -> Result<(), Closed> {
        if self.resumable { self.put(Emission::HangUp) } else { Ok(()) }
    }

    /// Nothing goes out any more. What goes out in this moment, does so before this returns.
    pub(super) fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    fn put(&self, emission: Emission) -> Result<(), Closed> {
        // Under the lock, so that nothing overtakes and nothing follows the answer.
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return Err(Closed);
        }
        self.outbox.emit(emission).inspect_err(|_| self.refused.cancel())
    }

    fn send(&self, message: ServerJsonRpcMessage) -> Result<(), SendError> {
        match message {
            JsonRpcMessage::Notification(message) => match self.notification(message.notification)? {
                Some(text) => Ok(self.put(Emission::Notification(text))?),
                None => Ok(()),
            },
            JsonRpcMessage::Request(message) => {
                let (id, text) = self.request(message.request, &message.id)?;
                Ok(self.put(Emission::Request { id, message: text })?)
            }
            // The loop is given no request, so it has no answers.
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => Ok(()),
        }
    }

    /// `{call}:{n}`: ids and progress tokens of this side count from 0 in every job, so they get the
    /// call's id before them.
    fn own(&self, id: &NumberOrString) -> NumberOrString {
        NumberOrString::String(format!("{}:{id}", self.call).into())
    }

    fn own_back(&self, id: &str) -> Option<i64> {
        id.strip_prefix(self.call.as_str())?.strip_prefix(':')?.parse().ok()
    }

    fn request(
        &self,
        mut request: ServerRequest,
        id: &RequestId,
    ) -> Result<(String, Box<RawValue>), SendError> {
        // rmcp refuses these before; a request on a stateless stream must not happen.
        if self.era == Era::Stateless {
            return Err(SendError::Forbidden);
        }
        if self.answer_only {
            return Err(SendError::AnswerOnly);
        }
        let meta = request.get_meta_mut();
        if let Some(token) = meta.get_progress_token() {
            meta.set_progress_token(ProgressToken(self.own(&token.0)));
        }
        let id = self.own(id);
        let text = to_raw_value(&ServerJsonRpcMessage::request(request, id.clone()))?;
        Ok((id.to_string(), text))
    }

    /// The text of a notification; `None` if it is not for this client.
    fn notification(&self, mut notification: ServerNotification) -> Result<Option<Box<RawValue>>, SendError> {
        let subscribed = notification.get_meta().subscription_id().is_some();
        match &mut notification {
            ServerNotification::ProgressNotification(progress) => {
                let meta = progress.extensions.get::<rmcp::model::NotificationMetaObject>();
                return self.progress(&progress.params, meta.map(|meta| &meta.0.0));
            }
            ServerNotification::LoggingMessageNotification(message) if !self.log.passes(&message.params) => {
                return Ok(None);
            }
            ServerNotification::CancelledNotification(CancelledNotification { params, .. }) => {
                // It can only be about a request of this side.
                if self.era == Era::Stateless {
                    return Ok(None);
                }
                params.request_id = params.request_id.as_ref().map(|id| self.own(id));
            }
            ServerNotification::ResourceUpdatedNotification(_)
            | ServerNotification::ResourceListChangedNotification(_)
            | ServerNotification::ToolListChangedNotification(_)
            | ServerNotification::PromptListChangedNotification(_)
            | ServerNotification::TaskStatusNotification(_)
                // A stateless stream carries only what its request asked for.
                if self.era == Era::Stateless && !subscribed =>
            {
                self.cast(&to_raw_value(&notification)?);
                return Ok(None);
            }
            _ => {}
        }
        let text = to_raw_value(&ServerJsonRpcMessage::notification(notification))?;
        Ok(Some(match &self.odd_id {
            Some(id) if subscribed => with_subscription(&text, id.clone())?,
            _ => text,
        }))
    }

    /// Sends a notification that belongs to no request to the caller's streams.
    fn cast(&self, notification: &RawValue) {
        let notice = jsonrpc::Request::read(notification)
            .ok()
            .and_then(|envelope| Notice::read(&envelope.method, envelope.params).ok());
        match (&self.notices, notice) {
            (Some((broadcaster, audience)), Some(notice)) => {
                broadcaster.notify_soon(audience.clone(), notice);
            }
            _ => tracing::debug!(call = %self.call, "change notification outside a subscription dropped"),
        }
    }

    /// Progress is written here and not by rmcp, so that the token stays the client's own text.
    fn progress(
        &self,
        params: &ProgressNotificationParam,
        meta: Option<&JsonObject>,
    ) -> Result<Option<Box<RawValue>>, SendError> {
        let Some((_, token)) = self.progress.as_ref().filter(|(token, _)| *token == params.progress_token)
        else {
            tracing::debug!(call = %self.call, "progress under a token that this request did not give dropped");
            return Ok(None);
        };
        let params = ProgressParams {
            token,
            progress: params.progress,
            total: params.total,
            message: params.message.as_deref(),
            meta: meta.or(params.meta.as_ref().map(|meta| &meta.0.0)).filter(|meta| !meta.is_empty()),
        };
        let params = serde_json::to_string(&params)?;
        Ok(Some(RawValue::from_string(jsonrpc::notification("notifications/progress", params))?))
    }

    /// A message of the client for the loop; `None` if it is not for this call.
    fn inbound(&self, inbound: &Inbound) -> Option<ClientJsonRpcMessage> {
        match inbound {
            Inbound::Response(text) => {
                let answer = jsonrpc::Response::read(text.get())?;
                let own: std::borrow::Cow<'_, str> = serde_json::from_str(answer.id?.get()).ok()?;
                let id = RequestId::Number(self.own_back(&own)?);
                let failed = |error| Some(JsonRpcMessage::error(error, Some(id.clone())));
                match (answer.result, answer.error) {
                    (Some(result), None) => match serde_json::from_str::<ClientResult>(result.get()) {
                        Ok(result) => Some(JsonRpcMessage::response(result, id)),
                        Err(_) => {
                            failed(ErrorData::invalid_request("the client's answer can't be read", None))
                        }
                    },
                    (None, Some(error)) => match serde_json::from_str::<ErrorData>(error.get()) {
                        Ok(error) => failed(error),
                        Err(_) => {
                            failed(ErrorData::invalid_request("the client's error can't be read", None))
                        }
                    },
                    // The handler must not wait for ever for an answer that came broken.
                    _ => failed(ErrorData::invalid_request("the client's answer has no result", None)),
                }
            }
            Inbound::Notification(text) => {
                // Whoever put it in the inbox has found that it is for this call, also when its request
                // id is of a form that rmcp can't read.
                if jsonrpc::Request::read(text).ok()?.method == "notifications/cancelled" {
                    self.close();
                    self.cancelled.cancel();
                }
                let mut notification: ClientNotification = serde_json::from_str(text.get()).ok()?;
                match &mut notification {
                    ClientNotification::CancelledNotification(_) => {}
                    ClientNotification::ProgressNotification(progress) => {
                        let NumberOrString::String(token) = &progress.params.progress_token.0 else {
                            return None;
                        };
                        let number = self.own_back(token)?;
                        progress.params.progress_token = ProgressToken(NumberOrString::Number(number));
                    }
                    _ => return None,
                }
                Some(JsonRpcMessage::notification(notification))
            }
        }
    }
}

/// Puts the client's own id where a notification or a result names the subscription.
pub(super) fn with_subscription(
    text: &RawValue,
    id: Box<RawValue>,
) -> Result<Box<RawValue>, serde_json::Error> {
    let message = jsonrpc::Request::read(text)?;
    let params = envelope::with_meta(message.params.unwrap_or(RawValue::NULL), SUBSCRIPTION_ID, id)?;
    RawValue::from_string(jsonrpc::notification(&message.method, params))
}

#[derive(Serialize)]
struct ProgressParams<'a> {
    #[serde(rename = "progressToken")]
    token: &'a RawValue,
    progress: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<&'a JsonObject>,
}

/// Why a handler's send failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error("this protocol revision has no requests from server to client")]
    Forbidden,
    #[error(
        "the client can't be asked while it waits for one document: send the request by itself, not in a batch"
    )]
    AnswerOnly,
    #[error("the message can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// rmcp's transport for one job.
pub(super) struct JobTransport {
    pub(super) link: Arc<Link>,
    /// The message that the loop itself handles: a notification. Requests are not run by the loop.
    pub(super) first: Option<ClientJsonRpcMessage>,
    pub(super) inbox: mpsc::Receiver<Inbound>,
}

impl Transport<RoleServer> for JobTransport {
    type Error = SendError;

    fn send(
        &mut self,
        item: ServerJsonRpcMessage,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        ready(self.link.send(item))
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while let Some(inbound) = self.inbox.recv().await {
            if let Some(message) = self.link.inbound(&inbound) {
                return Some(message);
            }
            tracing::debug!(call = %self.link.call, "message of the client that is not for this call dropped");
        }
        // Nothing more comes in; the job's end ends the loop, by its token.
        pending().await
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
