//! Which streams stand, and which of them a notice goes to.
//!
//! Two things need more than channels. A session may have several streams, and each message goes to one of them:
//! the newest. And a stream that is just being opened has its channels only when Pushpin has it; each process that
//! notifies learns that by itself, a little earlier or later than the others.
//!
//! So the store keeps the streams that are special at the moment: those that are *opening*, and those of a session
//! that has several (it is *crowded*). They are entered before Pushpin gets the instruction to hold them. Who notifies reads
//! them first, and looks at its own link to Pushpin, as a call's worker does before its first write: of a session's
//! streams the newest one that this process sees is sent the notice, and Pushpin leaves the others out
//! (`skip-users`). Where it sees none yet, all are left out, and the notice waits here until the newest one is
//! there; then it goes to that stream's own channel. So each notice comes once, whatever happens in between.
//!
//! Streams that are neither opening nor crowded cost a notice nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join};
use identity::Principal;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::send::Outgoing;
use super::streams::own_channel;
use super::{Audience, Broadcaster, Kind};
use crate::call::task::unix_millis;
use crate::store;

/// Streams that one session may have; one more ends the oldest.
pub const STREAMS_OF_SESSION: usize = 4;
/// The last word of a stream that had to make room: its client is to stay away for ten minutes.
const MADE_ROOM: &str = "retry: 600000\n\n";
/// How long a stream may take to be held.
const OPENS: Duration = Duration::from_secs(15);
/// How long other processes may take to see a stream that one has seen.
const SEEN_BY_ALL: Duration = Duration::from_secs(5);
/// Streams that may be opening: of one principal, and of a server.
const OPENING_OF_PRINCIPAL: usize = 256;
const OPENING: usize = 8192;
/// Streams of crowded sessions, of a server. When there are more, a session's older streams end.
const CROWDED: usize = 512;
/// How long a stream that a backend holds is known without news of it, and how often there is news.
const ALIVE: Duration = Duration::from_secs(15);
const NEWS: Duration = Duration::from_secs(5);
/// Bounds of what waits for streams that are not there yet: streams, notices for each, bytes of all.
const WAITED_FOR: usize = 1024;
const WAITING: usize = 64;
const WAITING_BYTES: usize = 16 * 1024 * 1024;

/// A long-lived stream, as all processes know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LongLivedStream {
    /// Its name among all.
    #[serde(rename = "n")]
    name: String,
    /// The session, in the stateful eras.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(rename = "p")]
    principal: String,
    #[serde(rename = "i")]
    issuer: String,
    #[serde(rename = "o")]
    organisation: String,
    /// When it was opened, in milliseconds since 1970, and in any case later than the session's others.
    #[serde(rename = "t", default)]
    at: u64,
    /// A backend holds it; not Pushpin.
    #[serde(rename = "b", default, skip_serializing_if = "std::ops::Not::not")]
    backend: bool,
}

/// Why a stream can't be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// The store does not answer.
    Unavailable(store::Unavailable),
    /// Its principal has too many that are opening.
    TooManyOfYours,
    /// The server has too many that are opening.
    TooMany,
}

impl From<store::Unavailable> for NotOpened {
    fn from(error: store::Unavailable) -> Self {
        Self::Unavailable(error)
    }
}

impl LongLivedStream {
    /// A stream of a principal, and of a session where there are sessions.
    pub(crate) fn new(principal: &Principal, session: Option<&str>) -> Self {
        Self {
            name: String::new(),
            session: session.map(str::to_owned),
            principal: principal.key(),
            issuer: principal.issuer.clone(),
            organisation: principal.organisation.clone(),
            at: 0,
            backend: false,
        }
    }

    /// The same under a new name. Each hold is another stream.
    pub(crate) fn named(self, backend: bool) -> Self {
        Self { name: format!("{:016x}", rand::random::<u64>()), backend, ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn is_in(&self, kind: Kind, audience: &Audience) -> bool {
        match (kind, &self.session) {
            (Kind::Modern, None) | (Kind::Session, Some(_)) => {}
            _ => return false,
        }
        match audience {
            Audience::Session(session) => self.session.as_ref() == Some(session),
            Audience::Principal(principal) => *principal == self.principal,
            Audience::Organisation { issuer, organisation } => {
                (issuer, organisation) == (&self.issuer, &self.organisation)
            }
            Audience::Everyone => true,
        }
    }

    /// What it shares with those that get a notice in its place.
    fn group(&self) -> &str {
        self.session.as_deref().unwrap_or(&self.name)
    }

    fn channel(&self) -> String {
        own_channel(&self.name)
    }

    fn text(&self) -> String {
        // It holds text and numbers alone: that has a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Newest first.
fn sorted(mut streams: Vec<LongLivedStream>) -> Vec<LongLivedStream> {
    streams.sort_unstable_by(|a, b| (b.at, &b.name).cmp(&(a.at, &a.name)));
    streams
}

/// What waits for streams that this process does not see yet, by the stream's name.
#[derive(Default)]
pub(super) struct HeldBack {
    queues: HashMap<String, VecDeque<Outgoing>>,
    bytes: usize,
}

impl Broadcaster {
    /// Enters a stream before it is opened, so that it misses nothing from then on; gives it as it was entered.
    /// `live`: how long it can stand.
    ///
    /// # Errors
    /// [`NotOpened`]: it must not be opened.
    pub(crate) async fn register(
        &self,
        stream: LongLivedStream,
        live: Duration,
    ) -> Result<LongLivedStream, NotOpened> {
        let store = &self.inner.store;
        let Some(session) = stream.session.clone() else {
            let stream = LongLivedStream { at: unix_millis(), ..stream };
            if !stream.backend {
                self.enter_opening(&stream).await?;
            }
            return Ok(stream);
        };
        let own = self.streams_of(&session);
        let newest = self.streams_in(&own).await?.iter().map(|other| other.at + 1).max();
        let stream = LongLivedStream { at: unix_millis().max(newest.unwrap_or_default()), ..stream };
        if !stream.backend {
            self.enter_opening(&stream).await?;
        }
        let (text, known) = (stream.text(), if stream.backend { ALIVE } else { live });
        store.enter(&own, &text, known, usize::MAX >> 1).await?;
        // Once more: another one may have come at the same time. One of the two sees both.
        let mut all = sorted(self.streams_in(&own).await?);
        let mut ended = all.split_off(all.len().min(STREAMS_OF_SESSION));
        if all.len() > 1 {
            let crowded = self.crowded();
            for one in &all {
                if !store.enter(&crowded, &one.text(), live, CROWDED).await? {
                    tracing::warn!("too many sessions have several streams: the older ones of one end");
                    ended.extend(all.iter().filter(|one| one.name != stream.name).cloned());
                    store.leave(&crowded, &text).await?;
                    break;
                }
            }
        }
        if !ended.is_empty() {
            let to = self.clone();
            tokio::spawn(async move { to.end_streams(ended, MADE_ROOM).await });
        }
        Ok(stream)
    }

    async fn enter_opening(&self, stream: &LongLivedStream) -> Result<(), NotOpened> {
        let (store, text) = (&self.inner.store, stream.text());
        let (of_principal, opening) = (self.opening_of(&stream.principal), self.opening());
        let of_principal = store.enter(&of_principal, &stream.name, OPENS, OPENING_OF_PRINCIPAL);
        if !of_principal.await? {
            return Err(NotOpened::TooManyOfYours);
        }
        if store.enter(&opening, &text, OPENS, OPENING).await? { Ok(()) } else { Err(NotOpened::TooMany) }
    }

    /// Follows a stream from its hold request until all processes see it.
    pub(crate) async fn settle(self, stream: LongLivedStream) {
        let Some(publisher) = self.inner.publisher.as_ref() else { return };
        let channel = stream.channel();
        if publisher.watches(&channel) && timeout(OPENS, publisher.wait_held(&channel)).await.is_err() {
            // Nobody came for it.
            return self.forget(&stream).await;
        }
        sleep(SEEN_BY_ALL).await;
        self.settled(&stream).await;
        if let Some(session) = &stream.session
            && let Ok(all) = self.streams_in(&self.streams_of(session)).await
        {
            self.tidy(all.into_iter().filter(|other| self.is_gone(other)).collect(), session).await;
        }
    }

    /// The stream is there for everybody. What can't be taken out now expires.
    pub(super) async fn settled(&self, stream: &LongLivedStream) {
        let _ = self.inner.store.leave(&self.opening_of(&stream.principal), &stream.name).await;
        let _ = self.inner.store.leave(&self.opening(), &stream.text()).await;
    }

    /// Keeps a stream known that this process holds, until what this gives is dropped.
    pub(crate) fn keep(&self, stream: LongLivedStream) -> Kept {
        let (to, kept) = (self.clone(), stream.clone());
        let news = tokio::spawn(async move {
            let Some(session) = &kept.session else { return };
            let (own, text) = (to.streams_of(session), kept.text());
            loop {
                sleep(NEWS).await;
                // A failure is made good by the next.
                let _ = to.inner.store.enter(&own, &text, ALIVE, usize::MAX >> 1).await;
            }
        });
        Kept { to: self.clone(), stream, news }
    }

    /// Whether a stream of the session stands. Where nobody can know, as a link to a Pushpin is down, it may.
    ///
    /// # Errors
    /// [`store::Unavailable`].
    pub(crate) async fn stands(&self, session: &str) -> store::Result<bool> {
        let channel =
            self.audience(Kind::Session, &Audience::Session(session.to_owned())).unwrap_or_default();
        let publisher = self.inner.publisher.as_ref().filter(|publisher| publisher.watches(&channel));
        if publisher.is_some_and(|publisher| publisher.is_held(&[&channel])) {
            return Ok(true);
        }
        let streams = self.streams_in(&self.streams_of(session)).await?;
        if streams.is_empty() || streams.iter().any(|stream| stream.backend) {
            return Ok(!streams.is_empty());
        }
        let Some(publisher) = publisher else { return Ok(self.inner.publisher.is_some()) };
        let knows = || publisher.all_settled() && publisher.all_replayed();
        // One that is opening is seen in a moment: its client has got the first event.
        if knows() && streams.iter().any(|stream| !self.is_gone(stream)) {
            let held = timeout(SEEN_BY_ALL, publisher.wait_held(&channel)).await;
            return Ok(held.is_ok() || !knows());
        }
        Ok(!knows())
    }

    /// Ends all streams of a session, those that are opening included.
    ///
    /// # Errors
    /// [`store::Unavailable`].
    pub(crate) async fn end_session(&self, session: &str) -> store::Result<()> {
        let streams = self.streams_in(&self.streams_of(session)).await?;
        self.end_streams(streams, "").await;
        Ok(())
    }

    /// Ends streams with a last word.
    async fn end_streams(&self, streams: Vec<LongLivedStream>, last: &str) {
        let mut now = Vec::new();
        for stream in &streams {
            let end = Outgoing::end(stream.channel(), last.to_owned());
            if self.sees(stream, &end.channel) {
                now.push(end);
            } else {
                self.hold_back(&stream.name, end);
            }
        }
        if let Err(error) = self.send(&now).await {
            tracing::warn!(%error, "a stream may not have been ended");
        }
        join_all(streams.iter().map(|stream| self.forget(stream))).await;
    }

    /// The streams that are special now.
    ///
    /// # Errors
    /// [`store::Unavailable`].
    pub(super) async fn special(&self) -> store::Result<Vec<LongLivedStream>> {
        let (opening, crowded) = (self.opening(), self.crowded());
        let (opening, crowded) = try_join(self.streams_in(&opening), self.streams_in(&crowded)).await?;
        let all: BTreeSet<LongLivedStream> = opening.into_iter().chain(crowded).collect();
        // A backend that died left its streams among the crowded.
        let doubtful: BTreeSet<&String> =
            all.iter().filter(|stream| stream.backend).filter_map(|stream| stream.session.as_ref()).collect();
        let mut known = BTreeSet::new();
        for session in doubtful {
            known.extend(self.streams_in(&self.streams_of(session)).await?);
        }
        let is_gone = |stream: &LongLivedStream| match stream.backend {
            true => !known.contains(stream),
            false => self.is_gone(stream),
        };
        let (gone, all): (Vec<LongLivedStream>, Vec<LongLivedStream>) = all.into_iter().partition(is_gone);
        self.tidy_soon(gone);
        Ok(sorted(all))
    }

    /// What is left to be sent of an item for an audience: the same without the special streams that must not get it.
    /// For those that are not there yet it waits.
    pub(super) fn route(
        &self,
        kind: Kind,
        out: Outgoing,
        audience: &Audience,
        special: &[LongLivedStream],
    ) -> Outgoing {
        let mut groups: BTreeMap<&str, Vec<&LongLivedStream>> = BTreeMap::new();
        for stream in special.iter().filter(|stream| stream.is_in(kind, audience)) {
            groups.entry(stream.group()).or_default().push(stream);
        }
        let mut skipped = Vec::new();
        for streams in groups.values() {
            let carries = streams.iter().find(|stream| self.sees(stream, &out.channel));
            let others = streams.iter().filter(|stream| Some(stream) != carries.as_ref());
            skipped.extend(others.map(|stream| stream.name.as_str()));
            if carries.is_none()
                && let Some(newest) = streams.first()
            {
                self.hold_back(&newest.name, out.to_one(newest.channel(), Some(out.channel.clone())));
            }
        }
        if skipped.is_empty() { out } else { out.without(&skipped) }
    }

    /// Whether what this process sends to a channel reaches the stream, which has the channel.
    fn sees(&self, stream: &LongLivedStream, channel: &str) -> bool {
        if stream.backend {
            return true;
        }
        let (own, Some(publisher)) = (stream.channel(), &self.inner.publisher) else { return false };
        // Without a view of its own it takes the newest for the one that is there.
        !publisher.watches(&own)
            || (!self.held_back().queues.contains_key(&stream.name) && publisher.is_held(&[&own, channel]))
    }

    /// Whether a stream that Pushpin held is there no more.
    fn is_gone(&self, stream: &LongLivedStream) -> bool {
        let Some(publisher) = &self.inner.publisher else { return false };
        let own = stream.channel();
        let opens = u64::try_from(OPENS.as_millis()).unwrap_or(u64::MAX);
        !stream.backend
            && publisher.watches(&own)
            && publisher.all_settled()
            && publisher.all_replayed()
            && stream.at.saturating_add(opens) < unix_millis()
            && !publisher.is_held(&[&own])
    }

    /// Sends something to a stream as soon as this process sees it.
    fn hold_back(&self, name: &str, out: Outgoing) {
        if self.inner.publisher.is_none() {
            return;
        }
        let mut held_back = self.held_back();
        let bytes = held_back.bytes + out.bytes();
        let new = !held_back.queues.contains_key(name);
        if bytes > WAITING_BYTES || (new && held_back.queues.len() >= WAITED_FOR) {
            tracing::warn!("too much waits for streams that open; a notice is dropped");
            return;
        }
        let queue = held_back.queues.entry(name.to_owned()).or_default();
        // The same twice says no more than once.
        if queue.len() >= WAITING || queue.contains(&out) {
            return;
        }
        queue.push_back(out);
        held_back.bytes = bytes;
        drop(held_back);
        if new {
            tokio::spawn(self.clone().pass_on(name.to_owned()));
        }
    }

    async fn pass_on(self, name: String) {
        let Some(publisher) = self.inner.publisher.clone() else { return };
        let held = timeout(OPENS, publisher.wait_held(&own_channel(&name))).await.is_ok();
        loop {
            let out: Vec<Outgoing> = {
                let mut held_back = self.held_back();
                let out: Vec<Outgoing> =
                    held_back.queues.get_mut(&name).map(std::mem::take).unwrap_or_default().into();
                held_back.bytes =
                    held_back.bytes.saturating_sub(out.iter().map(Outgoing::bytes).sum::<usize>());
                if out.is_empty() || !held {
                    held_back.queues.remove(&name);
                    return;
                }
                out
            };
            self.publish(&out).await;
        }
    }

    fn held_back(&self) -> MutexGuard<'_, HeldBack> {
        self.inner.held_back.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes streams out that are gone, one caller at a time.
    fn tidy_soon(&self, gone: Vec<LongLivedStream>) {
        if gone.is_empty() || self.inner.tidying.swap(true, Ordering::AcqRel) {
            return;
        }
        let to = self.clone();
        tokio::spawn(async move {
            let mut sessions: BTreeMap<String, Vec<LongLivedStream>> = BTreeMap::new();
            for stream in gone {
                match stream.session.clone() {
                    Some(session) => sessions.entry(session).or_default().push(stream),
                    None => to.forget(&stream).await,
                }
            }
            for (session, gone) in sessions {
                to.tidy(gone, &session).await;
            }
            to.inner.tidying.store(false, Ordering::Release);
        });
    }

    /// Takes a session's streams out that are gone; one that is left alone is no longer special.
    async fn tidy(&self, gone: Vec<LongLivedStream>, session: &str) {
        for stream in &gone {
            self.forget(stream).await;
        }
        if let Ok(left) = self.streams_in(&self.streams_of(session)).await
            && let [alone] = left.as_slice()
        {
            let _ = self.inner.store.leave(&self.crowded(), &alone.text()).await;
        }
    }

    /// Takes a stream out. A failure leaves it to be found gone later.
    async fn forget(&self, stream: &LongLivedStream) {
        let (store, text) = (&self.inner.store, stream.text());
        let _ = store.leave(&self.opening_of(&stream.principal), &stream.name).await;
        let _ = store.leave(&self.opening(), &text).await;
        if let Some(session) = &stream.session {
            let _ = store.leave(&self.streams_of(session), &text).await;
            let _ = store.leave(&self.crowded(), &text).await;
        }
    }

    async fn streams_in(&self, group: &str) -> store::Result<Vec<LongLivedStream>> {
        let members = self.inner.store.members(group).await?;
        Ok(members.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
    }

    fn streams_of(&self, session: &str) -> String {
        self.name(&["streams", session])
    }

    fn opening(&self) -> String {
        self.name(&["opening"])
    }

    fn opening_of(&self, principal: &str) -> String {
        self.name(&["opening", principal])
    }

    fn crowded(&self) -> String {
        self.name(&["crowded"])
    }
}

/// A stream that this process holds, as long as this lives.
pub(crate) struct Kept {
    to: Broadcaster,
    stream: LongLivedStream,
    news: tokio::task::JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.news.abort();
        let (to, stream) = (self.to.clone(), self.stream.clone());
        if stream.session.is_some() {
            tokio::spawn(async move {
                to.forget(&stream).await;
                if let Some(session) = &stream.session {
                    to.tidy(Vec::new(), session).await;
                }
            });
        }
    }
}
