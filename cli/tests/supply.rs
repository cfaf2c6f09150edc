//! Of what crates we are made: their licences, names and sources, as `deny.toml` wants them.
//!
//! By cargo's own metadata. cargo-deny checks the same file and more, but takes about two minutes of processor time to
//! build (0.20.2, not optimised, 167 crates), on each machine that has none.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails, panics")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

/// What of `deny.toml` is checked here.
#[derive(Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    wildcards: String,
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn deny() -> Deny {
    toml::from_str(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap()
}

/// All packages of a workspace, for a target.
fn packages(manifest: &str, target: &str) -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--all-features",
            "--filter-platform",
            target,
        ])
        .arg("--manifest-path")
        .arg(root().join(manifest))
        .output()
        .unwrap();
    assert!(output.status.success(), "{manifest}: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What is wrong with a package.
fn faults(package: &Value, deny: &Deny) -> Vec<String> {
    let name = package["name"].as_str().unwrap();
    let mut faults = Vec::new();
    let license = package["license"].as_str().unwrap_or_default();
    if !is_allowed(license, &deny.licenses.allow) {
        faults.push(format!("{name}: the licence {license:?} is not allowed"));
    }
    if deny.bans.deny.iter().any(|ban| ban.name == name) {
        faults.push(format!("{name} is banned"));
    }
    match package["source"].as_str() {
        // Ours.
        None => {
            let dependencies = package["dependencies"].as_array().unwrap();
            let open = |dependency: &&Value| dependency["req"] == "*" && dependency["path"].is_null();
            let open = dependencies.iter().filter(open);
            faults
                .extend(open.map(|dependency| format!("{name} takes any version of {}", dependency["name"])));
        }
        // cargo's own name of crates.io, in every lock file.
        Some(source) if source.starts_with("registry+") && source.ends_with("/crates.io-index") => {}
        Some(source) => faults.push(format!("{name} comes from {source}")),
    }
    faults
}

fn is_allowed(license: &str, allowed: &[String]) -> bool {
    let allowed: Vec<Licensee> = allowed.iter().map(|one| Licensee::parse(one).unwrap()).collect();
    // Some write MIT/Apache-2.0, as cargo once had it.
    Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|wanted| allowed.iter().any(|licensee| licensee.satisfies(wanted)))
    })
}

#[test]
fn every_crate_is_as_deny_toml_wants_it() {
    let deny = deny();
    let strict = (&*deny.bans.wildcards, &*deny.sources.unknown_registry, &*deny.sources.unknown_git);
    assert_eq!(strict, ("deny", "deny", "deny"));
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml", "bench/Cargo.toml"] {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for target in &deny.graph.targets {
            for package in packages(manifest, target) {
                found.extend(faults(&package, &deny));
                seen.insert(package["id"].to_string());
            }
        }
        println!("{manifest}: {} crates", seen.len());
        assert!(seen.len() > 10 && found.is_empty(), "{manifest}: {found:#?}");
    }
}

#[test]
fn what_is_not_wanted_is_found() {
    let deny = deny();
    let crates_io = "registry+https://x/crates.io-index";
    let package = |name: &str, license: &str, source: Option<&str>, requirement: &str| {
        serde_json::json!({
            "name": name, "license": license, "source": source,
            "dependencies": [{"name": "d", "req": requirement, "path": null}],
        })
    };
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert_eq!(faults(&package("a", good, Some(crates_io), "*"), &deny), [""; 0], "{good}");
    }
    for (package, fault) in [
        (package("a", "GPL-3.0-only", None, "1"), "not allowed"),
        (package("a", "MIT AND GPL-3.0-only", None, "1"), "not allowed"),
        (package("a", "Apache-2.0 WITH LLVM-exception", None, "1"), "not allowed"),
        (package("a", "", None, "1"), "not allowed"),
        (package("openssl-sys", "MIT", Some(crates_io), "1"), "banned"),
        (package("a", "MIT", Some("git+https://x/y"), "1"), "comes from"),
        (package("a", "MIT", Some("registry+https://x/other"), "1"), "comes from"),
        (package("a", "MIT", None, "*"), "any version of"),
    ] {
        let found = faults(&package, &deny);
        assert!(found.len() == 1 && found[0].contains(fault), "{fault}: {found:?}");
    }
}
