//! No run of ten equal lines in two places of the repository's sources: what is written twice is changed once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails, panics")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// So many equal lines are too many.
const RUN: usize = 10;
/// What counts as source.
const EXTENSIONS: [&str; 7] = ["rs", "lua", "sh", "py", "mjs", "yml", "toml"];
/// Folders of files that are data or written by a tool.
const DATA: [&str; 4] = ["/rows/", "/seeds/", "/environments/", "supply/"];

/// A line that counts, and its number in the file.
struct Line {
    text: String,
    number: usize,
}

struct Source {
    path: String,
    lines: Vec<Line>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The repository's own sources: all that git knows.
fn sources() -> Vec<Source> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    names.split('\0').filter(|name| is_source(name)).filter_map(read).collect()
}

fn is_source(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
        && !DATA.iter().any(|part| name.contains(part))
}

fn read(name: &str) -> Option<Source> {
    let text = std::fs::read_to_string(root().join(name)).ok()?;
    Some(Source { path: name.to_owned(), lines: lines(&text) })
}

/// The lines that say something: none that is blank, of brackets and signs alone, or part of a `use`.
fn lines(text: &str) -> Vec<Line> {
    let mut within_use = false;
    let mut kept = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let begins =
            line.starts_with("use ") || line.starts_with("pub use ") || line.starts_with("pub(crate) use ");
        if begins || within_use {
            within_use = !line.ends_with(';');
            continue;
        }
        if line.chars().any(char::is_alphanumeric) {
            kept.push(Line { text: line.to_owned(), number: index + 1 });
        }
    }
    kept
}

/// The longest runs of equal lines: both places, and how many lines.
fn repeated(sources: &[Source]) -> Vec<String> {
    let mut seen: HashMap<Vec<&str>, Vec<(usize, usize)>> = HashMap::new();
    for (file, source) in sources.iter().enumerate() {
        for (start, window) in source.lines.windows(RUN).enumerate() {
            let texts = window.iter().map(|line| line.text.as_str()).collect();
            seen.entry(texts).or_default().push((file, start));
        }
    }
    let equal = |(a, i): (usize, usize), (b, j): (usize, usize)| {
        let (one, other) = (&sources[a].lines, &sources[b].lines);
        one.get(i).zip(other.get(j)).is_some_and(|(x, y)| x.text == y.text)
    };
    let mut found = Vec::new();
    for places in seen.values() {
        for (index, &(a, i)) in places.iter().enumerate() {
            for &(b, j) in &places[index + 1..] {
                // Where a run begins before, it is reported there.
                if i > 0 && j > 0 && equal((a, i - 1), (b, j - 1)) {
                    continue;
                }
                let length = (0..).take_while(|n| equal((a, i + n), (b, j + n))).count();
                let place = |file: usize, at: usize| {
                    format!("{}:{}", sources[file].path, sources[file].lines[at].number)
                };
                found.push(format!("{length} equal lines: {} and {}", place(a, i), place(b, j)));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn nothing_is_written_twice() {
    let sources = sources();
    assert!(sources.len() > 100, "{} sources", sources.len());
    let found = repeated(&sources);
    assert!(found.is_empty(), "{} runs of {RUN} lines or more:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_run_is_found_with_both_places_and_its_length() {
    let text = |before: &str| {
        let body: String = (0..12).map(|n| format!("    line {n}\n\n}}\n")).collect();
        format!("use a::{{\n    b,\n}};\n{before}{body}")
    };
    let source = |path: &str, before: &str| Source { path: path.to_owned(), lines: lines(&text(before)) };
    let found = repeated(&[source("one", "x\n"), source("two", "y\nz\n")]);
    assert_eq!(found, ["12 equal lines: one:5 and two:6"]);
    assert_eq!(repeated(&[source("one", "x\n")]), Vec::<String>::new());
}
