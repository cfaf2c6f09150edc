//! A tool that asks the user, in the form of each era: a request to the client while the call runs
//! (sessions), or a result that asks, and a second call that brings the answer (2026-07-28).

use std::collections::BTreeMap;

use odin::{Ask, Asked};
use rmcp::{
    ErrorData,
    handler::server::wrapper::Parameters,
    model::{CallToolResponse, CallToolResult, ContentBlock, ElicitationSchema, EnumSchema},
    tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Toolbox,
    weather::{DAYS, Day},
};

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

/// The user's answer.
#[derive(Deserialize)]
struct Wished {
    wish: Wish,
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
        ask: Ask,
    ) -> Result<CallToolResponse, ErrorData> {
        if !(1..=12).contains(&month) {
            return Ok(CallToolResult::error(vec![ContentBlock::text("month must be 1 to 12")]).into());
        }
        let message = format!("What should the weather be like for your outing in month {month}?");
        Ok(match ask.user_with::<Wished>(QUESTION, &message, wishes()?).await? {
            Asked::Answer(answer) => propose(month, answer.wish),
            Asked::Unable => propose(month, Wish::Dry),
            Asked::Declined => declined(),
            Asked::Later(response) => response,
        })
    }
}

fn wishes() -> Result<ElicitationSchema, ErrorData> {
    let wishes = EnumSchema::builder(["dry", "warm", "calm"].map(str::to_owned).to_vec())
        .title("What matters most?")
        .build();
    ElicitationSchema::builder()
        .required_enum_schema(QUESTION, wishes)
        .build()
        .map_err(|error| ErrorData::internal_error(error, None))
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
