//! The parts of the command, and which of them may use which: arrows go down, never up.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeSet;
use std::path::Path;

use kit::layers::{arrows, depth, files, is_test, place, supers, upward};

/// The parts, lowest first. A part may use those before it.
const PARTS: [&str; 28] = [
    "problem",
    "gateway",
    "hostname",
    "process",
    "ui",
    "suites",
    "paths",
    "size",
    "health",
    "ports",
    "render",
    "policy",
    "client",
    "state",
    "samples",
    "hosts",
    "token",
    "keycloak",
    "args",
    "supervisor",
    "config",
    "install",
    "parts",
    "compose",
    "stack",
    "commands",
    "lib",
    "main",
];

#[test]
fn no_part_uses_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all = arrows(&source, "crate::");
    assert!(all.len() > 90, "the test reads no sources: {all:?}");
    assert_eq!(upward(&all, &PARTS), Vec::<String>::new());
    let there: BTreeSet<String> = files(&source).iter().map(|file| place(&source, file)).collect();
    assert_eq!(there, PARTS.iter().map(|part| (*part).to_owned()).collect(), "each part has its floor");
}

/// `super::super` and the like would go past the test above.
#[test]
fn who_leaves_a_part_says_crate() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&source).into_iter().filter(|file| !is_test(file)) {
        let supers = supers(&file);
        let leaves = supers > depth(&source, &file);
        assert!(!leaves, "{}: `{}` leaves its part", file.display(), "super::".repeat(supers));
    }
}
