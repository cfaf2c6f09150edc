//! Publishing to any number of Pushpins.

mod held;
mod http;
mod link;
mod zmq;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::endpoint::Endpoint;
use crate::item::{Item, ItemError};

pub use http::HttpPublisher;

/// Something that happened on the way to a Pushpin.
///
/// Events of one Pushpin come in the order in which they happened and none is left out. `Subscribed` and
/// `Unsubscribed` come only between an `Up` and the next `Down`; a `Down` voids all its subscriptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The link stands. The subscriptions that Pushpin has already follow.
    Up {
        /// The Pushpin's place in the list given to [`Publisher::start`].
        pushpin: usize,
    },
    /// No subscription has come for a short while after `Up`: what Pushpin had already is reported. (ZeroMQ
    /// does not mark the end of this replay, so it is a guess by time; 3,000 subscriptions take about 20 ms.)
    Replayed {
        /// The Pushpin's place in the list.
        pushpin: usize,
    },
    /// The link is lost: Pushpin died, was restarted, stalled, or the reader of the events fell too far behind.
    /// Forget its subscriptions; those that still exist are reported again after the next `Up`. What was sent
    /// shortly before may be lost.
    Down {
        /// The Pushpin's place in the list.
        pushpin: usize,
    },
    /// The first connection on this Pushpin holds the channel. From now on what is sent to it arrives.
    Subscribed {
        /// The Pushpin's place in the list.
        pushpin: usize,
        /// The channel's name.
        channel: String,
    },
    /// The last connection on this Pushpin has left the channel: closed by the client or by a close item.
    Unsubscribed {
        /// The Pushpin's place in the list.
        pushpin: usize,
        /// The channel's name.
        channel: String,
    },
}

impl Event {
    /// The Pushpin that the event is about.
    #[must_use]
    pub fn pushpin(&self) -> usize {
        match self {
            Self::Up { pushpin }
            | Self::Replayed { pushpin }
            | Self::Down { pushpin }
            | Self::Subscribed { pushpin, .. }
            | Self::Unsubscribed { pushpin, .. } => *pushpin,
        }
    }
}

/// Why items were not sent, or not surely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No Pushpin has this place in the list.
    #[error("there is no Pushpin number {0}")]
    UnknownPushpin(usize),
    /// An item can't be encoded. Nothing was sent.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// The link is down, or went down meanwhile: some of the items may have been sent.
    #[error("the link to Pushpin is down")]
    Down,
    /// Pushpin took nothing for the whole send timeout. Some of the items may have been sent. The link is given
    /// up and made anew.
    #[error("Pushpin took nothing within the send timeout")]
    Timeout,
    /// The queue had no room, or the items waited in it for too long. Nothing was sent.
    #[error("the queue to Pushpin is full")]
    Overloaded,
    /// The instant given to [`Publisher::send_until`] has passed. The first `written` items were sent.
    #[error("the items expired after {written} were written")]
    Expired {
        /// How many were sent.
        written: usize,
    },
    /// Pushpin's HTTP endpoint answered with this status. Items of earlier requests (1 MB each) were sent.
    #[error("Pushpin refused the items with status {0}")]
    Rejected(u16),
    /// The publisher was shut down.
    #[error("the publisher has stopped")]
    Stopped,
}

/// Limits and times of a [`Publisher`]. The defaults suit a local network; set on them what is to be otherwise:
///
/// ```
/// let mut options = grip::PublisherOptions::default();
/// options.queue_length = 256;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherOptions {
    /// How long one item may take to be written, and how long a send waits for room in the queue: 500 ms.
    pub send_timeout: Duration,
    /// How long a send may wait in the queue: 5 s.
    pub queue_timeout: Duration,
    /// Sends that wait for one Pushpin: 4096.
    pub queue_length: usize,
    /// Bytes that wait for one Pushpin: 64 MiB.
    pub queue_bytes: usize,
    /// Events that wait for their reader: 262,144. A link whose events find no room reads no more subscriptions
    /// (sends go on); when the reader takes nothing for the send timeout, the link goes down and comes up again,
    /// so that the replay brings the reader up to date.
    pub event_backlog: usize,
    /// The first pause between two attempts to connect: 25 ms. It doubles with each failure.
    pub retry_min: Duration,
    /// The longest such pause: 1 s.
    pub retry_max: Duration,
    /// How long an attempt to connect may take: 5 s.
    pub connect_timeout: Duration,
    /// How often a link is probed with a connection of its own: 5 s. It finds what the operating system does not
    /// report: a host that vanished, a Pushpin that hangs. Two failures in a row take the link down.
    pub probe_interval: Duration,
    /// How long a probe may take: 2 s.
    pub probe_timeout: Duration,
    /// The silence after `Up` that counts as the end of the replay: 50 ms. After 20 times as long it counts as
    /// ended even if there was no silence.
    pub replay_silence: Duration,
    /// The beginning of the names of those channels of which the publisher itself is to remember whether they are held
    /// ([`Publisher::is_held`]). Empty, and so by default, none.
    pub watch: String,
    /// How long a link has to stand before it counts as settled ([`Publisher::link_settled`]): 1 s.
    pub settle: Duration,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            send_timeout: Duration::from_millis(500),
            queue_timeout: Duration::from_secs(5),
            queue_length: 4096,
            queue_bytes: 64 * 1024 * 1024,
            event_backlog: 262_144,
            retry_min: Duration::from_millis(25),
            retry_max: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(2),
            replay_silence: Duration::from_millis(50),
            watch: String::new(),
            settle: Duration::from_secs(1),
        }
    }
}

impl PublisherOptions {
    /// The same, watching the channels whose names begin so: [`PublisherOptions::watch`].
    #[must_use]
    pub fn with_watch(mut self, watch: impl Into<String>) -> Self {
        self.watch = watch.into();
        self
    }
}

/// An encoded item.
#[derive(Debug, Clone)]
struct Encoded {
    channel: Bytes,
    body: Bytes,
}

impl Encoded {
    fn bytes(&self) -> usize {
        self.channel.len() + self.body.len()
    }
}

/// Items on their way to a link.
struct Command {
    items: Vec<Encoded>,
    queued: Instant,
    until: Option<Instant>,
    reply: oneshot::Sender<Result<(), SendError>>,
    /// The room in the queue; given back when the command is done.
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// What is known of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Down,
    Up { since: Instant, replayed: bool },
}

struct Handle {
    endpoint: Endpoint,
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    status: watch::Receiver<Status>,
}

struct Shared {
    links: Vec<Handle>,
    held: Arc<held::Held>,
    options: PublisherOptions,
}

/// Publishes to Pushpins, and tells who listens.
///
/// Each Pushpin has a link of its own: a task that owns a ZeroMQ XPUB socket, watches it, and connects it anew
/// after a loss. An XPUB socket gets a message for each subscription, so a message that is sent after
/// [`Event::Subscribed`], to the Pushpin that the event names, is not lost to the race between the answer of an
/// origin and the opening of its hold. Clones share the links; they end when the last clone is dropped.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

impl Publisher {
    /// Starts a link to each endpoint; a Pushpin is known by its place in the list. Links connect by themselves,
    /// and go on trying for ever. Must be called inside a tokio runtime with time and I/O.
    ///
    /// The receiver may be dropped when nobody needs the events. Otherwise it has to be read; reading may lag
    /// behind ([`PublisherOptions::event_backlog`]) and may be mixed with sending in one task.
    #[must_use]
    pub fn start(endpoints: Vec<Endpoint>, options: PublisherOptions) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(options.event_backlog.clamp(1, Semaphore::MAX_PERMITS));
        let held = Arc::new(held::Held::new(options.watch.clone()));
        let links = endpoints
            .into_iter()
            .enumerate()
            .map(|(pushpin, endpoint)| {
                let (commands, queue) = mpsc::channel(options.queue_length.clamp(1, Semaphore::MAX_PERMITS));
                let (status_sender, status) = watch::channel(Status::Down);
                let link = link::Link::new(
                    pushpin,
                    endpoint.clone(),
                    options.clone(),
                    queue,
                    events.clone(),
                    status_sender,
                    held.clone(),
                );
                tokio::spawn(link.run());
                let room = Arc::new(Semaphore::new(queue_bytes(&options) as usize));
                Handle { endpoint, commands, room, status }
            })
            .collect();
        (Self { shared: Arc::new(Shared { links, held, options }) }, receiver)
    }

    /// Sends items to one Pushpin, in order, and waits until the last was written to its socket. Sends of several
    /// tasks don't mix: the items of one send follow each other.
    ///
    /// Written does not mean received: Pushpin may die with the items in its buffers ([`Event::Down`] follows).
    /// An item for a channel that nobody on that Pushpin holds is not even written. That a stream received all
    /// is known when its channel is unsubscribed after the close.
    ///
    /// Dropping the future stops what is not yet written.
    ///
    /// # Errors
    /// [`SendError`]; each variant says what may have been sent.
    pub async fn send(&self, pushpin: usize, items: Vec<Item>) -> Result<(), SendError> {
        self.send_encoded(pushpin, self.encode(pushpin, &items)?, None).await
    }

    /// As [`Publisher::send`], but writes no item after the instant: it is looked at right before each write.
    /// A publisher whose right to publish runs out (a lease) gives its end.
    ///
    /// # Errors
    /// [`SendError::Expired`] tells how many items were written before the instant; the others as for `send`.
    pub async fn send_until(
        &self,
        pushpin: usize,
        items: Vec<Item>,
        until: std::time::Instant,
    ) -> Result<(), SendError> {
        self.send_encoded(pushpin, self.encode(pushpin, &items)?, Some(Instant::from_std(until))).await
    }

    /// Sends the items to every Pushpin at once. The results are in the order of the Pushpins.
    pub async fn broadcast(&self, items: &[Item]) -> Vec<Result<(), SendError>> {
        let sends = (0..self.pushpins()).map(async |pushpin| {
            let encoded = self.encode(pushpin, items)?;
            self.send_encoded(pushpin, encoded, None).await
        });
        futures::future::join_all(sends).await
    }

    /// The number of Pushpins.
    #[must_use]
    pub fn pushpins(&self) -> usize {
        self.shared.links.len()
    }

    /// The endpoint of a Pushpin.
    #[must_use]
    pub fn endpoint(&self, pushpin: usize) -> Option<&Endpoint> {
        self.shared.links.get(pushpin).map(|link| &link.endpoint)
    }

    /// True while the link to this Pushpin stands.
    #[must_use]
    pub fn link_up(&self, pushpin: usize) -> bool {
        self.status(pushpin) != Status::Down
    }

    /// True while the link stands since at least [`PublisherOptions::settle`]. Right after its start Pushpin may
    /// answer holds with 500 or cut them: let it hold requests only from then on.
    #[must_use]
    pub fn link_settled(&self, pushpin: usize) -> bool {
        match self.status(pushpin) {
            Status::Down => false,
            Status::Up { since, .. } => since.elapsed() >= self.shared.options.settle,
        }
    }

    /// True while the link stands and the subscriptions that Pushpin had before are reported
    /// ([`Event::Replayed`]).
    #[must_use]
    pub fn link_replayed(&self, pushpin: usize) -> bool {
        matches!(self.status(pushpin), Status::Up { replayed: true, .. })
    }

    /// True while all links stand. With no Pushpin at all it is true.
    #[must_use]
    pub fn all_up(&self) -> bool {
        (0..self.pushpins()).all(|pushpin| self.link_up(pushpin))
    }

    /// True while all links are settled ([`Publisher::link_settled`]). With no Pushpin at all it is true.
    #[must_use]
    pub fn all_settled(&self) -> bool {
        (0..self.pushpins()).all(|pushpin| self.link_settled(pushpin))
    }

    /// True while all links stand and are replayed. With no Pushpin at all it is true.
    #[must_use]
    pub fn all_replayed(&self) -> bool {
        (0..self.pushpins()).all(|pushpin| self.link_replayed(pushpin))
    }

    /// Whether this publisher knows when the channel is held: its name is one of those that are watched
    /// ([`PublisherOptions::watch`]), and all Pushpins report their subscriptions.
    #[must_use]
    pub fn watches(&self, channel: &str) -> bool {
        self.shared.held.watches(channel) && self.shared.links.iter().all(|link| link.endpoint.is_gated())
    }

    /// Whether some Pushpin holds all these watched channels: what is sent to them from now on arrives.
    #[must_use]
    pub fn is_held(&self, channels: &[&str]) -> bool {
        self.shared.held.has(channels)
    }

    /// Waits until a watched channel is held.
    pub async fn wait_held(&self, channel: &str) {
        self.shared.held.wait_for(channel).await;
    }

    /// Waits until all links stand and are replayed.
    pub async fn wait_replayed(&self) {
        for link in &self.shared.links {
            // An error means that the link has ended, which only the drop of the last clone does.
            let _ = link
                .status
                .clone()
                .wait_for(|status| matches!(status, Status::Up { replayed: true, .. }))
                .await;
        }
    }

    fn status(&self, pushpin: usize) -> Status {
        self.shared.links.get(pushpin).map_or(Status::Down, |link| *link.status.borrow())
    }

    fn encode(&self, pushpin: usize, items: &[Item]) -> Result<Vec<Encoded>, SendError> {
        let link = self.shared.links.get(pushpin).ok_or(SendError::UnknownPushpin(pushpin))?;
        if *link.status.borrow() == Status::Down {
            return Err(SendError::Down);
        }
        items
            .iter()
            .map(|item| {
                let [channel, body] = if link.endpoint.is_gated() {
                    item.frames()?
                } else {
                    [Bytes::new(), item.json()?.into()]
                };
                Ok(Encoded { channel, body })
            })
            .collect()
    }

    async fn send_encoded(
        &self,
        pushpin: usize,
        items: Vec<Encoded>,
        until: Option<Instant>,
    ) -> Result<(), SendError> {
        let link = self.shared.links.get(pushpin).ok_or(SendError::UnknownPushpin(pushpin))?;
        if items.is_empty() {
            return Ok(());
        }
        let options = &self.shared.options;
        // One send that is larger than the queue passes alone.
        let bytes: usize = items.iter().map(Encoded::bytes).sum();
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(queue_bytes(options));
        let room = async {
            let room = link.room.clone().acquire_many_owned(permits).await.map_err(|_| SendError::Stopped)?;
            let place = link.commands.reserve().await.map_err(|_| SendError::Stopped)?;
            Ok::<_, SendError>((room, place))
        };
        let (room, place) =
            timeout(options.send_timeout, room).await.map_err(|_| SendError::Overloaded)??;
        let (reply, result) = oneshot::channel();
        place.send(Command { items, queued: Instant::now(), until, reply, _room: room });
        result.await.unwrap_or(Err(SendError::Stopped))
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let links = self.shared.links.iter().map(|link| (link.endpoint.to_string(), *link.status.borrow()));
        f.debug_map().entries(links).finish()
    }
}

/// The queue's size as permits, which tokio counts in 32 bits.
fn queue_bytes(options: &PublisherOptions) -> u32 {
    u32::try_from(options.queue_bytes).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3)
}
