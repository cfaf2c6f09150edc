//! Calls, one after the other or several at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::{Result, cpu};

/// What one round measured.
pub struct Round {
    /// Median latency, ms.
    pub p50: f64,
    /// Calls in a second.
    pub rate: f64,
    /// CPU time of each part, µs a call.
    pub parts: Vec<f64>,
}

impl Round {
    /// CPU time of all parts, µs a call.
    pub fn cpu(&self) -> f64 {
        self.parts.iter().sum()
    }
}

/// Runs calls and takes the CPU time of the parts before and after.
pub async fn measured(
    url: &str,
    token: Option<&str>,
    calls: usize,
    concurrency: usize,
    parts: &[(String, Vec<u32>)],
) -> Result<Round> {
    let before: Vec<Duration> = parts.iter().map(|(_, pids)| cpu::of(pids)).collect();
    let started = Instant::now();
    let mut latencies = run(url, token, calls, concurrency).await?;
    let elapsed = started.elapsed();
    let parts = parts
        .iter()
        .zip(before)
        .map(|((_, pids), before)| (cpu::of(pids) - before).as_secs_f64() * 1e6 / calls as f64)
        .collect();
    latencies.sort();
    let p50 = latencies[latencies.len() / 2].as_secs_f64() * 1e3;
    Ok(Round { p50, rate: calls as f64 / elapsed.as_secs_f64(), parts })
}

/// Runs calls; the latency of each. Any answer but the echo is an error.
pub async fn run(url: &str, token: Option<&str>, calls: usize, concurrency: usize) -> Result<Vec<Duration>> {
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let left = Arc::new(AtomicUsize::new(calls));
    let tasks = (0..concurrency).map(|_| {
        let (client, left) = (client.clone(), left.clone());
        let (url, token) = (url.to_owned(), token.map(str::to_owned));
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                let started = Instant::now();
                call(&client, &url, token.as_deref()).await?;
                latencies.push(started.elapsed());
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(latencies)
        })
    });
    let mut latencies = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        latencies.extend(task.await??);
    }
    Ok(latencies)
}

/// A call of the tool `echo`.
pub const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"the quick brown fox"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;

async fn call(client: &reqwest::Client, url: &str, token: Option<&str>) -> Result<()> {
    let mut request = client
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo")
        .body(BODY);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = request.send().await?;
    let status = response.status();
    let body = response.text().await?;
    if !status.is_success() || !body.contains("the quick brown fox") {
        return Err(format!("{url} answered {status}: {body}").into());
    }
    Ok(())
}

/// The median.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
