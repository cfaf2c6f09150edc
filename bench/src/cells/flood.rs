//! What one organisation notices of another's flood.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{Context, Found};
use crate::load::{self, Shape};
use crate::mcp::{Call, Endpoint};
use crate::report::{Figure, Goal};
use crate::wire::Connection;
use crate::{Result, progress};

/// Calls of the flood, at once.
const FLOOD: usize = 100;

/// The cell `flood`: quick calls of org-2 without and with a hundred calls of org-1 that take long.
pub async fn run(context: &Context) -> Result<Found> {
    let stack = context.stack().await?;
    let (other, flooding) = (stack.endpoint_of("hel", "org-2").await?, stack.bifrost().await?);
    let shape = Shape::new(1, context.options.round_time().max(Duration::from_millis(500)));
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let rounds = context.options.rounds();
    for number in 1..=rounds {
        progress(&format!("round {number} of {rounds}"));
        without.push(load::round(&other, &Call::echo(), &shape).await?.within(0.99));
        let flood = flood(&flooding).await;
        let round = load::round(&other, &Call::echo(), &shape).await;
        drop(flood);
        with.push(round?.within(0.99));
        // The flood's calls are cancelled.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut found = Found::default();
    found.figure(Figure::median("org-2's p99 without the flood", "ms", &without));
    found.figure(Figure::median("org-2's p99 with it", "ms", &with));
    found.figure(Figure::ratio("with the flood, of without", &with, &without).with_goal(Goal::AtMost(2.0)));
    Ok(found)
}

/// Calls that sleep until they are dropped; some wait in the queue, and the rest of the organisation's share runs.
async fn flood(endpoint: &Endpoint) -> JoinSet<Result<()>> {
    let request = Call::new("wait", json!({"seconds": 600}), "").modern(endpoint);
    let mut calls = JoinSet::new();
    for _ in 0..FLOOD {
        let (host, request) = (endpoint.host.clone(), request.clone());
        calls.spawn(async move {
            let mut connection = Connection::open(&host).await?;
            connection.exchange(&request, &mut Vec::new()).await.map(drop)
        });
    }
    // Until they are handed over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    calls
}
