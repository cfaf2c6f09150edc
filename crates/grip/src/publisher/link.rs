//! The supervisor of one link: connects, serves, and starts again.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::held::Held;
use super::{Command, Event, PublisherOptions, SendError, Status, http, zmq};
use crate::endpoint::Endpoint;

/// A link that lived this long was sound: the next attempt to connect starts with the shortest pause.
const SOUND: Duration = Duration::from_secs(1);

/// Why a link is given up whose events nobody takes.
pub(super) const BEHIND: &str = "the reader of the events is too far behind";

/// Why a link ended.
pub(super) enum End {
    /// The last publisher is gone.
    Stopped,
    /// The connection is lost.
    Lost(String),
}

pub(super) struct Link {
    pub(super) endpoint: Endpoint,
    pub(super) options: PublisherOptions,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    /// Events that found no room. Nothing that could make more is done before they are delivered.
    pub(super) pending: VecDeque<Event>,
    /// Since when the first of them has waited.
    pending_since: Instant,
    pushpin: usize,
    status: watch::Sender<Status>,
    held: Arc<Held>,
}

impl Link {
    pub(super) fn new(
        pushpin: usize,
        endpoint: Endpoint,
        options: PublisherOptions,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        status: watch::Sender<Status>,
        held: Arc<Held>,
    ) -> Self {
        let (pending, pending_since) = (VecDeque::new(), Instant::now());
        Self { endpoint, options, commands, events, pending, pending_since, pushpin, status, held }
    }

    pub(super) async fn run(mut self) {
        let mut pause = self.options.retry_min;
        loop {
            let started = Instant::now();
            let end = match self.endpoint {
                Endpoint::Tcp { .. } | Endpoint::Ipc { .. } => zmq::connect_and_serve(&mut self).await,
                Endpoint::Http { .. } => http::connect_and_serve(&mut self).await,
            };
            let was_up = *self.status.borrow() != Status::Down;
            match end {
                End::Stopped => return,
                End::Lost(reason) if was_up => {
                    tracing::warn!(endpoint = %self.endpoint, reason, "the link to Pushpin is lost");
                }
                End::Lost(reason) => {
                    tracing::debug!(endpoint = %self.endpoint, reason, "can't connect to Pushpin");
                }
            }
            if was_up {
                if started.elapsed() >= SOUND {
                    pause = self.options.retry_min;
                }
                if !self.down().await {
                    return;
                }
            }
            if self.refuse_while(sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(self.options.retry_max);
        }
    }

    /// Runs `work` while the link is down; sends that come meanwhile fail with the reason. `None`: the last publisher is
    /// gone.
    pub(super) async fn refuse_while<F: Future>(&mut self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                output = &mut work => return Some(output),
                command = self.commands.recv() => command?.answer(Err(SendError::Down)),
            }
        }
    }

    /// Marks the link as standing.
    pub(super) fn up(&mut self) {
        tracing::info!(endpoint = %self.endpoint, "the link to Pushpin stands");
        self.event(Event::Up { pushpin: self.pushpin });
        self.status.send_replace(Status::Up { since: Instant::now(), replayed: false });
    }

    /// Marks the replay as ended.
    pub(super) fn replayed(&mut self) {
        self.event(Event::Replayed { pushpin: self.pushpin });
        self.status.send_modify(|status| {
            if let Status::Up { replayed, .. } = status {
                *replayed = true;
            }
        });
    }

    /// Reports a subscription, or its end.
    pub(super) fn subscription(&mut self, channel: String, subscribed: bool) {
        let pushpin = self.pushpin;
        self.held.note(pushpin, &channel, subscribed);
        self.event(if subscribed {
            Event::Subscribed { pushpin, channel }
        } else {
            Event::Unsubscribed { pushpin, channel }
        });
    }

    /// Never waits: sends have to go on whether the events are read or not, and a reader of events that waits for
    /// a send must not wait for itself.
    fn event(&mut self, event: Event) {
        let event = if self.pending.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => event,
            }
        } else {
            event
        };
        if self.pending.is_empty() {
            self.pending_since = Instant::now();
        }
        self.pending.push_back(event);
    }

    /// Delivers the first pending event into the room that was found (none: nobody wants events any more).
    pub(super) fn deliver(&mut self, room: Option<mpsc::Permit<'_, Event>>) {
        match (room, self.pending.pop_front()) {
            (Some(room), Some(event)) => room.send(event),
            _ => self.pending.clear(),
        }
        self.pending_since = Instant::now();
    }

    /// When a reader that took none of the pending events is given up.
    pub(super) fn pending_limit(&self) -> Instant {
        self.pending_since + self.options.send_timeout
    }

    /// Marks the link as down, answers what is queued, and reports it. False: the last publisher is gone.
    async fn down(&mut self) -> bool {
        self.status.send_replace(Status::Down);
        self.held.lose(self.pushpin);
        // What the pending events would say, the Down says.
        let pending = std::mem::take(&mut self.pending);
        if matches!(pending.front(), Some(Event::Up { .. })) {
            return true;
        }
        let events = self.events.clone();
        let event = Event::Down { pushpin: self.pushpin };
        // Here waiting is right: nothing else happens on a link that is down, and sends are answered meanwhile.
        self.refuse_while(async move {
            let _ = events.send(event).await;
        })
        .await
        .is_some()
    }
}

impl Command {
    pub(super) fn answer(self, result: Result<(), SendError>) {
        // A caller that stopped waiting does not care.
        let _ = self.reply.send(result);
    }

    /// Why nothing of the command may be written now, if so.
    pub(super) fn stale(&self, options: &PublisherOptions) -> Option<SendError> {
        if self.expired() {
            Some(SendError::Expired { written: 0 })
        } else if self.queued.elapsed() > options.queue_timeout {
            Some(SendError::Overloaded)
        } else {
            None
        }
    }

    /// True when no further item may be written.
    pub(super) fn expired(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Where a link's connections go.
#[derive(Debug, Clone)]
pub(super) enum Peer {
    /// One of the addresses of a name.
    Tcp(SocketAddr),
    Ipc(PathBuf),
}

impl Peer {
    /// The peers of an endpoint: a name may have several addresses.
    async fn of(endpoint: &Endpoint) -> std::io::Result<Vec<Self>> {
        match endpoint {
            Endpoint::Ipc { path } => Ok(vec![Self::Ipc(path.into())]),
            Endpoint::Tcp { host, port } | Endpoint::Http { host, port, .. } => {
                Ok(tokio::net::lookup_host((host.as_str(), *port)).await?.map(Self::Tcp).collect())
            }
        }
    }
}

/// Ends when the peer no longer answers new connections: twice in a row.
pub(super) async fn until_silent(peer: &Peer, greets: bool, options: &PublisherOptions) {
    let mut failures = 0;
    while failures < 2 {
        sleep(options.probe_interval).await;
        let probe = timeout(options.probe_timeout, probe_one(peer, greets)).await;
        failures = if matches!(probe, Ok(Ok(_))) { 0 } else { failures + 1 };
    }
}

/// Connects once and says where to: the first address that takes the connection. `greets`: waits for the first byte,
/// which a ZeroMQ peer sends unasked.
pub(super) async fn probe(endpoint: &Endpoint, greets: bool) -> std::io::Result<Peer> {
    let mut error = std::io::Error::other("the name has no address");
    for peer in Peer::of(endpoint).await? {
        match probe_one(&peer, greets).await {
            Ok(()) => return Ok(peer),
            Err(failed) => error = failed,
        }
    }
    Err(error)
}

async fn probe_one(peer: &Peer, greets: bool) -> std::io::Result<()> {
    match peer {
        Peer::Tcp(address) => greeting(TcpStream::connect(address).await?, greets).await,
        Peer::Ipc(path) => greeting(UnixStream::connect(path).await?, greets).await,
    }
}

async fn greeting(mut stream: impl AsyncRead + Unpin, greets: bool) -> std::io::Result<()> {
    if greets && stream.read_u8().await? != 0xff {
        return Err(std::io::Error::other("the peer does not speak ZeroMQ"));
    }
    Ok(())
}
