//! The rooms of this crate, and which of them may use which: arrows go down, never up.
//!
//! `docs/architecture.md` has the picture. The test reads what the sources name as `crate::…`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kit::layers::{arrows, code, depth, files, is_test, name, place, supers, upward};

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
const FRONT: [&str; 9] = ["config", "error", "http", "state", "calls", "streams", "methods", "routes", "mod"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
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
        let in_floor = file.parent().is_some_and(|folder| folder != source().join("front"));
        let in_front = file.starts_with(source().join("front"));
        let most = depth(&source(), &file).saturating_sub(usize::from(in_front && in_floor));
        let supers = supers(&file);
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
        ("## Floors of the front end", source().join("front"), &FRONT[..8]),
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
