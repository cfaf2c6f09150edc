//! The rooms of this crate, and which of them may use which: arrows go down, never up.
//!
//! `docs/architecture.md` has the picture. The test reads what the sources name as `crate::…`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms, lowest first. A room may use those before it.
const ROOMS: [&str; 15] = [
    "id",
    "protocol",
    "call",
    "store",
    "link",
    "events",
    "broadcast",
    "health",
    "serve",
    "front",
    "admin",
    "worker",
    "runner",
    "program",
    "lib",
];
/// Rooms of one floor: neither may use the other.
const BESIDE: [(&str, &str); 5] =
    [("admin", "front"), ("worker", "front"), ("worker", "admin"), ("runner", "front"), ("runner", "admin")];
/// The floors of the front end, lowest first.
const FRONT: [&str; 8] = ["config", "http", "state", "calls", "streams", "methods", "routes", "mod"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// All sources below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
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
fn place(root: &Path, file: &Path) -> String {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

/// The code of a file: no comments, no module of tests.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
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

fn name(text: &str) -> String {
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
fn arrows(root: &Path, prefix: &str) -> BTreeMap<(String, String), PathBuf> {
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

fn upward(arrows: &BTreeMap<(String, String), PathBuf>, floors: &[&str]) -> Vec<String> {
    let floor = |place: &str| floors.iter().position(|known| *known == place);
    let up = arrows.iter().filter(|((from, to), _)| match (floor(from), floor(to)) {
        (Some(from), Some(to)) => to > from,
        // Not a room: an item of the parent.
        (Some(_), None) => false,
        (None, _) => true,
    });
    up.map(|((from, to), file)| format!("{from} uses {to} ({})", file.display())).collect()
}

#[test]
fn no_room_uses_one_above_it() {
    let all = arrows(&source(), "crate::");
    assert!(all.len() > 30, "the test reads no sources: {all:?}");
    assert_eq!(upward(&all, &ROOMS), Vec::<String>::new());
    for (one, other) in BESIDE {
        for (from, to) in [(one, other), (other, one)] {
            let arrow = all.get(&(from.to_owned(), to.to_owned()));
            assert!(arrow.is_none(), "{from} uses {to}, which is beside it ({arrow:?})");
        }
    }
}

#[test]
fn no_floor_of_the_front_end_uses_one_above_it() {
    let all = arrows(&source().join("front"), "crate::front::");
    assert!(all.len() > 12, "the test reads no sources: {all:?}");
    assert_eq!(upward(&all, &FRONT), Vec::<String>::new());
}

/// `super::super` and the like would go past the tests above.
#[test]
fn who_leaves_a_room_says_crate() {
    for file in files(&source()).into_iter().filter(|file| !is_test(file)) {
        let depth = file.strip_prefix(source()).unwrap().components().count();
        let inside = if file.ends_with("mod.rs") { depth.saturating_sub(2) } else { depth.saturating_sub(1) };
        let in_front = file.starts_with(source().join("front"));
        let most = inside.saturating_sub(usize::from(in_front && depth > 2));
        let supers = (1..6).rev().find(|n| code(&file).contains(&"super::".repeat(*n))).unwrap_or_default();
        assert!(supers <= most, "{}: `{}` leaves its room", file.display(), "super::".repeat(supers));
    }
}

/// A struct that others fill in gets fields in later versions, which must not break them.
#[test]
fn what_others_configure_may_get_fields() {
    const ENDS: [&str; 6] = ["Config", "Limits", "Options", "Settings", "Timing", "Times"];
    let crates = source().join("../..");
    let mut found = 0;
    for file in ["odin", "grip"].iter().flat_map(|name| files(&crates.join(name).join("src"))) {
        let code = code(&file);
        for (at, _) in code.match_indices("\npub struct ") {
            let name = name(&code[at + "\npub struct ".len()..]);
            if ENDS.iter().any(|end| name.ends_with(end)) {
                found += 1;
                let attribute = code[..at].lines().last().unwrap_or_default();
                assert_eq!(attribute, "#[non_exhaustive]", "{name} ({})", file.display());
            }
        }
    }
    assert!(found > 10, "the test reads no structs");
}

#[test]
fn the_page_of_the_architecture_names_the_rooms_that_there_are() {
    let there: BTreeSet<String> = files(&source()).iter().map(|file| place(&source(), file)).collect();
    assert_eq!(there, ROOMS.iter().map(|room| (*room).to_owned()).collect());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/architecture.md");
    let page = std::fs::read_to_string(page).unwrap();
    let paths =
        page.split('`').skip(1).step_by(2).filter(|text| text.ends_with(".rs") || text.ends_with(".lua"));
    let (found, missing): (Vec<&str>, Vec<&str>) = paths
        .partition(|path| source().join(path).is_file() || source().join("../../..").join(path).is_file());
    assert!(found.len() > 20 && missing.is_empty(), "no such files: {missing:?}");
    for (heading, folder, rooms) in [
        ("## Rooms", source(), &ROOMS[..14]),
        ("## Floors of the front end", source().join("front"), &FRONT[..7]),
    ] {
        let table = page.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading:?}"));
        let rows = table
            .lines()
            .skip_while(|line| !line.starts_with("| `"))
            .take_while(|line| line.starts_with('|'));
        let named: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        let mut listed = rooms.to_vec();
        listed.reverse();
        assert_eq!(named, listed, "{heading}: the rows, highest first");
        for room in rooms {
            assert!(folder.join(room).is_dir() || folder.join(format!("{room}.rs")).is_file(), "{room}");
        }
    }
}
