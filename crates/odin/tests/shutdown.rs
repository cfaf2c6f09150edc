//! Front ends and workers end when they are shut down or dropped: no task, no thread, no connection is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kit::site::{front_config, memory, over};
use kit::values::{request, with_meta};
use kit::{RedisServer, wait};
use odin::broadcast::BroadcastKey;
use odin::front::Front;
use odin::runner::RmcpRunner;
use odin::serve;
use odin::store::Store;
use odin::worker::Worker;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::json;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

/// Threads and sockets are counted of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A server whose one tool waits until it is let go.
#[derive(Default)]
struct Server {
    started: AtomicUsize,
    dropped: AtomicUsize,
    go: Notify,
}

struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn tool() -> Tool {
    let schema = Arc::new(json!({ "type": "object" }).as_object().cloned().unwrap());
    Tool::new("wait", "Waits.", schema)
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![tool()]))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == "wait").then(tool)
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.started.fetch_add(1, Ordering::SeqCst);
        let _dropped = Dropped(&self.dropped);
        self.go.notified().await;
        Ok(CallToolResult::success(Vec::new()).into())
    }
}

/// Threads of this process that keep leases.
fn beats() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    threads.filter_map(name).filter(|name| name.trim_end() == "beat").count()
}

/// Open sockets of this process.
fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let target = |file: std::fs::DirEntry| std::fs::read_link(file.path()).ok();
    files.filter_map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn front(store: Arc<dyn Store>) -> Arc<Front> {
    let mut config = front_config(BroadcastKey::random());
    config.hold_after = Duration::from_millis(50);
    Front::start(config, store, None)
}

fn worker(store: Arc<dyn Store>, runner: Arc<RmcpRunner<Server>>) -> Worker {
    kit::site::worker(store.clone(), store, runner, None)
}

async fn call(address: std::net::SocketAddr) -> reqwest::Result<reqwest::Response> {
    let params = with_meta(json!({"name": "wait", "arguments": {}}), json!({}));
    let body = request(1, "tools/call", params);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("http://{address}/api/v1/mcp/org-1")).body(body.to_string());
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "wait"),
    ];
    headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shut_down_or_let_go_of_leaves_nothing() {
    let _alone = ALONE.lock().await;
    let redis = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    for (over_redis, in_order) in [(false, true), (false, false), (true, true), (true, false)] {
        let what = format!("over Redis: {over_redis}, shut down: {in_order}");
        let open = sockets();
        let store = match over_redis {
            true => over(&redis),
            false => memory(),
        };
        let handler = Arc::new(Server::default());
        let runner = Arc::new(RmcpRunner::new(handler.clone()));
        let fronts: Vec<_> = (0..4).map(|_| front(store.clone())).collect();
        let workers: Vec<_> = (0..4).map(|_| worker(store.clone(), runner.clone())).collect();
        wait(&what, async || {
            fronts.iter().all(|front| front.ready().is_ok())
                && workers.iter().all(|worker| worker.ready().is_ok())
        })
        .await;
        assert_eq!(beats(), 4);
        // A call that does not end, and its stream.
        let listener = serve::listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = serve::serve(listener, fronts[0].router(), stop.clone(), Duration::from_secs(1));
        let serving = tokio::spawn(serving);
        let stream = call(address).await.unwrap();
        assert_eq!(stream.status(), 200);
        wait("the tool runs", async || handler.started.load(Ordering::SeqCst) == 1).await;

        stop.cancel();
        if in_order {
            for worker in &workers {
                worker.shut_down(Duration::from_millis(200)).await;
                assert_eq!(worker.ready().unwrap_err(), "it is stopping");
            }
            for front in &fronts {
                front.shut_down(Duration::from_millis(200)).await;
                assert_eq!(front.ready().unwrap_err(), "it is stopping");
            }
        }
        // With handles still there, what was shut down has no thread and no task any more.
        if in_order {
            wait(&format!("no thread; {what}"), async || beats() == 0).await;
        }
        drop((workers, fronts, stream));
        serving.await.unwrap();
        wait(&format!("no thread; {what}"), async || beats() == 0).await;
        wait(&format!("the tool is dropped; {what}"), async || handler.dropped.load(Ordering::SeqCst) == 1)
            .await;
        wait(&format!("nobody has the runner; {what}"), async || Arc::strong_count(&runner) == 1).await;
        wait(&format!("nobody has the store; {what}"), async || Arc::strong_count(&store) == 1).await;
        drop(store);
        wait(&format!("no connection; {what}"), async || sockets() <= open).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_shut_down_ends_what_it_has_and_takes_nothing_more() {
    let _alone = ALONE.lock().await;
    let store = memory();
    let (first, second) = (Arc::new(Server::default()), Arc::new(Server::default()));
    let front = front(store.clone());
    let old = worker(store.clone(), Arc::new(RmcpRunner::new(first.clone())));
    let listener = serve::listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve::serve(listener, front.router(), CancellationToken::new(), Duration::ZERO);
    let serving = tokio::spawn(serving);
    let one = tokio::spawn(async move { call(address).await.unwrap().text().await.unwrap() });
    wait("the call runs", async || first.started.load(Ordering::SeqCst) == 1).await;

    let ending = old.clone();
    let ending = tokio::spawn(async move { ending.shut_down(Duration::from_secs(20)).await });
    wait("it is stopping", async || old.ready().is_err()).await;
    let other = tokio::spawn(async move { call(address).await.unwrap().text().await.unwrap() });
    let new = worker(store, Arc::new(RmcpRunner::new(second.clone())));
    wait("the other worker has the new call", async || second.started.load(Ordering::SeqCst) == 1).await;
    assert!(!ending.is_finished(), "it waits for its call");
    first.go.notify_one();
    assert!(one.await.unwrap().contains(r#""result""#));
    ending.await.unwrap();
    second.go.notify_one();
    assert!(other.await.unwrap().contains(r#""result""#));
    assert_eq!((first.started.load(Ordering::SeqCst), second.started.load(Ordering::SeqCst)), (1, 1));
    new.shut_down(Duration::from_secs(20)).await;
    wait("no thread", async || beats() == 0).await;
    serving.abort();
}

/// A server whose tool blocks its thread for ever.
struct Blocked;

impl ServerHandler for Blocked {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == "wait").then(tool)
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        eprintln!("BLOCKED");
        loop {
            std::thread::park();
        }
    }
}

/// Ended with the test, whatever becomes of that.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `a_tool_that_blocks_its_thread_does_not_keep_the_process` runs in a process of its own.
#[test]
#[ignore = "a program, not a test"]
fn blocked_program() {
    use clap::Parser;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let program = odin::Program::parse_from(["blocked"]);
    runtime.block_on(program.serve(Blocked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_blocks_its_thread_does_not_keep_the_process() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "blocked_program", "--nocapture"])
        .env("ASGARD_LISTEN", address.to_string())
        .env_remove("ASGARD_REDIS_URL")
        .stdout(std::process::Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let said = |what: &str| std::fs::read_to_string(log.path()).unwrap().contains(what);
    wait("the program listens", async || said("listening")).await;
    let calling = tokio::spawn(call(address));
    wait("its tool blocks", async || said("BLOCKED")).await;
    let pid = rustix::process::Pid::from_raw(child.0.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut ended = None;
    wait("the process ends", async || {
        ended = child.0.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert!(said("is ended with the process"), "{ended:?}");
    assert_eq!(ended.unwrap().code(), Some(1));
    calling.abort();
}
