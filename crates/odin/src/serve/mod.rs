//! An HTTP/1.1 server whose end is bounded, and that gives no connection for ever to a slow request head.

mod listen;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::serve::Listener as _;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use listen::{NoDelay, listen};

/// How long the head of a request may take from its first byte on. A connection at rest may stay: gateways keep
/// theirs, and would lose a request on one that is closed in the same moment.
pub const HEAD: Duration = Duration::from_secs(15);
/// Bytes that are buffered of what one connection sends. A head must fit in.
const BUFFER: usize = 128 * 1024;

/// Serves until `stop` is cancelled. Then no connection is accepted any more and those at rest are closed; the
/// others may answer their request, for at most `patience`, and are cut.
pub async fn serve(mut listener: NoDelay, app: Router, stop: CancellationToken, patience: Duration) {
    serve_with(&mut listener, app, &stop, patience, HEAD).await;
}

async fn serve_with(
    listener: &mut NoDelay,
    app: Router,
    stop: &CancellationToken,
    patience: Duration,
    head: Duration,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _) = listener.accept() => {
                connections.spawn(connection(stream, app.clone(), stop.clone(), head));
            }
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(app);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections are cut");
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, app: Router, stop: CancellationToken, head: Duration) {
    let phase = Arc::new(Phase::default());
    let app = TowerToHyperService::new(app);
    let service = {
        let phase = phase.clone();
        service_fn(move |request| {
            phase.set(Stage::Busy);
            let (answer, phase) = (app.call(request), phase.clone());
            async move {
                let end = End(phase);
                let response = answer.await?;
                Ok::<_, Infallible>(response.map(|body| Answer { body, _end: end }))
            }
        })
    };
    let io = TokioIo::new(Watched { stream, phase: phase.clone() });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER);
    let mut serving = pin!(builder.serve_connection(io, service));
    let mut late = pin!(phase.late(head));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
            () = late.as_mut() => {
                tracing::debug!("a connection is closed: the head of its request took too long");
                return;
            }
        }
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// At rest.
    Idle,
    /// The first bytes of a request have come.
    Head(Instant),
    /// The head is read; the answer is not yet written.
    Busy,
}

struct Phase(watch::Sender<Stage>);

impl Default for Phase {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::Idle))
    }
}

impl Phase {
    fn set(&self, stage: Stage) {
        self.0.send_replace(stage);
    }

    /// Bytes have come.
    fn read(&self) {
        self.0.send_if_modified(|stage| {
            let first = *stage == Stage::Idle;
            if first {
                *stage = Stage::Head(Instant::now());
            }
            first
        });
    }

    /// Returns when a head takes longer than `most`.
    async fn late(&self, most: Duration) {
        let mut stages = self.0.subscribe();
        loop {
            let stage = *stages.borrow_and_update();
            let until = match stage {
                Stage::Head(since) => since + most,
                Stage::Idle | Stage::Busy => {
                    // The sender is `self`: this can't fail.
                    let _ = stages.changed().await;
                    continue;
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                _ = stages.changed() => {}
            }
        }
    }
}

/// Dropped when a request is dealt with.
struct End(Arc<Phase>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.set(Stage::Idle);
    }
}

/// A response's body: what keeps its connection busy.
struct Answer {
    body: Body,
    _end: End,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that notes when something comes.
struct Watched {
    stream: TcpStream,
    phase: Arc<Phase>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.phase.read();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const SHORT: Duration = Duration::from_millis(300);

    struct Server {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start(patience: Duration) -> Server {
        let mut listener = super::listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let endless = || async { Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()) };
        let app = Router::new().route("/", get(|| async { "ok" })).route("/endless", get(endless));
        let token = stop.clone();
        let task = tokio::spawn(async move { serve_with(&mut listener, app, &token, patience, SHORT).await });
        Server { address, stop, task }
    }

    async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
        stream.write_all(request).await.unwrap();
        let mut answer = vec![0; 1024];
        let count = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    }

    #[tokio::test]
    async fn a_slow_head_ends_its_connection_and_rest_does_not() {
        let server = start(SHORT).await;
        let mut resting = TcpStream::connect(server.address).await.unwrap();
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        assert!(ask(&mut resting, GET).await.starts_with("HTTP/1.1 200"));
        // A first head, and one after an answer, that trickle: bytes do not buy time.
        for answered in [false, true] {
            let mut slow = TcpStream::connect(server.address).await.unwrap();
            if answered {
                ask(&mut slow, GET).await;
            }
            let trickle = async {
                while slow.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), trickle).await.expect("the connection ends");
        }
        // By now these have been at rest for longer than a head may take.
        assert!(ask(&mut resting, GET).await.starts_with("HTTP/1.1 200"));
        assert!(ask(&mut silent, GET).await.starts_with("HTTP/1.1 200"));
        // An answer may take as long as it likes.
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = ask(&mut stream, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let more = tokio::time::timeout(SHORT * 3, stream.read_u8()).await;
        assert!(more.is_err(), "the stream lives: {more:?}");
    }

    #[tokio::test]
    async fn its_end_is_bounded_though_answers_go_on() {
        let server = start(SHORT).await;
        let mut resting = TcpStream::connect(server.address).await.unwrap();
        ask(&mut resting, GET).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        ask(&mut stream, b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await;
        server.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), server.task).await.expect("it ends").unwrap();
        assert!(resting.read_u8().await.is_err() && stream.read_u8().await.is_err());
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}
