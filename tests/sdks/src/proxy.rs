//! A proxy that cuts connections in the middle of a stream, as a bad network does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a request that resumes has.
const RESUMES: &[u8] = b"\nlast-event-id:";
/// What an answer of the tool has, and the line of an event.
const ANSWER: &[u8] = b"\"structuredContent\"";
const DATA: &[u8] = b"\ndata: ";
/// What is counted: one for each progress notification.
const MARK: &[u8] = b"\"notifications/progress\"";

/// The proxy; it ends with the runtime.
#[derive(Debug)]
pub struct Cutter {
    /// Its port on 127.0.0.1.
    pub port: u16,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug)]
struct Plan {
    /// Notifications after which to cut.
    due: VecDeque<usize>,
    /// When that was done, in milliseconds since 1970.
    done: Vec<u64>,
}

impl Cutter {
    /// Begins to pass connections on to a port of 127.0.0.1. The first connection that brings `cuts[0]` progress
    /// notifications is reset, then the next that brings `cuts[1]`, and so on.
    pub async fn before(port: u16, cuts: &[usize]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let plan = Arc::new(Mutex::new(Plan { due: cuts.iter().copied().collect(), done: Vec::new() }));
        let shared = plan.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, ([127, 0, 0, 1], port).into(), shared.clone()));
            }
        });
        Self { port: own, plan }
    }

    /// When connections were cut, in milliseconds since 1970.
    #[must_use]
    pub fn made(&self) -> Vec<u64> {
        self.plan.lock().unwrap().done.clone()
    }
}

async fn pass_on(mut client: TcpStream, to: SocketAddr, plan: Arc<Mutex<Plan>>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut up, mut down) = ([0; 16 << 10], [0; 16 << 10]);
    let (mut seen, mut tail) = (0, Vec::new());
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(read) if read > 0 => if server.write_all(&up[..read]).await.is_err() { return },
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(read) if read > 0 => {
                    if client.write_all(&down[..read]).await.is_err() {
                        return;
                    }
                    seen += marks(&mut tail, &down[..read]);
                    let mut plan = plan.lock().unwrap();
                    if plan.due.front().is_some_and(|due| seen >= *due) {
                        plan.due.pop_front();
                        plan.done.push(crate::now_ms());
                        // Without the orderly end: the client sees a reset.
                        let _ = client.set_zero_linger();
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// A proxy that takes the answer out of a stream's last event, and leaves the event's id: its client has nothing to go
/// on with, and nothing is left to resume.
#[derive(Debug)]
pub struct Blanker {
    /// Its port on 127.0.0.1.
    pub port: u16,
    resumed: Arc<AtomicUsize>,
}

impl Blanker {
    /// Begins to pass connections on to a port of 127.0.0.1.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let resumed = Arc::<AtomicUsize>::default();
        let counter = resumed.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(blank(client, ([127, 0, 0, 1], port).into(), counter.clone()));
            }
        });
        Self { port: own, resumed }
    }

    /// Requests with `Last-Event-ID` so far.
    #[must_use]
    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::SeqCst)
    }
}

async fn blank(mut client: TcpStream, to: SocketAddr, resumed: Arc<AtomicUsize>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut up, mut down) = ([0; 16 << 10], [0; 16 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(read) if read > 0 => {
                    let head = up[..read].to_ascii_lowercase();
                    let count = head.windows(RESUMES.len()).filter(|window| *window == RESUMES).count();
                    resumed.fetch_add(count, Ordering::SeqCst);
                    if server.write_all(&up[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(read) if read > 0 => {
                    take_out(&mut down[..read]);
                    if client.write_all(&down[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// Makes of `data: {the answer}` an empty `data:` and a comment of the same length together.
fn take_out(bytes: &mut [u8]) {
    let Some(answer) = bytes.windows(ANSWER.len()).position(|window| window == ANSWER) else { return };
    let Some(begin) = bytes[..answer].windows(DATA.len()).rposition(|window| window == DATA) else { return };
    let end = bytes[answer..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| answer + end);
    // The space after the colon becomes the comment's first byte.
    let (_, comment) = bytes[begin..end].split_at_mut(DATA.len() - 1);
    comment.fill(b'x');
    comment[..2].copy_from_slice(b"\n:");
}

/// Counts the marks that end in the new bytes; `tail` carries what may begin one.
fn marks(tail: &mut Vec<u8>, new: &[u8]) -> usize {
    tail.extend_from_slice(new);
    let count = tail.windows(MARK.len()).filter(|window| *window == MARK).count();
    let keep = tail.len().saturating_sub(MARK.len() - 1);
    tail.drain(..keep);
    count
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_answer_is_taken_out_and_its_event_stays() {
        let mut event = br#"2f\r\nid: a-1
data: {"result":{"structuredContent":{}}}

"#
        .to_vec();
        let length = event.len();
        super::take_out(&mut event);
        let text = String::from_utf8(event).unwrap();
        assert!(text.contains("id: a-1\ndata:\n:xx") && text.ends_with("x\n\n"), "{text}");
        assert_eq!(text.len(), length);
        let mut other = b"data: {\"result\":{}}\n\n".to_vec();
        super::take_out(&mut other);
        assert_eq!(other, b"data: {\"result\":{}}\n\n");
    }

    #[test]
    fn marks_are_counted_also_when_split() {
        let text = br#"{"method":"notifications/progress"} {"method":"notifications/progress"}"#;
        for size in 1..text.len() {
            let mut tail = Vec::new();
            let count: usize = text.chunks(size).map(|chunk| super::marks(&mut tail, chunk)).sum();
            assert_eq!(count, 2, "{size}");
        }
    }
}
