//! A link over ZeroMQ.
//!
//! The crate `zeromq` is right on the wire, but its XPUB socket never reconnects and never tells that its peer
//! is gone. So an idle PUB socket to the same address stands guard: its monitor reports the loss within
//! milliseconds. It is connected before the XPUB socket, so that a Pushpin which is restarted between the two is
//! noticed. On a loss both sockets are given up.

use std::pin::pin;

use futures::channel::mpsc;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use zeromq::util::PeerIdentity;
use zeromq::{
    PubSocket, Socket, SocketEvent, SocketOptions, SocketRecv as _, SocketSend as _, XPubSocket, ZmqMessage,
};

use super::link::{BEHIND, End, Link, Peer, probe, until_silent};
use super::{Command, PublisherOptions, SendError};
use crate::endpoint::Endpoint;

/// After this many silences without a pause the replay counts as ended all the same.
const REPLAY_LIMIT: u32 = 20;

const CLOSED: &str = "Pushpin closed the connection";

/// A connected socket that lets go of its connection when it is dropped.
struct Connected<S: Socket> {
    socket: S,
    monitor: mpsc::Receiver<SocketEvent>,
    peer: PeerIdentity,
}

impl<S: Socket> Connected<S> {
    async fn new(peer: &Peer, options: &PublisherOptions) -> Result<Self, String> {
        let mut socket_options = SocketOptions::default();
        socket_options.connect_timeout(options.connect_timeout);
        let mut socket = S::with_options(socket_options);
        let mut monitor = socket.monitor();
        let address = match peer {
            Peer::Tcp(address) => format!("tcp://{address}"),
            Peer::Ipc(path) => format!("ipc://{}", path.display()),
        };
        socket.connect(&address).await.map_err(|error| error.to_string())?;
        match monitor.next().await {
            Some(SocketEvent::Connected(_, peer)) => Ok(Self { socket, monitor, peer }),
            other => Err(format!("unexpected event of the socket: {other:?}")),
        }
    }
}

impl<S: Socket> Drop for Connected<S> {
    fn drop(&mut self) {
        // A dropped XPUB socket whose `recv` was polled keeps its connection open otherwise.
        self.socket.backend().peer_disconnected(&self.peer);
    }
}

/// Ends when the peer is gone.
async fn gone(sentinel: &mut Connected<PubSocket>) {
    while let Some(event) = sentinel.monitor.next().await {
        if matches!(event, SocketEvent::Disconnected(_)) {
            return;
        }
    }
}

pub(super) async fn connect_and_serve(link: &mut Link) -> End {
    let endpoint = link.endpoint.clone();
    let options = link.options.clone();
    let connection = link.refuse_while(async { connect(&endpoint, &options).await }).await;
    match connection {
        None => End::Stopped,
        Some(Err(error)) => End::Lost(error),
        Some(Ok((peer, mut sentinel, mut xpub))) => serve(link, &peer, &mut sentinel, &mut xpub).await,
    }
}

async fn connect(
    endpoint: &Endpoint,
    options: &PublisherOptions,
) -> Result<(Peer, Connected<PubSocket>, Connected<XPubSocket>), String> {
    let work = async {
        // A name may have several addresses: all sockets of a link must go to the same one.
        let peer = probe(endpoint, true).await.map_err(|error| error.to_string())?;
        let sentinel = Connected::new(&peer, options).await?;
        let xpub = Connected::new(&peer, options).await?;
        Ok((peer, sentinel, xpub))
    };
    timeout(options.connect_timeout, work).await.map_err(|_| "no answer".to_owned())?
}

async fn serve(
    link: &mut Link,
    peer: &Peer,
    sentinel: &mut Connected<PubSocket>,
    xpub: &mut Connected<XPubSocket>,
) -> End {
    let options = link.options.clone();
    let mut silent = pin!(until_silent(peer, true, &options));
    let mut replaying = true;
    let replay_limit = Instant::now() + options.replay_silence * REPLAY_LIMIT;
    let mut replay_end = pin!(sleep_until(Instant::now() + options.replay_silence));
    link.up();
    let events = link.events.clone();
    loop {
        let blocked = !link.pending.is_empty();
        tokio::select! {
            biased;
            () = gone(sentinel) => return End::Lost(CLOSED.into()),
            () = &mut silent => return End::Lost("Pushpin does not answer".into()),
            room = events.reserve(), if blocked => {
                link.deliver(room.ok());
            }
            () = sleep_until(link.pending_limit()), if blocked => return End::Lost(BEHIND.into()),
            // What is not read now waits in the buffers of the operating system, some 4 MB.
            message = xpub.socket.recv(), if !blocked => match message {
                Ok(message) => {
                    subscription(link, &message);
                    if replaying {
                        replay_end.as_mut().reset((Instant::now() + options.replay_silence).min(replay_limit));
                    }
                }
                Err(error) => return End::Lost(error.to_string()),
            },
            () = &mut replay_end, if replaying && !blocked => {
                replaying = false;
                link.replayed();
            }
            command = link.commands.recv() => {
                let Some(command) = command else { return End::Stopped };
                if let Err(end) = write(&mut xpub.socket, sentinel, command, &options).await {
                    return end;
                }
            }
        }
    }
}

fn subscription(link: &mut Link, message: &ZmqMessage) {
    let Some((kind, channel)) = message.get(0).and_then(|frame| frame.split_first()) else { return };
    // Pushpin takes channel names as text, so a name that is none was not made by this library.
    if let (0 | 1, Ok(channel)) = (kind, std::str::from_utf8(channel)) {
        link.subscription(channel.to_owned(), *kind == 1);
    }
}

async fn write(
    socket: &mut XPubSocket,
    sentinel: &mut Connected<PubSocket>,
    command: Command,
    options: &PublisherOptions,
) -> Result<(), End> {
    if let Some(error) = command.stale(options) {
        command.answer(Err(error));
        return Ok(());
    }
    let mut written = 0;
    while let Some(item) = command.items.get(written) {
        if command.reply.is_closed() {
            return Ok(());
        }
        if command.expired() {
            command.answer(Err(SendError::Expired { written }));
            return Ok(());
        }
        let mut message = ZmqMessage::from(item.channel.clone());
        message.push_back(item.body.clone());
        match timeout(options.send_timeout, socket.send(message)).await {
            Ok(Ok(())) => written += 1,
            Ok(Err(error)) => {
                command.answer(Err(SendError::Down));
                return Err(End::Lost(error.to_string()));
            }
            Err(_) => {
                command.answer(Err(SendError::Timeout));
                return Err(End::Lost("Pushpin took nothing within the send timeout".into()));
            }
        }
    }
    // The socket says nothing when its peer is gone; the sentinel may know by now.
    if gone(sentinel).now_or_never().is_some() {
        command.answer(Err(SendError::Down));
        return Err(End::Lost(CLOSED.into()));
    }
    command.answer(Ok(()));
    Ok(())
}
