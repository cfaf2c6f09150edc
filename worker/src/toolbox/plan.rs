//! A tool that asks the user, in the form of each era: a request to the client while the call runs
//! (sessions), or a result that asks, and a second call that brings the answer (2026-07-28).

use std::collections::BTreeMap;

use rmcp::{
    ErrorData, RoleServer,
    handler::server::{
        tool::{InputResponses, RequestState},
        wrapper::Parameters,
    },
    model::{
        CallToolResponse, CallToolResult, ContentBlock, ElicitRequest, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationSchema, EnumSchema, InputRequest, InputRequiredResult, ProtocolVersion,
    },
    service::{ElicitationMode, RequestContext},
    tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Toolbox,
    weather::{DAYS, Day},
};

/// Times that a session's user is asked, when the answers don't fit the question.
const TRIES: usize = 3;

/// Name of the one question.
const QUESTION: &str = "wish";

#[derive(Deserialize, JsonSchema)]
struct PlanArguments {
    /// The month, 1 to 12.
    #[schemars(range(min = 1, max = 12))]
    month: u8,
}

/// What matters most to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Little rain.
    Dry,
    /// High temperature.
    Warm,
    /// Little wind.
    Calm,
}

/// What `plan_outing` proposes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Plan {
    /// The month, 1 to 12.
    pub month: u8,
    /// What was wished for.
    pub wish: Wish,
    /// Up to three days of the month, the best first, by the mean of the four years.
    pub days: Vec<u8>,
}

/// What the client carries from the question to the answer: that it was asked. The library seals it, so that it
/// comes back from the same caller, for the same arguments, in time, or not at all.
const ASKED: &str = "asked";

/// What became of the question.
enum Answer {
    Wish(Wish),
    /// The user does not want to say.
    Declined,
    /// Nothing that fits the question.
    Unclear,
}

#[tool_router(router = plan_tools, vis = "pub(super)")]
impl Toolbox {
    /// Asks what the user wishes for, then proposes days.
    #[tool(
        title = "Plan an outing",
        description = "Proposes the best days of a month for an outing, after asking you whether it should be dry, \
                       warm or calm. Without a way to ask you, it looks for dry days.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false),
        output_schema = rmcp::handler::server::tool::schema_for_output::<Plan>()
    )]
    async fn plan_outing(
        &self,
        Parameters(PlanArguments { month }): Parameters<PlanArguments>,
        RequestState(state): RequestState,
        InputResponses(responses): InputResponses,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if !(1..=12).contains(&month) {
            return Ok(CallToolResult::error(vec![ContentBlock::text("month must be 1 to 12")]).into());
        }
        if context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28) {
            return plan_by_rounds(month, state.as_deref(), responses, &context);
        }
        if !context.peer.supported_elicitation_modes().contains(&ElicitationMode::Form) {
            return Ok(propose(month, Wish::Dry));
        }
        for _ in 0..TRIES {
            let asked = tokio::select! {
                biased;
                () = context.ct.cancelled() => return Err(ErrorData::internal_error("the call was cancelled", None)),
                asked = context.peer.create_elicitation(question(month)?) => asked,
            };
            match asked.map(answer) {
                Ok(Answer::Wish(wish)) => return Ok(propose(month, wish)),
                Ok(Answer::Declined) => return Ok(declined()),
                Ok(Answer::Unclear) => {}
                Err(error) => {
                    return Ok(CallToolResult::error(vec![ContentBlock::text(format!(
                        "asking failed: {error}"
                    ))])
                    .into());
                }
            }
        }
        Ok(declined())
    }
}

fn plan_by_rounds(
    month: u8,
    state: Option<&str>,
    responses: Option<BTreeMap<String, serde_json::Value>>,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    if context.client_capabilities().is_none_or(|client| client.elicitation.is_none()) {
        return Ok(propose(month, Wish::Dry));
    }
    // An answer counts only with the state of a question that was asked.
    let said = state.filter(|state| *state == ASKED).and_then(|_| responses?.remove(QUESTION));
    if let Some(said) = said {
        match serde_json::from_value::<ElicitResult>(said).map(answer) {
            Ok(Answer::Wish(wish)) => return Ok(propose(month, wish)),
            Ok(Answer::Declined) => return Ok(declined()),
            Ok(Answer::Unclear) | Err(_) => {}
        }
    }
    let ask = InputRequest::Elicitation(ElicitRequest::new(question(month)?));
    Ok(InputRequiredResult::new(Some([(QUESTION.to_owned(), ask)].into()), Some(ASKED.into())).into())
}

fn question(month: u8) -> Result<ElicitRequestParams, ErrorData> {
    let wishes = EnumSchema::builder(["dry", "warm", "calm"].map(str::to_owned).to_vec())
        .title("What matters most?")
        .build();
    let schema = ElicitationSchema::builder()
        .required_enum_schema(QUESTION, wishes)
        .build()
        .map_err(|error| ErrorData::internal_error(error, None))?;
    Ok(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: format!("What should the weather be like for your outing in month {month}?"),
        requested_schema: schema,
    })
}

fn answer(result: ElicitResult) -> Answer {
    #[derive(Deserialize)]
    struct Content {
        wish: Wish,
    }
    match result.action {
        ElicitationAction::Accept => match result.content.map(serde_json::from_value::<Content>) {
            Some(Ok(content)) => Answer::Wish(content.wish),
            _ => Answer::Unclear,
        },
        _ => Answer::Declined,
    }
}

fn declined() -> CallToolResponse {
    CallToolResult::error(vec![ContentBlock::text("nothing planned: you did not say what you wish for")])
        .into()
}

fn propose(month: u8, wish: Wish) -> CallToolResponse {
    let plan = plan(month, wish);
    match serde_json::to_value(plan) {
        Ok(plan) => CallToolResult::structured(plan).into(),
        Err(error) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]).into(),
    }
}

fn plan(month: u8, wish: Wish) -> Plan {
    // Smaller is better.
    let score = |day: &Day| match wish {
        Wish::Dry => day.precipitation_mm,
        Wish::Warm => -day.temperature_max_c,
        Wish::Calm => day.wind_m_s,
    };
    let mut by_day: BTreeMap<u8, Vec<f64>> = BTreeMap::new();
    for day in DAYS.iter().filter(|day| day.month().parse() == Ok(month)) {
        by_day.entry(day.day_of_month().parse().unwrap_or_default()).or_default().push(score(day));
    }
    let mut means: Vec<(f64, u8)> = by_day
        .into_iter()
        .map(|(day, scores)| (scores.iter().sum::<f64>() / scores.len() as f64, day))
        .collect();
    means.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    Plan { month, wish, days: means.into_iter().take(3).map(|(_, day)| day).collect() }
}
