//! The MCP conformance suite's scenarios for authorization servers, at the real Keycloak through the gateway. A person
//! logs in and agrees where the suite asks for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use e2e::Stack;
use e2e::keycloak::Keycloak;
use e2e::login::{Person, register};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// A check of the suite.
const GRANT: &str = "authorization-code-grant";

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os(name);
    path.unwrap_or_else(|| panic!("{name} is not set: run ./asgard test authorization")).into()
}

/// Where the suite listens: on this stack's port of the Inspector, which does not run here.
fn callback(stack: &Stack) -> String {
    format!("http://127.0.0.1:{}/callback", stack.state.ports.inspector)
}

/// Every check by its id: its status, and what was wrong.
type Checks = BTreeMap<String, (String, String)>;

/// Runs the suite for a client.
async fn suite(stack: &Stack, client: &str, resource: Option<&str>) -> Checks {
    let output = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("ASGARD_NODE"));
    command
        .arg(program("ASGARD_CONFORMANCE"))
        .args(["authorization", "--url", &stack.state.issuer(), "--client-id", client])
        .args(["--port", &stack.state.ports.inspector.to_string()])
        .arg("--output-dir")
        .arg(output.path());
    command.args(resource.iter().flat_map(|resource| ["--resource", resource]));
    let mut suite = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(suite.stdout.take().unwrap()).lines();
    let redirect = callback(stack);
    let walk = async {
        let mut printed = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            printed.push_str(&line);
            printed.push('\n');
            if line.starts_with("http") && line.contains("/protocol/openid-connect/auth?") {
                let mut person = Person::sample("thor", "org-1");
                let (pages, _, back) = person.visit(&line, &redirect).await;
                assert!(pages.iter().any(|page| page.contains("login")), "{pages:?}");
                e2e::client::http().get(back).send().await.unwrap();
            }
        }
        suite.wait().await.unwrap();
        printed
    };
    let printed = tokio::time::timeout(Duration::from_secs(180), walk).await.expect("the suite ends");
    let mut checks = Checks::new();
    collect(output.path(), &mut checks);
    assert!(checks.len() >= 3, "{printed}");
    checks
}

fn collect(folder: &Path, checks: &mut Checks) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), checks);
        } else if entry.file_name() == "checks.json" {
            let all: Value = serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap();
            for check in all.as_array().unwrap() {
                let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
                checks.insert(text("id"), (text("status"), text("errorMessage")));
            }
        }
    }
}

fn failures(checks: &Checks) -> Vec<(&str, &str)> {
    let failed = checks.iter().filter(|(_, (status, _))| status != "SUCCESS");
    failed.map(|(id, (_, why))| (id.as_str(), why.as_str())).collect()
}

async fn registered(stack: &Stack) -> String {
    let metadata = json!({
        "client_name": "the conformance suite",
        "redirect_uris": [callback(stack)],
        "token_endpoint_auth_method": "none",
        "scope": "mcp:tools organization",
    });
    let (status, answer) = register(stack, &metadata, None).await;
    assert_eq!(status, 201, "{answer}");
    answer["client_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs a running stack and the conformance suite: ./asgard test authorization"]
async fn the_authorization_scenarios_pass() {
    let stack = Stack::claim().await;
    let keycloak = Keycloak::of(&stack);
    let resource = stack.state.resource("org-1");

    let client = registered(&stack).await;
    let checks = suite(&stack, &client, None).await;
    assert_eq!(failures(&checks), [], "a client that registered itself");
    assert!(
        checks.contains_key(GRANT) && checks.keys().any(|id| id.starts_with("authorization-server-metadata"))
    );
    println!("Bifrost: authorization, self-registered client: {} checks passed, 0 failed", checks.len());

    // With a resource (RFC 8707), for which the suite asks without a scope.
    let checks = suite(&stack, &client, Some(&resource)).await;
    assert_eq!(failures(&checks), [], "a client that registered itself, and a resource");
    assert!(checks.contains_key(GRANT));
    println!("Bifrost: authorization, with a resource: {} checks passed, 0 failed", checks.len());
    keycloak.forget_client(&client).await;
}
