//! Notifications for many: one session, one user, one organisation, everyone.
//!
//! A [`Broadcaster`] is what library code, running tools and the admin API notify with. It sends one item to
//! each Pushpin, however many streams there are: streams are subscribed to the channels of their audiences,
//! and Pushpin writes each stateless stream's own subscription id into its copy. The same goes over the
//! store's bus to the streams that backends hold themselves.
//!
//! Nothing is kept. Who is not connected misses a notification: modern clients ask for the lists when they
//! subscribe, and to a session that comes back the list changes are sent again.

mod long_lived;
mod names;
mod notice;
mod send;
mod streams;
#[cfg(test)]
mod tests;
mod text;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use grip::{MAX_CHANNELS, Publisher};
use identity::Principal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

pub use long_lived::STREAMS_OF_SESSION;
pub(crate) use long_lived::{Kept, LongLivedStream, NotOpened};
#[cfg(feature = "program")]
pub(crate) use names::CHANNELS;
pub use names::{BroadcastKey, InvalidKey};
pub use notice::{Audience, LogLevel, MAX_NOTICE, Notice, NoticeError};
pub use streams::{Following, Subscription};

use crate::id::CallId;
use crate::protocol::LOG_LEVELS;
use crate::store::{self, Store};
use notice::Topic;
use send::{Late, Outgoing};

/// Resources that one session can be subscribed to.
pub const RESOURCES_OF_SESSION: usize = 100;
/// Sessions that can be subscribed to one resource.
pub const SESSIONS_OF_RESOURCE: usize = 10_000;
/// Notices that wait to be sent by [`Broadcaster::notify_soon`].
const SOON: usize = 1024;
/// The channels of every listen stream: its audiences (everyone, organisation, principal), and its own.
const EVERY_STREAM: usize = 4;

/// Notifies. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Broadcaster {
    inner: Arc<Inner>,
}

struct Inner {
    server: String,
    key: BroadcastKey,
    store: Arc<dyn Store>,
    publisher: Option<Publisher>,
    soon: mpsc::Sender<(Audience, Notice)>,
    /// One for each Pushpin.
    late: Vec<Late>,
    items: AtomicU64,
    held_back: Mutex<long_lived::HeldBack>,
    /// Streams that are gone are being taken out.
    tidying: AtomicBool,
}

/// What a stateless stream asked for, and is to get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Topics {
    pub(crate) tools: bool,
    pub(crate) prompts: bool,
    pub(crate) resources: bool,
    pub(crate) uris: Vec<String>,
    pub(crate) tasks: Vec<CallId>,
}

impl Topics {
    /// Leaves out what would take more channels than Pushpin has for one connection: the last URIs first.
    pub(crate) fn bound(&mut self) {
        let lists = [self.tools, self.prompts, self.resources].iter().filter(|list| **list).count();
        let room = MAX_CHANNELS - EVERY_STREAM - lists;
        self.tasks.truncate(room);
        self.uris.truncate(room.saturating_sub(self.tasks.len()));
    }
}

/// A session that is subscribed to a resource, in the store's index.
#[derive(Serialize, Deserialize)]
struct Watcher {
    #[serde(rename = "s")]
    session: String,
    #[serde(rename = "p")]
    principal: String,
    #[serde(rename = "i")]
    issuer: String,
    #[serde(rename = "o")]
    organisation: String,
}

impl Watcher {
    fn new(principal: &Principal, session: &str) -> Self {
        Self {
            session: session.to_owned(),
            principal: principal.key(),
            issuer: principal.issuer.clone(),
            organisation: principal.organisation.clone(),
        }
    }

    fn is_in(&self, audience: &Audience) -> bool {
        match audience {
            Audience::Session(session) => *session == self.session,
            Audience::Principal(principal) => *principal == self.principal,
            Audience::Organisation { issuer, organisation } => {
                (issuer, organisation) == (&self.issuer, &self.organisation)
            }
            Audience::Everyone => true,
        }
    }
}

/// The two families of streams: only modern ones have a subscription id in what they get.
#[derive(Clone, Copy)]
enum Kind {
    Modern,
    Session,
}

impl Broadcaster {
    /// A broadcaster for the named server. `publisher`: the links to the Pushpins; none where backends hold
    /// all streams. All of a site need the same key. Must be made inside a tokio runtime.
    pub fn new(
        server: impl Into<String>,
        key: BroadcastKey,
        store: Arc<dyn Store>,
        publisher: Option<Publisher>,
    ) -> Self {
        let (soon, waiting) = mpsc::channel(SOON);
        let pushpins = publisher.as_ref().map_or(0, Publisher::pushpins);
        let late = std::iter::repeat_with(Late::default).take(pushpins).collect();
        let (server, items) = (server.into(), AtomicU64::new(0));
        let (held_back, tidying) = (Mutex::default(), AtomicBool::new(false));
        let inner = Arc::new(Inner { server, key, store, publisher, soon, late, items, held_back, tidying });
        tokio::spawn(send_soon(Arc::downgrade(&inner), waiting));
        Self { inner }
    }

    /// Sends a notice to all connected streams of the audience that want it.
    ///
    /// Returns when the notice is on its way. A Pushpin that can't be reached now gets it within a few
    /// seconds, or lost its streams.
    ///
    /// # Errors
    /// [`store::Unavailable`]: some streams may not get it. Sending it again does no harm.
    pub async fn notify(&self, audience: &Audience, notice: &Notice) -> store::Result<()> {
        if let Some(lists) = notice.stale() {
            // First: who hears of the change asks again at once.
            self.inner.store.cast(&changes(&self.inner.server), lists.into()).await?;
        }
        // Before anything is sent: who is entered from here on has not missed this.
        let (special, looked) = match self.special().await {
            Ok(special) => (special, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let modern = self.modern(audience, notice).into_iter();
        let mut out: Vec<Outgoing> =
            modern.map(|(out, to)| self.route(Kind::Modern, out, &to, &special)).collect();
        let session = self.session(audience, notice).await?.into_iter();
        out.extend(session.map(|(out, to)| self.route(Kind::Session, out, &to, &special)));
        self.send(&out).await.and(looked)
    }

    /// As [`Broadcaster::notify`], in the background and in the order of the calls. Where a thousand notices
    /// wait already, this one is dropped.
    pub fn notify_soon(&self, audience: Audience, notice: Notice) {
        if self.inner.soon.try_send((audience, notice)).is_err() {
            tracing::warn!("too many notices wait; one is dropped");
        }
    }

    /// Sends a task's state to the stateless streams that are subscribed to it. `params` are those of
    /// `notifications/tasks`.
    ///
    /// # Errors
    /// As [`Broadcaster::notify`].
    pub async fn task_status(&self, id: CallId, params: &RawValue) -> store::Result<()> {
        match Notice::task(id, params) {
            Some(notice) => self.notify(&Audience::Everyone, &notice).await,
            None => Ok(()),
        }
    }

    /// As [`Broadcaster::task_status`], in the background.
    pub fn task_status_soon(&self, id: CallId, params: &RawValue) {
        if let Some(notice) = Notice::task(id, params) {
            self.notify_soon(Audience::Everyone, notice);
        }
    }

    /// Ends the audience's long-lived streams: modern ones with the answer to their `subscriptions/listen`,
    /// those of sessions without a word. Clients may connect again.
    ///
    /// # Errors
    /// As [`Broadcaster::notify`].
    pub async fn close(&self, audience: &Audience) -> store::Result<()> {
        let modern = self.audience(Kind::Modern, audience);
        let session = self.audience(Kind::Session, audience);
        let mut out: Vec<Outgoing> =
            modern.into_iter().map(|channel| Outgoing::end(channel, text::complete())).collect();
        out.extend(session.map(|channel| Outgoing::end(channel, String::new())));
        self.send(&out).await
    }

    /// Subscribes a session to a resource, for as long as the session can live. False: it, or the resource,
    /// has too many subscriptions.
    ///
    /// # Errors
    /// [`store::Unavailable`].
    pub(crate) async fn subscribe(
        &self,
        principal: &Principal,
        session: &str,
        uri: &str,
        live: Duration,
    ) -> store::Result<bool> {
        let Ok(watcher) = serde_json::to_string(&Watcher::new(principal, session)) else { return Ok(false) };
        let (own, all) = (self.subscriptions_of(session), self.watchers_of(uri));
        let store = &self.inner.store;
        Ok(store.enter(&own, &all, live, RESOURCES_OF_SESSION).await?
            && store.enter(&all, &watcher, live, SESSIONS_OF_RESOURCE).await?)
    }

    /// Takes a subscription back.
    ///
    /// # Errors
    /// [`store::Unavailable`].
    pub(crate) async fn unsubscribe(
        &self,
        principal: &Principal,
        session: &str,
        uri: &str,
    ) -> store::Result<()> {
        let Ok(watcher) = serde_json::to_string(&Watcher::new(principal, session)) else { return Ok(()) };
        let all = self.watchers_of(uri);
        self.inner.store.leave(&all, &watcher).await?;
        self.inner.store.leave(&self.subscriptions_of(session), &all).await
    }

    /// What a session's long-lived stream is subscribed to. `level`: the lowest level of log messages that the
    /// session wants, as it is now; none: all.
    pub fn session_subscription(
        &self,
        principal: &Principal,
        session: &str,
        level: Option<&str>,
    ) -> Subscription {
        let audiences = [
            Audience::Session(session.to_owned()),
            Audience::principal(principal),
            Audience::organisation_of(principal),
            Audience::Everyone,
        ];
        let channels =
            audiences.iter().filter_map(|audience| self.audience(Kind::Session, audience)).collect();
        let lowest = level.and_then(|level| LOG_LEVELS.iter().position(|known| *known == level));
        let levels = LOG_LEVELS.iter().skip(lowest.unwrap_or_default());
        let topics = levels.map(|level| self.log_channel(level)).collect();
        Subscription { channels, topics, id: None, name: None }
    }

    /// What a stateless stream is subscribed to. `id`: that of its request, as JSON.
    pub(crate) fn listen_subscription(
        &self,
        principal: &Principal,
        topics: &Topics,
        id: &str,
    ) -> Subscription {
        let audiences =
            [Audience::Everyone, Audience::organisation_of(principal), Audience::principal(principal)];
        let audiences = audiences.iter().filter_map(|audience| self.audience(Kind::Modern, audience));
        let lists = [
            (topics.tools, Topic::Tools),
            (topics.prompts, Topic::Prompts),
            (topics.resources, Topic::Resources),
        ];
        let lists = lists.into_iter().filter_map(|(asked, topic)| asked.then_some(topic));
        let wanted = lists.chain(topics.uris.iter().cloned().map(Topic::Resource));
        Subscription {
            channels: audiences.chain(topics.tasks.iter().map(|task| self.task_channel(*task))).collect(),
            topics: wanted.filter_map(|topic| self.topic(&topic)).collect(),
            id: Some(id.to_owned()),
            name: None,
        }
    }

    /// Items that were handed to Pushpins since the start, each counted once for each Pushpin.
    pub fn items(&self) -> u64 {
        self.inner.items.load(Ordering::Relaxed)
    }

    /// What goes to stateless streams, and to which of them.
    fn modern(&self, audience: &Audience, notice: &Notice) -> Option<(Outgoing, Audience)> {
        let content = || text::modern(notice.method(), &notice.params);
        if let Topic::Task(id) = notice.topic {
            let out = Outgoing::content(self.task_channel(id), None, content());
            return Some((out, Audience::Everyone));
        }
        let required = self.topic(&notice.topic)?;
        let out = Outgoing::content(self.audience(Kind::Modern, audience)?, Some(required), content());
        Some((out, audience.clone()))
    }

    /// What goes to streams of sessions, and to which of them.
    async fn session(
        &self,
        audience: &Audience,
        notice: &Notice,
    ) -> store::Result<Vec<(Outgoing, Audience)>> {
        let content = text::session(notice.method(), &notice.params);
        let required = match &notice.topic {
            Topic::Task(_) => return Ok(Vec::new()),
            Topic::Resource(uri) => {
                let watchers = self.inner.store.members(&self.watchers_of(uri)).await?;
                let watchers = watchers.iter().filter_map(|text| serde_json::from_str::<Watcher>(text).ok());
                let sessions = watchers
                    .filter(|watcher| watcher.is_in(audience))
                    .map(|watcher| Audience::Session(watcher.session))
                    .filter_map(|to| Some((self.audience(Kind::Session, &to)?, to)));
                let out = |(channel, to)| (Outgoing::content(channel, None, content.clone()), to);
                return Ok(sessions.map(out).collect());
            }
            Topic::Log(level) => Some(self.log_channel(level.as_str())),
            Topic::Tools | Topic::Prompts | Topic::Resources => None,
        };
        let channel = self.audience(Kind::Session, audience);
        let out = channel.map(|channel| Outgoing::content(channel, required, content));
        Ok(out.map(|out| (out, audience.clone())).into_iter().collect())
    }

    fn name(&self, parts: &[&str]) -> String {
        let mut all = vec![self.inner.server.as_str()];
        all.extend(parts);
        self.inner.key.name(&all)
    }

    /// The channel of an audience; stateless requests have no session.
    fn audience(&self, kind: Kind, audience: &Audience) -> Option<String> {
        let kind = match kind {
            Kind::Modern if matches!(audience, Audience::Session(_)) => return None,
            Kind::Modern => "modern",
            Kind::Session => "session",
        };
        Some(match audience {
            Audience::Session(session) => self.name(&[kind, "session", session]),
            Audience::Principal(principal) => self.name(&[kind, "principal", principal]),
            Audience::Organisation { issuer, organisation } => {
                self.name(&[kind, "organisation", issuer, organisation])
            }
            Audience::Everyone => self.name(&[kind, "everyone"]),
        })
    }

    /// The channel that says that a stateless stream asked for a topic.
    fn topic(&self, topic: &Topic) -> Option<String> {
        Some(match topic {
            Topic::Tools => self.name(&["wants", "tools"]),
            Topic::Prompts => self.name(&["wants", "prompts"]),
            Topic::Resources => self.name(&["wants", "resources"]),
            Topic::Resource(uri) => self.name(&["wants", "resource", uri]),
            Topic::Task(_) | Topic::Log(_) => return None,
        })
    }

    fn task_channel(&self, id: CallId) -> String {
        self.name(&["task", &id.to_string()])
    }

    fn log_channel(&self, level: &str) -> String {
        self.name(&["log", level])
    }

    fn watchers_of(&self, uri: &str) -> String {
        self.name(&["watchers", uri])
    }

    fn subscriptions_of(&self, session: &str) -> String {
        self.name(&["subscriptions", session])
    }
}

impl std::fmt::Debug for Broadcaster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broadcaster").field("server", &self.inner.server).finish_non_exhaustive()
    }
}

/// A notification without parameters as an event of the stateful eras.
pub(crate) fn event(method: &str) -> String {
    text::session(method, &text::Members::new())
}

/// The answer to the `subscriptions/listen` of this id, as the last event of its stream.
pub(crate) fn complete(id: &str) -> String {
    text::fill(&text::complete(), id)
}

/// A task's state as an event of the stateless stream whose subscription has this id.
pub(crate) fn task_event(task: CallId, params: &RawValue, id: &str) -> Option<String> {
    let notice = Notice::task(task, params)?;
    Some(text::fill(&text::modern(notice.method(), &notice.params), id))
}

/// The topic of the bus that says which of a server's lists have changed: by the beginning of the method
/// that reads them, such as `tools/`. Every backend forgets then what it has kept of them.
pub(crate) fn changes(server: &str) -> String {
    format!("changed:{server}")
}

async fn send_soon(inner: Weak<Inner>, mut waiting: mpsc::Receiver<(Audience, Notice)>) {
    while let Some((audience, notice)) = waiting.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = (Broadcaster { inner }).notify(&audience, &notice).await {
            tracing::warn!(%error, notice = notice.method(), "a notice may not have reached everybody");
        }
    }
}
