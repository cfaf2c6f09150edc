//! Released clients of many lines against a whole stack: each connects, lists the tools, calls one with progress, is
//! refused a call and goes on, with a token and with one that it gets for itself at Keycloak.
//!
//! `./asgard test clients` tries a few of them; with `--all` every one, at both entry points.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod rows;

use std::collections::BTreeSet;
use std::time::Instant;

use asgard::install::Clients;
use e2e::keycloak::Keycloak;
use e2e::login::register;
use e2e::{Client, EntryPoint, Stack, tokens};
use rows::{OAuth, ROWS, Row, Speaks};
use sdks::kit::{self, Kit};
use serde_json::{Value, json};

/// Where the scripts' clients want the code (`REDIRECT` there).
const REDIRECT: &str = "http://localhost:33418/callback";

/// The two transports: the scripts' names.
const TRANSPORTS: [&str; 2] = ["http", "sse"];

fn whole() -> bool {
    std::env::var_os("ASGARD_ALL").is_some()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a running stack and released clients: ./asgard test clients"]
async fn released_clients_connect_list_call_and_log_in() {
    let (stack, kit) = (Stack::claim().await, Kit::find());
    let tools = tools(&stack).await;
    let mut failed = Vec::new();
    let mut tried = BTreeSet::new();
    for row in ROWS.iter().filter(|row| kit.environment(row.environment).is_some()) {
        tried.insert(row.environment);
        for transport in TRANSPORTS.into_iter().filter(|transport| row.over(transport) != Speaks::Not) {
            let trial = Trial { stack: &stack, kit: &kit, row, transport, tools };
            for (what, problem) in trial.all().await {
                failed.extend(
                    problem.map(|problem| format!("{}, {transport}, {what}: {problem}", row.title())),
                );
            }
        }
    }
    let all = || ROWS.iter().map(|row| row.environment).collect();
    let wanted: BTreeSet<&str> = if whole() { all() } else { Clients::SHORT.into() };
    assert!(tried.is_superset(&wanted), "of {wanted:?} only {tried:?}");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// How many tools there are.
async fn tools(stack: &Stack) -> usize {
    let token = tokens::token(stack, "thor", "org-1").await;
    let client = Client::at(stack.endpoint(EntryPoint::Bifrost, "org-1"), token);
    let exchange = client.request("tools/list", json!({})).await;
    exchange.result().unwrap()["tools"].as_array().unwrap().len()
}

/// A client over one transport.
struct Trial<'a> {
    stack: &'a Stack,
    kit: &'a Kit,
    row: &'a Row,
    transport: &'a str,
    tools: usize,
}

impl Trial<'_> {
    /// Everything that is to be tried; what is wrong with each, if anything.
    async fn all(&self) -> Vec<(String, Option<String>)> {
        let mut outcomes = Vec::new();
        // Keycloak's tokens are for the public address, so that is where a client that gets its own one goes.
        let entry_points = if whole() { &EntryPoint::BOTH[..] } else { &[EntryPoint::Hermod] };
        for entry_point in entry_points {
            let token = tokens::token(self.stack, "thor", "org-1").await;
            let seen = self.run(*entry_point, "token", ("TOKEN", &token)).await;
            outcomes.push(self.say(*entry_point, "with a token", self.wrong(&seen)));
        }
        match self.row.oauth {
            OAuth::Registers => outcomes.push(self.registers().await),
            OAuth::Fails { says, .. } => outcomes.push(self.fails(says).await),
            OAuth::Twice { says, .. } => {
                outcomes.push(self.fails(says).await);
                outcomes.push(self.twice().await);
            }
            OAuth::Not => {}
        }
        outcomes
    }

    /// By OAuth, from nothing.
    async fn registers(&self) -> (String, Option<String>) {
        let keycloak = Keycloak::of(self.stack);
        let before = registered(&keycloak).await;
        let seen = self.run(EntryPoint::Bifrost, "oauth", ("CLIENT_ID", "")).await;
        let new: Vec<String> = registered(&keycloak).await.difference(&before).cloned().collect();
        let problem = match new.len() {
            0 => Some(format!("it registered no client: {seen}")),
            _ => self.wrong(&seen),
        };
        for client in &new {
            keycloak.forget_client(client).await;
        }
        self.say(EntryPoint::Bifrost, "registers itself", problem)
    }

    /// By OAuth, as it is known to fail.
    async fn fails(&self, says: &str) -> (String, Option<String>) {
        let keycloak = Keycloak::of(self.stack);
        let before = registered(&keycloak).await;
        let seen = self.run(EntryPoint::Bifrost, "oauth", ("CLIENT_ID", "")).await;
        for client in registered(&keycloak).await.difference(&before) {
            keycloak.forget_client(client).await;
        }
        let as_known = seen["error"].as_str().is_some_and(|error| error.contains(says));
        let problem = (!as_known).then(|| format!("it no longer says {says:?}: {seen}"));
        self.say(EntryPoint::Bifrost, "can't register itself, as known", problem)
    }

    /// By OAuth, with a client that is there already: each request is sent twice, and on the one stream of HTTP+SSE
    /// that shows.
    async fn twice(&self) -> (String, Option<String>) {
        let metadata = json!({
            "client_name": "registered beforehand",
            "redirect_uris": [REDIRECT],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        });
        let (status, answer) = register(self.stack, &metadata, None).await;
        assert_eq!(status, 201, "{answer}");
        let client = answer["client_id"].as_str().unwrap();
        let mut seen = self.run(EntryPoint::Bifrost, "client", ("CLIENT_ID", client)).await;
        Keycloak::of(self.stack).forget_client(client).await;
        if let Some(steps) = seen["steps"].as_array_mut().filter(|_| self.transport == "sse") {
            let all = steps.len();
            steps.dedup();
            if all != 2 * steps.len() {
                seen["error"] = json!("it no longer sends its requests twice");
            }
        }
        self.say(EntryPoint::Bifrost, "registered beforehand", self.wrong(&seen))
    }

    async fn run(&self, entry_point: EntryPoint, auth: &str, (name, value): (&str, &str)) -> Value {
        let suffix = if self.transport == "sse" { "/sse" } else { "" };
        let url = format!("{}{suffix}", self.stack.endpoint(entry_point, "org-1"));
        let [script, argument] = self.row.script;
        let mut command = self.kit.client(self.row.environment, script);
        command.args([self.transport, &url, auth, argument]).env_remove("TOKEN").env(name, value);
        let started = Instant::now();
        let output = kit::output(command).await;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        let seen = said.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
        let tail: Vec<&str> = complaints.lines().rev().take(12).collect();
        let mut seen = seen.unwrap_or_else(|| json!({ "error": format!("it said nothing: {said}") }));
        seen["took_s"] = json!(started.elapsed().as_secs_f32());
        if seen.get("error").is_some() {
            seen["complaints"] = json!(tail.into_iter().rev().collect::<Vec<_>>());
        }
        seen
    }

    /// What is wrong with what a client saw.
    fn wrong(&self, seen: &Value) -> Option<String> {
        let text = |name: &str| seen[name].to_string().replace('\\', "");
        let revision = match self.row.over(self.transport) {
            Speaks::Revision(revision) => seen["revision"] == revision,
            Speaks::Untold => true,
            Speaks::Not => false,
        };
        let steps: Vec<Option<f64>> =
            seen["steps"].as_array().into_iter().flatten().map(Value::as_f64).collect();
        let progress: Vec<Option<f64>> = (1..=6).map(|step| Some(f64::from(step))).collect();
        let expectations = [
            ("an error", seen.get("error").is_none()),
            ("the revision", revision),
            ("the list", seen["tools"] == self.tools),
            ("the result", text("text").contains(r#""text":"x""#)),
            ("the progress", !self.row.progress || steps == progress),
            // A call that is refused costs that call.
            ("the refusal", seen.get("refused").is_none_or(|_| !text("refused").contains("result:"))),
            ("what follows the refusal", text("then").contains("still here")),
        ];
        let (what, _) = expectations.into_iter().find(|(_, fine)| !fine)?;
        Some(format!("{what}: {seen}"))
    }

    fn say(&self, entry_point: EntryPoint, what: &str, problem: Option<String>) -> (String, Option<String>) {
        let verdict = if problem.is_none() { "ok" } else { "FAILED" };
        println!("{entry_point:?}: {}, {}, {what}: {verdict}", self.row.title(), self.transport);
        (format!("{entry_point:?}, {what}"), problem)
    }
}

impl Row {
    fn over(&self, transport: &str) -> Speaks {
        if transport == "sse" { self.sse } else { self.http }
    }
}

/// The ids of all clients that Keycloak knows.
async fn registered(keycloak: &Keycloak<'_>) -> BTreeSet<String> {
    let clients = keycloak.get("/clients?max=1000").await;
    clients.as_array().unwrap().iter().map(|client| client["clientId"].as_str().unwrap().to_owned()).collect()
}

/// The table of the guide is the table here, and the versions in it are those that are fetched.
#[test]
fn the_guide_has_these_rows_and_versions() {
    let page = std::fs::read_to_string(kit::source("../../docs/clients.md")).unwrap();
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = ROWS.iter().map(Row::line).collect();
    assert!(page.contains(&lines.join("\n")), "docs/clients.md lacks\n{}", lines.join("\n"));
    for row in ROWS {
        if let OAuth::Fails { why, .. } | OAuth::Twice { why, .. } = row.oauth {
            assert!(words.contains(why), "docs/clients.md lacks: {why}");
        }
        let folder = kit::source("environments").join(row.environment);
        let file = if folder.join("package.json").exists() { "package.json" } else { "requirements.in" };
        let pins = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(pins.contains(row.version), "{}: {} is not what {pins:?} pins", row.title(), row.version);
    }
    let table =
        page.split("### Other clients").nth(1).unwrap_or_default().split("\n## ").next().unwrap_or_default();
    let lines = table.lines().filter(|line| line.starts_with('|')).count();
    assert_eq!(lines, ROWS.len() + 2, "rows that nothing tries");
    let of_rows: BTreeSet<&str> = ROWS.iter().map(|row| row.environment).collect();
    for folder in
        std::fs::read_dir(kit::source("environments")).unwrap().flatten().filter(|f| f.path().is_dir())
    {
        let name = folder.file_name().into_string().unwrap();
        assert!(of_rows.contains(name.as_str()), "no client uses the environment {name}");
    }
}
