//! The policy of a stack: the file `policy.json` in its state folder. The gateway's filter and the backends
//! apply the same one. Without the file everybody may use everything of their organisations.

use std::collections::BTreeMap;

use identity::Policy;

use crate::paths::Paths;
use crate::problem::{Problem, Result};

/// The policy, or `None` when there is no file.
///
/// # Errors
/// When the file can't be read, or is no policy: with the place and how to fix it.
pub fn load(paths: &Paths) -> Result<Option<Policy>> {
    let file = paths.policy_file();
    let json = match std::fs::read(&file) {
        Ok(json) => json,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Problem::io("read", &file, &error)),
    };
    Policy::from_json(&json).map(Some).map_err(|error| {
        Problem::new(format!("{}: {error}", file.display()))
            .hint("kong-filter/README.md describes policies; an empty one is {}")
    })
}

/// Which scopes contain which others, of those that the sample realm knows.
#[must_use]
pub fn implied_scopes() -> BTreeMap<String, Vec<String>> {
    let contained = ["mcp:tools:read", "mcp:tools:write"].map(str::to_owned);
    [("mcp:tools".to_owned(), contained.into())].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_optional_and_must_be_right() {
        let home = std::env::temp_dir().join(format!("asgard-policy-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let paths = Paths { home: home.clone(), cache: home.clone(), root: home.clone() };
        assert_eq!(load(&paths), Ok(None));
        std::fs::write(paths.policy_file(), r#"{"rules": [{"effect": "deny", "names": ["drop*"]}]}"#)
            .unwrap();
        assert_eq!(load(&paths).unwrap().unwrap().rules.len(), 1);
        for wrong in [r#"{"rules": [{"effect": "maybe"}]}"#, r#"{"rule": []}"#, "{"] {
            std::fs::write(paths.policy_file(), wrong).unwrap();
            assert!(load(&paths).unwrap_err().what.contains("policy.json"), "{wrong}");
        }
        std::fs::remove_dir_all(home).unwrap();
    }
}
