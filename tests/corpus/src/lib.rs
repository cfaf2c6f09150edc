//! The corpus: hostile requests as data (`rows/*.json`, one file a class), each beside its twin without the
//! fault, and what the tests of the filter and of the gateways share to send them. `README.md` says how to
//! write a row.
//!
//! All of this panics freely: a test that can't go on has failed.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests alone use it"
)]

mod expect;
mod keys;
pub mod net;
mod rows;

pub use expect::{Answer, difference};
pub use keys::{ASSERTION_KEYS, Keys, grip_sig, introspection};
pub use rows::{Case, Row, Sent, Table, merge};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The JSON inside an `X-Userinfo`.
pub fn userinfo(header: &str) -> serde_json::Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SECURITY.md names the tests that show its claims: they must be there.
    #[test]
    fn every_claim_names_a_test_that_exists() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
        let mut seen = 0;
        for (file, name) in text.split('`').filter_map(|code| code.split_once(".rs::")) {
            let source = std::fs::read_to_string(root.join(format!("{file}.rs")));
            let source = source.unwrap_or_else(|error| panic!("SECURITY.md: {file}.rs: {error}"));
            assert!(source.contains(&format!("fn {name}(")), "SECURITY.md: {file}.rs has no {name}");
            seen += 1;
        }
        assert!(seen > 20);
        let table = Table::read();
        let classes = table.classes();
        // "rows `path`, `host` |": words in backticks up to the end of the cell.
        for cell in text.split("rows `").skip(1).filter_map(|rest| rest.split(" |").next()) {
            let word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            for class in cell.split('`').filter(word).filter(|class| !class.is_empty()) {
                assert!(classes.contains_key(class), "SECURITY.md: the corpus has no class {class}");
            }
        }
    }
}
