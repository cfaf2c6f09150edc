//! Reads from sources which part of a crate uses which, for tests that hold the arrows between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Arrows from place to place, with a file that each is from.
pub type Arrows = BTreeMap<(String, String), PathBuf>;

/// All sources below a folder.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    all
}

/// The folder or file of `root` that a source lies in, without its extension.
#[must_use]
pub fn place(root: &Path, file: &Path) -> String {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Whether a source is of tests alone.
#[must_use]
pub fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// The code of a file: no comments, no module of tests.
#[must_use]
pub fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// How many modules of its place a source is in: as often it may say `super::` in a row, and stays there.
#[must_use]
pub fn depth(root: &Path, file: &Path) -> usize {
    let parts = file.strip_prefix(root).unwrap().components().count();
    parts.saturating_sub(if file.ends_with("mod.rs") { 2 } else { 1 })
}

/// The most `super::` in a row that its code says.
#[must_use]
pub fn supers(file: &Path) -> usize {
    let code = code(file);
    (1..6).rev().find(|n| code.contains(&"super::".repeat(*n))).unwrap_or_default()
}

/// What follows each `prefix` in the code: the first name of a path, or those of a group in braces.
fn named(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_names(group)),
            None => drop(names.insert(name(rest))),
        }
    }
    names
}

/// The name that a text begins with.
#[must_use]
pub fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of the members of a group, up to its closing brace.
fn group_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && depth == 0 && (c.is_alphanumeric() || c == '_') => {
                names.push(name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

/// Arrows from place to place, with the file that each is from.
#[must_use]
pub fn arrows(root: &Path, prefix: &str) -> Arrows {
    let mut arrows = BTreeMap::new();
    for file in files(root).into_iter().filter(|file| !is_test(file)) {
        let from = place(root, &file);
        for to in named(&code(&file), prefix) {
            if to != from {
                arrows.insert((from.clone(), to), file.clone());
            }
        }
    }
    arrows
}

/// The arrows that go from a place to one above it, or from a place that is on no floor. `floors`: lowest first.
#[must_use]
pub fn upward(arrows: &Arrows, floors: &[&str]) -> Vec<String> {
    let floor = |place: &str| floors.iter().position(|known| *known == place);
    let up = arrows.iter().filter(|((from, to), _)| match (floor(from), floor(to)) {
        (Some(from), Some(to)) => to > from,
        // Not a room: an item of the parent.
        (Some(_), None) => false,
        (None, _) => true,
    });
    up.map(|((from, to), file)| format!("{from} uses {to} ({})", file.display())).collect()
}
