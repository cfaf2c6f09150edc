//! The load: calls on some connections, each of which sends the next one when it has its answer.

use std::time::{Duration, Instant};

use tokio::sync::Barrier;
use tokio::task::LocalSet;

use crate::mcp::{Call, Endpoint};
use crate::wire::Connection;
use crate::{Result, cpu, stats};

/// How long a call may take, and the beginning or the end of a round beyond its time.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to call.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Connections, with one call at a time on each.
    pub connections: usize,
    /// How long.
    pub time: Duration,
    /// Each connection has a session of its own (2025-11-25); else there are none (2026-07-28).
    pub sessions: bool,
}

impl Shape {
    /// Without sessions.
    pub fn new(connections: usize, time: Duration) -> Self {
        Self { connections, time, sessions: false }
    }

    /// With sessions.
    pub fn in_sessions(mut self) -> Self {
        self.sessions = true;
        self
    }
}

/// What one round measured.
#[derive(Debug, Default)]
pub struct Round {
    /// Calls that were answered as they should be.
    pub calls: usize,
    /// Calls that were not.
    pub failures: usize,
    /// Why the first of those was not.
    pub why: String,
    /// From the first call to the last answer.
    pub elapsed: Duration,
    /// Times of the calls in ms, in order of length.
    pub times: Vec<f64>,
    /// CPU time of each part of the endpoint, in µs a call.
    pub parts: Vec<f64>,
    /// CPU time of the load program, in µs a call.
    pub load: f64,
}

impl Round {
    /// CPU time of all parts, in µs a call.
    pub fn cpu(&self) -> f64 {
        self.parts.iter().sum()
    }

    /// CPU time of the parts of these names.
    pub fn cpu_of(&self, endpoint: &Endpoint, names: &[&str]) -> f64 {
        let parts = endpoint.parts.iter().zip(&self.parts);
        parts.filter(|(part, _)| names.contains(&part.name.as_str())).map(|(_, cpu)| cpu).sum()
    }

    /// Calls in a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// The time within which such a share of the calls is answered, in ms.
    pub fn within(&self, share: f64) -> f64 {
        stats::quantile(&self.times, share)
    }
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    times: Vec<f64>,
    failures: usize,
    why: String,
}

/// Calls for a while. Any answer that is not as it should be is an error.
pub async fn round(endpoint: &Endpoint, call: &Call, shape: &Shape) -> Result<Round> {
    let round = tolerant(endpoint, call, shape).await?;
    if round.failures > 0 || round.calls == 0 {
        let Round { failures, calls, why, .. } = round;
        return Err(format!("{failures} of {} calls failed: {why}", failures + calls).into());
    }
    Ok(round)
}

/// Calls for a while, and counts the answers that are not as they should be.
pub async fn tolerant(endpoint: &Endpoint, call: &Call, shape: &Shape) -> Result<Round> {
    let (endpoint, call, shape) = (endpoint.clone(), call.clone(), shape.clone());
    // A thread of its own, with a runtime of one thread: the cheapest there is, and its CPU time is all of it.
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let limit = shape.time + 3 * PATIENCE;
            let here = LocalSet::new();
            let run = here.run_until(run(&endpoint, &call, &shape));
            match tokio::time::timeout(limit, run).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("{}: a round did not end within {limit:?}", endpoint.name).into()),
            }
        })
    })
    .await?
}

async fn run(endpoint: &Endpoint, call: &Call, shape: &Shape) -> Result<Round> {
    // All connections are open, and have had one answer, when the clock starts.
    let start = std::rc::Rc::new((Barrier::new(shape.connections + 1), Barrier::new(shape.connections + 1)));
    let callers: Vec<_> = (0..shape.connections)
        .map(|_| {
            let (endpoint, call, shape, start) =
                (endpoint.clone(), call.clone(), shape.clone(), start.clone());
            tokio::task::spawn_local(async move {
                let mut caller = Caller::new(endpoint, call, shape.sessions);
                let warm = caller.prepare().await;
                start.0.wait().await;
                start.1.wait().await;
                warm?;
                Ok::<_, crate::Error>(caller.until(Instant::now() + shape.time).await)
            })
        })
        .collect();
    start.0.wait().await;
    let before: Vec<_> = endpoint.parts.iter().map(cpu::Part::usage).collect();
    let (own, started) = (cpu::of_this_thread(), Instant::now());
    start.1.wait().await;
    let mut round = Round::default();
    for caller in callers {
        let seen = caller.await??;
        round.times.extend(seen.times);
        round.failures += seen.failures;
        if round.why.is_empty() {
            round.why = seen.why;
        }
    }
    round.elapsed = started.elapsed();
    round.calls = round.times.len();
    let each = |used: Duration| used.as_secs_f64() * 1e6 / round.calls.max(1) as f64;
    round.load = each(cpu::of_this_thread() - own);
    round.parts =
        endpoint.parts.iter().zip(&before).map(|(part, before)| each(part.usage().since(before))).collect();
    round.times.sort_by(f64::total_cmp);
    Ok(round)
}

/// One connection.
struct Caller {
    endpoint: Endpoint,
    call: Call,
    sessions: bool,
    request: Vec<u8>,
    connection: Option<Connection>,
    body: Vec<u8>,
}

impl Caller {
    fn new(endpoint: Endpoint, call: Call, sessions: bool) -> Self {
        let request = call.modern(&endpoint);
        Self { endpoint, call, sessions, request, connection: None, body: Vec::new() }
    }

    /// Opens the connection, begins the session if there is to be one, and calls once. A server may still be busy
    /// with what was before: what goes wrong here goes wrong again when it counts.
    async fn prepare(&mut self) -> Result<()> {
        let prepared = async {
            let mut connection = Connection::open(&self.endpoint.host).await?;
            if self.sessions {
                let session = self.endpoint.session(&mut connection).await?;
                self.request = self.call.of_session(&self.endpoint, session.as_deref());
            }
            self.connection = Some(connection);
            self.once().await
        };
        tokio::time::timeout(PATIENCE, prepared).await?
    }

    async fn once(&mut self) -> Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.endpoint.host).await?,
        };
        let head = connection.exchange(&self.request, &mut self.body).await?;
        self.connection = Some(connection);
        if !self.call.is_answered(head.status, &self.body) {
            return Err(self.endpoint.refused(head.status, &self.body));
        }
        Ok(())
    }

    async fn until(&mut self, end: Instant) -> Seen {
        let mut seen = Seen::default();
        loop {
            let started = Instant::now();
            if started >= end {
                return seen;
            }
            let outcome = tokio::time::timeout(PATIENCE, self.once()).await;
            match outcome.map_err(crate::Error::from).and_then(|outcome| outcome) {
                Ok(()) => seen.times.push(started.elapsed().as_secs_f64() * 1e3),
                Err(error) => {
                    seen.failures += 1;
                    if seen.why.is_empty() {
                        seen.why = error.to_string();
                    }
                    // An endpoint that refuses all is not asked as fast as it can refuse.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    async fn against(document: &str) -> Result<Round> {
        let port = wire::serve(document).await?;
        let endpoint = Endpoint::new("test", &format!("http://localhost:{port}/mcp"))?
            .with_parts(vec![cpu::Part::new("all", std::process::id())]);
        round(&endpoint, &Call::echo(), &Shape::new(3, Duration::from_millis(100))).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_round_counts_calls_times_and_cpu() {
        let round = against(r#"{"text":"the quick brown fox"}"#).await.unwrap();
        assert_eq!((round.calls, round.failures), (round.times.len(), 0));
        assert!(round.calls > 3 && round.elapsed >= Duration::from_millis(100));
        assert!(round.within(0.5) <= round.within(0.99) && round.rate() > 1.0);
        assert!(round.load > 0.0 && round.cpu() >= round.load, "{} of {}", round.load, round.cpu());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_wrong_answer_is_an_error() {
        let error = against("{}").await.unwrap_err().to_string();
        assert!(error.contains("answered 200: {}"), "{error}");
    }
}
