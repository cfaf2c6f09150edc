//! The tools that need nobody's answer.

use std::{process, sync::PoisonError, time::Duration};

use identity::Principal;
use odin::{Caller, TaskTool};
use rmcp::{
    handler::server::wrapper::{Json, Parameters},
    tool, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Toolbox,
    journal::MAX_LABEL,
    notes::Note,
    run::Run,
    weather::{Bootstrap, DAYS, Day, Group, GroupReport, Measure},
};

/// Steps of one call, at most.
const MAX_STEPS: u64 = 10_000;

/// Time that one call may sleep, at most.
const MAX_TIME: Duration = Duration::from_secs(3_600);

/// Organisations that `slow_count` counts for, at most.
const MAX_COUNTERS: usize = 10_000;

#[derive(Deserialize, JsonSchema)]
struct ReportArguments {
    /// What to report on.
    #[serde(default)]
    measure: Measure,
    /// How to group the days.
    #[serde(default)]
    by: Group,
    /// Number of resamples, 1 to 10000: more give a steadier interval. One progress event each.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 10_000))]
    steps: u64,
    /// Pause after each resample, in milliseconds; all pauses together at most an hour.
    #[serde(default)]
    #[schemars(range(max = 3_600_000))]
    step_ms: u64,
}

fn default_steps() -> u64 {
    200
}

/// What `report` found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// What was measured.
    pub measure: Measure,
    /// Unit of all values.
    pub unit: String,
    /// Number of resamples that the intervals come from.
    pub steps: u64,
    /// One entry for each month or year.
    pub groups: Vec<GroupReport>,
}

#[derive(Deserialize, JsonSchema)]
struct DayArguments {
    /// The date, YYYY-MM-DD, from 2012-01-01 to 2015-12-31.
    #[schemars(regex(pattern = r"^201[2-5]-[01][0-9]-[0-3][0-9]$"))]
    date: String,
}

#[derive(Deserialize, JsonSchema)]
struct RankArguments {
    /// What to rank by.
    #[serde(default)]
    measure: Measure,
    /// Number of days, 1 to 100.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 100))]
    count: usize,
    /// The smallest values first instead of the largest.
    #[serde(default)]
    lowest: bool,
}

fn default_count() -> usize {
    10
}

/// What `rank_days` found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Ranking {
    /// The days, the first in rank first; of equal days the earlier one.
    pub days: Vec<Day>,
}

#[derive(Deserialize, JsonSchema)]
struct EchoArguments {
    /// What to say.
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct SlowEchoArguments {
    /// What to say.
    #[serde(default)]
    text: String,
    /// Time until the answer, in milliseconds, at most an hour.
    #[schemars(range(max = 3_600_000))]
    total_ms: u64,
    /// Number of progress events, spread evenly over that time; at most 10000.
    #[serde(default)]
    #[schemars(range(max = 10_000))]
    events: u64,
}

/// What `slow_echo` says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Echoed {
    /// The text that was given.
    pub text: String,
    /// Process that answered.
    pub worker: u32,
}

#[derive(Deserialize, JsonSchema)]
struct SlowCountArguments {
    /// Time until the answer, in milliseconds, at most an hour.
    #[schemars(range(max = 3_600_000))]
    total_ms: u64,
    /// Number of progress events, spread evenly over that time; at most 10000.
    #[serde(default)]
    #[schemars(range(max = 10_000))]
    events: u64,
    /// A name for this call, at most 64 characters: it is in the answer and in the worker's journal.
    #[serde(default)]
    #[schemars(length(max = 64))]
    label: String,
}

/// What `slow_count` counted.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Counted {
    /// The name that the call was given.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(default)]
    pub label: String,
    /// Times that this worker has counted for the organisation, this one included.
    pub count: u64,
    /// Process that counted.
    pub worker: u32,
}

#[derive(Deserialize, JsonSchema)]
struct WaitArguments {
    /// Seconds until the answer, at most 3600.
    #[schemars(range(max = 3_600))]
    seconds: u64,
}

#[derive(Deserialize, JsonSchema)]
struct AddNoteArguments {
    /// The note, 1 to 4000 characters.
    #[schemars(length(min = 1, max = 4_000))]
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct ListNotesArguments {
    /// Number of notes, 1 to 100.
    #[serde(default = "default_count")]
    #[schemars(range(min = 1, max = 100))]
    count: usize,
}

/// What `list_notes` found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Notes {
    /// The notes, the newest first.
    pub notes: Vec<Note>,
}

/// What `whoami` knows.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Who {
    /// Issuer of the caller's token.
    pub issuer: String,
    /// Subject of the caller's token.
    pub subject: String,
    /// Organisation that the call was made for.
    pub organisation: String,
    /// Name for people, if the token says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub username: Option<String>,
    /// OAuth client, if the token says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub client: Option<String>,
    /// OAuth scopes.
    pub scopes: Vec<String>,
    /// Realm roles.
    pub roles: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
}

#[tool_router(router = tools, vis = "pub(super)")]
impl Toolbox {
    /// Mean of a measure for each month or year, with a 95 % interval by bootstrap.
    #[tool(
        title = "Weather report",
        description = "Computes the mean of a measure for each month or year of the Seattle weather data, with a \
                       95 % confidence interval from `steps` bootstrap resamples. Sends progress at each step.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn report(
        &self,
        Parameters(arguments): Parameters<ReportArguments>,
        run: Run,
    ) -> Result<Json<Report>, String> {
        let ReportArguments { measure, by, steps, step_ms } = arguments;
        if !(1..=MAX_STEPS).contains(&steps) {
            return Err(format!("steps must be 1 to {MAX_STEPS}, not {steps}"));
        }
        let pause = bounded(step_ms.saturating_mul(steps)).map(|_| Duration::from_millis(step_ms))?;
        let mut bootstrap = Bootstrap::new(measure, by);
        for step in 1..=steps {
            bootstrap.step(step);
            run.step(step, steps, format!("resample {step} of {steps}")).await.map_err(text)?;
            // Also without a pause: other calls get their turn, and a cancelled one ends.
            run.sleep(pause).await.map_err(text)?;
        }
        Ok(Json(Report { measure, unit: measure.unit().to_owned(), steps, groups: bootstrap.report() }))
    }

    /// The same as a task.
    #[tool(
        title = "Long weather report",
        description = "The weather report for large numbers of `steps`. For clients that know tasks it runs as a \
                       task: the answer is a handle at once, and the report is fetched when it is done.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false),
        meta = TaskTool::optional().ttl(MAX_TIME * 2).meta()
    )]
    async fn long_report(
        &self,
        arguments: Parameters<ReportArguments>,
        run: Run,
    ) -> Result<Json<Report>, String> {
        self.report(arguments, run).await
    }

    /// One day's weather.
    #[tool(
        title = "Weather on a day",
        description = "The weather at Seattle on one day of 2012 to 2015.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn weather_on(
        &self,
        Parameters(DayArguments { date }): Parameters<DayArguments>,
    ) -> Result<Json<Day>, String> {
        let found = DAYS.binary_search_by(|day| day.date.as_str().cmp(&date));
        found.ok().and_then(|index| DAYS.get(index)).cloned().map(Json).ok_or_else(|| {
            "no data for that date: give one as YYYY-MM-DD, from 2012-01-01 to 2015-12-31".to_owned()
        })
    }

    /// The days with the largest or smallest values.
    #[tool(
        title = "Rank days",
        description = "The days with the largest (or smallest) values of a measure.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn rank_days(
        &self,
        Parameters(arguments): Parameters<RankArguments>,
    ) -> Result<Json<Ranking>, String> {
        let RankArguments { measure, count, lowest } = arguments;
        if !(1..=100).contains(&count) {
            return Err(format!("count must be 1 to 100, not {count}"));
        }
        let mut days: Vec<&Day> = DAYS.iter().collect();
        days.sort_by(|one, other| {
            let order = measure.of(one).total_cmp(&measure.of(other));
            if lowest { order } else { order.reverse() }
        });
        Ok(Json(Ranking { days: days.into_iter().take(count).cloned().collect() }))
    }

    /// Echoes its text.
    #[tool(
        title = "Echo",
        description = "Answers with the given text, at once.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn echo(&self, Parameters(EchoArguments { text }): Parameters<EchoArguments>) -> String {
        text
    }

    /// Echoes its text, later.
    #[tool(
        title = "Slow echo",
        description = "Answers with the given text after `total_ms`, with `events` progress events on the way. May \
                       be run again.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn slow_echo(
        &self,
        Parameters(arguments): Parameters<SlowEchoArguments>,
        run: Run,
    ) -> Result<Json<Echoed>, String> {
        pass_time(&run, arguments.total_ms, arguments.events).await?;
        Ok(Json(Echoed { text: arguments.text, worker: process::id() }))
    }

    /// Counts its calls.
    #[tool(
        title = "Slow count",
        description = "Adds one to this worker's counter for your organisation after `total_ms`, with `events` \
                       progress events on the way. Not to be run twice for one call. Runs as a task for clients that know tasks.",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        ),
        meta = TaskTool::optional().meta()
    )]
    async fn slow_count(
        &self,
        Parameters(arguments): Parameters<SlowCountArguments>,
        Caller(caller): Caller,
        run: Run,
    ) -> Result<Json<Counted>, String> {
        if arguments.label.chars().count() > MAX_LABEL {
            return Err(format!("the label must be at most {MAX_LABEL} characters"));
        }
        pass_time(&run, arguments.total_ms, arguments.events).await?;
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() >= MAX_COUNTERS && !counters.contains_key(&caller.organisation) {
            return Err("this worker counts for too many organisations".to_owned());
        }
        let count = counters.entry(caller.organisation).or_default();
        *count += 1;
        Ok(Json(Counted { label: arguments.label, count: *count, worker: process::id() }))
    }

    /// Lets time pass in silence.
    #[tool(
        title = "Wait",
        description = "Answers after the given seconds, without any progress on the way.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn wait(
        &self,
        Parameters(WaitArguments { seconds }): Parameters<WaitArguments>,
        run: Run,
    ) -> Result<String, String> {
        run.sleep(bounded(seconds.saturating_mul(1_000))?).await.map_err(text)?;
        Ok(format!("waited {seconds} s"))
    }

    /// Writes a note.
    #[tool(
        title = "Add a note",
        description = "Adds a note to your organisation's notebook. Each call adds one.",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    async fn add_note(
        &self,
        Parameters(AddNoteArguments { text }): Parameters<AddNoteArguments>,
        Caller(caller): Caller,
    ) -> Result<Json<Note>, String> {
        let notebooks = self.notebooks.clone();
        off_the_loop(move || notebooks.add(&caller, &text)).await.map(Json)
    }

    /// Reads notes.
    #[tool(
        title = "List notes",
        description = "The latest notes of your organisation's notebook, the newest first.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn list_notes(
        &self,
        Parameters(ListNotesArguments { count }): Parameters<ListNotesArguments>,
        Caller(caller): Caller,
    ) -> Result<Json<Notes>, String> {
        if !(1..=100).contains(&count) {
            return Err(format!("count must be 1 to 100, not {count}"));
        }
        let notebooks = self.notebooks.clone();
        let notes = off_the_loop(move || notebooks.latest(&caller.organisation, count)).await?;
        Ok(Json(Notes { notes }))
    }

    /// Who calls.
    #[tool(
        title = "Who am I",
        description = "Who you are to this server: subject, organisation, scopes, roles and groups of your token.",
        annotations(read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn whoami(&self, Caller(caller): Caller) -> Json<Who> {
        let Principal { issuer, subject, organisation, client, username, scopes, roles, groups, .. } = caller;
        Json(Who { issuer, subject, organisation, username, client, scopes, roles, groups })
    }
}

/// `total_ms` as a duration, if a call may take that long.
fn bounded(total_ms: u64) -> Result<Duration, String> {
    let total = Duration::from_millis(total_ms);
    if total > MAX_TIME {
        return Err(format!("at most {} s in all", MAX_TIME.as_secs()));
    }
    Ok(total)
}

/// Lets `total_ms` pass, with `events` steps spread evenly: the last one some time before the end.
async fn pass_time(run: &Run, total_ms: u64, events: u64) -> Result<(), String> {
    if events > MAX_STEPS {
        return Err(format!("events must be at most {MAX_STEPS}, not {events}"));
    }
    let total = bounded(total_ms)?;
    let started = tokio::time::Instant::now();
    for step in 1..=events {
        let due = total.mul_f64(step as f64 / (events + 1) as f64);
        run.sleep(due.saturating_sub(started.elapsed())).await.map_err(text)?;
        run.step(step, events, format!("event {step} of {events}")).await.map_err(text)?;
    }
    run.sleep(total.saturating_sub(started.elapsed())).await.map_err(text)
}

/// Runs what waits for a disk where it keeps no other call waiting.
async fn off_the_loop<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(text),
        Err(error) => Err(text(error)),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
