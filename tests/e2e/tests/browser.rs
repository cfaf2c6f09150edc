//! The MCP Inspector in a real browser, as a person uses it: it registers itself at Keycloak, the person logs in and
//! agrees, it lists the tools and calls one that sends progress. `tests/browser/inspector.mjs` moves the mouse.
//!
//! Screenshots go to the folder that `ASGARD_ARTEFACTS` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use e2e::stack::wait;
use e2e::{EntryPoint, Stack};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os(name);
    path.unwrap_or_else(|| panic!("{name} is not set: run ./asgard test browser")).into()
}

/// An Inspector of its own: what it has registered and been given goes with it.
struct Inspector {
    _process: Child,
    _folder: tempfile::TempDir,
    url: String,
}

impl Inspector {
    async fn start(stack: &Stack, servers: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = folder.path().join("servers.json");
        std::fs::write(&catalog, json!({"mcpServers": servers}).to_string()).unwrap();
        let ports = &stack.state.ports;
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(program("ASGARD_NODE"))
            .arg("--require")
            .arg(stack.paths.root.join("tests/browser/localhost.cjs"))
            .arg(program("ASGARD_INSPECTOR"))
            .args(["--web", "--catalog"])
            .arg(&catalog)
            .env("HOST", "127.0.0.1")
            .env("CLIENT_PORT", ports.inspector.to_string())
            .env("MCP_SANDBOX_PORT", ports.inspector_sandbox.to_string())
            .env("MCP_APP_ORIGIN_PORT", ports.inspector_apps.to_string())
            .env("MCP_INSPECTOR_API_TOKEN", &stack.state.secrets.inspector_token)
            .env("MCP_INSPECTOR_SECRET_STORE", "memory")
            .env("MCP_AUTO_OPEN_ENABLED", "false")
            .env("MCP_STORAGE_DIR", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://localhost:{}", ports.inspector);
        wait("the Inspector serves", Duration::from_secs(60), async || {
            let answer = e2e::client::http().get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        Self { _process: process, _folder: folder, url }
    }

    async fn end(mut self) {
        self._process.kill().await.unwrap();
    }
}

/// A server of the Inspector's list, to which it must find its own way in.
fn server(url: &str, kind: Value) -> Value {
    let mut server = json!({"url": url, "headers": {}, "oauth": {"clientId": "", "scopes": ""}});
    for (name, value) in kind.as_object().unwrap() {
        server[name] = value.clone();
    }
    server
}

fn streamable(stack: &Stack, organisation: &str, era: &str) -> Value {
    let kind = json!({"type": "streamable-http", "protocolEra": era});
    server(&stack.endpoint(EntryPoint::Bifrost, organisation), kind)
}

fn visit(name: &str, user: &str, organisation: &str) -> Value {
    json!({
        "name": name, "server": name, "user": user, "password": user, "organisation": organisation,
        "tool": "report", "arguments": {"steps": "8", "step_ms": "400"}, "result": "\"mean\"",
    })
}

/// Runs the visits; gives the report of each.
async fn browse(stack: &Stack, inspector: &Inspector, visits: &[Value]) -> Vec<Value> {
    let shots = std::env::var_os("ASGARD_ARTEFACTS")
        .map_or_else(|| stack.paths.logs().join("browser"), PathBuf::from);
    let plan = json!({
        "playwright": program("ASGARD_PLAYWRIGHT"),
        "chromium": program("ASGARD_CHROMIUM"),
        "inspector": inspector.url,
        "token": stack.state.secrets.inspector_token,
        "shots": shots,
        "visits": visits,
    });
    let mut driver = Command::new(program("ASGARD_NODE"))
        .arg(stack.paths.root.join("tests/browser/inspector.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    driver.stdin.take().unwrap().write_all(plan.to_string().as_bytes()).await.unwrap();
    let limit = Duration::from_secs(120 * visits.len() as u64);
    let output = tokio::time::timeout(limit, driver.wait_with_output()).await.expect("in time").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for report in &reports {
        assert!(
            report["error"].is_null(),
            "{}: {}",
            report["name"],
            serde_json::to_string_pretty(report).unwrap()
        );
    }
    assert_eq!(reports.len(), visits.len(), "{text}");
    assert!(output.status.success());
    reports
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The tools were listed; progress was seen on the page while the tool ran; its result came.
fn check(report: &Value) {
    let name = report["name"].as_str().unwrap();
    let tools = strings(&report["tools"]);
    for tool in ["report", "echo", "whoami"] {
        assert!(tools.contains(&tool), "{name}: {tools:?}");
    }
    let progress = strings(&report["progress"]);
    assert!(progress.len() >= 2, "{name}: progress on the page: {progress:?}");
    assert!(progress.iter().all(|line| line.contains("/ 8")), "{name}: {progress:?}");
    assert!(report["result"].as_str().unwrap().contains("\"mean\""), "{name}");
    for shot in strings(&report["shots"]) {
        assert!(Path::new(shot).metadata().unwrap().len() > 5_000, "{shot}");
    }
    println!("{name}: {:?}, {} steps seen", strings(&report["pages"]), progress.len());
}

#[tokio::test]
#[ignore = "needs a running stack and a browser: ./asgard test browser"]
async fn one_who_belongs_to_one_organisation_logs_in_and_calls_a_tool_in_both_eras() {
    let stack = Stack::claim().await;
    for (name, era) in [("modern", "modern"), ("legacy", "legacy")] {
        let inspector = Inspector::start(&stack, &json!({name: streamable(&stack, "org-1", era)})).await;
        let reports = browse(&stack, &inspector, &[visit(name, "thor", "org-1")]).await;
        check(&reports[0]);
        assert_eq!(
            strings(&reports[0]["pages"]),
            ["login-login-username", "login-login", "login-login-oauth-grant"]
        );
        assert!(reports[0]["dress"].as_str().unwrap().ends_with("/organisations/aurora/theme.css"));
        inspector.end().await;
    }
}

#[tokio::test]
#[ignore = "needs a running stack and a browser: ./asgard test browser"]
async fn one_who_belongs_to_two_organisations_reaches_both() {
    let stack = Stack::claim().await;
    let servers = json!({"freya-1": streamable(&stack, "org-1", "modern"), "freya-2": streamable(&stack, "org-2", "legacy")});
    let inspector = Inspector::start(&stack, &servers).await;
    let mut second = visit("freya-2", "freya", "org-2");
    second["again"] = json!(true);
    let reports = browse(&stack, &inspector, &[visit("freya-1", "freya", "org-1"), second]).await;
    reports.iter().for_each(check);
    for report in &reports {
        assert!(strings(&report["pages"]).contains(&"login-select-organization"), "{report}");
    }
    // The second time the person is known; only the organisation is asked, and the consent.
    assert!(!strings(&reports[1]["pages"]).contains(&"login-login"), "{}", reports[1]["pages"]);
    inspector.end().await;
}

#[tokio::test]
#[ignore = "needs a running stack and a browser: ./asgard test browser"]
async fn the_transport_of_2024_and_an_own_host_work_in_the_browser_too() {
    let stack = Stack::claim().await;
    // The seed's own address of the transport HTTP+SSE.
    let sse = format!("{}/sse", stack.endpoint(EntryPoint::Bifrost, "org-1"));
    let own = format!("{}/mcp", stack.state.host_url("org-1.localhost").unwrap());
    let servers = json!({
        "sse": server(&sse, json!({"type": "sse"})),
        "host": server(&own, json!({"type": "streamable-http", "protocolEra": "modern"})),
    });
    let inspector = Inspector::start(&stack, &servers).await;
    let reports =
        browse(&stack, &inspector, &[visit("sse", "thor", "org-1"), visit("host", "thor", "org-1")]).await;
    reports.iter().for_each(check);
    inspector.end().await;
}
