//! Runs a message through an rmcp `ServerHandler`.
//!
//! rmcp hands out a `Peer` (the handler's way to its client) only with a running message loop, and its
//! notifications don't say which request they belong to. So every job has a loop of its own. But the loop
//! only carries messages between handler and client; requests are handled *beside* it, in the future that
//! [`Runner::run`] returns: whoever drops that future drops the work, a panic is caught where it happens,
//! and no answer passes the loop (which loses those of cancelled requests, and lingers for seconds when it
//! is to stop).

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, future::BoxFuture};
use identity::Principal;
use rmcp::{
    RoleServer, ServerHandler,
    model::{
        CallToolResult, ClientNotification, ClientRequest, ContentBlock, ErrorCode, ErrorData, Extensions,
        GetExtensions, GetMeta, InputRequiredResult, JsonRpcMessage, ProtocolVersion, RequestMetaObject,
        ServerResult,
    },
    service::{RequestContext, Service},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    channel::{JobTransport, Link},
    cursor, envelope, listen,
    log::LogFilter,
    methods,
    peer::{self, ResponseStream},
    prepared::{Prepared, read},
    result,
    session::{Session, panic_text},
    state::{Bound, StateKeys},
    tools::Tools,
    unknown,
};
use crate::broadcast::{Audience, Broadcaster};
use crate::call::{
    Job, Rerun,
    task::{TaskTool, TaskView},
};
use crate::protocol::{Era, header_map, jsonrpc};
use crate::worker::{Closed, Emission, Inbound, Once, Outbox, Runner};

/// How long a handler may clean up after its request was cancelled, before it is dropped.
pub const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How far the clocks of two workers may differ: a state that is used up is remembered for longer than any of them
/// would take it.
const CLOCKS: Duration = Duration::from_secs(300);

/// Pages of `tools/list` that are asked for, at most.
const MAX_PAGES: usize = 100;

/// Runs messages through one shared rmcp [`ServerHandler`].
///
/// Handlers find in their context's extensions the caller ([`identity::Principal`]), the call
/// ([`CallContext`](super::CallContext)) and an `http::request::Parts` without `Authorization`.
///
/// rmcp logs three lines a job at its level `info`, and arguments at `debug`: keep its target at `warn`.
pub struct RmcpRunner<H> {
    handler: Arc<H>,
    /// The server's `Implementation`, for the results of stateless requests.
    server: serde_json::Value,
    tools: Tools,
    /// Seal `requestState`.
    keys: StateKeys,
    /// Whether the handler declares the tasks extension.
    tasks: bool,
    /// Where notifications go that belong to no request.
    broadcaster: Option<Broadcaster>,
}

impl<H: ServerHandler> RmcpRunner<H> {
    /// A runner of `handler`. Asks it once for its name and version. Its requests that ask the client for more
    /// must come back to this process, unless it gets [keys](Self::with_state_keys) that others have as well.
    pub fn new(handler: Arc<H>) -> Self {
        let info = ServerHandler::get_info(handler.as_ref());
        Self {
            handler,
            server: serde_json::to_value(info.server_info).unwrap_or_default(),
            tools: Tools::default(),
            keys: StateKeys::random(),
            tasks: info.capabilities.supports_tasks(),
            broadcaster: None,
        }
    }

    /// Lets handlers notify: they find the [`Broadcaster`] in their context's extensions, and what they tell
    /// their `Peer` about changed lists and resources from a stateless request goes to all streams of the caller
    /// ([`Audience::principal`]). (In the stateful eras it goes out on the request's own stream.)
    #[must_use]
    pub fn with_broadcaster(self, broadcaster: Broadcaster) -> Self {
        Self { broadcaster: Some(broadcaster), ..self }
    }

    fn link(&self, job: &Job, meta: &RequestMetaObject, outbox: Arc<dyn Outbox>) -> Link {
        let notices = self.broadcaster.clone().map(|to| (to, Audience::principal(&job.principal)));
        Link { notices, ..Link::of(job, LogFilter::new(job, meta), outbox) }
    }

    /// Puts into a message's extensions what handlers may ask for.
    fn extend(&self, extensions: &mut Extensions, job: &Job) {
        peer::extend(extensions, job);
        if let Some(broadcaster) = &self.broadcaster {
            extensions.insert(broadcaster.clone());
        }
    }

    /// The same with keys that seal `requestState`: the same for all workers of a server, so that a request may
    /// come back to any of them.
    #[must_use]
    pub fn with_state_keys(self, keys: StateKeys) -> Self {
        Self { keys, ..self }
    }

    /// Asks the handler for its tools, so that [`rerun`](Runner::rerun) knows their annotations. Needed
    /// once, before the first message, for handlers that don't implement `get_tool` (the `#[tool_handler]`
    /// macro does); harmless for others. Without it all of such a handler's tools count as unsafe to rerun
    /// until a client has listed them.
    ///
    /// # Errors
    /// The handler's own error, as JSON-RPC error. A handler without tools is none.
    pub async fn learn(&self) -> Result<(), ErrorData> {
        #[derive(Deserialize)]
        struct Answer {
            result: Option<Page>,
            error: Option<ErrorData>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page {
            next_cursor: Option<String>,
        }
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            let (_keep, inbox) = mpsc::channel(1);
            let job =
                own_job(&json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/list", "params": params }));
            let answer =
                self.run(job, Arc::new(Discard), inbox, CancellationToken::new()).await.unwrap_or_default();
            // The tools themselves were remembered on the way.
            let answer: Answer = serde_json::from_str(answer.get())
                .map_err(|error| ErrorData::internal_error(format!("tools/list: {error}"), None))?;
            match answer {
                Answer { error: Some(error), .. } if error.code == ErrorCode::METHOD_NOT_FOUND => {
                    return Ok(());
                }
                Answer { error: Some(error), .. } => return Err(error),
                Answer { result, .. } => cursor = result.and_then(|page| page.next_cursor),
            }
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Compares the headers of a modern tool call with its arguments (transports, custom headers from tool
    /// parameters).
    fn check_headers(
        &self,
        job: &Job,
        request: &ClientRequest,
        params: Option<&RawValue>,
    ) -> Result<(), ErrorData> {
        let ClientRequest::CallToolRequest(call) = request else { return Ok(()) };
        if job.era != Era::Stateless {
            return Ok(());
        }
        let Some(rules) = self.tools.rules(&*self.handler, &call.params.name) else { return Ok(()) };
        rules
            .check(&header_map(&job.headers), envelope::arguments(params))
            .map_err(|refusal| ErrorData::new(ErrorCode(refusal.code()), refusal.message().to_owned(), None))
    }

    /// Brings a tool's arguments into the form that its schema allows, or says what is wrong.
    fn fit_arguments(&self, request: &mut ClientRequest) -> Result<(), String> {
        let ClientRequest::CallToolRequest(call) = request else { return Ok(()) };
        let Some(schema) = self.tools.schema(&*self.handler, &call.params.name) else { return Ok(()) };
        schema.fit(&call.params.name, &mut call.params.arguments)
    }

    /// Opens the state that the client brought back, for the handler to read. A stateful era has none.
    fn open_state(
        &self,
        job: &Job,
        message: &jsonrpc::Request<'_>,
        request: &mut ClientRequest,
    ) -> Result<(), ErrorData> {
        let state = match request {
            ClientRequest::CallToolRequest(request) => &mut request.params.request_state,
            ClientRequest::GetPromptRequest(request) => &mut request.params.request_state,
            ClientRequest::ReadResourceRequest(request) => &mut request.params.request_state,
            _ => return Ok(()),
        };
        // Between the rounds of a task the state stays with the task.
        if job.task.as_ref().is_some_and(|task| task.round > 1) {
            return Ok(());
        }
        let Some(sealed) = state.take().filter(|_| job.era == Era::Stateless) else { return Ok(()) };
        let bound = Bound::of(job, &message.method, message.params);
        let opened = self.keys.open(&sealed, &bound, unix_seconds()).map_err(|error| {
            tracing::info!(call = %job.call, method = %message.method, "a requestState is refused");
            ErrorData::invalid_params(
                format!("requestState: {error}. Ask again without requestState and inputResponses."),
                None,
            )
        })?;
        *state = Some(opened.state);
        Ok(())
    }

    /// Seals the state that the client is to bring back.
    fn seal_state(
        &self,
        job: &Job,
        message: &jsonrpc::Request<'_>,
        result: &mut ServerResult,
    ) -> Result<(), ErrorData> {
        let ServerResult::InputRequiredResult(InputRequiredResult { request_state: Some(state), .. }) =
            result
        else {
            return Ok(());
        };
        if job.task.is_some() {
            return Ok(());
        }
        let bound = Bound::of(job, &message.method, message.params);
        *state = self
            .keys
            .seal(state, &bound, unix_seconds())
            .ok_or_else(|| ErrorData::internal_error("the requestState can't be sealed", None))?;
        Ok(())
    }

    async fn request(
        &self,
        job: &Job,
        message: &jsonrpc::Request<'_>,
        id: &RawValue,
        outbox: Arc<dyn Outbox>,
        inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) -> Option<Box<RawValue>> {
        let prepared = Prepared::new(job, message, id).and_then(|mut prepared| {
            self.check_headers(job, &prepared.request, message.params)?;
            self.open_state(job, message, &mut prepared.request)?;
            cursor::open(&self.keys, job, &mut prepared.request)?;
            Ok(prepared)
        });
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Some(envelope::error(id, &error)),
        };
        let Prepared { mut request, inner_id, meta, progress, odd_id } = prepared;
        if let Err(why) = self.fit_arguments(&mut request) {
            let mut refused = CallToolResult::error(vec![ContentBlock::text(why)]);
            refused.result_type = None;
            let refused = ServerResult::CallToolResult(refused);
            return result::answer(id, refused, job.era, &self.server, odd_id.as_deref()).ok();
        }
        if let ClientRequest::SubscriptionsListenRequest(listen) = &request {
            let agreed = listen::agreed(&*self.handler, &listen.params.notifications);
            return envelope::result(id, &agreed).ok();
        }
        let client = peer::info(job, &message.method, &meta);
        let capabilities = client.as_ref().map(|client| client.capabilities.clone());
        let link = self.link(job, &meta, outbox);
        let link = Arc::new(Link { progress, odd_id, ..link });
        let end = CancellationToken::new();
        let transport = JobTransport { link: Arc::clone(&link), first: None, inbox };
        let session = Session::open(&self.handler, transport, client, end.clone());

        let mut context = RequestContext::new(inner_id, session.service.peer().clone());
        // Fires when the client cancels, and when the work ends in any way (for what the handler spawned).
        context.ct = end.child_token();
        let handler_ct = context.ct.clone();
        let asked = unknown::asked(&request);
        std::mem::swap(&mut context.extensions, request.extensions_mut());
        context.meta = meta;
        self.extend(&mut context.extensions, job);
        context.extensions.insert(ResponseStream::new(Arc::clone(&link)));

        let work = AssertUnwindSafe(async {
            Service::<RoleServer>::handle_request(&*self.handler, request, context).await
        })
        .catch_unwind();
        let overdue = async {
            link.cancelled.cancelled().await;
            handler_ct.cancel();
            tokio::time::sleep(CANCEL_GRACE).await;
        };
        let outcome = tokio::select! {
            biased;
            () = abort.cancelled() => None,
            () = link.refused.cancelled() => None,
            () = overdue => None,
            outcome = work => Some(outcome),
        };
        link.close();
        if link.cancelled.is_cancelled() {
            return None;
        }
        let outcome = match outcome? {
            Ok(outcome) => outcome,
            Err(panic) => {
                tracing::error!(call = %job.call, method = %message.method, panic = panic_text(&*panic), "a handler panicked");
                Err(ErrorData::internal_error(
                    "internal error: the server failed while handling the request",
                    None,
                ))
            }
        };
        let outcome = outcome.map_err(|error| unknown::named(error, &message.method, asked.as_deref()));
        let answer = outcome.and_then(|mut answered| {
            if let ServerResult::ListToolsResult(listed) = &mut answered {
                self.tools.remember(&mut listed.tools);
            }
            result::check_input(&answered, capabilities.as_ref())?;
            self.seal_state(job, message, &mut answered)?;
            cursor::seal(&self.keys, job, &message.method, &mut answered);
            result::answer(id, answered, job.era, &self.server, link.odd_id.as_deref()).map_err(|error| {
                ErrorData::internal_error(format!("the result can't be written as JSON: {error}"), None)
            })
        });
        Some(answer.unwrap_or_else(|error| envelope::error(id, &error)))
    }

    async fn notification(
        &self,
        job: &Job,
        method: &str,
        outbox: Arc<dyn Outbox>,
        inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) {
        let Ok(mut notification) = serde_json::from_str::<ClientNotification>(job.message.get()) else {
            return;
        };
        let misread = matches!(notification, ClientNotification::CustomNotification(_));
        let from_other_era = job.era == Era::Stateless && method == "notifications/initialized";
        if from_other_era || (misread && methods::known_notification(method)) {
            tracing::debug!(call = %job.call, method, "notification that doesn't fit dropped");
            return;
        }
        let meta = RequestMetaObject(notification.get_meta().0.clone());
        self.extend(notification.extensions_mut(), job);
        let client = peer::info(job, method, &meta);
        let link = Arc::new(self.link(job, &meta, outbox));
        let end = CancellationToken::new();
        let first = Some(JsonRpcMessage::notification(notification));
        let transport = JobTransport { link: Arc::clone(&link), first, inbox };
        let session = Session::open(&self.handler, transport, client, end);
        tokio::select! {
            biased;
            () = abort.cancelled() => {}
            () = link.refused.cancelled() => {}
            () = session.notified.cancelled() => {}
        }
        link.close();
    }
}

impl<H: ServerHandler> Runner for RmcpRunner<H> {
    fn rerun(&self, name: &str) -> Rerun {
        self.tools.rerun(&*self.handler, name)
    }

    /// The `requestState` of a tool that may not run twice. What can't be opened uses nothing up: it is refused
    /// when it is run.
    fn uses_up(&self, job: &Job) -> Option<Once> {
        let text = job.message.get();
        // Most requests have none, whether written plainly or with escapes: don't read their arguments twice.
        if job.era != Era::Stateless || !(text.contains("requestState") || text.contains("\\u")) {
            return None;
        }
        let message = jsonrpc::Request::read(&job.message).ok()?;
        // As it is read to be run: what is used up is what the handler would see.
        let Ok(ClientRequest::CallToolRequest(call)) = read(&message.method, text) else { return None };
        let sealed = call.params.request_state.filter(|_| self.rerun(&call.params.name) == Rerun::Unsafe)?;
        let bound = Bound::of(job, &message.method, message.params);
        let opened = self.keys.open(&sealed, &bound, unix_seconds()).ok()?;
        Some(Once { name: opened.name, live: Duration::from_secs(opened.left) + CLOCKS })
    }

    fn task_changed(&self, task: &TaskView) {
        if let Some(broadcaster) = &self.broadcaster {
            broadcaster.task_status_soon(task.id, &task.notification());
        }
    }

    fn task_tool(&self, name: &str) -> TaskTool {
        if !self.tasks {
            return TaskTool::default();
        }
        self.tools.task(&*self.handler, name)
    }

    fn server_info(&self) -> Option<String> {
        Some(self.server.to_string())
    }

    fn run<'a>(
        &'a self,
        job: Job,
        outbox: Arc<dyn Outbox>,
        inbox: mpsc::Receiver<Inbound>,
        abort: CancellationToken,
    ) -> BoxFuture<'a, Option<Box<RawValue>>> {
        Box::pin(async move {
            let message = match jsonrpc::Request::read(&job.message) {
                Ok(envelope) => envelope,
                Err(error) => {
                    let error = ErrorData::invalid_request(format!("not a JSON-RPC message: {error}"), None);
                    return Some(envelope::error(RawValue::NULL, &error));
                }
            };
            match message.id {
                Some(id) => self.request(&job, &message, id, outbox, inbox, abort).await,
                None => {
                    self.notification(&job, &message.method, outbox, inbox, abort).await;
                    None
                }
            }
        })
    }
}

/// A request of the runner itself: no client's, so nobody's principal.
fn own_job(message: &serde_json::Value) -> Job {
    Job {
        call: String::new(),
        server: String::new(),
        era: Era::Stateful,
        protocol: ProtocolVersion::V_2025_11_25.to_string(),
        principal: Principal::new("", "", ""),
        session: None,
        peer: None,
        log_level: None,
        headers: Vec::new(),
        answer_only: false,
        task: None,
        message: serde_json::value::to_raw_value(message).unwrap_or_default(),
    }
}

struct Discard;

impl Outbox for Discard {
    fn emit(&self, _: Emission) -> Result<(), Closed> {
        Ok(())
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
