//! Single processes on a free port of loopback.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Result;
use crate::wire::Connection;

/// How long a process may take to listen.
const READY: Duration = Duration::from_secs(30);

/// A process that listens; it ends when this is dropped.
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// `127.0.0.1:PORT`.
    pub address: String,
    child: tokio::process::Child,
}

/// An address of loopback that is free at the moment.
pub fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

impl Process {
    /// Starts a program that will listen on an address of its own choice, with this environment alone.
    pub fn spawn<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        env: impl IntoIterator<Item = (String, String)>,
        address: String,
    ) -> Result<Self> {
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let pid = child.id().ok_or("the process ended at once")?;
        Ok(Self { pid, address, child })
    }

    /// Waits until it accepts connections, and, if a path is given, answers it with 200. Looks once a millisecond.
    pub async fn ready(&mut self, path: Option<&str>) -> Result<()> {
        let started = Instant::now();
        while !self.answers(path).await {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the process at {} ended: {status}", self.address).into());
            }
            if started.elapsed() > READY {
                return Err(format!("the process at {} is not ready after {READY:?}", self.address).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn answers(&self, path: Option<&str>) -> bool {
        let Ok(mut connection) = Connection::open(&self.address).await else { return false };
        let Some(path) = path else { return true };
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        let head = connection.exchange(request.as_bytes(), &mut Vec::new()).await;
        head.is_ok_and(|head| head.status == 200)
    }
}
