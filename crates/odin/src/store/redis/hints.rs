//! Hints by publish/subscribe: one supervised connection for each receiver.

use std::time::Duration;

use futures::StreamExt;
use redis::Client;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::super::memory::NUDGES;
use super::link::CONNECT;

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(250);
/// How often a silent connection is asked whether it still lives, and how long its answer may take.
const PING: Duration = Duration::from_secs(2);
const PONG: Duration = Duration::from_secs(1);

/// Subscribes to a channel until the receiver is dropped. `all` is sent whenever hints may have been lost:
/// after each (re)connection, and when one did not fit.
pub(super) fn follow<T: Copy + Send + 'static>(
    client: Client,
    channel: String,
    all: T,
    parse: fn(&[u8]) -> Option<T>,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(NUDGES);
    tokio::spawn(async move {
        let mut up = true;
        while !sender.is_closed() {
            match timeout(CONNECT, subscribe(&client, &channel)).await {
                Ok(Ok((sink, stream))) => {
                    up = true;
                    forward(sink, stream, &sender, all, parse).await;
                }
                Ok(Err(error)) if up => {
                    up = false;
                    tracing::warn!(channel, %error, "no hints from Redis; trying again");
                }
                Err(_) if up => {
                    up = false;
                    tracing::warn!(channel, "no hints from Redis, which does not answer; trying again");
                }
                _ => {}
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = sender.closed() => {}
            }
        }
    });
    receiver
}

async fn subscribe(client: &Client, channel: &str) -> redis::RedisResult<(PubSubSink, PubSubStream)> {
    let (mut sink, stream) = client.get_async_pubsub().await?.split();
    sink.subscribe(channel).await?;
    Ok((sink, stream))
}

/// Passes hints on until the connection breaks or the receiver is dropped.
async fn forward<T: Copy>(
    mut sink: PubSubSink,
    mut stream: PubSubStream,
    sender: &mpsc::Sender<T>,
    all: T,
    parse: fn(&[u8]) -> Option<T>,
) {
    let mut missed = true;
    let mut ping = tokio::time::interval(PING);
    loop {
        tokio::select! {
            permit = sender.reserve(), if missed => match permit {
                Ok(permit) => {
                    permit.send(all);
                    missed = false;
                }
                Err(_) => return,
            },
            message = stream.next() => {
                let Some(message) = message else { return };
                // What can't be read is a hint all the same.
                let hint = parse(message.get_payload_bytes()).unwrap_or(all);
                missed = missed || sender.try_send(hint).is_err();
            }
            _ = ping.tick() => {
                if !matches!(timeout(PONG, sink.ping::<redis::Value>()).await, Ok(Ok(_))) {
                    return;
                }
            }
            () = sender.closed() => return,
        }
    }
}
