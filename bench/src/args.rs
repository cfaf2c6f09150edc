//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Measures what Asgard costs, beside its peers on this machine. It starts a stack of its own, builds what that needs,
/// and ends it. What is compared is measured in turns; a ratio whose rounds disagree is not printed.
#[derive(Debug, Parser)]
#[command(name = "asgard bench", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Something else than the cells
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to measure
    #[command(flatten)]
    pub options: Options,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the plain rmcp server that everything is compared with, for a gateway of your own to stand before
    Plain {
        /// Where it listens
        #[arg(long, default_value = "127.0.0.1:24900")]
        listen: String,
    },
}

/// What to measure, and how.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// List the cells
    #[arg(long)]
    pub list: bool,
    /// Only these cells
    #[arg(long, value_name = "CELL", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Short rounds, and no cell that takes long: shows that all works. The figures mean nothing
    #[arg(long)]
    pub quick: bool,
    /// Rounds of each measurement, 3 to 1000 [default: 9; with --quick: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(3..=1000))]
    pub rounds: Option<u16>,
    /// How long a round of quick calls lasts, in seconds, 0.1 to 600 [default: 2; with --quick: 0.2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub round: Option<f64>,
    /// Write what was found as JSON (bench/report.schema.json describes it)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write charts as SVG
    #[arg(long, value_name = "FOLDER")]
    pub charts: Option<PathBuf>,
    /// The gateway of the stack: envoy or kong
    #[arg(long, default_value = "envoy")]
    pub gateway: String,
    /// An older checkout of Asgard: its stack is built and started too, and measured in turns with this one
    #[arg(long, value_name = "CHECKOUT")]
    pub before: Option<PathBuf>,
    /// An MCP endpoint to compare with. May be given several times
    #[arg(long = "peer", value_name = "NAME=URL", value_parser = pair)]
    pub peers: Vec<(String, String)>,
    /// The bearer token of a peer
    #[arg(long = "peer-token", value_name = "NAME=TOKEN", value_parser = pair)]
    pub peer_tokens: Vec<(String, String)>,
    /// A process of a peer, whose CPU time is taken with that of its children. May be given several times
    #[arg(long = "peer-pid", value_name = "NAME=PID", value_parser = pair)]
    pub peer_pids: Vec<(String, String)>,
    /// Measure this MCP endpoint, and no stack: beside the plain server and the peers
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// The bearer token of the target
    #[arg(long, requires = "target")]
    pub token: Option<String>,
    /// A process of the target. May be given several times
    #[arg(long = "target-pid", value_name = "PID", requires = "target")]
    pub target_pids: Vec<u32>,
    /// The tool to call at the target and at the peers
    #[arg(long, default_value = "echo")]
    pub tool: String,
    /// The tool's arguments, as JSON
    #[arg(long, default_value = r#"{"text":"the quick brown fox"}"#)]
    pub arguments: String,
}

impl Options {
    /// Rounds of each measurement.
    pub fn rounds(&self) -> usize {
        self.rounds.map_or(if self.quick { 3 } else { 9 }, usize::from)
    }

    /// How long a round of quick calls lasts.
    pub fn round_time(&self) -> Duration {
        Duration::from_secs_f64(self.round.unwrap_or(if self.quick { 0.2 } else { 2.0 }))
    }

    /// One of two, the second with `--quick`.
    pub fn sized<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number of seconds")?;
    if (0.1..=600.0).contains(&seconds) { Ok(seconds) } else { Err("it must be 0.1 to 600".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let options = parse("bench --quick --only a,b --peer x=http://h/ --peer-pid x=7").unwrap().options;
        assert_eq!((options.rounds(), options.only.len()), (3, 2));
        assert_eq!(options.peer_pids, [("x".to_owned(), "7".to_owned())]);
        for bad in
            ["bench --rounds 2", "bench --round 0", "bench --peer x", "bench --token t", "bench --list plain"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
