//! `asgard status`.

use std::process::ExitCode;

use crate::compose;
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::supervisor::control::{self, Reply, Request};
use crate::supervisor::part::PartStatus;

/// Prints how the parts are. Exit code 0 when there are some and all are ready.
///
/// # Errors
/// When the supervisor runs but does not answer.
pub async fn run(paths: &Paths, json: bool) -> Result<ExitCode> {
    let reply = if compose::is_up(paths) {
        Reply { parts: compose::status(paths).await?, up: true, ..Reply::default() }
    } else {
        control::ask(paths, &Request::Status).await?.unwrap_or_default()
    };
    if json {
        println!("{}", document(&reply)?);
    } else {
        print(&reply);
    }
    let ready = !reply.parts.is_empty() && reply.parts.iter().all(|part| part.ready);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `{"parts":[{"name":…,"kind":…,"pid":…,"address":…,"ready":…},…]}`, on one line.
fn document(reply: &Reply) -> Result<String> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        parts: &'a [PartStatus],
    }
    serde_json::to_string(&Document { parts: &reply.parts })
        .map_err(|e| Problem::new(format!("cannot write the status as JSON: {e}")))
}

fn print(reply: &Reply) {
    if reply.parts.is_empty() {
        println!("nothing is running; ./asgard up starts it");
        return;
    }
    println!("{:<12} {:<10} {:>8}  {:<22} ready", "part", "kind", "pid", "address");
    for part in &reply.parts {
        let pid = part.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let ready = if part.ready { "yes" } else { "no" };
        println!("{:<12} {:<10} {pid:>8}  {:<22} {ready}", part.name, part.kind.name(), part.address);
    }
    for note in &reply.notes {
        println!("  {note}");
    }
}
