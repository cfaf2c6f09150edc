//! What backend and worker programs share: settings from the environment, broker, Pushpins, shutdown.

use std::sync::Arc;

use grip::{Endpoint, Event, Publisher, PublisherOptions};
use tokio::sync::mpsc;

use crate::broadcast;

/// The Pushpins of a comma-separated list such as `tcp://127.0.0.1:5562`. Empty text: none.
///
/// # Errors
/// The entry that is no endpoint, and why.
pub fn pushpins(list: &str) -> Result<Vec<Endpoint>, String> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| entry.parse().map_err(|error| format!("{entry:?} is no address of a Pushpin: {error}")))
        .collect()
}

/// Links to the Pushpins; `None` without any.
pub fn publisher(endpoints: Vec<Endpoint>) -> Option<(Publisher, mpsc::Receiver<Event>)> {
    let options = PublisherOptions { watch: broadcast::CHANNELS.into(), ..PublisherOptions::default() };
    (!endpoints.is_empty()).then(|| Publisher::start(endpoints, options))
}

/// Waits until the process is asked to stop: SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        result = tokio::signal::ctrl_c() => drop(result),
    }
}

/// Waits until the process is asked to stop, or until something comes up that keeps it from going on.
///
/// # Errors
/// What came up.
pub(crate) async fn stopped_or(cause: impl Future<Output = String>) -> Result<(), String> {
    tokio::select! {
        () = stop_signal() => Ok(()),
        cause = cause => Err(cause),
    }
}

/// Ends the process after that time, whatever still runs in it: a tool that blocks a thread would keep the
/// runtime, and the process with it, for ever.
pub fn exit_within(time: std::time::Duration) {
    let end = move || {
        std::thread::sleep(time);
        tracing::error!("something still runs after {} s; it is ended with the process", time.as_secs());
        std::process::exit(1);
    };
    if let Err(error) = std::thread::Builder::new().name("exit".into()).spawn(end) {
        tracing::warn!(%error, "the time to stop has no bound");
    }
}

/// A name that no other node or worker ever had: the given one and a random part. A restarted node must not
/// pass for the one before it, whose requests died with it.
pub fn unique_name(name: &str) -> String {
    format!("{name}-{:016x}", rand::random::<u64>())
}

/// Listens with `TCP_NODELAY` on every connection: without it small answers wait for tens of milliseconds.
///
/// # Errors
/// When the address can't be listened on.
pub async fn listen(address: &str) -> std::io::Result<NoDelay> {
    Ok(NoDelay(tokio::net::TcpListener::bind(address).await?))
}

/// A listener whose connections have `TCP_NODELAY`.
pub struct NoDelay(tokio::net::TcpListener);

impl NoDelay {
    /// Where it listens.
    ///
    /// # Errors
    /// As [`tokio::net::TcpListener::local_addr`].
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.0.local_addr()
    }
}

impl axum::serve::Listener for NoDelay {
    type Io = tokio::net::TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY can't be set");
        }
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// What a program can't do now, although it does useful work.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Degraded {
    /// What is missing.
    pub part: String,
    /// Why, and what that means.
    pub reason: String,
}

/// The Pushpins that can't be reached, and what that means to this program.
pub(crate) fn lost_pushpins(publisher: Option<&Publisher>, meaning: &str) -> Vec<Degraded> {
    let Some(publisher) = publisher else { return Vec::new() };
    let lost = (0..publisher.pushpins()).filter(|pushpin| !publisher.link_up(*pushpin));
    lost.filter_map(|pushpin| publisher.endpoint(pushpin))
        .map(|endpoint| Degraded {
            part: format!("pushpin {endpoint}"),
            reason: format!("the link to it is down: {meaning}"),
        })
        .collect()
}

/// Routes that say whether a program lives, and whether it can do useful work. `ready` gives the reason when it
/// can't, and else what it can't do beside that.
///
/// `/readyz` answers with `{"ready":true,"degraded":[{"part":…,"reason":…}]}`, or with 503 and
/// `{"ready":false,"reason":…}`.
pub fn health_routes(
    ready: impl Fn() -> Result<Vec<Degraded>, String> + Send + Sync + 'static,
) -> axum::Router {
    use axum::response::IntoResponse;
    let ready = Arc::new(ready);
    let readyz = move || {
        let ready = ready.clone();
        async move { readiness(ready()).into_response() }
    };
    axum::Router::new()
        .route("/livez", axum::routing::get(|| async { http::StatusCode::OK }))
        .route("/readyz", axum::routing::get(readyz))
}

fn readiness(ready: Result<Vec<Degraded>, String>) -> axum::response::Response {
    use axum::response::IntoResponse;
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    match ready {
        Ok(degraded) => {
            let body = serde_json::json!({ "ready": true, "degraded": degraded }).to_string();
            (http::StatusCode::OK, json, body).into_response()
        }
        Err(reason) => {
            let body = serde_json::json!({ "ready": false, "reason": reason }).to_string();
            (http::StatusCode::SERVICE_UNAVAILABLE, json, body).into_response()
        }
    }
}
