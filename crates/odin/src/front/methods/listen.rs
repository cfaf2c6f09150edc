//! `subscriptions/listen` of revision 2026-07-28: a stream of the notifications that a client asks for.
//!
//! A worker says what its server supports; the stream itself needs no worker. It begins with the
//! acknowledgement, which names what is honoured. More resources and tasks than Pushpin has channels for one
//! connection ([`grip::MAX_CHANNELS`]) are left out of it: a client opens further streams for the rest.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::broadcast::{self, LongLivedStream, Topics};
use crate::call::task::{TaskView, unix_millis};
use crate::front::{
    calls::{Context, Outcome, outcome},
    error::Error,
    http::no_answer,
    state::Front,
    streams::{self, Spec},
};
use crate::id::CallId;
use crate::protocol::{
    self, Era, Refusal, Request, Revision, SUBSCRIPTION_ID, jsonrpc, sse,
    tasks::{declared, missing_extension},
};

/// Bytes that one URI may have.
const URI_BYTES: usize = 4096;
/// Bytes that a stream may begin with.
const CONTENT: usize = 512 * 1024;
/// How long a stream may take to stand, after its tasks were read.
const STANDS: Duration = Duration::from_secs(2);
/// Tasks that are looked up for one stream.
const TASKS: usize = grip::MAX_CHANNELS;

/// A filter as MCP writes it (2026-07-28, subscriptions, notification filter; tasks extension, `taskIds`).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tools_list_changed: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    prompts_list_changed: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    resources_list_changed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource_subscriptions: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Params {
    notifications: Filter,
}

/// Serves the request: a stream, or an error.
pub(crate) async fn serve(front: &Arc<Front>, context: Context, request: &Request<'_>) -> Response {
    let filter = match read(front, &context, request) {
        Ok(filter) => filter,
        Err(refusal) => return front.refuse(refusal.for_id(request.id)),
    };
    let accepted = match outcome(front, &context, request).await {
        Outcome::Answer(out) => match accepted(&out) {
            Some(accepted) => accepted,
            None => return front.json(context.revision, out),
        },
        Outcome::Cancelled => return no_answer(),
        Outcome::Refused(refusal) => return front.refuse(refusal),
    };
    let mut topics = Topics {
        tools: accepted.tools_list_changed,
        prompts: accepted.prompts_list_changed,
        resources: accepted.resources_list_changed,
        uris: accepted.resource_subscriptions.unwrap_or_default(),
        tasks: Vec::new(),
    };
    let tasks = match tasks(front, &context, request, filter.task_ids.as_deref()).await {
        Ok(tasks) => tasks,
        Err(refusal) => return front.refuse(refusal.for_id(request.id)),
    };
    topics.tasks = tasks.iter().map(|task| task.id).collect();
    topics.bound();
    let id = request.id.as_json();
    let subscription = front.broadcaster.listen_subscription(&context.caller.principal, &topics, id);
    let Some(mut content) = acknowledgement(&topics, id) else {
        return front.refuse(Refusal::invalid("The filter can't be acknowledged.").for_id(request.id));
    };
    // What has become of the tasks since the client last asked.
    for task in tasks.iter().filter(|task| topics.tasks.contains(&task.id)) {
        let state = broadcast::task_event(task.id, &task.notification(), id).unwrap_or_default();
        if content.len() + state.len() <= CONTENT {
            content.push_str(&state);
        }
    }
    if !tasks.is_empty() {
        tokio::spawn(look_again(front.clone(), context.caller.principal.key(), tasks));
    }
    let stream = Box::new(LongLivedStream::new(&context.caller.principal, None));
    let spec = Spec::Channels { stream, channels: Vec::new(), subscription, content };
    streams::open(front, &context.caller, spec).await
}

/// Tells of the tasks that changed after they were read and before the stream stood: nobody was there to hear.
async fn look_again(front: Arc<Front>, principal: String, tasks: Vec<TaskView>) {
    tokio::time::sleep(STANDS).await;
    for task in tasks {
        if let Ok(Some(now)) = front.store.task(task.id, &principal, unix_millis()).await
            && now != task
        {
            front.broadcaster.task_status_soon(now.id, &now.notification());
        }
    }
}

/// The filter, if it is one. The worker reads it again, in rmcp's types.
fn read(front: &Front, context: &Context, request: &Request<'_>) -> Result<Filter, Refusal> {
    let wrong = |why: String| Refusal::invalid_params(format!("Invalid params: {why}."));
    // A stream of a larger body could be held at neither entry point.
    let most = front.config.limits.held_body.min(front.config.limits.handover_body);
    if context.body > most {
        return Err(wrong(format!("a subscription of more than {most} bytes can't be held; ask for less")));
    }
    let params = request.params.raw.map_or("null", RawValue::get);
    let params: Params = serde_json::from_str(params).map_err(|error| {
        let error = error.to_string();
        let error = error.split(" at line").next().unwrap_or_default();
        wrong(format!("`subscriptions/listen` needs \"notifications\", a filter: {error}"))
    })?;
    let filter = params.notifications;
    let uris = filter.resource_subscriptions.iter().flatten();
    if let Some(uri) = uris.chain(filter.task_ids.iter().flatten()).find(|uri| uri.len() > URI_BYTES) {
        let most = URI_BYTES;
        return Err(wrong(format!("a URI has {} bytes; the limit is {most}", uri.len())));
    }
    Ok(filter)
}

/// The tasks that the stream is to tell about. Made up, expired, another's: left out alike.
async fn tasks(
    front: &Front,
    context: &Context,
    request: &Request<'_>,
    ids: Option<&[String]>,
) -> Result<Vec<TaskView>, Refusal> {
    let Some(ids) = ids else { return Ok(Vec::new()) };
    if !declared(request.params.meta.client_capabilities) {
        return Err(missing_extension());
    }
    let (principal, at) = (context.caller.principal.key(), unix_millis());
    let mut tasks: Vec<TaskView> = Vec::new();
    for id in ids.iter().filter_map(|id| id.parse::<CallId>().ok()).take(TASKS) {
        if tasks.iter().any(|task| task.id == id) {
            continue;
        }
        let task = front.store.task(id, &principal, at).await;
        tasks.extend(task.map_err(Error::Store)?);
    }
    Ok(tasks)
}

/// What the worker agreed to; none when it refused.
fn accepted(out: &str) -> Option<Filter> {
    Some(jsonrpc::result_of::<Params>(out)?.notifications)
}

/// The first event of the stream.
fn acknowledgement(topics: &Topics, id: &str) -> Option<String> {
    #[derive(Serialize)]
    struct Agreed {
        #[serde(rename = "_meta")]
        meta: std::collections::BTreeMap<&'static str, Box<RawValue>>,
        notifications: Filter,
    }
    let notifications = Filter {
        tools_list_changed: topics.tools,
        prompts_list_changed: topics.prompts,
        resources_list_changed: topics.resources,
        resource_subscriptions: (!topics.uris.is_empty()).then(|| topics.uris.clone()),
        task_ids: (!topics.tasks.is_empty()).then(|| topics.tasks.iter().map(ToString::to_string).collect()),
    };
    let meta = [(SUBSCRIPTION_ID, RawValue::from_string(id.to_owned()).ok()?)].into();
    let agreed = serde_json::to_string(&Agreed { meta, notifications }).ok()?;
    Some(sse::message(jsonrpc::notification("notifications/subscriptions/acknowledged", agreed)))
}

/// Asks a worker which lists of its server can change: a session that comes back is told of these. Nothing
/// when no worker answers: the client asks for what it needs by itself.
pub(crate) async fn changeable(front: &Arc<Front>, context: &Context) -> Vec<&'static str> {
    const ASK: &str = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"asgard","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}},"notifications":{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}}"#;
    let ask = jsonrpc::request(0, "subscriptions/listen", ASK);
    let body = protocol::read_body(ask.as_bytes(), &front.config.limits.request);
    let Ok(protocol::Body::One(protocol::Message::Request(request))) = body else { return Vec::new() };
    let context = Context {
        era: Era::Stateless,
        revision: Revision::V2026_07_28,
        session: None,
        log_level: None,
        stream: None,
        key: None,
        ..context.clone()
    };
    let Outcome::Answer(out) = outcome(front, &context, &request).await else { return Vec::new() };
    let filter = accepted(&out).unwrap_or_default();
    let lists = [
        (filter.tools_list_changed, "notifications/tools/list_changed"),
        (filter.prompts_list_changed, "notifications/prompts/list_changed"),
        (filter.resources_list_changed, "notifications/resources/list_changed"),
    ];
    lists.into_iter().filter_map(|(changes, method)| changes.then_some(method)).collect()
}

/// `resources/subscribe` and `resources/unsubscribe` of a session: the server's own method runs on a worker;
/// where it succeeds, the session is remembered for the resource, or forgotten.
pub(crate) async fn resource(
    front: &Arc<Front>,
    context: &Context,
    request: &Request<'_>,
    subscribe: bool,
) -> Outcome {
    let (Some((session, _)), Some(uri)) = (&context.session, request.params.uri.as_deref()) else {
        return outcome(front, context, request).await;
    };
    let outcome = outcome(front, context, request).await;
    let Outcome::Answer(out) = &outcome else { return outcome };
    if is_error(out) {
        return outcome;
    }
    match remember(front, context, session, uri, subscribe).await {
        Ok(()) => outcome,
        Err(refusal) => Outcome::Refused(refusal.for_id(request.id)),
    }
}

/// Remembers, or forgets, that a session is subscribed to a resource.
pub(crate) async fn remember(
    front: &Front,
    context: &Context,
    session: &str,
    uri: &str,
    subscribe: bool,
) -> Result<(), Refusal> {
    let principal = &context.caller.principal;
    if !subscribe {
        return Ok(front.broadcaster.unsubscribe(principal, session, uri).await.map_err(Error::Store)?);
    }
    if uri.len() > URI_BYTES {
        return Err(Refusal::invalid_params(format!("Invalid params: a URI has at most {URI_BYTES} bytes.")));
    }
    let live = std::time::Duration::from_secs(front.config.sessions.lifetime());
    match front.broadcaster.subscribe(principal, session, uri, live).await.map_err(Error::Store)? {
        true => Ok(()),
        false => Err(Error::TooManySubscriptions.into()),
    }
}

fn is_error(out: &str) -> bool {
    jsonrpc::Response::read(out).is_some_and(|response| response.error.is_some())
}
