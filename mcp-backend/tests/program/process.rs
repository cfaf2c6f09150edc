//! The program in a process of its own, and requests to it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{Assertion, AssertionKeys, EntryPoint, Principal};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const KEY: &str = "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
pub(crate) const PATH: &str = "/api/v1/mcp/org-1";
/// Far more than anything here takes; for waiting, not for measuring.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running backend with its own worker.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
    folder: tempfile::TempDir,
    keys: AssertionKeys,
}

pub(crate) fn command() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_mcp-backend")))
}

/// The stock worker, which cargo puts beside the backend (after `cargo build --release --workspace --bins`).
pub(crate) fn worker() -> Command {
    program(&Path::new(env!("CARGO_BIN_EXE_mcp-backend")).with_file_name("worker"))
}

fn program(file: &Path) -> Command {
    let mut command = Command::new(file);
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(crate) fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Backend {
    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command()
            .arg("--embedded-worker")
            .args(args)
            .env("ASGARD_LISTEN", address.to_string())
            .env("ASGARD_ASSERTION_KEYS", KEY)
            .env("ASGARD_JOURNAL", folder.path().join("journal"))
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let backend = Self { address, child, folder, keys: AssertionKeys::parse(KEY).unwrap() };
        wait("it is ready", async || backend.ready().await.is_some_and(|(status, _)| status == 200)).await;
        backend
    }

    /// What `/readyz` says; none when nobody answers.
    pub(crate) async fn ready(&self) -> Option<(u16, Value)> {
        let answer = http().get(format!("http://{}/readyz", self.address)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The tools' journal.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("journal")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A number out of `/proc/…/status`, in bytes.
    pub(crate) fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// What the gateway says of a user.
    pub(crate) fn assertion(
        &self,
        user: &str,
        method: &str,
        path: &str,
        mcp: Option<(&str, &str)>,
    ) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.keys.sign(&Assertion {
            principal: Principal::new("https://issuer.example", user, "org-1"),
            audience: identity::assertion::AUDIENCE.into(),
            entry_point: EntryPoint::Bifrost,
            method: method.into(),
            path: path.into(),
            mcp_method: mcp.map(|(method, _)| method.into()),
            mcp_name: mcp.map(|(_, name)| name.to_owned()).filter(|name| !name.is_empty()),
            issued_at: now,
            expires_at: now + identity::assertion::LIFE,
        })
    }

    /// A tool call of 2026-07-28.
    pub(crate) fn call(&self, user: &str, tool: &str, arguments: Value) -> reqwest::RequestBuilder {
        self.modern(user, "tools/call", tool, json!({"name": tool, "arguments": arguments}))
    }

    /// A request of 2026-07-28.
    pub(crate) fn modern(
        &self,
        user: &str,
        method: &str,
        name: &str,
        params: Value,
    ) -> reqwest::RequestBuilder {
        let mut params = params;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
            "progressToken": "p",
        });
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let request = self
            .post(user, Some((method, name)), &body)
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if name.is_empty() { request } else { request.header("mcp-name", name) }
    }

    /// A POST with any message.
    pub(crate) fn post(
        &self,
        user: &str,
        mcp: Option<(&str, &str)>,
        body: &Value,
    ) -> reqwest::RequestBuilder {
        http()
            .post(format!("http://{}{PATH}", self.address))
            .header(identity::assertion::HEADER, self.assertion(user, "POST", PATH, mcp))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body.to_string())
    }

    /// A GET for a stream.
    pub(crate) fn get(&self, user: &str, path: &str) -> reqwest::RequestBuilder {
        http()
            .get(format!("http://{}{path}", self.address))
            .header(identity::assertion::HEADER, self.assertion(user, "GET", path, None))
            .header("accept", "text/event-stream")
    }

    /// Begins an upload: the head, and a part of the body.
    pub(crate) async fn upload(&self, user: &str, announced: usize, part: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\n{}: {}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {announced}\r\n\r\n",
            identity::assertion::HEADER,
            self.assertion(user, "POST", PATH, None)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refusal may come before all is written, with the end of the connection.
        let _ = stream.write_all(part).await;
        stream
    }
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Waits until it is so.
pub(crate) async fn wait(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    while !so().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
