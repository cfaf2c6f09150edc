//! Scopes that contain others: who has `mcp:admin` has `mcp:tools`, where a site says so.

use std::collections::BTreeMap;

/// Which scopes a scope contains.
///
/// A token's scopes are completed once, when the token was verified ([`Hierarchy::complete`]); from then
/// on every comparison is plain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// For each scope that contains others: all of them, also those that the contained ones contain.
    contained: BTreeMap<String, Vec<String>>,
}

impl Hierarchy {
    /// Takes the scopes that each scope contains directly. Circles are harmless: their scopes are
    /// equal.
    pub fn new(direct: &BTreeMap<String, Vec<String>>) -> Self {
        let all = |scope: &String| {
            let mut found: Vec<String> = Vec::new();
            let mut open: Vec<&String> = direct.get(scope).into_iter().flatten().collect();
            while let Some(next) = open.pop() {
                if next != scope && !found.contains(next) {
                    found.push(next.clone());
                    open.extend(direct.get(next).into_iter().flatten());
                }
            }
            found.sort();
            found
        };
        Self { contained: direct.keys().map(|scope| (scope.clone(), all(scope))).collect() }
    }

    /// Adds what the scopes contain.
    pub fn complete(&self, scopes: &mut Vec<String>) {
        if self.contained.is_empty() {
            return;
        }
        let more: Vec<String> =
            scopes.iter().filter_map(|scope| self.contained.get(scope)).flatten().cloned().collect();
        for scope in more {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn hierarchy(pairs: &[(&str, &[&str])]) -> Hierarchy {
        let direct = pairs.iter().map(|(scope, contained)| {
            ((*scope).to_owned(), contained.iter().map(|scope| (*scope).to_owned()).collect())
        });
        Hierarchy::new(&direct.collect())
    }

    fn completed(hierarchy: &Hierarchy, scopes: &[&str]) -> Vec<String> {
        let mut scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        hierarchy.complete(&mut scopes);
        scopes
    }

    #[test]
    fn contained_scopes_are_added_at_any_depth() {
        let all = hierarchy(&[("admin", &["write"]), ("write", &["read"]), ("a", &["b"]), ("b", &["a"])]);
        assert_eq!(completed(&all, &["admin", "x"]), ["admin", "x", "read", "write"]);
        assert_eq!(completed(&all, &["read"]), ["read"]);
        assert_eq!(completed(&all, &["a"]), ["a", "b"]);
        assert_eq!(completed(&all, &["b"]), ["b", "a"]);
        assert_eq!(completed(&Hierarchy::default(), &["admin"]), ["admin"]);
    }

    proptest! {
        #[test]
        fn completing_twice_adds_nothing(pairs in proptest::collection::btree_map("[a-e]", proptest::collection::vec("[a-e]", 0..3), 0..5), scopes in proptest::collection::vec("[a-e]", 0..4)) {
            let hierarchy = Hierarchy::new(&pairs);
            let mut once = scopes.clone();
            hierarchy.complete(&mut once);
            let mut twice = once.clone();
            hierarchy.complete(&mut twice);
            prop_assert_eq!(&once, &twice);
            prop_assert!(scopes.iter().all(|scope| once.contains(scope)));
        }
    }
}
