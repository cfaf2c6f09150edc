//! A real Pushpin for tests, started from the templates in the repository's folder `pushpin/`.
//!
//! Needs the program `pushpin` on the PATH (and what it starts: condure, zurl).

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use grip::Endpoint;

const CONFIGURATION: &str = include_str!("../../../pushpin/pushpin.conf.in");
const ROUTES: &str = include_str!("../../../pushpin/routes.in");
const VALUES: &str = include_str!("../../../pushpin/native.env");

/// The `sig_iss` of every Pushpin that is started here.
pub const ISSUER: &str = "pushpin";

/// The `sig_key` of every Pushpin that is started here.
pub const KEY: &[u8; 32] = b"a key for tests, of 32 bytes ...";

/// The same in base64url, as our programs take it.
#[must_use]
pub fn key() -> String {
    URL_SAFE_NO_PAD.encode(KEY)
}

const READY: Duration = Duration::from_secs(20);

/// A host whose requests Pushpin's built-in test handler answers. Never in a real configuration: that handler
/// lets anyone listen on any channel.
const READY_HOST: &str = "ready.invalid";

/// A Pushpin with a folder and ports of its own. It is killed when dropped.
#[derive(Debug)]
pub struct Pushpin {
    folder: TempDir,
    ports: Ports,
    by_socket: bool,
    process: Option<Child>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    pull: u16,
    publish: u16,
    sub: u16,
    command: u16,
    stats: u16,
    metrics: u16,
}

impl Pushpin {
    /// Starts a Pushpin and waits until all its ports answer. `backends` (at least one) and `gateway` are
    /// addresses such as `127.0.0.1:8081`.
    ///
    /// # Errors
    /// The program is missing, or was not ready within 20 s; the error has the end of its logs.
    pub async fn start(backends: &[String], gateway: &str) -> Result<Self> {
        Self::start_with(backends, gateway, false).await
    }

    /// The same; `by_socket`: publishers connect by a Unix socket in its folder.
    ///
    /// # Errors
    /// As for [`Pushpin::start`].
    pub async fn start_with(backends: &[String], gateway: &str, by_socket: bool) -> Result<Self> {
        let mut attempts = 3;
        loop {
            attempts -= 1;
            match Self::try_start(backends, gateway, by_socket).await {
                // Somebody else took one of the ports meanwhile.
                Err(error) if attempts > 0 && error.kind() == ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }

    async fn try_start(backends: &[String], gateway: &str, by_socket: bool) -> Result<Self> {
        let [http, pull, publish, sub, command, stats, metrics] = free_ports()?;
        let ports = Ports { http, pull, publish, sub, command, stats, metrics };
        // Short, because the names of Unix sockets inside have a limit of 107 bytes.
        let folder = tempfile::Builder::new().prefix("pp").tempdir()?;
        let mut pushpin = Self { folder, ports, by_socket, process: None };
        pushpin.write_file("pushpin.conf", &pushpin.fill(CONFIGURATION, backends, gateway)?)?;
        let routes = pushpin.fill(ROUTES, backends, gateway)?;
        pushpin.write_file("routes", &format!("{routes}\n{READY_HOST} test\n"))?;
        pushpin.run().await?;
        Ok(pushpin)
    }

    /// Where clients connect.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        local(self.ports.http)
    }

    /// Where publishers connect by ZeroMQ.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        if self.by_socket {
            return Endpoint::Ipc { path: self.path("run/sub") };
        }
        Endpoint::Tcp { host: Ipv4Addr::LOCALHOST.to_string(), port: self.ports.sub }
    }

    /// Where publishers post to.
    #[must_use]
    pub fn http_endpoint(&self) -> Endpoint {
        Endpoint::Http {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.ports.publish,
            path: "/publish/".to_owned(),
        }
    }

    /// Runs it (again), with the same ports and configuration, and waits until it is ready.
    ///
    /// # Errors
    /// As for [`Pushpin::start`].
    pub async fn run(&mut self) -> Result<()> {
        self.kill()?;
        let log = std::fs::File::create(self.folder.path().join("out"))?;
        let process = Command::new("pushpin")
            .arg(format!("--config={}", self.path("pushpin.conf")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Not in the terminal's group: Ctrl-C is the test's own affair.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::other(format!("can't start pushpin (is it installed?): {error}")))?;
        self.process = Some(process);
        let deadline = Instant::now() + READY;
        let mut wait = Duration::from_millis(20);
        while let Err(error) = self.ready().await {
            if self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None))) {
                let logs = self.logs();
                let taken = logs.contains("unable to bind") || logs.contains("in use");
                let kind = if taken { ErrorKind::AddrInUse } else { ErrorKind::Other };
                return Err(Error::new(kind, format!("Pushpin ended: {logs}")));
            }
            if Instant::now() > deadline {
                return Err(Error::other(format!("Pushpin is not ready: {error}; {}", self.logs())));
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Kills it with all its programs, at once (SIGKILL).
    ///
    /// # Errors
    /// The operating system's.
    pub fn kill(&mut self) -> Result<()> {
        let process = self.process.take();
        // A program may be starting another while it is looked for.
        while self.signal(Signal::KILL)? > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(mut process) = process {
            process.wait()?;
        }
        Ok(())
    }

    /// Stops all its programs where they are (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// The operating system's.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        Ok(())
    }

    /// Lets them go on (SIGCONT).
    ///
    /// # Errors
    /// The operating system's.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)?;
        Ok(())
    }

    /// A counter of Pushpin's, such as `request_received` (requests of clients since the start),
    /// `connection_connected` (open connections) or `message_sent`.
    ///
    /// # Errors
    /// The endpoint does not answer, or has no such counter.
    pub async fn metric(&self, name: &str) -> Result<u64> {
        let mut stream = TcpStream::connect(local(self.ports.metrics)).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        timeout(READY, stream.read_to_string(&mut text)).await??;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| Error::other(format!("no counter {name} in {text}")))
    }

    /// What its programs wrote into their logs.
    #[must_use]
    pub fn logs(&self) -> String {
        ["out", "log/condure.log", "log/zurl.log", "log/pushpin-proxy.log", "log/pushpin-handler.log"]
            .map(|file| {
                let text = std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
                let start = text.len().saturating_sub(2000);
                format!("{file}: {}\n", text.get(start..).unwrap_or_default())
            })
            .concat()
    }

    /// Pushpin's programs find each other only after their ports are open. Until then holds are answered with 500,
    /// and streams are cut because messages between the programs are lost. So a stream is tried that is larger
    /// than the buffers, which takes every way in both directions.
    async fn ready(&self) -> Result<()> {
        let Ports { pull, sub, metrics, .. } = self.ports;
        for port in [metrics, pull] {
            TcpStream::connect(local(port)).await?;
        }
        if self.by_socket {
            tokio::net::UnixStream::connect(self.path("run/sub")).await?;
        } else {
            TcpStream::connect(local(sub)).await?;
        }
        let mut stream = TcpStream::connect(self.http()).await?;
        let request = format!("GET /stream?channel=ready HTTP/1.1\r\nHost: {READY_HOST}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        read_until(&mut stream, b"[stream opened]\n").await?;
        let content = "-".repeat(200_000) + "!";
        self.post(&format!(r#"{{"channel":"ready","http-stream":{{"content":"{content}"}}}}"#)).await?;
        read_until(&mut stream, b"!").await?;
        // Its subscription must be gone before a publisher comes.
        sleep(grip::MIN_CLOSE_DELAY).await;
        self.post(r#"{"channel":"ready","http-stream":{"action":"close"}}"#).await?;
        // The last chunk.
        read_until(&mut stream, b"0\r\n\r\n").await
    }

    async fn post(&self, item: &str) -> Result<()> {
        let body = format!(r#"{{"items":[{item}]}}"#);
        let length = body.len();
        let head = format!("POST /publish/ HTTP/1.1\r\nHost: ready\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = TcpStream::connect(local(self.ports.publish)).await?;
        stream.write_all((head + &body).as_bytes()).await?;
        read_until(&mut stream, b"200 OK").await
    }

    /// Signals all its programs; says how many there were. Pushpin puts each of them into a process group of its
    /// own, and they outlive it when it is killed: so they are known by the folder in their command line.
    fn signal(&self, signal: Signal) -> Result<usize> {
        let folder = self.folder.path().as_os_str().as_bytes();
        let mut count = 0;
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?))
            else {
                continue;
            };
            // A process that is gone has no command line, and one that is a zombie an empty one.
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if command.windows(folder.len()).any(|part| part == folder) {
                count += usize::from(kill_process(pid, signal).is_ok());
            }
        }
        Ok(count)
    }

    /// Pushpin binds one address alone.
    fn sub(&self) -> String {
        if self.by_socket {
            format!("ipc://{}", self.path("run/sub"))
        } else {
            format!("tcp://{}", local(self.ports.sub))
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write_file(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.folder.path().join(name), text)
    }

    fn fill(&self, template: &str, backends: &[String], gateway: &str) -> Result<String> {
        let Ports { http, pull, publish, command, stats, metrics, .. } = self.ports;
        let own = [
            ("PUSHPIN_RUN", self.path("run")),
            ("PUSHPIN_LOG", self.path("log")),
            ("PUSHPIN_HTTP", format!("127.0.0.1:{http}")),
            ("PUSHPIN_PULL", format!("tcp://127.0.0.1:{pull}")),
            ("PUSHPIN_SUB", self.sub()),
            ("PUSHPIN_PUBLISH_PORT", publish.to_string()),
            ("PUSHPIN_COMMAND", format!("tcp://127.0.0.1:{command}")),
            ("PUSHPIN_STATS", format!("tcp://127.0.0.1:{stats}")),
            ("PUSHPIN_METRICS", format!("127.0.0.1:{metrics}")),
            ("GRIP_ISS", ISSUER.to_owned()),
            ("GRIP_KEY_BASE64", STANDARD.encode(KEY)),
            ("BACKENDS", backends.join(" ")),
            ("GATEWAY", gateway.to_owned()),
        ];
        let defaults = VALUES.lines().filter_map(|line| line.split_once('='));
        let values = own
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(defaults.filter(|(n, _)| !n.starts_with('#')));
        let mut text = template.to_owned();
        for (name, value) in values {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        match text.lines().find(|line| !line.starts_with('#') && line.contains("${")) {
            Some(line) => Err(Error::other(format!("a name of the template has no value: {line}"))),
            None => Ok(text),
        }
    }
}

impl Drop for Pushpin {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "can't kill Pushpin");
        }
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Reads until `end` has come.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let read = async {
        let mut text = Vec::new();
        while !text.windows(end.len()).any(|part| part == end) {
            if stream.read_buf(&mut text).await? == 0 {
                return Err(Error::other(format!("instead of a stream: {}", String::from_utf8_lossy(&text))));
            }
        }
        Ok(())
    };
    timeout(Duration::from_secs(1), read).await?
}

/// Ports that nobody uses, below those that the operating system gives to outgoing connections: a port must stay
/// free while Pushpin is restarted. No two calls in one process get the same.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Where a process begins is by chance, so that several at a time seldom meet. The hasher's seed is random.
    static FIRST: LazyLock<u16> =
        LazyLock::new(|| (RandomState::new().hash_one(std::process::id()) % 12_000) as u16);
    let mut ports = [0; N];
    let mut tries = 12_000;
    for port in &mut ports {
        *port = loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let candidate = 20_000 + FIRST.wrapping_add(next) % 12_000;
            if TcpListener::bind(local(candidate)).is_ok() {
                break candidate;
            }
            tries -= 1;
            if tries == 0 {
                return Err(Error::other("no free port"));
            }
        };
    }
    Ok(ports)
}
