//! What a run found: what `--json` writes (bench/report.schema.json describes it) and what is printed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::load::Round;
use crate::mcp::Endpoint;
use crate::stats::{self, Spread, WIDEST};

/// A whole run.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// When the run began, in seconds since 1970.
    pub started: u64,
    /// The commit that was measured, if git knows it; `+` at its end: with changes.
    pub commit: Option<String>,
    /// Where it ran.
    pub machine: Machine,
    /// Rounds of each measurement.
    pub rounds: usize,
    /// How long a round of quick calls lasts, in seconds.
    pub round_s: f64,
    /// Short rounds: the run shows that the cells work, and its figures mean nothing.
    pub quick: bool,
    /// What was measured.
    pub cells: Vec<Cell>,
}

impl Report {
    /// What all figures have in common.
    pub fn head(&self) -> String {
        let Machine { cores, memory_mib, load, .. } = &self.machine;
        let quick = if self.quick { "; short rounds: the figures mean nothing" } else { "" };
        format!(
            "# Asgard {}: {cores} cores, {memory_mib} MiB, load {load:.1}; {} rounds of {} s, in turns{quick}",
            self.commit.as_deref().unwrap_or("bench"),
            self.rounds,
            self.round_s,
        )
    }
}

/// A machine.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// Processors that this program may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The kernel.
    pub kernel: String,
    /// Load of the last minute before the run began.
    pub load: f64,
}

/// One cell: a question, and its figures.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cell {
    /// Its name on the command line.
    pub name: String,
    /// What it measures.
    pub about: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Why it has no figures, or not all.
    pub failed: Option<String>,
    /// What calls cost on each path.
    pub paths: Vec<Path>,
    /// Figures, some with a goal.
    pub figures: Vec<Figure>,
}

/// What calls cost on one path: medians over the rounds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Path {
    /// The path.
    pub name: String,
    /// Connections, with one call at a time on each.
    pub connections: usize,
    /// Calls in a second.
    pub calls_per_s: f64,
    /// Median of the calls' times, in ms.
    pub p50_ms: f64,
    /// 99 of 100 calls take at most this, in ms.
    pub p99_ms: f64,
    /// CPU time of each part, in µs a call; none where its processes are not known.
    pub cpu: Vec<Share>,
    /// CPU time of the load program, in µs a call.
    pub load_us: f64,
}

/// The share of a part.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Share {
    /// The part.
    pub part: String,
    /// µs of CPU time a call.
    pub us: f64,
}

impl Path {
    /// Of the rounds of an endpoint.
    pub fn of(endpoint: &Endpoint, connections: usize, rounds: &[Round]) -> Self {
        let middle = |of: &dyn Fn(&Round) -> f64| stats::median(rounds.iter().map(of));
        let share = |(index, part): (usize, &crate::cpu::Part)| Share {
            part: part.name.clone(),
            us: middle(&|round| round.parts.get(index).copied().unwrap_or(f64::NAN)),
        };
        Self {
            name: endpoint.name.clone(),
            connections,
            calls_per_s: middle(&Round::rate),
            p50_ms: middle(&|round| round.within(0.5)),
            p99_ms: middle(&|round| round.within(0.99)),
            cpu: endpoint.parts.iter().enumerate().map(share).collect(),
            load_us: middle(&|round| round.load),
        }
    }

    /// CPU time of all parts, in µs a call.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.iter().map(|share| share.us).sum()
    }
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// Whether it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is no goal.
    NoGoal,
    /// Yes.
    Reached,
    /// No.
    Missed,
    /// The rounds disagree too much to say: rerun on a quieter machine.
    Refused,
}

/// A figure.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// Its unit; `x` for a ratio.
    pub unit: String,
    /// The value, the median where there are several; none of a ratio that is refused.
    pub value: Option<f64>,
    /// Lower quartile; none where there is one value, or none.
    pub low: Option<f64>,
    /// Upper quartile.
    pub high: Option<f64>,
    /// Distance of the quartiles, as a share of the median.
    pub spread: Option<f64>,
    /// Values that it comes from.
    pub rounds: usize,
    /// The goal.
    pub goal: Option<Goal>,
    /// Whether the goal is reached.
    pub verdict: Verdict,
}

impl Figure {
    fn new(what: &str, unit: &str, value: Option<f64>, rounds: usize) -> Self {
        let (what, unit) = (what.to_owned(), unit.to_owned());
        let none = None;
        Self {
            what,
            unit,
            value,
            low: none,
            high: none,
            spread: none,
            rounds,
            goal: None,
            verdict: Verdict::NoGoal,
        }
    }

    /// One value.
    pub fn single(what: &str, unit: &str, value: f64) -> Self {
        Self::new(what, unit, Some(value), 1)
    }

    /// The median of values.
    pub fn median(what: &str, unit: &str, values: &[f64]) -> Self {
        Self::spread(what, unit, Spread::of(values))
    }

    fn spread(what: &str, unit: &str, spread: Spread) -> Self {
        let mut figure = Self::new(what, unit, Some(spread.median), spread.count);
        figure.spread = Some(spread.width()).filter(|width| width.is_finite());
        (figure.low, figure.high) = (Some(spread.low), Some(spread.high));
        figure
    }

    /// A ratio, round by round. It is refused when the rounds disagree: see [`Spread::is_trusted`].
    pub fn ratio(what: &str, ours: &[f64], theirs: &[f64]) -> Self {
        let spread = Spread::of_ratios(ours, theirs);
        let mut figure = Self::spread(what, "x", spread);
        if !spread.is_trusted() {
            (figure.value, figure.low, figure.high) = (None, None, None);
            figure.verdict = Verdict::Refused;
        }
        figure
    }

    /// With a goal.
    pub fn with_goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self.verdict = match (self.value, goal) {
            (None, _) => Verdict::Refused,
            (Some(value), Goal::AtMost(most)) if value <= most => Verdict::Reached,
            (Some(value), Goal::AtLeast(least)) if value >= least => Verdict::Reached,
            _ => Verdict::Missed,
        };
        self
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "| {} | ", self.what)?;
        let unit = match self.unit.as_str() {
            "x" => " ×".to_owned(),
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        match (self.value, self.low, self.high) {
            (Some(value), Some(low), Some(high)) => {
                write!(f, "{}{unit} ({} to {})", short(value), short(low), short(high))?;
            }
            (Some(value), ..) => write!(f, "{}{unit}", short(value))?,
            _ => {
                let width = self.spread.map_or_else(
                    || "too few rounds".to_owned(),
                    |spread| format!("spread {:.0} %, {:.0} % is believed", spread * 100.0, WIDEST * 100.0),
                );
                write!(f, "spread too wide: rerun on a quieter machine ({width})")?;
            }
        }
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::AtMost(most)) => format!("≤ {}{unit}", short(most)),
            Some(Goal::AtLeast(least)) => format!("≥ {}{unit}", short(least)),
        };
        let verdict = match self.verdict {
            Verdict::NoGoal => "",
            Verdict::Reached => "reached",
            Verdict::Missed => "**missed**",
            Verdict::Refused => "not known",
        };
        write!(f, " | {goal} | {verdict} |")
    }
}

/// A number with about three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        0.1.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "## {}: {}\n", self.name, self.about)?;
        if !self.paths.is_empty() {
            writeln!(
                f,
                "| path | connections | calls/s | p50, p99 ms | CPU, µs a call | load program, µs |"
            )?;
            writeln!(f, "|---|---|---|---|---|---|")?;
            for path in &self.paths {
                let shares = path.cpu.iter().filter(|_| path.cpu.len() > 1);
                let shares: Vec<String> =
                    shares.map(|share| format!("{} {:.0}", share.part, share.us)).collect();
                let cpu = match (path.cpu.is_empty(), shares.is_empty()) {
                    (true, _) => "not known".to_owned(),
                    (_, true) => short(path.cpu_us()),
                    _ => format!("{}: {}", short(path.cpu_us()), shares.join(", ")),
                };
                let Path { name, connections, calls_per_s, .. } = path;
                let (p50, p99) = (short(path.p50_ms), short(path.p99_ms));
                writeln!(
                    f,
                    "| {name} | {connections} | {calls_per_s:.0} | {p50}, {p99} | {cpu} | {:.0} |",
                    path.load_us
                )?;
            }
            writeln!(f)?;
        }
        if !self.figures.is_empty() {
            writeln!(f, "| what | figure (quartiles) | goal | |\n|---|---|---|---|")?;
            self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))?;
        }
        if let Some(why) = &self.failed {
            writeln!(f, "\nFAILED: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_that_of_the_types() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/report.schema.json");
        let made = serde_json::to_string_pretty(&schemars::schema_for!(Report)).unwrap() + "\n";
        if std::env::var_os("ASGARD_WRITE").is_some() {
            std::fs::write(file, &made).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(written == made, "ASGARD_WRITE=1 cargo test in bench/ writes {file} anew");
    }

    #[test]
    fn a_ratio_of_noisy_rounds_is_not_printed() {
        let noisy = Figure::ratio("r", &[1.0, 2.0, 4.0, 8.0], &[1.0; 4]).with_goal(Goal::AtMost(100.0));
        assert_eq!((noisy.value, noisy.verdict), (None, Verdict::Refused));
        let text = noisy.to_string();
        assert!(
            text.contains("spread too wide: rerun on a quieter machine") && text.matches('×').count() == 1,
            "{text}"
        );
        let few = Figure::ratio("r", &[1.0, 1.0], &[1.0; 2]);
        assert_eq!((few.value, few.verdict), (None, Verdict::Refused));
    }

    #[test]
    fn goals_are_judged_by_the_median() {
        let figure = |goal| Figure::ratio("r", &[2.0, 2.02, 2.01], &[1.0; 3]).with_goal(goal).verdict;
        assert_eq!(figure(Goal::AtMost(2.01)), Verdict::Reached);
        assert_eq!(figure(Goal::AtMost(2.0)), Verdict::Missed);
        assert_eq!(figure(Goal::AtLeast(2.01)), Verdict::Reached);
        assert_eq!(figure(Goal::AtLeast(2.02)), Verdict::Missed);
        let line = Figure::single("lost", "items", 0.0).with_goal(Goal::AtMost(0.0)).to_string();
        assert_eq!(line, "| lost | 0 items | ≤ 0 items | reached |");
    }
}
