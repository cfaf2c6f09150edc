//! Small servers and a client on the loopback interface, byte by byte: the requests of the table are
//! partly such as no proper client would send.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{Answer, Sent};

/// Sends one request on a connection of its own and reads the whole answer.
pub fn send(port: u16, sent: &Sent, more: &[(&str, &str)]) -> std::io::Result<Answer> {
    let mut stream = connect(port)?;
    stream.write_all(bytes(sent, more, "close").as_bytes())?;
    receive(&mut BufReader::new(stream))
}

/// Sends the same request so many times, one after the other on one connection.
pub fn send_many(port: u16, sent: &Sent, times: usize) -> std::io::Result<()> {
    let stream = connect(port)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let request = bytes(sent, &[], "keep-alive");
    for _ in 0..times {
        stream.write_all(request.as_bytes())?;
        receive(&mut reader)?;
    }
    Ok(())
}

/// A connection that gives up after a while.
fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn bytes(sent: &Sent, more: &[(&str, &str)], connection: &str) -> String {
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: {connection}\r\n", sent.method, sent.target);
    if sent.hosts.is_empty() {
        head.push_str("Host: localhost:8000\r\n");
    }
    for host in &sent.hosts {
        head.push_str(&format!("Host: {host}\r\n"));
    }
    let pairs = sent.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in pairs.chain(more.iter().copied()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = match (sent.method.as_str(), &sent.body) {
        ("POST", Some(body)) => body.as_str(),
        ("POST", None) => r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        _ => "",
    };
    head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    head
}

fn receive(reader: &mut BufReader<TcpStream>) -> std::io::Result<Answer> {
    let (first, headers) = head_of(reader)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let header = |wanted: &str| {
        headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let mut body = Vec::new();
    let (length, chunked) =
        (header("content-length").parse().ok(), header("transfer-encoding").contains("chunked"));
    // A stream goes on for ever: that it began is enough.
    let stream = header("content-type").starts_with("text/event-stream");
    match length {
        Some(length) => {
            reader.take(length).read_to_end(&mut body)?;
        }
        None if stream => {}
        None if chunked => body = chunks(reader)?,
        None => {
            reader.read_to_end(&mut body)?;
        }
    }
    Ok(Answer { status, headers, body })
}

fn chunks(reader: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16).unwrap_or(0);
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

type Head = (String, Vec<(String, String)>);

fn head_of(reader: &mut impl std::io::BufRead) -> std::io::Result<Head> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let first = line.trim_end().to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
            return Ok((first, headers));
        }
        if let Some((name, value)) = line.trim_end().split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

/// A server that keeps the heads of all its requests and answers as it was set up.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    answer: Option<(u16, String)>,
    introspects: bool,
    seen: Vec<Head>,
}

impl Server {
    /// Starts it; it ends with the process.
    pub fn start(status: u16, body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            answer: Some((status, body)),
            introspects: false,
            seen: Vec::new(),
        }));
        let server = Self { port, state };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        server
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        let head = head_of(&mut reader)?;
        if head.0.is_empty() {
            return Ok(());
        }
        let length = head.1.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
        let mut question = String::new();
        reader.take(length).read_to_string(&mut question)?;
        let answer = {
            let mut state = self.state.lock().unwrap();
            let asked = state.introspects && head.0.contains("/introspect");
            state.seen.push(head);
            if asked { Some(crate::introspection(&question)) } else { state.answer.clone() }
        };
        // Without an answer the connection is cut.
        if let Some((status, body)) = answer {
            write!(
                writer,
                "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        Ok(())
    }

    /// The same, which answers questions about tokens (under `/introspect`) as the rows want.
    pub fn introspecting(self) -> Self {
        self.state.lock().unwrap().introspects = true;
        self
    }

    /// What it answers from now on; `None`: it cuts the connection.
    pub fn answer(&self, answer: Option<(u16, String)>) {
        self.state.lock().unwrap().answer = answer;
    }

    /// How many requests it got.
    pub fn count(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    /// The headers of the request that has this one.
    pub fn find(&self, name: &str, value: &str) -> Option<Vec<(String, String)>> {
        let state = self.state.lock().unwrap();
        let wanted = |(known, own): &(String, String)| known == name && own == value;
        state.seen.iter().find(|(_, headers)| headers.iter().any(wanted)).map(|(_, headers)| headers.clone())
    }
}

/// A port that nobody listens on, now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a condition holds, at most so many seconds.
pub fn wait(seconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}
