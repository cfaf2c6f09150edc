//! Requests that may differ, each with an answer that is only looked at for its status.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::wire::Connection;

/// Makes the request of a number.
pub type Next = Arc<dyn Fn(usize) -> Result<Arc<[u8]>> + Send + Sync>;

/// Sends the same request so many times. All must be answered with 200.
pub async fn same(port: u16, requests: usize, connections: usize, request: &[u8]) -> Result<()> {
    let request: Arc<[u8]> = request.into();
    run(port, requests, connections, Arc::new(move |_| Ok(request.clone()))).await
}

/// Sends so many requests on so many connections. All must be answered with 200.
pub async fn run(port: u16, requests: usize, connections: usize, next: Next) -> Result<()> {
    let sent = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (sent, next) = (sent.clone(), next.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&format!("localhost:{port}")).await?;
                let mut body = Vec::new();
                loop {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return Ok::<_, crate::Error>(());
                    }
                    let head = connection.exchange(&next(number)?, &mut body).await?;
                    if head.status != 200 {
                        let why = String::from_utf8_lossy(&body);
                        return Err(format!("request {number}: status {}: {why}", head.status).into());
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
