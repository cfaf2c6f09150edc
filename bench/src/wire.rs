//! HTTP/1.1 with as little work as possible: client and server share the machine with what is measured.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Result;

/// The longest head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// The beginning of an answer.
#[derive(Debug, Default)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// `Mcp-Session-Id`.
    pub session: Option<String>,
}

/// Where in the body of an answer the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Ended,
    /// So many bytes are left.
    Length(usize),
    /// All until the connection ends.
    Rest,
    /// Before a chunk's size.
    Size,
    /// Within a chunk, with so many bytes left.
    Chunk(usize),
    /// After a chunk, before the end of its line.
    ChunkEnd,
    /// After the last chunk, in lines up to an empty one.
    Trailer,
}

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    body: Body,
}

impl Connection {
    /// Connects to a host and port. `localhost` is 127.0.0.1.
    pub async fn open(host: &str) -> Result<Self> {
        let address = host.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = address.as_deref().unwrap_or(host);
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{host}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(16 * 1024), body: Body::Ended })
    }

    /// Sends a request and reads the answer whole: its status. The body is put into `body`, in place of what was
    /// there.
    pub async fn exchange(&mut self, request: &[u8], body: &mut Vec<u8>) -> Result<Head> {
        let head = self.begin(request).await?;
        body.clear();
        while self.more(body).await? {}
        Ok(head)
    }

    /// Sends a request and reads the head of the answer.
    pub async fn begin(&mut self, request: &[u8]) -> Result<Head> {
        self.stream.write_all(request).await?;
        loop {
            if let Some((head, body, length)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                self.body = body;
                return Ok(head);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err("an answer's head is too long".into());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the connection ended".into());
        }
        Ok(())
    }

    /// Appends what comes next of the body; `false` at its end.
    pub async fn more(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        loop {
            match self.body {
                Body::Ended => return Ok(false),
                Body::Length(0) => self.body = Body::Ended,
                Body::Chunk(0) => self.body = Body::ChunkEnd,
                Body::Rest if self.buffer.is_empty() => {
                    if self.stream.read_buf(&mut self.buffer).await? == 0 {
                        self.body = Body::Ended;
                    }
                }
                _ if self.buffer.is_empty() => self.fill().await?,
                Body::Length(left) => {
                    self.body = Body::Length(left - self.take(left, out));
                    return Ok(true);
                }
                Body::Chunk(left) => {
                    self.body = Body::Chunk(left - self.take(left, out));
                    return Ok(true);
                }
                Body::Rest => {
                    self.take(usize::MAX, out);
                    return Ok(true);
                }
                Body::Size => match httparse::parse_chunk_size(&self.buffer) {
                    Ok(httparse::Status::Complete((used, size))) => {
                        self.buffer.advance(used);
                        self.body =
                            if size == 0 { Body::Trailer } else { Body::Chunk(usize::try_from(size)?) };
                    }
                    Ok(httparse::Status::Partial) => self.fill().await?,
                    Err(_) => return Err("a chunk has no size".into()),
                },
                Body::ChunkEnd | Body::Trailer => {
                    let Some(line) = self.buffer.windows(2).position(|two| two == b"\r\n") else {
                        self.fill().await?;
                        continue;
                    };
                    self.buffer.advance(line + 2);
                    match (self.body, line) {
                        (Body::ChunkEnd, _) => self.body = Body::Size,
                        (_, 0) => self.body = Body::Ended,
                        _ => {}
                    }
                }
            }
        }
    }

    fn take(&mut self, most: usize, out: &mut Vec<u8>) -> usize {
        let length = self.buffer.len().min(most);
        out.extend_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        length
    }
}

/// The head of an answer, how its body ends, and the head's length; `None` if it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, Body, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let mut head = Head { status: response.code.unwrap_or(0), session: None };
    let mut body = if matches!(head.status, 204 | 304) { Body::Ended } else { Body::Rest };
    for header in response.headers.iter() {
        let text = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            body = Body::Length(text().parse()?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            body = Body::Size;
        } else if header.name.eq_ignore_ascii_case("mcp-session-id") {
            head.session = Some(text().to_owned());
        }
    }
    Ok(Some((head, body, length)))
}

/// A server that answers every request with the same document. It ends with the runtime; its port.
pub async fn serve(document: &str) -> Result<u16> {
    let answer: Arc<[u8]> = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{document}",
        document.len()
    )
    .into_bytes()
    .into();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut buffer = BytesMut::with_capacity(16 * 1024);
                while let Ok(1..) = stream.read_buf(&mut buffer).await {
                    while let Some(length) = request_length(&buffer) {
                        buffer.advance(length);
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(port)
}

/// The length of the request at the beginning, if it is there whole. One with chunks would never be.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 96];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = request.parse(bytes) else { return None };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let whole = head + body.unwrap_or(0);
    (bytes.len() >= whole).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client reads when the server sends these pieces, each by itself.
    async fn read(pieces: &'static [&'static str]) -> Result<(u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let host = format!("localhost:{}", listener.local_addr()?.port());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            // What is not read when a connection is dropped resets it.
            while !matches!(stream.read_u8().await, Ok(b'\n')) {}
            assert_eq!((stream.read_u8().await.unwrap(), stream.read_u8().await.unwrap()), (b'\r', b'\n'));
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut connection, mut body) = (Connection::open(&host).await?, Vec::new());
        let head = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", &mut body).await?;
        Ok((head.status, String::from_utf8(body)?))
    }

    #[tokio::test]
    async fn answers_of_each_form_are_read_whole() {
        let ok = |text: &str| (200, text.to_owned());
        let plain = &["HTTP/1.1 200 OK\r\ncontent-le", "ngth: 5\r\n\r\nhe", "llo"];
        assert_eq!(read(plain).await.unwrap(), ok("hello"));
        let chunks: &[&str] = &[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2",
            "\r\nhe\r",
            "\n3\r\nllo\r\n0\r\n",
            "\r\n",
        ];
        assert_eq!(read(chunks).await.unwrap(), ok("hello"));
        assert_eq!(read(&["HTTP/1.1 200 OK\r\n\r\nhel", "lo"]).await.unwrap(), ok("hello"));
        assert!(read(&["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"]).await.is_err());
    }

    #[tokio::test]
    async fn the_server_answers_each_request() {
        let port = serve("{}").await.unwrap();
        let mut connection = Connection::open(&format!("localhost:{port}")).await.unwrap();
        let mut body = Vec::new();
        for _ in 0..3 {
            let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
            assert_eq!(connection.exchange(request, &mut body).await.unwrap().status, 200);
            assert_eq!(body, b"{}");
        }
    }
}
