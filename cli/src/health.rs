//! Health checks: is a part ready?

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of an answer that are read.
const MAX_BODY: usize = 16 << 10;
/// Reasons that are shown of one part.
const MAX_DEGRADED: usize = 8;

/// What shows that a part is ready.
#[derive(Debug, Clone)]
pub enum Probe {
    /// All of these accept a connection: addresses, and paths of Unix sockets.
    Open(Vec<String>),
    /// A GET of this URL is answered with 200. What a JSON body lists under `degraded` can't be done now.
    Http(String),
    /// The Redis at this Unix socket answers `PING` (it does not while it loads its data).
    Redis(PathBuf),
}

impl Probe {
    /// Checks once: `Ok` says what a part that is ready can't do now, `Err` what is missing, in a few words.
    ///
    /// # Errors
    /// When the part is not ready.
    pub async fn check(&self) -> Result<Vec<String>, String> {
        let check = async {
            match self {
                Self::Open(addresses) => {
                    for address in addresses {
                        let connected = if address.starts_with('/') {
                            UnixStream::connect(address).await.map(drop)
                        } else {
                            TcpStream::connect(address).await.map(drop)
                        };
                        connected.map_err(|e| format!("{address}: {e}"))?;
                    }
                    Ok(Vec::new())
                }
                Self::Http(url) => http(url).await,
                Self::Redis(socket) => {
                    redis(socket).await.map(|()| Vec::new()).map_err(|e| format!("{}: {e}", socket.display()))
                }
            }
        };
        match tokio::time::timeout(TIMEOUT, check).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }
}

/// An HTTP client for loopback: no proxy, bounded in time.
///
/// # Errors
/// When the client cannot be made (no system resolver).
pub fn http_client(timeout: Duration) -> crate::problem::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| crate::problem::Problem::new(format!("cannot make an HTTP client: {e}")))
}

/// One client for all checks: ten parts are checked each second, for as long as the stack runs.
static CHECKER: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    builder.redirect(reqwest::redirect::Policy::none()).build().map_err(|e| e.to_string())
});

async fn http(url: &str) -> Result<Vec<String>, String> {
    let mut response =
        CHECKER.as_ref().map_err(Clone::clone)?.get(url).send().await.map_err(|e| cause(&e))?;
    let status = response.status();
    let mut body = Vec::new();
    while body.len() < MAX_BODY
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    if status == reqwest::StatusCode::OK {
        return Ok(degraded(&body));
    }
    Err(format!("{url} answers {} {}", status.as_u16(), short(&String::from_utf8_lossy(&body))))
}

/// What a readiness document lists as degraded; nothing in any other body (Keycloak's, an empty one).
#[must_use]
pub fn degraded(body: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(default)]
        degraded: Vec<Degraded>,
    }
    #[derive(serde::Deserialize)]
    struct Degraded {
        part: String,
        reason: String,
    }
    let all = serde_json::from_slice::<Document>(body).map_or_else(|_| Vec::new(), |all| all.degraded);
    all.iter().take(MAX_DEGRADED).map(|one| short(&format!("{}: {}", one.part, one.reason))).collect()
}

/// Printable, and no longer than a line.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(240).collect()
}

async fn redis(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0_u8; 7];
    stream.read_exact(&mut answer).await?;
    if &answer == b"+PONG\r\n" { Ok(()) } else { Err(std::io::Error::other("it does not answer PING")) }
}

/// The innermost cause of an error of reqwest: "connection refused" instead of "error sending request".
#[must_use]
pub fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answering(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0_u8; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn http_wants_200_and_gives_the_reason() {
        let ok = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        Probe::Http(format!("http://{ok}/readyz")).check().await.unwrap();
        let bad = answering(b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nredis").await;
        let reason = Probe::Http(format!("http://{bad}/readyz")).check().await.unwrap_err();
        assert!(reason.contains("503 redis"), "{reason}");
    }

    #[tokio::test]
    async fn a_part_that_is_ready_may_be_degraded() {
        let degraded = answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 72\r\n\r\n\
              {\"ready\":true,\"degraded\":[{\"part\":\"pushpin\",\"reason\":\"it is\\naway\"}]}  ",
        )
        .await;
        let found = Probe::Http(format!("http://{degraded}/readyz")).check().await.unwrap();
        assert_eq!(found, ["pushpin: it isaway"]);
        for body in ["", "ok", "{}", "[]", r#"{"degraded":"x"}"#, r#"{"degraded":[]}"#] {
            assert!(super::degraded(body.as_bytes()).is_empty(), "{body}");
        }
    }

    #[tokio::test]
    async fn redis_must_have_loaded() {
        let folder = std::env::temp_dir().join(format!("asgard-health-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, answer, ready) in
            [("ok", &b"+PONG\r\n"[..], true), ("loading", b"-LOADING Redis is loading\r\n", false)]
        {
            let socket = folder.join(name);
            let listener = tokio::net::UnixListener::bind(&socket).unwrap();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 64]).await;
                    let _ = stream.write_all(answer).await;
                }
            });
            Probe::Open(vec![socket.display().to_string()]).check().await.unwrap();
            assert_eq!(Probe::Redis(socket).check().await.is_ok(), ready, "{name}");
        }
        assert!(Probe::Redis(folder.join("none")).check().await.is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_is_not_ready() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        assert!(Probe::Open(vec![closed]).check().await.is_err());
    }
}
