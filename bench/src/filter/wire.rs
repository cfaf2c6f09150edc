//! HTTP/1.1 byte by byte: a client and a server that cost as little as possible, since they share the
//! machine with what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What is needed of a head: where it ends, and how long the body is.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((end, length.unwrap_or(0)))
}

impl Connection {
    pub async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Reads one message whole: its head. `None` at the end of the connection.
    async fn message(&mut self) -> Result<Option<String>> {
        loop {
            if let Some((end, length)) = head(&self.buffer)
                && self.buffer.len() >= end + length
            {
                let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + length);
                return Ok(Some(text));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Sends a request and reads the answer: its status.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        let head = self.message().await?.ok_or("the connection ended")?;
        Ok(head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0))
    }
}

/// Sends so many requests on so many connections; `next` makes one of its number. All must be answered with 200.
pub async fn run(
    port: u16,
    requests: usize,
    connections: usize,
    next: Arc<dyn Fn(usize) -> Arc<[u8]> + Send + Sync>,
) -> Result<()> {
    let sent = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (sent, next) = (sent.clone(), next.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(port).await?;
                loop {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok::<_, Box<dyn std::error::Error + Send + Sync>>(());
                    }
                    let status = connection.exchange(&next(number)).await?;
                    if status != 200 {
                        return Err(format!("request {number} to port {port}: status {status}").into());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// A server that answers every request with the same. It ends with the runtime; its port.
pub async fn serve(body: &str) -> Result<u16> {
    let answer: Arc<[u8]> = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
    .into();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut connection = Connection { stream, buffer: Vec::with_capacity(16 * 1024) };
                while let Ok(Some(_)) = connection.message().await {
                    if connection.stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(port)
}
