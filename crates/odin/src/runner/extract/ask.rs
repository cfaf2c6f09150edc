//! Questions to the user from within a tool, in the form of the call's revision.
//!
//! Before 2026-07-28 the server sends `elicitation/create` while the call runs, and waits. From 2026-07-28 on
//! the call ends with a result that asks, and the client sends it again with the answer (multi round-trip
//! requests). A tool that takes an [`Ask`] is written once:
//!
//! ```
//! # use odin::{Ask, Asked, ToolResult};
//! # use rmcp::model::{CallToolResult, ContentBlock};
//! # #[derive(serde::Deserialize, schemars::JsonSchema)]
//! # struct Name { name: String }
//! async fn hello(ask: Ask) -> ToolResult {
//!     let who = match ask.user::<Name>("who", "What is your name?").await? {
//!         Asked::Answer(answer) => answer.name,
//!         Asked::Declined | Asked::Unable => "stranger".to_owned(),
//!         Asked::Later(response) => return Ok(response),
//!     };
//!     Ok(CallToolResult::success(vec![ContentBlock::text(format!("Hello, {who}"))]).into())
//! }
//! ```
//!
//! In the newer form the tool begins anew with each round: what it does before a question it does again. Answers
//! to earlier questions are in `requestState`, which the runner seals.

use std::collections::BTreeMap;
use std::sync::Arc;

use rmcp::handler::server::common::FromContextPart;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolResponse, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequiredResult, ProtocolVersion,
};
use rmcp::service::{ElicitationMode, RequestContext};
use rmcp::{ErrorData, RoleServer};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::runner::InputSchema;

/// How often a session's user is asked the same, when the answers don't fit the question.
const TRIES: usize = 3;

/// A way to ask the user; a tool takes it as an argument.
pub struct Ask {
    context: RequestContext<RoleServer>,
    /// Answers that the client sent so far, by the question's key.
    answers: BTreeMap<String, Value>,
}

/// What became of a question.
#[derive(Debug)]
pub enum Asked<T> {
    /// The user's answer.
    Answer(T),
    /// The user does not want to say.
    Declined,
    /// This client has no way to ask its user.
    Unable,
    /// The answer comes with the next round: end the tool with this.
    Later(CallToolResponse),
}

impl<S> FromContextPart<ToolCallContext<'_, S>> for Ask {
    fn from_context_part(context: &mut ToolCallContext<'_, S>) -> Result<Self, ErrorData> {
        // Only what this server gave out comes back in the state: the runner opens it. Without one, no question
        // was asked.
        let state = context.request_state.take();
        let mut answers: BTreeMap<String, Value> =
            state.as_deref().and_then(|state| serde_json::from_str(state).ok()).unwrap_or_default();
        if state.is_some() {
            answers.extend(context.input_responses.take().into_iter().flatten());
        }
        Ok(Self { context: context.request_context.clone(), answers })
    }
}

impl Ask {
    /// Asks for a `T`: a struct of texts, numbers, truth values and enumerations, no deeper
    /// (elicitation, requested schema). `key` names the question within this tool.
    ///
    /// # Errors
    /// When `T` is no such struct, when the call was cancelled, or when the client's answer is an error.
    pub async fn user<T: JsonSchema + DeserializeOwned + 'static>(
        &self,
        key: &str,
        message: &str,
    ) -> Result<Asked<T>, ErrorData> {
        let schema = ElicitationSchema::from_type::<T>()
            .map_err(|error| ErrorData::internal_error(format!("not a schema to ask with: {error}"), None))?;
        self.user_with(key, message, schema).await
    }

    /// Asks for one text, which is named `key`.
    ///
    /// ```
    /// # use odin::{Ask, Asked, ToolResult};
    /// # use rmcp::model::{CallToolResult, ContentBlock};
    /// async fn hello(ask: Ask) -> ToolResult {
    ///     let name = match ask.text("name", "What is your name?").await? {
    ///         Asked::Answer(name) => name,
    ///         Asked::Later(response) => return Ok(response),
    ///         _ => "stranger".to_owned(),
    ///     };
    ///     Ok(CallToolResult::success(vec![ContentBlock::text(format!("Hello, {name}"))]).into())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`user`](Self::user).
    pub async fn text(&self, key: &str, message: &str) -> Result<Asked<String>, ErrorData> {
        let schema = ElicitationSchema::builder()
            .required_string(key)
            .build()
            .map_err(|error| ErrorData::internal_error(format!("not a schema to ask with: {error}"), None))?;
        let asked: Asked<BTreeMap<String, String>> = self.user_with(key, message, schema).await?;
        Ok(match asked {
            // The schema requires it.
            Asked::Answer(mut answer) => Asked::Answer(answer.remove(key).unwrap_or_default()),
            Asked::Declined => Asked::Declined,
            Asked::Unable => Asked::Unable,
            Asked::Later(response) => Asked::Later(response),
        })
    }

    /// As [`user`](Self::user), with a schema of one's own.
    ///
    /// # Errors
    /// As [`user`](Self::user).
    pub async fn user_with<T: DeserializeOwned>(
        &self,
        key: &str,
        message: &str,
        requested_schema: ElicitationSchema,
    ) -> Result<Asked<T>, ErrorData> {
        let schema = answers_of(key, &requested_schema);
        let question = ElicitRequestParams::FormElicitationParams {
            meta: None,
            message: message.to_owned(),
            requested_schema,
        };
        if self.context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28) {
            return self.by_rounds(key, question, &schema);
        }
        if !self.context.peer.supported_elicitation_modes().contains(&ElicitationMode::Form) {
            return Ok(Asked::Unable);
        }
        for _ in 0..TRIES {
            let asked = tokio::select! {
                biased;
                () = self.context.ct.cancelled() => {
                    return Err(ErrorData::internal_error("the call was cancelled", None));
                }
                asked = self.context.peer.create_elicitation(question.clone()) => asked,
            };
            let asked =
                asked.map_err(|error| ErrorData::internal_error(format!("asking failed: {error}"), None))?;
            if let Some(asked) = read(asked, &schema) {
                return Ok(asked);
            }
        }
        Ok(Asked::Declined)
    }

    fn by_rounds<T: DeserializeOwned>(
        &self,
        key: &str,
        question: ElicitRequestParams,
        schema: &InputSchema,
    ) -> Result<Asked<T>, ErrorData> {
        if self.context.client_capabilities().is_none_or(|client| client.elicitation.is_none()) {
            return Ok(Asked::Unable);
        }
        let said = self.answers.get(key).and_then(|said| serde_json::from_value(said.clone()).ok());
        if let Some(asked) = said.and_then(|said| read(said, schema)) {
            return Ok(asked);
        }
        let state = serde_json::to_string(&self.answers)
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let ask = InputRequest::Elicitation(ElicitRequest::new(question));
        Ok(Asked::Later(InputRequiredResult::new(Some([(key.to_owned(), ask)].into()), Some(state)).into()))
    }
}

/// The schema that answers to a question must fit, as a tool's arguments its own.
fn answers_of(key: &str, requested: &ElicitationSchema) -> InputSchema {
    let schema = serde_json::to_value(requested).ok().and_then(|schema| schema.as_object().cloned());
    InputSchema::new(key, Arc::new(schema.unwrap_or_default()))
}

/// The answer; none when it does not fit the question.
fn read<T: DeserializeOwned>(result: ElicitResult, schema: &InputSchema) -> Option<Asked<T>> {
    match result.action {
        ElicitationAction::Accept => {
            let Value::Object(content) = result.content? else { return None };
            let mut content = Some(content);
            schema.fit("", &mut content).ok()?;
            serde_json::from_value(Value::Object(content.unwrap_or_default())).ok().map(Asked::Answer)
        }
        _ => Some(Asked::Declined),
    }
}
