//! Many streams that are open at once, each read by a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::Result;
use crate::mcp::Endpoint;
use crate::wire::Connection;

/// Streams that are being opened at once: fewer than one caller may.
const AT_ONCE: usize = 48;
/// How long nothing may happen while something is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many of the streams have seen each of some texts.
pub struct Streams {
    tasks: JoinSet<Result<()>>,
    seen: Arc<Vec<AtomicUsize>>,
    count: usize,
}

impl Streams {
    /// Opens so many streams at the endpoints in turns, and waits until each has had the first of the texts. The
    /// texts come one after the other. One caller may open some fifty streams a second: who is told to wait, waits.
    pub async fn open(
        endpoints: &[Endpoint],
        request: fn(&Endpoint) -> Vec<u8>,
        count: usize,
        texts: &[&str],
    ) -> Result<Self> {
        let seen: Arc<Vec<AtomicUsize>> = Arc::new(texts.iter().map(|_| AtomicUsize::new(0)).collect());
        let way = Arc::new(Semaphore::new(AT_ONCE));
        let texts: Arc<[String]> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut streams = Self { tasks: JoinSet::new(), seen: seen.clone(), count };
        for endpoint in endpoints.iter().cycle().take(count) {
            let permit = way.clone().acquire_owned().await?;
            let reader = Reader { texts: texts.clone(), seen: seen.clone(), permit: Some(permit) };
            let endpoint = endpoint.clone();
            streams.tasks.spawn(async move {
                let request = request(&endpoint);
                loop {
                    let mut connection = Connection::open(&endpoint.host).await?;
                    match connection.begin(&request).await?.status {
                        200 => return reader.read(connection).await,
                        429 | 503 => tokio::time::sleep(Duration::from_secs(1)).await,
                        status => {
                            let mut text = Vec::new();
                            connection.more(&mut text).await?;
                            return Err(endpoint.refused(status, &text));
                        }
                    }
                }
            });
            if let Some(ended) = streams.tasks.try_join_next() {
                ended??;
            }
        }
        streams.all(0).await?;
        Ok(streams)
    }

    /// How many have seen the text of this number.
    pub fn seen(&self, text: usize) -> usize {
        self.seen.get(text).map_or(0, |seen| seen.load(Ordering::Relaxed))
    }

    /// Waits until all have seen it.
    pub async fn all(&mut self, text: usize) -> Result<()> {
        let mut last = (0, Instant::now());
        while self.seen(text) < self.count {
            if let Some(ended) = self.tasks.try_join_next() {
                ended??;
            }
            if self.seen(text) != last.0 {
                last = (self.seen(text), Instant::now());
            }
            if last.1.elapsed() > PATIENCE {
                return Err(
                    format!("{} of {} streams: nothing more for {PATIENCE:?}", last.0, self.count).into()
                );
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// How many have ended by themselves.
    pub fn ended(&self) -> usize {
        self.count - self.tasks.len()
    }
}

/// Who reads one of them.
struct Reader {
    texts: Arc<[String]>,
    seen: Arc<Vec<AtomicUsize>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Reader {
    /// Reads until the stream ends, which is an error.
    async fn read(mut self, mut connection: Connection) -> Result<()> {
        let (mut text, mut next) = (Vec::new(), 0);
        while connection.more(&mut text).await? {
            while let Some(expected) = self.texts.get(next).map(String::as_bytes) {
                let found = text.windows(expected.len()).position(|part| part == expected);
                let Some(at) = found else { break };
                text.drain(..at + expected.len());
                self.seen[next].fetch_add(1, Ordering::Relaxed);
                next += 1;
                // The next one may be opened.
                self.permit = None;
            }
            if next == self.texts.len() {
                text.clear();
            }
        }
        Err("a stream ended".into())
    }
}
