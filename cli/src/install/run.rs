//! Runs one installation command: its output goes to a log, its last line to the screen, its failure into one
//! clear line.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::problem::{Problem, Result};
use crate::ui::Step;

/// A command to run.
#[derive(Debug)]
pub struct Run<'a> {
    /// What it does, for the failure: `cannot …`.
    pub doing: &'a str,
    /// Where its output goes.
    pub log: PathBuf,
    /// How the log is shown to a person.
    pub log_shown: String,
    /// What to do when it fails (beside looking at the log).
    pub hint: &'a str,
}

impl Run<'_> {
    /// Runs it to its end. `line` sees each line of output.
    ///
    /// # Errors
    /// When it cannot be started or fails. The log has the whole story, the problem its most telling line.
    pub fn run(&self, command: &mut Command, step: &Step, mut line: impl FnMut(&str, &Step)) -> Result<()> {
        let failed = |e: &std::io::Error| Problem::new(format!("cannot {}: {e}", self.doing)).hint(self.hint);
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|e| Problem::io("write", &self.log, &e))?;
        let (reader, writer) = std::io::pipe().map_err(|e| failed(&e))?;
        let errors = writer.try_clone().map_err(|e| failed(&e))?;
        let _ = writeln!(log, "$ {command:?}");
        let mut child =
            command.stdin(Stdio::null()).stdout(writer).stderr(errors).spawn().map_err(|e| failed(&e))?;
        // The command keeps the writing ends of the pipe; without this the reader would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut telling = String::new();
        for text in BufReader::new(reader).split(b'\n') {
            let Ok(text) = text else { break };
            let text = String::from_utf8_lossy(&text);
            // Progress of some tools is one long line with carriage returns.
            let text = text.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or("").trim_end();
            let _ = writeln!(log, "{text}");
            if is_telling(text) && (telling.is_empty() || text.contains("No space left")) {
                telling = text.trim().chars().take(300).collect();
            }
            line(text, step);
        }
        let status = child.wait().map_err(|e| failed(&e))?;
        if status.success() {
            return Ok(());
        }
        if telling.contains("No space left") {
            return Err(Problem::new(format!("cannot {}: the disk is full", self.doing))
                .hint("free some space (`df -h`), then run the command again"));
        }
        let why = if telling.is_empty() { crate::process::ending(status) } else { telling };
        Err(Problem::new(format!("cannot {}: {why}", self.doing))
            .hint(format!("{}; see {}", self.hint, self.log_shown)))
    }
}

/// Lines that say why something failed.
fn is_telling(line: &str) -> bool {
    let line = line.trim_start();
    ["error", "Error", "ERROR", "E: ", "[ERROR]", "npm error", "npm ERR!", "fatal:", "build-filter: error"]
        .iter()
        .any(|start| line.starts_with(start))
        || line.contains("No space left")
}

/// The output (both streams) of a short command that succeeds; `None` when it fails or is not there.
#[must_use]
pub fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| {
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, script: &str) -> (Result<()>, String) {
        let log = std::env::temp_dir().join(format!("asgard-run-{name}-{}", std::process::id()));
        let run = Run { doing: "do it", log: log.clone(), log_shown: "the log".into(), hint: "try again" };
        let result = run.run(Command::new("sh").args(["-c", script]), &Step::begin("test"), |_, _| {});
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log).unwrap();
        (result, text)
    }

    #[test]
    fn output_is_logged_and_failure_is_one_line() {
        let (result, log) = run("ok", "echo one; echo two >&2");
        result.unwrap();
        assert!(log.contains("one") && log.contains("two"));
        let (result, _) = run("fail", "echo x; echo 'error: the cause'; echo y; exit 3");
        assert_eq!(result.unwrap_err().to_string(), "cannot do it: error: the cause. Try again; see the log");
        let (result, _) = run("silent", "exit 3");
        assert!(result.unwrap_err().what.contains("exit code 3"));
    }

    #[test]
    fn a_full_disk_is_recognised() {
        let (result, _) = run("full", "echo 'error: x'; echo 'write: No space left on device'; exit 1");
        assert!(result.unwrap_err().what.contains("the disk is full"));
    }
}
