//! Tests against a real redis-server.

mod bus;
mod differential;
mod direct;
mod leftovers;
mod live;
mod once;
mod replies;
mod site;
mod tasks;

use std::time::{Duration, Instant};

use crate::call::{Fence, Order, Via};
use crate::protocol::Era;

/// An order of backend `node` for server `s`.
fn order(era: Era, node: &str, request: u64) -> Order {
    Order {
        server: "s".into(),
        job: "{}".into(),
        era,
        via: Via::Pushpin,
        tool: Some("report".into()),
        assertion: "a1".into(),
        principal: "p".into(),
        organisation: "o".into(),
        session: (era == Era::Stateful).then(|| "session".into()),
        request_id: (era == Era::Stateful).then(|| "1".into()),
        lost: "lost".into(),
        node: node.into(),
        request,
        stream: None,
        retry: None,
        task: None,
    }
}

/// What a worker shows for a call that it took in an epoch.
fn by(worker: &str, epoch: u32) -> Fence<'_> {
    Fence::new(worker, epoch)
}

/// Asks again until there is something, for at most ten seconds.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(found) = ask().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within ten seconds");
}
