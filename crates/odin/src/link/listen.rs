//! Where a worker takes links.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::greeting::Identity;
use super::worker::{self, Calls};
use super::{Address, LinkLimits};

/// Links of one worker, with those that only just greet.
const LINKS: usize = 1024;
/// How long to wait after a connection could not be accepted: there may be no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes links at an address. Bound at once, so that an address in use is an error at the start; works in the runtime
/// that [`Listener::run`] is called in.
pub struct Listener {
    socket: Socket,
    address: Address,
}

enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    /// Binds an address. A Unix socket that is left over from before is replaced; only its owner may connect.
    ///
    /// # Errors
    /// The address is in use, or not this machine's.
    pub fn bind(address: &Address) -> std::io::Result<Self> {
        let (socket, address) = match address {
            Address::Tcp(at) => {
                let listener = std::net::TcpListener::bind(at)?;
                listener.set_nonblocking(true)?;
                let bound = Address::Tcp(listener.local_addr()?.to_string());
                (Socket::Tcp(listener), bound)
            }
            Address::Unix(path) => {
                if std::os::unix::net::UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let listener = std::os::unix::net::UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true)?;
                (Socket::Unix(listener), address.clone())
            }
        };
        Ok(Self { socket, address })
    }

    /// Where it is, with the port that was chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Serves all links until `ended`.
    ///
    /// # Errors
    /// The socket can't be used in this runtime.
    pub async fn run(
        self,
        own: Identity,
        calls: Arc<dyn Calls>,
        limits: LinkLimits,
        ended: CancellationToken,
    ) -> std::io::Result<()> {
        let (own, links) = (Arc::new(own), Arc::new(Semaphore::new(LINKS)));
        let room = || links.clone().try_acquire_owned().ok();
        match self.socket {
            Socket::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = ended.cancelled() => return Ok(()),
                    };
                    match (accepted, room()) {
                        (Ok((stream, _)), Some(room)) => {
                            let _ = stream.set_nodelay(true);
                            serve(stream, room, &own, &calls, limits, &ended);
                        }
                        (Ok(_), None) => tracing::warn!("more than {LINKS} links: one was refused"),
                        (Err(error), _) => refused(&error).await,
                    }
                }
            }
            Socket::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = ended.cancelled() => return Ok(()),
                    };
                    match (accepted, room()) {
                        (Ok((stream, _)), Some(room)) => serve(stream, room, &own, &calls, limits, &ended),
                        (Ok(_), None) => tracing::warn!("more than {LINKS} links: one was refused"),
                        (Err(error), _) => refused(&error).await,
                    }
                }
            }
        }
    }
}

async fn refused(error: &std::io::Error) {
    tracing::warn!(%error, "a link can't be accepted");
    tokio::time::sleep(PAUSE).await;
}

fn serve<S>(
    stream: S,
    room: OwnedSemaphorePermit,
    own: &Arc<Identity>,
    calls: &Arc<dyn Calls>,
    limits: LinkLimits,
    ended: &CancellationToken,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (own, calls, ended) = (own.clone(), calls.clone(), ended.clone());
    tokio::spawn(async move {
        let _room = room;
        if let Err(error) = worker::serve(stream, &own, calls, limits, &ended).await {
            tracing::warn!(%error, "a connection did not become a link");
        }
    });
}
