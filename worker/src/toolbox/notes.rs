//! A notebook for each organisation: one file of JSON lines, append only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use identity::Principal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Characters of a note's text, at most.
pub(crate) const MAX_NOTE: usize = 4_000;

/// Bytes of a notebook, at most (by what concurrent writers add more).
const MAX_NOTEBOOK: u64 = 1_000_000;

/// One note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// The text.
    pub text: String,
    /// Who wrote it.
    pub author: String,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
}

/// Why a note was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoteError {
    #[error("this worker has no data directory: set ASGARD_DATA")]
    NoDirectory,
    #[error("a note has 1 to {MAX_NOTE} characters, this one has {0}")]
    Size(usize),
    #[error("the notebook of this organisation is full ({MAX_NOTEBOOK} bytes)")]
    Full,
    #[error("the notebook can't be used: {0}")]
    Io(#[from] io::Error),
}

/// All notebooks, in one directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notebooks(Option<PathBuf>);

impl Notebooks {
    pub(crate) fn new(data: Option<&Path>) -> Self {
        Self(data.map(|data| data.join("notes")))
    }

    fn file(&self, organisation: &str) -> Result<PathBuf, NoteError> {
        let directory = self.0.as_ref().ok_or(NoteError::NoDirectory)?;
        // Any name becomes one plain file name, and two names never the same one.
        let mut name = String::with_capacity(organisation.len() + 6);
        for byte in organisation.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
                _ => name.push_str(&format!("%{byte:02x}")),
            }
        }
        name.push_str(".jsonl");
        Ok(directory.join(name))
    }

    /// Adds a note to the notebook of the author's organisation. Several workers may write at once: a note
    /// is one appending write.
    pub(crate) fn add(&self, author: &Principal, text: &str) -> Result<Note, NoteError> {
        let characters = text.chars().count();
        if !(1..=MAX_NOTE).contains(&characters) {
            return Err(NoteError::Size(characters));
        }
        let file = self.file(&author.organisation)?;
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        if fs::metadata(&file).is_ok_and(|file| file.len() >= MAX_NOTEBOOK) {
            return Err(NoteError::Full);
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let note = Note {
            text: text.to_owned(),
            author: author.username.clone().unwrap_or_else(|| author.subject.clone()),
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        };
        let mut line = serde_json::to_vec(&note).map_err(io::Error::from)?;
        line.push(b'\n');
        OpenOptions::new().create(true).append(true).open(file)?.write_all(&line)?;
        Ok(note)
    }

    /// The latest notes of an organisation, the newest first.
    pub(crate) fn latest(&self, organisation: &str, count: usize) -> Result<Vec<Note>, NoteError> {
        let text = match fs::read_to_string(self.file(organisation)?) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        // A line that a crash cut off is none.
        Ok(text.lines().rev().filter_map(|line| serde_json::from_str(line).ok()).take(count).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(organisation: &str) -> Principal {
        let mut caller = Principal::new("https://issuer.example", "f3a1", organisation);
        caller.username = Some("thor".into());
        caller
    }

    #[test]
    fn notes_stay_with_their_organisation() {
        let directory = tempfile::tempdir().unwrap();
        let notebooks = Notebooks::new(Some(directory.path()));
        notebooks.add(&author("org-1"), "first").unwrap();
        notebooks.add(&author("org-1"), "second\nline").unwrap();
        notebooks.add(&author("org-2"), "other").unwrap();
        let texts = |organisation| {
            notebooks.latest(organisation, 10).unwrap().into_iter().map(|note| note.text).collect::<Vec<_>>()
        };
        assert_eq!(texts("org-1"), ["second\nline", "first"]);
        assert_eq!(texts("org-2"), ["other"]);
        assert!(texts("org-3").is_empty());
        assert_eq!(notebooks.latest("org-1", 1).unwrap().len(), 1);
    }

    #[test]
    fn no_name_leaves_the_directory_or_meets_another() {
        let directory = tempfile::tempdir().unwrap();
        let notebooks = Notebooks::new(Some(directory.path()));
        let names = ["../../x", "..", "a/b", "a%2fb", "A", "a", "", "a.jsonl"];
        let files: std::collections::BTreeSet<_> =
            names.iter().map(|name| notebooks.file(name).unwrap()).collect();
        assert_eq!(files.len(), names.len());
        assert!(files.iter().all(|file| file.parent().unwrap() == directory.path().join("notes")));
    }

    #[test]
    fn bounds_hold_and_errors_say_why() {
        let directory = tempfile::tempdir().unwrap();
        let notebooks = Notebooks::new(Some(directory.path()));
        assert!(matches!(notebooks.add(&author("o"), ""), Err(NoteError::Size(0))));
        assert!(matches!(notebooks.add(&author("o"), &"x".repeat(MAX_NOTE + 1)), Err(NoteError::Size(_))));
        notebooks.add(&author("o"), &"é".repeat(MAX_NOTE)).unwrap();
        let file = notebooks.file("o").unwrap();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(MAX_NOTEBOOK).unwrap();
        assert!(matches!(notebooks.add(&author("o"), "x"), Err(NoteError::Full)));
        assert!(matches!(Notebooks::new(None).add(&author("o"), "x"), Err(NoteError::NoDirectory)));
    }
}
