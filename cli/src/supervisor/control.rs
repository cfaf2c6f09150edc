//! The control socket: how `status`, `down` and the tests talk to a running supervisor.
//!
//! A unix socket of mode 600 in the state folder. One JSON document a line: a [`Request`], then a [`Reply`].

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::part::PartStatus;
use crate::paths::Paths;
use crate::problem::{Problem, Result};

/// Longest request or reply, in bytes.
const MAX_LINE: u64 = 256 << 10;

/// What can be asked of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "do", content = "part")]
pub enum Request {
    /// How are the parts?
    Status,
    /// End everything.
    Down,
    /// Stop a part until it is started again.
    Stop(String),
    /// Start a part that was stopped, or that waits after its death.
    Start(String),
}

/// What it answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The parts.
    pub parts: Vec<PartStatus>,
    /// Why some are not ready, or can't do all.
    pub notes: Vec<String>,
    /// All parts have been ready since the start.
    pub up: bool,
    /// The request failed.
    pub error: Option<String>,
}

/// The listening end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: std::path::PathBuf,
}

impl Control {
    /// Listens on the socket of this state folder. The caller holds the [`super::Lock`], so a socket that is
    /// already there is a dead supervisor's.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(paths: &Paths) -> Result<Self> {
        let path = paths.socket();
        paths.make_run()?;
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(|e| Problem::io("listen on", &path, &e))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .map_err(|e| Problem::io("protect", &path, &e))?;
        Ok(Self { listener, path })
    }

    /// The next request, and where the answer goes. Bad requests are answered here.
    pub async fn next(&self) -> (Request, UnixStream) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let request = tokio::time::timeout(Duration::from_secs(2), read_line::<Request>(stream)).await;
            if let Ok(Ok((request, stream))) = request {
                return (request, stream);
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers a request; a client that is gone does not matter.
pub async fn answer(mut stream: UnixStream, reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&line)).await;
    }
}

/// Asks the supervisor of this state folder. `None` when none runs.
///
/// # Errors
/// When it runs but does not answer, or answers with an error.
pub async fn ask(paths: &Paths, request: &Request) -> Result<Option<Reply>> {
    if !paths.owns_sockets() {
        return Ok(None);
    }
    let Ok(mut stream) = UnixStream::connect(paths.socket()).await else { return Ok(None) };
    let talk = async {
        let mut line = serde_json::to_vec(request).map_err(std::io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        read_line::<Reply>(stream).await.map(|(reply, _)| reply)
    };
    let no_answer = |why: String| {
        Problem::new(format!("the supervisor does not answer: {why}")).hint("see .asgard/logs/supervisor.log")
    };
    match tokio::time::timeout(Duration::from_secs(40), talk).await {
        Ok(Ok(Reply { error: Some(error), .. })) => Err(Problem::new(error)),
        Ok(Ok(reply)) => Ok(Some(reply)),
        Ok(Err(error)) => Err(no_answer(error.to_string())),
        Err(_) => Err(no_answer("nothing for 40 s".to_owned())),
    }
}

async fn read_line<T: serde::de::DeserializeOwned>(stream: UnixStream) -> std::io::Result<(T, UnixStream)> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream).take(MAX_LINE);
    reader.read_line(&mut line).await?;
    let value = serde_json::from_str(&line).map_err(std::io::Error::other)?;
    Ok((value, reader.into_inner().into_inner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_short_json() {
        assert_eq!(serde_json::to_string(&Request::Status).unwrap(), r#"{"do":"status"}"#);
        let stop: Request = serde_json::from_str(r#"{"do":"stop","part":"backend-1"}"#).unwrap();
        assert_eq!(stop, Request::Stop("backend-1".into()));
    }
}
