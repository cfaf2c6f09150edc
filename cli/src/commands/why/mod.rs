//! `asgard why`: what the logs say of a request, in words.

mod reasons;

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use crate::commands::logs;
use crate::compose;
use crate::paths::Paths;
use crate::problem::{Problem, Result};

/// Longest id of a request.
const MAX_ID: usize = 64;
/// Most lines about one request that are shown, and most causes.
const MAX_LINES: usize = 10;

/// Explains what became of a request.
///
/// # Errors
/// When no log has a line about it.
pub async fn run(paths: &Paths, id: &str) -> Result<ExitCode> {
    if !(4..=MAX_ID).contains(&id.len())
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(Problem::new(format!("{id:?} is not a request id"))
            .hint("take request_id from the body of the refusal"));
    }
    let mut found = Found::default();
    if compose::is_up(paths) {
        compose::all_logs(paths).await?.lines().for_each(|line| found.line("", line, id));
    } else {
        for part in logs::names(paths) {
            let Ok(file) = std::fs::File::open(paths.log(&part)) else { continue };
            for line in BufReader::new(file).split(b'\n').map_while(std::result::Result::ok) {
                found.line(&part, &String::from_utf8_lossy(&line), id);
            }
        }
    }
    if found.lines.is_empty() {
        return Err(Problem::new(format!("no log of this stack knows the request {id}")).hint(
            "a refusal's body has its request_id; a request that was not refused leaves no line, and logs begin \
             anew when a stack is started",
        ));
    }
    print!("{}", found.explain(id));
    Ok(ExitCode::SUCCESS)
}

/// What the logs have about a request.
#[derive(Debug, Default)]
struct Found {
    /// Lines with its id, each with its part.
    lines: VecDeque<(String, String)>,
    /// The filter's refusal, or what a dry run would have refused.
    refusal: Option<Refusal>,
    /// The filter's last lines about causes that are not one request (`reason=jwks_unavailable …`).
    causes: VecDeque<String>,
}

/// A line of the filter about a request.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    dry_run: bool,
    status: String,
    reason: String,
    organisation: Option<String>,
    rule: Option<String>,
}

impl Found {
    fn line(&mut self, part: &str, line: &str, id: &str) {
        let said = line.split_once("asgard: ").map(|(_, said)| said);
        if let Some(cause) = said.filter(|said| said.starts_with("reason=")) {
            // Only what was known by then can have been the cause.
            if self.refusal.is_none() {
                keep(&mut self.causes, cause.trim_end().to_owned());
            }
        }
        if !has_word(line, id) {
            return;
        }
        if let Some(refusal) = said.and_then(Refusal::read) {
            self.refusal = Some(refusal);
        }
        keep(&mut self.lines, (part.to_owned(), line.trim_end().to_owned()));
    }

    fn explain(&self, id: &str) -> String {
        let mut text = String::new();
        let mut say = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        match &self.refusal {
            Some(refusal) => {
                let organisation =
                    refusal.organisation.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
                say(&match refusal.dry_run {
                    false => format!(
                        "The gateway refused request {id}{organisation}: {} {}.",
                        refusal.status, refusal.reason
                    ),
                    true => format!(
                        "The gateway let request {id}{organisation} pass, since the policy is in a dry run; else: {}.",
                        refusal.reason
                    ),
                });
                let (meaning, hint) = reasons::of(&refusal.reason);
                say(&format!("  why:  {meaning}"));
                if let Some(rule) = &refusal.rule {
                    say(&format!("  rule: {rule}"));
                }
                say(&format!("  fix: {hint}"));
                let source = reasons::cause_of(&refusal.reason);
                let mut causes = self.causes.iter().filter(|cause| {
                    cause
                        .strip_prefix("reason=")
                        .is_some_and(|rest| source.iter().any(|s| rest.starts_with(s)))
                });
                if let Some(cause) = causes.next_back() {
                    say(&format!("  log:  {cause}"));
                }
            }
            None => {
                say(&format!("The gateway's filter did not refuse request {id}. What the logs say of it:"))
            }
        }
        for (part, line) in &self.lines {
            say(&if part.is_empty() { format!("  {line}") } else { format!("  {part}: {line}") });
        }
        text
    }
}

/// Keeps the last few.
fn keep<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() >= MAX_LINES {
        list.pop_front();
    }
    list.push_back(item);
}

/// Whether the text has the word, not as a part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text.get(..at), text.get(at.saturating_add(word.len())..));
        !part(before.and_then(|before| before.chars().next_back()))
            && !part(after.and_then(|after| after.chars().next()))
    })
}

impl Refusal {
    /// Reads `refused status=403 error=forbidden reason=policy_denied organisation=org-1 rule="no drops"
    /// request=ID` and `dry-run would-refuse reason=…`.
    fn read(said: &str) -> Option<Self> {
        let (dry_run, mut rest) = match said.strip_prefix("refused ") {
            Some(rest) => (false, rest),
            None => (true, said.strip_prefix("dry-run would-refuse ")?),
        };
        let mut refusal =
            Self { dry_run, status: String::new(), reason: String::new(), organisation: None, rule: None };
        while let Some((name, after)) = rest.trim_start().split_once('=') {
            let (value, after) = value(after)?;
            match name {
                "status" => refusal.status = value,
                "reason" => refusal.reason = value,
                "organisation" => refusal.organisation = Some(value),
                "rule" => refusal.rule = Some(value),
                _ => {}
            }
            if name == "request" {
                break;
            }
            rest = after;
        }
        (!refusal.reason.is_empty()).then_some(refusal)
    }
}

/// A value, in quotes or up to the next space, and what follows.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_once(' ').unwrap_or((text, ""));
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at.saturating_add(1)..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2c1d9f4e-1111";

    fn found(lines: &[&str]) -> Found {
        let mut found = Found::default();
        lines.iter().for_each(|line| found.line("gateway", line, ID));
        found
    }

    #[test]
    fn a_refusal_is_explained_with_its_rule() {
        let text = found(&[
            "2026 1 warning wasm log bifrost: asgard: refused status=401 error=invalid_token reason=token_expired request=other",
            "2026 1 warning wasm log bifrost: asgard: refused status=403 error=forbidden reason=policy_denied \
             organisation=org-1 rule=\"no \\\"drops\\\" today\" request=2c1d9f4e-1111",
        ])
        .explain(ID);
        assert!(
            text.starts_with("The gateway refused request 2c1d9f4e-1111 in org-1: 403 policy_denied."),
            "{text}"
        );
        assert!(text.contains("rule: no \"drops\" today") && text.contains("asgard can"), "{text}");
        assert!(!text.contains("other"), "{text}");
    }

    #[test]
    fn an_outage_shows_its_cause() {
        let text = found(&[
            "x asgard: reason=introspection_unavailable issuer=http://id.example: no answer",
            "x asgard: reason=jwks_unavailable issuer=http://id.example: the answer has status 500",
            "x asgard: refused status=503 error=unavailable reason=keys_unavailable request=2c1d9f4e-1111",
            "x asgard: reason=jwks_unavailable issuer=http://id.example: later",
        ])
        .explain(ID);
        assert!(
            text.contains(
                "log:  reason=jwks_unavailable issuer=http://id.example: the answer has status 500"
            ),
            "{text}"
        );
    }

    #[test]
    fn kongs_lines_have_the_id_elsewhere() {
        let line = "2026/11/23 [warn] 7#0: *5 [proxy-wasm] asgard: refused status=401 error=missing_token \
                    reason=token_missing request=-, client: 127.0.0.1, request_id: \"2c1d9f4e-1111\"";
        let text = found(&[line]).explain(ID);
        assert!(text.contains("401 token_missing"), "{text}");
    }

    #[test]
    fn dry_runs_and_other_lines() {
        let text =
            found(&["asgard: dry-run would-refuse reason=policy_denied rule=\"x\" request=2c1d9f4e-1111"]);
        assert!(text.explain(ID).contains("dry run"));
        let text = found(&["backend took 2c1d9f4e-1111", "not 2c1d9f4e-11112", "nor x2c1d9f4e-1111"]);
        assert!(text.explain(ID).contains("did not refuse"));
        assert_eq!(text.lines.len(), 1);
        assert_eq!(Refusal::read("refused status=401 reason=\"open"), None);
        assert_eq!(Refusal::read("else"), None);
    }

    #[test]
    fn every_reason_of_the_corpus_is_explained() {
        let rows = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/rows");
        let mut seen = 0;
        for file in std::fs::read_dir(rows).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for reason in text.split("\"reason\": \"").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(reasons::is_known(reason), "{reason} is not explained");
                seen += 1;
            }
        }
        assert!(seen > 30);
    }
}
