//! Publishing over HTTP: `POST /publish/`.

use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use super::link::{BEHIND, End, Link, probe, until_silent};
use super::{Command, SendError};
use crate::endpoint::{Endpoint, EndpointError};
use crate::item::{BATCH_FRAME, Item, MAX_ITEM};

/// Publishes over HTTP, to one Pushpin.
///
/// It has **no gate**: nothing tells whether a hold is open yet, and a message for one that is not is lost. Use
/// it for channels whose holds are long open, or where ZeroMQ can't pass; else use [`crate::Publisher`], which
/// takes an `http://` endpoint too.
#[derive(Debug, Clone)]
pub struct HttpPublisher {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    timeout: Duration,
}

impl HttpPublisher {
    /// A publisher to an `http://` endpoint. `timeout` bounds one request with its answer.
    ///
    /// # Errors
    /// The endpoint is a `tcp://` one.
    pub fn new(endpoint: &Endpoint, timeout: Duration) -> Result<Self, EndpointError> {
        let url = endpoint.to_string();
        if endpoint.is_gated() {
            return Err(EndpointError::not_http(url));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self { client, url, timeout })
    }

    /// Publishes the items in order, in requests of at most 1 MB, one after the other.
    ///
    /// # Errors
    /// [`SendError`]; the items of the requests before the one that failed were published.
    pub async fn send(&self, items: &[Item]) -> Result<(), SendError> {
        let items =
            items.iter().map(|item| Ok(item.json()?.into())).collect::<Result<Vec<Bytes>, SendError>>()?;
        for batch in batches(&items) {
            self.post(batch).await?;
        }
        Ok(())
    }

    async fn post(&self, body: Bytes) -> Result<(), SendError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| SendError::Down)?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                tracing::debug!(url = self.url, %error, "publishing failed");
                SendError::Down
            })?;
            let status = response.status();
            // Read to the end, so that the connection is used again.
            let _ = Limited::new(response.into_body(), 64 * 1024).collect().await;
            if status.is_success() { Ok(()) } else { Err(SendError::Rejected(status.as_u16())) }
        };
        timeout(self.timeout, exchange).await.map_err(|_| SendError::Timeout)?
    }
}

/// Bodies of at most 1 MB that hold all items in order. Each item is at most [`MAX_ITEM`] long.
fn batches(items: &[Bytes]) -> Vec<Bytes> {
    let mut batches = Vec::new();
    let mut body = BytesMut::new();
    for item in items {
        if !body.is_empty() && body.len() + 1 + item.len() > MAX_ITEM + BATCH_FRAME - 2 {
            body.put_slice(b"]}");
            batches.push(body.split().freeze());
        }
        body.put_slice(if body.is_empty() { b"{\"items\":[" } else { b"," });
        body.put_slice(item);
    }
    if !body.is_empty() {
        body.put_slice(b"]}");
        batches.push(body.freeze());
    }
    batches
}

pub(super) async fn connect_and_serve(link: &mut Link) -> End {
    let endpoint = link.endpoint.clone();
    let options = link.options.clone();
    let publisher = match HttpPublisher::new(&endpoint, options.send_timeout) {
        Ok(publisher) => publisher,
        Err(error) => return End::Lost(error.to_string()),
    };
    let connect = timeout(options.connect_timeout, probe(&endpoint, false));
    let peer = match link.refuse_while(connect).await {
        None => return End::Stopped,
        Some(Ok(Ok(peer))) => peer,
        Some(Ok(Err(error))) => return End::Lost(error.to_string()),
        Some(Err(_)) => return End::Lost("no answer".into()),
    };
    link.up();
    link.replayed();
    let mut silent = pin!(until_silent(&peer, false, &options));
    let events = link.events.clone();
    loop {
        let blocked = !link.pending.is_empty();
        tokio::select! {
            biased;
            () = &mut silent => return End::Lost("Pushpin does not answer".into()),
            room = events.reserve(), if blocked => {
                link.deliver(room.ok());
            }
            () = tokio::time::sleep_until(link.pending_limit()), if blocked => return End::Lost(BEHIND.into()),
            command = link.commands.recv() => {
                let Some(command) = command else { return End::Stopped };
                if let Err(end) = write(&publisher, command, link).await {
                    return end;
                }
            }
        }
    }
}

async fn write(publisher: &HttpPublisher, command: Command, link: &Link) -> Result<(), End> {
    if let Some(error) = command.stale(&link.options) {
        command.answer(Err(error));
        return Ok(());
    }
    let items: Vec<Bytes> = command.items.iter().map(|item| item.body.clone()).collect();
    for batch in batches(&items) {
        if command.reply.is_closed() {
            return Ok(());
        }
        if command.expired() {
            // How many is known only by request; the first was within time.
            command.answer(Err(SendError::Expired { written: 0 }));
            return Ok(());
        }
        match publisher.post(batch).await {
            Ok(()) => {}
            Err(error @ SendError::Rejected(_)) => {
                command.answer(Err(error));
                return Ok(());
            }
            Err(error) => {
                let reason = error.to_string();
                command.answer(Err(error));
                return Err(End::Lost(reason));
            }
        }
    }
    command.answer(Ok(()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_limit() {
        let items: Vec<Bytes> = (0..30).map(|n| format!("\"{n}{}\"", "x".repeat(100_000)).into()).collect();
        let batches = batches(&items);
        assert_eq!(batches.len(), 4);
        let mut seen = Vec::new();
        for batch in &batches {
            assert!(batch.len() <= 1_000_000);
            let value: serde_json::Value = serde_json::from_slice(batch).unwrap();
            seen.extend(value["items"].as_array().unwrap().iter().map(|item| format!("{item}")));
        }
        assert_eq!(seen, items);
    }

    #[test]
    fn the_largest_item_fits_a_batch() {
        let item = Bytes::from(vec![b'1'; MAX_ITEM]);
        let batches = batches(&[item.clone(), item]);
        assert_eq!(batches.len(), 2);
        assert!(batches.iter().all(|batch| batch.len() <= 1_000_000));
    }

    #[test]
    fn a_zeromq_endpoint_is_refused() {
        let endpoint = "tcp://127.0.0.1:1".parse().unwrap();
        assert!(HttpPublisher::new(&endpoint, Duration::from_secs(1)).is_err());
    }
}
