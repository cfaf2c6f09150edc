//! Many streams that are open at once, each read by a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::mcp::Endpoint;
use crate::wire::Connection;
use crate::{Error, Result};

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
    /// Opens so many streams by the same request, and waits until each has had the first of the texts. The texts
    /// come one after the other.
    pub async fn open(endpoint: &Endpoint, request: Vec<u8>, count: usize, texts: &[&str]) -> Result<Self> {
        let seen: Arc<Vec<AtomicUsize>> = Arc::new(texts.iter().map(|_| AtomicUsize::new(0)).collect());
        let (request, way): (Arc<[u8]>, _) = (request.into(), Arc::new(Semaphore::new(AT_ONCE)));
        let texts: Arc<[String]> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut streams = Self { tasks: JoinSet::new(), seen: seen.clone(), count };
        for _ in 0..count {
            let permit = way.clone().acquire_owned().await?;
            let (endpoint, request) = (endpoint.clone(), request.clone());
            let (texts, seen) = (texts.clone(), seen.clone());
            streams.tasks.spawn(async move {
                let mut connection = Connection::open(&endpoint.host).await?;
                let head = connection.begin(&request).await?;
                let mut permit = Some(permit);
                let mut text = Vec::new();
                let mut next = 0;
                while connection.more(&mut text).await? {
                    if head.status != 200 {
                        return Err(endpoint.refused(head.status, &text));
                    }
                    while let Some(expected) = texts.get(next).map(String::as_bytes) {
                        let Some(at) = text.windows(expected.len()).position(|part| part == expected) else {
                            break;
                        };
                        text.drain(..at + expected.len());
                        seen[next].fetch_add(1, Ordering::Relaxed);
                        next += 1;
                        permit = None;
                    }
                    if next == texts.len() {
                        text.clear();
                    }
                }
                drop(permit);
                Err::<(), Error>("a stream ended".into())
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
