//! What the tests of the filter share: the corpus of hostile requests (tests/corpus).

#![allow(unreachable_pub, unused_imports, reason = "each test uses a part")]

pub use corpus::*;
