//! The scan of a body: which messages it holds, and the few members that decide where they go.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::refusal::{Refusal, code};
use super::{Limits, structure};
use crate::id::CallId;

/// Bytes that a method's name may have.
const METHOD_BYTES: usize = 256;

/// The id of a request: a string or a 64-bit integer, kept as it was sent.
///
/// Ids are the client's own and need not be unique, not even within a session: never key a call by one.
#[derive(Debug, Clone, Copy)]
pub struct Id<'a>(&'a RawValue);

impl<'a> Id<'a> {
    fn parse(raw: &'a RawValue, limits: &Limits) -> Result<Self, Refusal> {
        let text = raw.get();
        if text.len() > limits.id_bytes {
            return Err(Refusal::invalid(format!(
                "The id is longer than {} bytes, which is the limit here. Use a shorter one.",
                limits.id_bytes
            )));
        }
        // "-0" is an integer in JSON, but no parser keeps it one.
        if text.starts_with('"') || (text != "-0" && text.parse::<i64>().is_ok()) {
            return Ok(Self(raw));
        }
        Err(Refusal::invalid("The id must be a string or an integer of at most 64 bits, and not null."))
    }

    /// The id as JSON, exactly as it was sent.
    pub fn as_json(&self) -> &'a str {
        self.0.get()
    }

    /// The id as JSON, exactly as it was sent.
    pub fn raw(&self) -> &'a RawValue {
        self.0
    }

    /// A form that is the same for the same id, however its string was escaped: for looking up the call that
    /// a `notifications/cancelled` means. The string `"1"` and the number `1` differ.
    pub fn key(&self) -> Cow<'a, str> {
        let json = self.0.get();
        match self.text() {
            Some(Cow::Owned(text)) => serde_json::to_string(&text).map_or(Cow::Borrowed(json), Cow::Owned),
            _ => Cow::Borrowed(json),
        }
    }

    /// The id's value if it is a string.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        text(self.0)
    }

    /// The call that this id names, if this server made it: requests of a running call to its client, and the
    /// progress tokens in them, are `{call}:{number}`. So a client's reply or progress finds its worker.
    pub fn call(&self) -> Option<CallId> {
        self.text()?.split_once(':')?.0.parse().ok()
    }
}

/// Members of `params._meta` that the front end reads. Absent or `null`: `None`.
#[derive(Debug, Clone, Default)]
pub struct Meta<'a> {
    /// `io.modelcontextprotocol/protocolVersion`, any JSON.
    pub protocol_version: Option<&'a RawValue>,
    /// `io.modelcontextprotocol/clientInfo`, any JSON.
    pub client_info: Option<&'a RawValue>,
    /// `io.modelcontextprotocol/clientCapabilities`, any JSON.
    pub client_capabilities: Option<&'a RawValue>,
    /// `io.modelcontextprotocol/logLevel`, any JSON. In the stateless era checked to be one of [`LOG_LEVELS`].
    pub log_level: Option<&'a RawValue>,
    /// `progressToken`, any JSON: the client asks for progress, so the answer may be a stream.
    pub progress_token: Option<&'a RawValue>,
}

/// The levels of logging, least severe first (RFC 5424; MCP, logging).
pub const LOG_LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// Members of `params` that the front end reads. Absent or `null`: `None`.
#[derive(Debug, Clone, Default)]
pub struct Params<'a> {
    /// The whole object.
    pub raw: Option<&'a RawValue>,
    /// `name`, if a string: of the tool or the prompt.
    pub name: Option<Cow<'a, str>>,
    /// `uri`, if a string: of the resource.
    pub uri: Option<Cow<'a, str>>,
    /// `taskId`, if a string.
    pub task_id: Option<Cow<'a, str>>,
    /// `level`, if a string: of `logging/setLevel`.
    pub level: Option<Cow<'a, str>>,
    /// `protocolVersion`, if a string: of `initialize`.
    pub protocol_version: Option<Cow<'a, str>>,
    /// `clientInfo`, any JSON: of `initialize`.
    pub client_info: Option<&'a RawValue>,
    /// `capabilities`, any JSON: of `initialize`.
    pub capabilities: Option<&'a RawValue>,
    /// `arguments`, any JSON: of `tools/call` and `prompts/get`.
    pub arguments: Option<&'a RawValue>,
    /// `requestId`, if it can be an id: of `notifications/cancelled`.
    pub request_id: Option<Id<'a>>,
    /// `progressToken`, if it can be an id: of `notifications/progress`.
    pub progress_token: Option<Id<'a>>,
    /// `_meta`.
    pub meta: Meta<'a>,
}

impl<'a> Params<'a> {
    /// The member that the `Mcp-Name` header repeats for this method: `name`, `uri` or `taskId`. `None` where
    /// the method has none or the member is not a string.
    pub fn name_of(&self, method: &str) -> Option<&str> {
        match super::revision::name_source(method)? {
            "uri" => self.uri.as_deref(),
            "taskId" => self.task_id.as_deref(),
            _ => self.name.as_deref(),
        }
    }
}

/// A request: has a method and an id, wants an answer.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The whole message, exactly as it was sent. `raw.to_owned()` is what a job carries.
    pub raw: &'a RawValue,
    /// Its id, to be echoed.
    pub id: Id<'a>,
    /// Its method.
    pub method: Cow<'a, str>,
    /// What the front end reads of its parameters.
    pub params: Box<Params<'a>>,
}

impl Request<'_> {
    /// The level that a `logging/setLevel` asks for, one of [`LOG_LEVELS`].
    ///
    /// # Errors
    /// -32602, with 200 as all errors of a method in the stateful eras.
    pub fn set_level(&self) -> Result<&'static str, Refusal> {
        let level = self.params.level.as_deref();
        LOG_LEVELS.into_iter().find(|known| level == Some(*known)).ok_or_else(|| {
            let message = format!("Invalid params: \"level\" must be one of {}.", LOG_LEVELS.join(", "));
            Refusal::new(http::StatusCode::OK, code::INVALID_PARAMS, message).for_id(self.id)
        })
    }
}

/// A notification: has a method and no id, gets no answer.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// The whole message, exactly as it was sent.
    pub raw: &'a RawValue,
    /// Its method.
    pub method: Cow<'a, str>,
    /// What the front end reads of its parameters.
    pub params: Box<Params<'a>>,
}

/// The client's answer to a request that the server sent on a stream (stateful eras).
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    /// The whole message, exactly as it was sent.
    pub raw: &'a RawValue,
    /// The id of the server's request; [`Id::call`] says which call waits for it.
    pub id: Id<'a>,
    /// An error, not a result.
    pub is_error: bool,
}

/// One JSON-RPC message of a client.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// Wants an answer.
    Request(Request<'a>),
    /// Wants none.
    Notification(Notification<'a>),
    /// Is one.
    Reply(Reply<'a>),
}

/// What a body holds.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// One message.
    One(Message<'a>),
    /// A JSON array of them, not empty; what is wrong with one costs that one.
    Batch(Vec<Result<Message<'a>, Refusal>>),
}

/// `Some` for every member that is there, `null` too: `"id":null` must not pass for a notification.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    fn read(raw: &'a RawValue) -> Option<Self> {
        let envelope: Self = is_object(raw).then(|| serde_json::from_str(raw.get()).ok()).flatten()?;
        // Alone, a result of `null` is one.
        let is_absent = envelope.method.is_some() || envelope.error.is_some();
        let result = envelope.result.filter(|result| !(is_absent && result.get() == "null"));
        Some(Self { result, ..envelope })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ParamMembers<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    level: Option<&'a RawValue>,
    #[serde(borrow)]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow)]
    client_info: Option<&'a RawValue>,
    #[serde(borrow)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MetaMembers<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientInfo")]
    client_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    client_capabilities: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<&'a RawValue>,
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
}

/// The value of a JSON string; `None` for other JSON. Borrowed where the string has no escapes.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// True for a JSON object. (serde reads a struct from an array as well: ask first.)
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Reads a body: one JSON-RPC message, or a batch.
///
/// Sizes, nesting, member names and JSON-RPC's own rules are checked; the revision's are not (see
/// [`classify`](super::classify)). Also for the messages endpoint of HTTP+SSE. An element of a batch that breaks the
/// rules is refused by itself.
///
/// # Errors
/// 413 for a body over [`Limits::body_bytes`]; 400 with -32700 for what is no JSON, -32600 for what is no
/// JSON-RPC message, -32602 for `params` that are no object or that not every reader would read alike. Under the
/// request's id, where that can be read.
pub fn read_body<'a>(body: &'a [u8], limits: &Limits) -> Result<Body<'a>, Refusal> {
    if body.len() > limits.body_bytes {
        return Err(Refusal::body_too_large(limits.body_bytes));
    }
    let text = std::str::from_utf8(body).map_err(|_| not_json("it is not UTF-8"))?;
    if text.trim_ascii().is_empty() {
        return Err(not_json("it is empty"));
    }
    // The grammar alone: strings and numbers are looked at with the message that they are in.
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error.to_string()))?;
    if !raw.get().starts_with('[') {
        return message(raw, limits, limits.depth).map(Body::One);
    }
    let items: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|error| not_json(&error.to_string()))?;
    if items.is_empty() {
        return Err(Refusal::invalid("The batch is empty. Send at least one message."));
    }
    if items.len() > limits.batch {
        return Err(Refusal::invalid(format!(
            "The batch has more than {} messages, which is the limit here. Send several.",
            limits.batch
        )));
    }
    let depth = limits.depth.saturating_sub(1);
    Ok(Body::Batch(items.into_iter().map(|item| message(item, limits, depth)).collect()))
}

fn not_json(why: &str) -> Refusal {
    Refusal::new(
        http::StatusCode::BAD_REQUEST,
        code::PARSE_ERROR,
        format!("The body is not JSON: {why}. Send one JSON-RPC message in UTF-8."),
    )
}

/// Why a text that is JSON by its grammar is not read. In `params` it costs the request alone: -32602.
fn unreadable(raw: &RawValue, error: &serde_json::Error, depth: usize, limits: &Limits) -> Refusal {
    let message = match (structure::lone_surrogate(raw.get()), error.classify()) {
        (Some(half), _) => format!(
            "The message has a lone surrogate, {half}: half of a character, which no text can hold. Send both halves, \
             or leave it out."
        ),
        // The pass itself refuses with data errors; all others are the parser's.
        (None, serde_json::error::Category::Data) => format!("The message is refused: {error}."),
        (None, _) => format!("The message can't be read: {error}. Numbers must fit 64-bit floating point."),
    };
    let envelope = Envelope::read(raw).filter(|envelope| envelope.method.is_some());
    let Some(Envelope { id, params, .. }) = envelope else { return Refusal::invalid(message) };
    let is_sound = |raw: &&RawValue| structure::check(raw.get(), depth).is_ok();
    let id = id.filter(is_sound).and_then(|id| Id::parse(id, limits).ok());
    let within_params =
        params.is_some_and(|params| structure::check(params.get(), depth.saturating_sub(1)).is_err());
    let refusal = if within_params { Refusal::invalid_params(message) } else { Refusal::invalid(message) };
    match id {
        Some(id) => refusal.for_id(id),
        None => refusal,
    }
}

fn message<'a>(raw: &'a RawValue, limits: &Limits, depth: usize) -> Result<Message<'a>, Refusal> {
    structure::check(raw.get(), depth).map_err(|error| unreadable(raw, &error, depth, limits))?;
    let envelope =
        Envelope::read(raw).ok_or_else(|| Refusal::invalid("A JSON-RPC message must be a JSON object."))?;
    let id = envelope.id.map(|id| Id::parse(id, limits)).transpose()?;
    let refuse = |refusal: Refusal| match id {
        Some(id) => refusal.for_id(id),
        None => refusal,
    };
    if envelope.jsonrpc.and_then(text).as_deref() != Some("2.0") {
        return Err(refuse(Refusal::invalid("A JSON-RPC message must have \"jsonrpc\":\"2.0\".")));
    }
    let Some(method) = envelope.method else {
        let is_error = match (envelope.result, envelope.error) {
            (Some(_), None) => false,
            (None, Some(error)) if is_object(error) => true,
            _ => {
                return Err(refuse(Refusal::invalid(
                    "A JSON-RPC message must have a \"method\", or else either a \"result\" or an \
                     \"error\" object.",
                )));
            }
        };
        let id = id.ok_or_else(|| {
            Refusal::invalid("A response must have the \"id\" of the request that it answers.")
        })?;
        return Ok(Message::Reply(Reply { raw, id, is_error }));
    };
    let method =
        text(method).filter(|method| !method.is_empty() && method.len() <= METHOD_BYTES).ok_or_else(
            || refuse(Refusal::invalid(format!("\"method\" must be a string of 1 to {METHOD_BYTES} bytes."))),
        )?;
    if envelope.result.is_some() || envelope.error.is_some() {
        return Err(refuse(Refusal::invalid(
            "A message with a \"method\" can't have a \"result\" or \"error\".",
        )));
    }
    let params =
        envelope.params.map_or_else(|| Ok(Params::default()), |raw| params(raw, limits)).map_err(refuse)?;
    let params = Box::new(params);
    Ok(match id {
        Some(id) => Message::Request(Request { raw, id, method, params }),
        None => Message::Notification(Notification { raw, method, params }),
    })
}

fn params<'a>(raw: &'a RawValue, limits: &Limits) -> Result<Params<'a>, Refusal> {
    let members: ParamMembers<'a> = is_object(raw)
        .then(|| serde_json::from_str(raw.get()).ok())
        .flatten()
        .ok_or_else(|| Refusal::invalid_params("Invalid params: \"params\" must be a JSON object."))?;
    let id = |raw: &'a RawValue| Id::parse(raw, limits).ok();
    Ok(Params {
        raw: Some(raw),
        name: members.name.and_then(text),
        uri: members.uri.and_then(text),
        task_id: members.task_id.and_then(text),
        level: members.level.and_then(text),
        protocol_version: members.protocol_version.and_then(text),
        client_info: members.client_info,
        capabilities: members.capabilities,
        arguments: members.arguments,
        request_id: members.request_id.and_then(id),
        progress_token: members.progress_token.and_then(id),
        meta: members.meta.map_or_else(|| Ok(Meta::default()), meta)?,
    })
}

fn meta(raw: &RawValue) -> Result<Meta<'_>, Refusal> {
    let members: MetaMembers<'_> = is_object(raw)
        .then(|| serde_json::from_str(raw.get()).ok())
        .flatten()
        .ok_or_else(|| Refusal::invalid_params("Invalid params: \"_meta\" must be a JSON object."))?;
    Ok(Meta {
        protocol_version: members.protocol_version,
        client_info: members.client_info,
        client_capabilities: members.client_capabilities,
        log_level: members.log_level,
        progress_token: members.progress_token,
    })
}
