//! What backend and worker programs share: settings from the environment, store, Pushpins, shutdown.

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
        .map(|entry| {
            entry.parse().map_err(|error| format!("{entry:?} is not the address of a Pushpin: {error}"))
        })
        .collect()
}

/// Links to the Pushpins; `None` without any.
pub fn publisher(endpoints: Vec<Endpoint>) -> Option<(Publisher, mpsc::Receiver<Event>)> {
    let options = PublisherOptions::default().with_watch(broadcast::CHANNELS);
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
