//! A round of a task: what it begins with, and how it ends, read from the answer of its tool.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::record::TaskWork;
use crate::call::Message;
use crate::protocol::jsonrpc::{self, ErrorObject, Response};

/// Questions that one round may ask.
const ASKS: usize = 32;
/// Rounds of one task. A tool that asks for ever is stopped.
const ROUNDS: u32 = 1000;
/// Characters of a note for people.
const NOTE: usize = 300;

/// The end of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// The tool wants to know something. Without any question it goes on at once in a new round, with its state:
    /// what it had done by then is not done again when a worker is lost.
    Asks {
        /// Key → request, as JSON.
        asks: BTreeMap<String, Message>,
        /// For the next round, as JSON text.
        state: Option<Message>,
    },
    /// The result, as JSON.
    Completed(Message),
    /// A JSON-RPC error.
    Failed {
        /// The error object, as JSON.
        error: Message,
        /// Why, for people.
        note: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    #[serde(borrow, default)]
    result_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    input_requests: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
}

impl TaskEnd {
    /// A failure of this side.
    pub fn failed(code: i32, message: &str) -> Self {
        let error = jsonrpc::error_object(code, message, None);
        Self::Failed { error: error.into(), note: Some(clip(message)) }
    }

    fn from_error(error: &RawValue) -> Self {
        let note =
            serde_json::from_str::<ErrorObject<'_>>(error.get()).ok().map(|error| clip(&error.message));
        Self::Failed { error: error.get().into(), note }
    }
}

/// How the round numbered `round` ended, by the JSON-RPC answer of its tool.
///
/// The keys of questions get the round's number: no key may come twice in a task.
pub fn end_of(answer: &str, round: u32) -> TaskEnd {
    let broken = || TaskEnd::failed(-32603, "The tool's answer can't be read.");
    match Response::read(answer) {
        Some(Response { error: Some(error), .. }) => TaskEnd::from_error(error),
        Some(Response { result: Some(result), .. }) => {
            match serde_json::from_str::<Outcome<'_>>(result.get()) {
                Ok(outcome) => end_of_result(result, outcome, round),
                Err(_) => broken(),
            }
        }
        _ => broken(),
    }
}

fn end_of_result(result: &RawValue, outcome: Outcome<'_>, round: u32) -> TaskEnd {
    match outcome.result_type.as_deref() {
        Some("task") => TaskEnd::failed(-32603, "The tool asked to run as a task, and already does."),
        Some("input_required") => {
            let asks = outcome.input_requests.unwrap_or_default();
            if asks.len() > ASKS {
                return TaskEnd::failed(-32603, "The tool asked too many questions at once.");
            }
            if round >= ROUNDS {
                return TaskEnd::failed(-32603, "The tool took too many rounds.");
            }
            let asks = asks.into_iter().map(|(key, ask)| (format!("{round}:{key}"), ask.get().into()));
            let state = outcome.request_state.filter(|state| state.get() != "null");
            TaskEnd::Asks { asks: asks.collect(), state: state.map(|state| state.get().into()) }
        }
        _ => TaskEnd::Completed(result.get().into()),
    }
}

/// The message that a round runs: the client's own, with the answers to the round before under the keys that the
/// tool chose, and the state that it left.
///
/// # Errors
/// When the stored texts are not what was stored.
pub(crate) fn message_of(message: &RawValue, work: &TaskWork) -> Result<Box<RawValue>, serde_json::Error> {
    type Object = BTreeMap<String, Box<RawValue>>;
    if work.round <= 1 {
        return Ok(message.to_owned());
    }
    let mut whole: Object = serde_json::from_str(message.get())?;
    let mut params: Object = match whole.get("params") {
        Some(params) => serde_json::from_str(params.get())?,
        None => Object::new(),
    };
    params.remove("inputResponses");
    params.remove("requestState");
    let mut answers = BTreeMap::new();
    for (key, answer) in &work.answers {
        let own = key.split_once(':').map_or(key.as_str(), |(_, own)| own);
        answers.insert(own, serde_json::from_str::<&RawValue>(answer)?);
    }
    if !answers.is_empty() {
        params.insert("inputResponses".to_owned(), to_raw_value(&answers)?);
    }
    if let Some(state) = &work.state {
        params.insert("requestState".to_owned(), serde_json::from_str(state)?);
    }
    whole.insert("params".to_owned(), to_raw_value(&params)?);
    to_raw_value(&whole)
}

/// What a tool that wants to run as a task says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    pub(crate) ttl: Option<u64>,
    pub(crate) poll: Option<u64>,
}

impl Asked {
    /// Reads the answer of a call that is no task yet; none when it is an ordinary one.
    pub(crate) fn from_answer(answer: &str) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Handle<'a> {
            #[serde(borrow)]
            result_type: Cow<'a, str>,
            #[serde(default)]
            ttl_ms: Option<u64>,
            #[serde(default)]
            poll_interval_ms: Option<u64>,
        }
        // Most answers are not looked into.
        if !answer.contains(r#""task""#) {
            return None;
        }
        let handle: Handle<'_> = jsonrpc::result_of(answer)?;
        (handle.result_type == "task")
            .then_some(Self { ttl: handle.ttl_ms, poll: handle.poll_interval_ms.filter(|poll| *poll > 0) })
    }
}

/// The error object of a JSON-RPC answer.
pub(crate) fn error_of(answer: &str) -> Option<Message> {
    Some(Response::read(answer)?.error?.get().into())
}

/// The first characters of a text.
pub(crate) fn clip(text: &str) -> String {
    text.chars().take(NOTE).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(result: Value) -> String {
        json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string()
    }

    #[test]
    fn a_result_completes_also_when_the_tool_failed() {
        for result in
            [json!({ "resultType": "complete", "content": [] }), json!({ "content": [], "isError": true })]
        {
            assert_eq!(end_of(&answer(result.clone()), 1), TaskEnd::Completed(result.to_string().into()));
        }
    }

    #[test]
    fn an_error_fails_and_says_why() {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32000, "message": "\"no\"" } });
        let TaskEnd::Failed { error, note } = end_of(&text.to_string(), 1) else { panic!("no failure") };
        assert_eq!(serde_json::from_str::<Value>(&error).unwrap()["code"], -32000);
        assert_eq!(note.as_deref(), Some("\"no\""));
        for broken in ["", "{}", "[]", r#"{"result":7}"#] {
            let TaskEnd::Failed { error, .. } = end_of(broken, 1) else { panic!("{broken}") };
            assert!(error.contains("-32603"), "{error}");
        }
        assert!(matches!(end_of(&answer(json!({ "resultType": "task" })), 1), TaskEnd::Failed { .. }));
    }

    #[test]
    fn questions_get_the_number_of_their_round_and_answers_lose_it() {
        let result = json!({
            "resultType": "input_required", "requestState": "s\"1",
            "inputRequests": { "name": { "method": "elicitation/create" }, "a:b": { "method": "roots/list" } },
        });
        let TaskEnd::Asks { asks, state } = end_of(&answer(result), 3) else { panic!("no questions") };
        assert_eq!(asks.keys().collect::<Vec<_>>(), ["3:a:b", "3:name"]);
        assert_eq!(state.as_deref(), Some(r#""s\"1""#));

        let message = RawValue::from_string(
            json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
                    "params": { "name": "t", "requestState": "old", "inputResponses": { "old": 1 } } })
            .to_string(),
        )
        .unwrap();
        let work = TaskWork {
            job: "".into(),
            round: 4,
            answers: asks.keys().map(|key| (key.clone(), format!("{key:?}").into())).collect(),
            state,
            left: 1,
        };
        let run: Value = serde_json::from_str(message_of(&message, &work).unwrap().get()).unwrap();
        let params = json!({ "name": "t", "requestState": "s\"1",
            "inputResponses": { "name": "3:name", "a:b": "3:a:b" } });
        assert_eq!(run, json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }));
        let first = TaskWork { round: 1, ..work };
        assert_eq!(message_of(&message, &first).unwrap().get(), message.get());
    }

    #[test]
    fn a_tool_that_asks_for_ever_is_stopped() {
        let asks = json!({ "resultType": "input_required", "inputRequests": { "name": {} } });
        assert!(matches!(end_of(&answer(asks.clone()), ROUNDS - 1), TaskEnd::Asks { .. }));
        assert!(matches!(end_of(&answer(asks), ROUNDS), TaskEnd::Failed { .. }));
        let many: BTreeMap<String, Value> = (0..=ASKS).map(|n| (n.to_string(), json!({}))).collect();
        let many = json!({ "resultType": "input_required", "inputRequests": many });
        assert!(matches!(end_of(&answer(many), 1), TaskEnd::Failed { .. }));
    }

    #[test]
    fn a_handle_is_told_from_a_result_that_only_looks_like_one() {
        let handle = json!({ "resultType": "task", "taskId": "", "ttlMs": 5000, "pollIntervalMs": 0 });
        assert_eq!(Asked::from_answer(&answer(handle)), Some(Asked { ttl: Some(5000), poll: None }));
        for other in [json!({ "content": ["task"] }), json!({ "resultType": "complete", "x": "task" })] {
            assert_eq!(Asked::from_answer(&answer(other)), None);
        }
    }
}
