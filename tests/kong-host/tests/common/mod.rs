//! Small HTTP/1.1 parts for the tests: a server that shows what exactly arrived, and a client that shows when.
//!
//! They are written by hand, because a library would hide what is tested: the very header lines, connections that
//! are closed at the wrong moment, bytes that arrive one by one.

#![allow(dead_code, unreachable_pub, reason = "a module that each test uses a part of")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a condition may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of a file under the repository's root.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Which connection of the server it came on, from 0.
    pub connection: usize,
}

impl Seen {
    /// All values of the header `name`.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The names of all headers, in lower case, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
        names.sort();
        names
    }
}

/// What a server does with a request: it answers on the stream and gives it back to keep the connection.
pub type Handler = Arc<dyn Fn(Seen, TcpStream) -> BoxFuture<'static, Option<TcpStream>> + Send + Sync>;

/// An HTTP server on a free port of 127.0.0.1, which notes all that it is asked.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Server {
    pub async fn start<F, T>(handler: F) -> Self
    where
        F: Fn(Seen, TcpStream) -> T + Send + Sync + 'static,
        T: Future<Output = Option<TcpStream>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |seen, stream| Box::pin(handler(seen, stream)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let task = tokio::spawn({
            let (seen, connections) = (seen.clone(), connections.clone());
            async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    let connection = {
                        let mut count = connections.lock().unwrap();
                        *count += 1;
                        *count - 1
                    };
                    tokio::spawn(connection_loop(stream, connection, handler.clone(), seen.clone()));
                }
            }
        });
        Self { address, seen, connections, task }
    }

    /// A server that answers each request with `response`, and keeps the connection.
    pub async fn fixed(response: impl Into<Vec<u8>>) -> Self {
        let response = Arc::new(response.into());
        Self::start(move |_, mut stream| {
            let response = response.clone();
            async move { stream.write_all(&response).await.is_ok().then_some(stream) }
        })
        .await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection_loop(
    mut stream: TcpStream,
    connection: usize,
    handler: Handler,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    loop {
        let Some(mut seen) = read_request(&mut stream).await else { return };
        seen.connection = connection;
        log.lock().unwrap().push(seen.clone());
        match handler(seen, stream).await {
            Some(back) => stream = back,
            None => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let head = read_head(stream).await?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = parse_headers(lines);
    let length = header(&headers, "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { method, target, headers, body, connection: 0 })
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.ok()?;
        if !byte.is_ascii() || (head.is_empty() && !byte.is_ascii_alphabetic()) {
            return None;
        }
        head.push(byte);
    }
    String::from_utf8(head).ok()
}

fn parse_headers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect()
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

/// A response whose body is still arriving.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    stream: TcpStream,
    raw: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// Reads on until the raw body holds `text`.
    pub async fn until(&mut self, text: &str) {
        let found = timeout(PATIENCE, async {
            while !self.text().contains(text) {
                if self.more().await == 0 {
                    panic!("the connection ended before {text:?}: {:?}", self.text());
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {text:?} in time: {:?}", self.text()));
    }

    /// Reads to the end and gives the whole body, without the marks of chunks.
    pub async fn body(mut self) -> String {
        let chunked = self.header("transfer-encoding").is_some_and(|v| v.contains("chunked"));
        let length = self.header("content-length").and_then(|v| v.parse::<usize>().ok());
        let done = timeout(PATIENCE, async {
            loop {
                let whole = match length {
                    Some(length) => self.raw.len() >= length,
                    None if chunked => self.raw.ends_with(b"0\r\n\r\n"),
                    None => false,
                };
                if whole || self.more().await == 0 {
                    return;
                }
            }
        });
        done.await.expect("the body ends in time");
        if chunked { dechunk(&self.raw) } else { self.text() }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    async fn more(&mut self) -> usize {
        self.stream.read_buf(&mut self.raw).await.unwrap_or(0)
    }
}

fn dechunk(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw).into_owned();
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        out.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap_or("");
    }
    out
}

/// Sends `request` (raw bytes) and reads the head of the answer.
pub async fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let work = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        let head = read_head(&mut stream).await.expect("an answer");
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, headers: parse_headers(lines), stream, raw: Vec::new() }
    };
    timeout(PATIENCE, work).await.expect("the head of an answer in time")
}

/// A request with a body, its length given. Its host is `localhost` if the headers name no other.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        out.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    [out.as_bytes(), body].concat()
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let work = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// An address of 127.0.0.1 where nothing listens.
pub fn dead_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
