//! The files that `kong/` puts into Kong's nginx, unmodified, in Debian's nginx with its Lua module.
//!
//! Needs `nginx` and `libnginx-mod-http-lua`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use asgard::config::Settings;
use asgard::config::kong::{Files, files};
use asgard::render::{render_template, values};
use common::{Seen, Server, dead_address, eventually, read, request, root, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const TICKET: &str = "0123456789abcdef0123456789abcdef";
const MISSING: &str = "nginx with its Lua module is missing: apt-get install nginx libnginx-mod-http-lua";

/// nginx in a folder of its own, which ends with the value.
struct Nginx {
    address: SocketAddr,
    process: Child,
    folder: tempfile::TempDir,
}

impl Nginx {
    async fn start(backend: SocketAddr, holds: &[SocketAddr]) -> Self {
        let version = Command::new("nginx").arg("-V").output().expect(MISSING);
        let version = String::from_utf8_lossy(&version.stderr).into_owned();
        let modules = version.split("--modules-path=").nth(1).and_then(|s| s.split_whitespace().next());
        let modules = modules.expect(MISSING);
        let load = ["ndk_http_module.so", "ngx_http_lua_module.so"].map(|name| {
            let path = format!("{modules}/{name}");
            assert!(std::path::Path::new(&path).exists(), "{path}: {MISSING}");
            format!("load_module {path};")
        });

        let address = dead_address();
        let lua: Vec<String> = pre_function()
            .iter()
            .map(|chunk| format!("            assert(load([==[{chunk}]==], 'pre-function', 't', sandbox))()"))
            .collect();
        let values = values([
            ("PRE_FUNCTION", lua.join("\n")),
            ("LOAD_MODULES", load.join("\n")),
            ("BACKEND_HOST", backend.ip().to_string()),
            ("BACKEND_PORT", backend.port().to_string()),
            ("LISTEN", address.to_string()),
            ("CLIENT_TIMES", client_times()),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let shipped = shipped(holds);
        let main = render_template(&root().join("tests/kong-host/tests/nginx.conf.in"), &values).unwrap();
        for (name, text) in shipped.read_by_kong().into_iter().chain([("nginx.conf", &*main)]) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let process = Command::new("nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .expect(MISSING);
        let nginx = Self { address, process, folder };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(common::PATIENCE, up).await.is_err() {
            panic!("nginx did not start: {}", nginx.log());
        }
        nginx
    }

    fn log(&self) -> String {
        ["stderr", "error.log"]
            .map(|f| std::fs::read_to_string(self.folder.path().join(f)).unwrap_or_default())
            .join("\n")
    }

    /// How often the rewrite and access phases of the gateway ran since the last question.
    async fn counts(&self) -> String {
        send(self.address, request("GET", "/test/counts", &[], b"")).await.body().await.trim().to_owned()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM ends the workers too; `kill` of the standard library would leave them.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// The times of what clients send, as kong.env gives them to nginx.
fn client_times() -> String {
    let env = read("kong/kong.env.in");
    let times = env.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("KONG_NGINX_HTTP_")?.split_once('=')?;
        (name.starts_with("CLIENT_") && name.ends_with("_TIMEOUT"))
            .then(|| format!("{} {value};", name.to_lowercase()))
    });
    times.collect::<Vec<_>>().join("\n    ")
}

/// Kong's files, filled in with these Pushpins.
fn shipped(holds: &[SocketAddr]) -> Files {
    let settings = Settings {
        pushpins: holds.iter().map(SocketAddr::to_string).collect(),
        ..kong_host::setup::settings(&root(), "[]".to_owned())
    };
    files(&settings, &kong_host::setup::place()).unwrap()
}

/// The chunks of Lua that kong.yml gives to pre-function at the MCP routes.
fn pre_function() -> Vec<String> {
    let config: serde_json::Value = serde_yaml_ng::from_str(&shipped(&[]).kong_yml).unwrap();
    let services = config["services"].as_array().unwrap();
    let plugins = services.iter().find(|s| s["name"] == "mcp").unwrap()["plugins"].as_array().unwrap();
    let function = plugins.iter().find(|p| p["name"] == "pre-function").unwrap();
    serde_json::from_value(function["config"]["access"].clone()).unwrap()
}

fn hand_over(lease: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nX-Accel-Redirect: @hermod\r\nX-Lease: {lease}\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}

const EVENT: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 14\r\n\r\ndata: result\n\n";

fn call(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    request("POST", "/api/v1/mcp/org-1", headers, body)
}

fn assert_hold(seen: &Seen) {
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", &*format!("/_hermod/hold/{TICKET}")));
    assert_eq!(seen.all("host"), ["hermod"]);
    assert!(seen.body.is_empty());
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn a_hand_over_is_streamed_at_once_and_passes_the_named_headers_alone() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let (go, next) = oneshot::channel::<()>();
    let next = Arc::new(tokio::sync::Mutex::new(Some(next)));
    let hold = Server::start(move |_, mut stream| {
        let next = next.clone();
        async move {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nMcp-Session-Id: s2\r\n\
                Transfer-Encoding: chunked\r\n\r\nf\r\ndata: first..\n\n\r\n";
            stream.write_all(head).await.unwrap();
            next.lock().await.take().unwrap().await.unwrap();
            stream.write_all(b"d\r\ndata: second\n\r\n0\r\n\r\n").await.unwrap();
            Some(stream)
        }
    })
    .await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    nginx.counts().await;

    let cookie = "c".repeat(6000);
    let sent = [
        ("Accept", "application/json, text/event-stream"),
        ("Authorization", "Bearer secret"),
        ("Content-Type", "application/json"),
        ("Cookie", &cookie),
        ("Idempotency-Key", "k"),
        ("Last-Event-ID", "e-7"),
        ("MCP-Protocol-Version", "2025-11-25"),
        ("Mcp-Session-Id", "s1"),
        ("Origin", "http://localhost:6274"),
        ("Transfer-Test", "x"),
        ("User-Agent", "test"),
        ("X-Asgard-Identity", "forged"),
        ("X-Userinfo", "forged"),
    ];
    let mut answer = send(nginx.address, call(&sent, b"{}")).await;
    assert_eq!(answer.status, 200, "{}", nginx.log());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("mcp-session-id"), Some("s2"));
    assert_eq!(answer.header("x-header-filter"), Some("once"));
    assert!(answer.header("x-accel-redirect").is_none() && answer.header("x-lease").is_none());

    // The second event is not sent before the first has arrived.
    answer.until("data: first..").await;
    go.send(()).unwrap();
    assert_eq!(answer.body().await, "data: first..\n\ndata: second\n");

    let seen = hold.seen();
    assert_eq!(seen.len(), 1);
    assert_hold(&seen[0]);
    let passed = [
        "accept",
        "host",
        "last-event-id",
        "mcp-protocol-version",
        "mcp-session-id",
        "origin",
        "x-asgard-identity",
    ];
    assert_eq!(seen[0].names(), passed);
    assert_eq!(seen[0].all("x-asgard-identity"), ["signed"]);
    assert_eq!(seen[0].all("mcp-session-id"), ["s1"]);
    assert_eq!(seen[0].all("last-event-id"), ["e-7"]);
    assert_eq!(seen[0].all("accept"), ["application/json, text/event-stream"]);

    // Routing, plugins and filter ran once for the two requests.
    assert_eq!(nginx.counts().await, "rewrite=1 access=1");
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn what_the_client_did_not_send_is_not_sent_on() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let hold = Server::fixed(EVENT).await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    assert_eq!(send(nginx.address, call(&[], b"{}")).await.body().await, "data: result\n\n");
    assert_eq!(hold.seen()[0].names(), ["host", "x-asgard-identity"]);

    // The same for a GET stream and a DELETE, which have no body of their own.
    for method in ["GET", "DELETE"] {
        let answer = send(nginx.address, request(method, "/api/v1/mcp/org-1", &[], b"")).await;
        assert_eq!(answer.body().await, "data: result\n\n");
    }
    hold.seen().iter().for_each(assert_hold);
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn connections_to_the_hold_server_are_used_again() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let hold = Server::fixed(EVENT).await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    for _ in 0..20 {
        assert_eq!(send(nginx.address, call(&[], b"{}")).await.body().await, "data: result\n\n");
    }
    assert_eq!((hold.seen().len(), hold.connections()), (20, 1));
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn a_large_body_reaches_the_backend_and_not_the_hold_server() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let hold = Server::fixed(EVENT).await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    let body = vec![b'x'; 2 << 20];
    assert_eq!(send(nginx.address, call(&[], &body)).await.body().await, "data: result\n\n");
    assert_eq!(backend.seen()[0].body.len(), body.len());
    assert_eq!(hold.seen()[0].names(), ["host", "x-asgard-identity"]);
    assert_hold(&hold.seen()[0]);
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn a_client_cannot_reach_the_hold_server() {
    let backend = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let hold = Server::fixed(EVENT).await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    for target in [
        &*format!("/_hermod/hold/{TICKET}"),
        &*format!("//_hermod/hold/{TICKET}"),
        &*format!("/%5fhermod/hold/{TICKET}"),
        &*format!("/api/../_hermod/hold/{TICKET}"),
        "/@hermod",
        "/%40hermod",
        "@hermod",
    ] {
        for method in ["GET", "POST"] {
            let answer = send(nginx.address, request(method, target, &[("X-Lease", TICKET)], b"")).await;
            assert!([400, 404].contains(&answer.status), "{method} {target}: {}", answer.status);
        }
    }
    // Nor by sending the backend's words itself.
    let forged = [("X-Accel-Redirect", "@hermod"), ("X-Lease", TICKET)];
    assert_eq!(send(nginx.address, call(&forged, b"{}")).await.body().await, "ok");
    assert_eq!(hold.connections(), 0);
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn only_a_ticket_is_a_ticket() {
    let hold = Server::fixed(EVENT).await;
    let bad = [
        "",
        "../../admin",
        &TICKET[1..],
        &*format!("{TICKET}0"),
        &*TICKET.to_uppercase(),
        &*format!("{}/", &TICKET[1..]),
        &*format!("{}?", &TICKET[1..]),
        &*format!("{}#", &TICKET[1..]),
        &*format!("{} ", &TICKET[1..]),
        &*format!("{TICKET} HTTP/1.1"),
        &*format!("{TICKET}%0d%0a"),
    ];
    for lease in bad {
        let backend = Server::fixed(hand_over(lease)).await;
        let nginx = Nginx::start(backend.address, &[hold.address]).await;
        assert_eq!(send(nginx.address, call(&[], b"{}")).await.status, 502, "{lease:?}");
    }
    let backend =
        Server::fixed("HTTP/1.1 200 OK\r\nX-Accel-Redirect: @hermod\r\nContent-Length: 0\r\n\r\n").await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    assert_eq!(send(nginx.address, call(&[], b"{}")).await.status, 502);
    assert_eq!(hold.connections(), 0);
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn a_connection_that_died_at_rest_is_made_again() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    // The second request on a connection is not answered: the server closes, as one that was restarted does.
    let count = Arc::new(AtomicUsize::new(0));
    let hold = Server::start(move |_, mut stream| {
        let count = count.clone();
        async move {
            if count.fetch_add(1, Ordering::SeqCst) == 1 {
                return None;
            }
            stream.write_all(EVENT).await.is_ok().then_some(stream)
        }
    })
    .await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    for _ in 0..3 {
        assert_eq!(
            send(nginx.address, call(&[], b"{}")).await.body().await,
            "data: result\n\n",
            "{}",
            nginx.log()
        );
    }
    let connections: Vec<usize> = hold.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1]);
    hold.seen().iter().for_each(assert_hold);
    assert_eq!(backend.seen().len(), 3, "a retry of the hold does not repeat the call");
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn a_dead_hold_server_is_passed_over() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let hold = Server::fixed(EVENT).await;
    let nginx = Nginx::start(backend.address, &[dead_address(), hold.address]).await;
    for _ in 0..6 {
        assert_eq!(send(nginx.address, call(&[], b"{}")).await.body().await, "data: result\n\n");
    }
    assert_eq!(hold.seen().len(), 6);

    // A server that takes the request and closes without an answer counts as dead, though the client's was a POST.
    let closing = Server::start(|_, _| async { None }).await;
    let nginx = Nginx::start(backend.address, &[closing.address, hold.address]).await;
    for _ in 0..4 {
        assert_eq!(send(nginx.address, call(&[], b"{}")).await.body().await, "data: result\n\n");
    }
    assert!(!closing.seen().is_empty());
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn with_no_hold_server_the_client_gets_502() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let nginx = Nginx::start(backend.address, &[dead_address()]).await;
    let answer = send(nginx.address, call(&[], b"{}")).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.body().await, "error of the gateway\n");
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn the_hold_answer_is_final() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let loops = format!(
        "HTTP/1.1 404 Not Found\r\nX-Accel-Redirect: @hermod\r\nX-Lease: {TICKET}\r\nContent-Length: 4\r\n\r\ngone"
    );
    let hold = Server::fixed(loops).await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    let answer = send(nginx.address, call(&[], b"{}")).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.body().await, "gone");
    assert_eq!(hold.seen().len(), 1);
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn a_client_that_leaves_is_seen_by_the_hold_server() {
    let backend = Server::fixed(hand_over(TICKET)).await;
    let (left, mut gone) = mpsc::unbounded_channel();
    let hold = Server::start(move |_, mut stream| {
        let left = left.clone();
        async move {
            let head =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\n:\n\n\r\n";
            stream.write_all(head).await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
            let _ = left.send(());
            None
        }
    })
    .await;
    let nginx = Nginx::start(backend.address, &[hold.address]).await;
    let mut answer = send(nginx.address, call(&[], b"{}")).await;
    answer.until(":\n\n").await;
    drop(answer);
    tokio::time::timeout(common::PATIENCE, gone.recv()).await.expect("the hold server sees it").unwrap();
    eventually("one hold", || hold.seen().len() == 1).await;
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn without_the_filters_key_nobody_is_reached() {
    // The lock of kong.yml: what pre-function writes, and what the Service says, when no filter opens it.
    let backend = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let nginx = Nginx::start(backend.address, &[dead_address()]).await;
    let closed = send(nginx.address, call(&[("X-Test-Filter", "missing")], b"{}")).await;
    assert_eq!(closed.status, 500);
    assert_eq!(backend.connections(), 0, "not even a connection");
    assert!(
        nginx.log().contains("invalid URL prefix in \"closed-until-the-filter-ran://"),
        "{}",
        nginx.log()
    );

    let https = send(nginx.address, call(&[("X-Test-Filter", "https")], b"{}")).await;
    assert_eq!(https.status, 502);
    assert!(backend.seen().is_empty());

    assert_eq!(send(nginx.address, call(&[("X-Test-Filter", "http")], b"{}")).await.body().await, "ok");
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn more_headers_than_a_filter_would_see_are_refused() {
    let backend = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let nginx = Nginx::start(backend.address, &[dead_address()]).await;
    let names: Vec<String> = (0..100).map(|i| format!("X-{i}")).collect();
    // `request` adds two of its own: Host and Content-Length.
    for (count, status) in [(88, 200), (89, 431), (100, 431)] {
        let headers: Vec<_> = names.iter().take(count).map(|n| (n.as_str(), "x")).collect();
        assert_eq!(send(nginx.address, call(&headers, b"{}")).await.status, status, "{count}");
    }
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test]
#[ignore = "needs nginx: ./asgard test kong"]
async fn uploads_have_a_time_and_answers_have_none() {
    // Longer than the pause that a body may have.
    const PAUSE: Duration = Duration::from_secs(12);
    assert_eq!(client_times(), "client_header_timeout 15s;\n    client_body_timeout 10s;");
    let backend = Server::start(|_, mut stream| async move {
        let head =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
            f\r\ndata: first..\n\n\r\n";
        stream.write_all(head).await.unwrap();
        tokio::time::sleep(PAUSE).await;
        stream.write_all(b"d\r\ndata: second\n\r\n0\r\n\r\n").await.unwrap();
        Some(stream)
    })
    .await;
    let nginx = Nginx::start(backend.address, &[dead_address()]).await;
    let answer = async { send(nginx.address, call(&[], b"{}")).await.body().await };
    let upload = async {
        let mut stream = TcpStream::connect(nginx.address).await.unwrap();
        let head = "POST /api/v1/mcp/org-1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let ended = tokio::time::timeout(PAUSE * 4, stream.read_to_end(&mut said)).await;
        ended.expect("nginx ends a body that stops").unwrap();
        String::from_utf8_lossy(&said).into_owned()
    };
    let (answer, said) = tokio::join!(answer, upload);
    assert_eq!(answer, "data: first..\n\ndata: second\n");
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    // No backend saw the half of it.
    assert_eq!(backend.seen().len(), 1);
}
