//! `asgard status`.

use std::process::ExitCode;

use crate::compose;
use crate::paths::Paths;
use crate::problem::{Problem, Result};
use crate::supervisor::control::{self, Reply, Request};
use crate::supervisor::part::PartStatus;

/// Prints how the parts are. Exit code 0 when there are some and all are ready, degraded ones included.
///
/// # Errors
/// When the supervisor runs but does not answer.
pub async fn run(paths: &Paths, json: bool) -> Result<ExitCode> {
    let reply = if compose::is_up(paths) {
        let parts = compose::status(paths).await?;
        let note = |part: &PartStatus, what: &String| format!("{}: degraded: {what}", part.name);
        let notes = parts.iter().flat_map(|part| part.degraded.iter().map(move |what| note(part, what)));
        Reply { notes: notes.collect(), parts, up: true, error: None }
    } else {
        control::ask(paths, &Request::Status).await?.unwrap_or_default()
    };
    if json {
        println!("{}", document(&reply)?);
    } else {
        print!("{}", table(&reply));
    }
    let ready = !reply.parts.is_empty() && reply.parts.iter().all(|part| part.ready);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `{"parts":[{"name":…,"kind":…,"pid":…,"address":…,"ready":…},…]}`, on one line. A part that is ready and
/// can't do all has `"degraded":[…]`, with the reasons.
fn document(reply: &Reply) -> Result<String> {
    #[derive(serde::Serialize)]
    struct Document<'a> {
        parts: &'a [PartStatus],
    }
    serde_json::to_string(&Document { parts: &reply.parts })
        .map_err(|e| Problem::new(format!("cannot write the status as JSON: {e}")))
}

/// The table, and a line for each note.
fn table(reply: &Reply) -> String {
    if reply.parts.is_empty() {
        return "nothing is running; ./asgard up starts it\n".to_owned();
    }
    let mut text = format!("{:<12} {:<10} {:>8}  {:<22} ready\n", "part", "kind", "pid", "address");
    for part in &reply.parts {
        let pid = part.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let ready = match part.ready {
            false => "no",
            true if part.degraded.is_empty() => "yes",
            true => "degraded",
        };
        let (name, kind, address) = (&part.name, part.kind.name(), &part.address);
        text += &format!("{name:<12} {kind:<10} {pid:>8}  {address:<22} {ready}\n");
    }
    for note in &reply.notes {
        text += &format!("  {note}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::part::Kind;

    #[test]
    fn a_degraded_part_is_shown_with_the_reason() {
        let part = |name: &str, ready, degraded: &[&str]| PartStatus {
            name: name.to_owned(),
            kind: Kind::Backend,
            pid: Some(7),
            address: "127.0.0.1:8081".to_owned(),
            ready,
            degraded: degraded.iter().map(|what| (*what).to_owned()).collect(),
        };
        let parts = vec![part("a", true, &[]), part("b", true, &["pushpin: away"]), part("c", false, &[])];
        let notes = vec!["b: degraded: pushpin: away".to_owned(), "c: stopped".to_owned()];
        let text = table(&Reply { parts, notes, up: true, error: None });
        let last = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
        let lines: Vec<String> = text.lines().map(last).collect();
        assert_eq!(lines, ["ready", "yes", "degraded", "no", "away", "stopped"], "{text}");
    }
}
