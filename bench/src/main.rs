//! What Asgard costs, beside its peers in the same run. `./asgard bench` builds and runs this; docs/performance.md
//! describes the method, and has the figures.

mod args;
mod cells;
mod charts;
mod cpu;
mod filter;
mod load;
mod mcp;
mod report;
mod site;
mod stats;
mod wire;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use args::{Arguments, Command, Options};
use cells::{CELLS, Context, Spec, TARGET};
use report::{Machine, Report};

/// Any error; its text says what to do.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What may fail.
pub type Result<T> = std::result::Result<T, Error>;

/// The version of the JSON document's format.
const FORMAT: u32 = 1;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::Plain { listen }) => site::plain::serve(&listen).await.map(|()| true),
        None if arguments.options.list => {
            CELLS.iter().for_each(|cell| println!("{:<12} {}", cell.name, cell.about));
            Ok(true)
        }
        None => tokio::select! {
            outcome = run(arguments.options) => outcome,
            outcome = interrupted() => outcome,
        },
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("asgard bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for a signal to end. What was started ends with what is dropped then.
async fn interrupted() -> Result<bool> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome?,
    }
    Err("interrupted".into())
}

/// Says what goes on.
fn progress(what: &str) {
    eprintln!("  {what}");
}

/// The cells that the command line chooses.
fn chosen(options: &Options) -> Result<Vec<&'static Spec>> {
    if options.target.is_some() {
        return Ok(vec![&TARGET]);
    }
    for name in &options.only {
        if !CELLS.iter().any(|cell| cell.name == name) {
            return Err(format!("there is no cell {name}: see ./asgard bench --list").into());
        }
    }
    let wanted = |cell: &&Spec| match options.only.is_empty() {
        true => cell.quick || !options.quick,
        false => options.only.iter().any(|name| name == cell.name),
    };
    Ok(CELLS.iter().filter(wanted).collect())
}

/// Runs the cells and prints each; whether all had figures.
async fn run(options: Options) -> Result<bool> {
    let cells = chosen(&options)?;
    raise_limit()?;
    let context = Context::new(options);
    let options = &context.options;
    context.peers()?;
    let mut report = Report {
        format: FORMAT,
        started: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        commit: commit(),
        machine: machine(),
        rounds: options.rounds(),
        round_s: options.round_time().as_secs_f64(),
        quick: options.quick,
        cells: Vec::new(),
    };
    println!("{}\n", report.head());
    for spec in cells {
        progress(&format!("{}: {}", spec.name, spec.about));
        let cell = cells::run(&context, spec).await;
        println!("{cell}");
        report.cells.push(cell);
        // A run that breaks off later has left what it found.
        if let Some(file) = &options.json {
            std::fs::write(file, serde_json::to_string_pretty(&report)?)
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    context.end().await;
    if let Some(folder) = &options.charts {
        charts::write(&report, folder)?;
    }
    Ok(report.cells.iter().all(|cell| cell.failed.is_none()))
}

/// Open files as many as may be, here and in what is started from here.
fn raise_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn commit() -> Option<String> {
    let root = std::env::var_os("ASGARD_ROOT")?;
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").arg("-C").arg(&root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(format!("{}{}", git(&["rev-parse", "--short", "HEAD"])?, if changed.is_empty() { "" } else { "+" }))
}

fn machine() -> Machine {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let first = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    Machine {
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_mib: memory.unwrap_or(0) / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load: first(read("/proc/loadavg")).parse().unwrap_or(0.0),
    }
}
