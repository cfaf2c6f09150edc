//! Workers that backends reach through a relay of the test's, so that links break or stall alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use asgard::supervisor::control::Request;
use asgard::supervisor::part::Kind;
use e2e::Stack;
use e2e::stack::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Sends a signal to a process that may be gone.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// Passes connections on.
pub(crate) struct Relay {
    address: SocketAddr,
    breaks: watch::Sender<u64>,
    stalls: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (breaks, stalls) = (watch::channel(0).0, watch::channel(0).0);
        let (broken, stalled) = (breaks.clone(), stalls.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (broken, stalled) = (broken.subscribe(), stalled.subscribe());
                tokio::spawn(async move {
                    // None listens there: the connection just ends.
                    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pass(from_near, to_far, broken.clone(), stalled.clone()) => {}
                        () = pass(from_far, to_near, broken, stalled) => {}
                    }
                });
            }
        });
        Self { address, breaks, stalls, task }
    }

    /// Breaks all connections.
    pub(crate) fn break_all(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }

    /// Passes nothing on for that long, on connections that go on.
    pub(crate) fn stall(&self, pause: Duration) {
        self.stalls.send_modify(|count| *count += 1);
        let stalls = self.stalls.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            stalls.send_modify(|count| *count -= 1);
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.break_all();
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut broken: watch::Receiver<u64>,
    mut stalled: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let pass = async {
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if stalled.wait_for(|count| *count == 0).await.is_err()
                || to.write_all(&buffer[..count]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = pass => {}
        _ = broken.changed() => {}
    }
}

/// A worker as the stack starts one, behind a relay.
pub(crate) struct RelayedWorker {
    /// Its name.
    pub(crate) name: String,
    /// Where it answers for its health.
    pub(crate) address: String,
    pub(crate) relay: Relay,
    program: std::path::PathBuf,
    env: BTreeMap<String, String>,
    child: Child,
}

impl RelayedWorker {
    /// Stops the stack's workers, and starts as many of these.
    pub(crate) async fn in_place_of_the_stacks(stack: &Stack, count: usize) -> Vec<Self> {
        let parts = stack.of_kind(Kind::Worker).await;
        let pid = parts[0].pid.unwrap();
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let environ = String::from_utf8(environ).unwrap();
        let env: BTreeMap<String, String> = environ
            .split('\0')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for part in &parts {
            stack.order(&Request::Stop(part.name.clone())).await;
        }
        let mut workers = Vec::new();
        for number in 0..count {
            let (listen, links) = (free_port(), free_port());
            let (name, address) = (format!("relayed-{number}"), format!("127.0.0.1:{listen}"));
            let relay = Relay::to(links).await;
            let mut env = env.clone();
            env.insert("ASGARD_WORKER".into(), name.clone());
            env.insert("ASGARD_LISTEN".into(), address.clone());
            env.insert("ASGARD_LINKS".into(), format!("127.0.0.1:{links}"));
            env.insert("ASGARD_LINKS_AT".into(), relay.address.to_string());
            let child = start(&program, &env);
            let mut worker = Self { name, address, relay, program: program.clone(), env, child };
            worker.up().await;
            workers.push(worker);
        }
        workers
    }

    /// Starts the stack's workers again.
    pub(crate) async fn give_back(stack: &Stack) {
        stack.kinds_back(Some(&[Kind::Worker]), &[]).await;
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and starts another in its place.
    pub(crate) fn restart(&mut self) {
        self.end();
        self.child = start(&self.program, &self.env);
    }

    /// Waits until it is ready.
    pub(crate) async fn up(&mut self) {
        let url = format!("http://{}/readyz", self.address);
        wait("a worker is ready", Duration::from_secs(30), async || {
            let reply = e2e::client::http().get(&url).send().await.ok()?;
            reply.status().is_success().then_some(())
        })
        .await;
    }

    fn end(&mut self) {
        // Also one that is stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RelayedWorker {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(program: &std::path::Path, env: &BTreeMap<String, String>) -> Child {
    let mut command = Command::new(program);
    command.env_clear().envs(env).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
