//! One kind of error for people: what went wrong, and what to do about it.

use std::fmt;

/// Something that stops a command: one clear line, and (where there is one) how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What went wrong, without a full stop at its end.
    pub what: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
}

/// The result of everything in this crate that a person may have to fix.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// A problem without a known fix.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A problem from an input/output error on a path; a full disk gets its own words.
    pub fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let problem = Self::new(format!("cannot {doing} {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::StorageFull => {
                Self::new(format!("cannot {doing} {}: the disk is full", path.display()))
                    .hint("free some space (`df -h`), then run the command again")
            }
            std::io::ErrorKind::PermissionDenied => problem.hint("check who owns that path"),
            _ => problem,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, ". {}", capitalised(hint)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_its_mend() {
        let problem = Problem::new("port 8000 is taken").hint("stop nginx");
        assert_eq!(problem.to_string(), "port 8000 is taken. Stop nginx");
        assert_eq!(Problem::new("no").to_string(), "no");
    }

    #[test]
    fn a_full_disk_is_named() {
        let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let problem = Problem::io("write", std::path::Path::new("/x"), &error);
        assert!(problem.to_string().contains("the disk is full"));
        assert!(problem.hint.is_some());
    }
}
