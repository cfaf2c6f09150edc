//! Bodies: read within their caller's share, and within a time.
//!
//! The shares are counted before and while a body is read: who sends slowly, or much at once, is refused before
//! it takes what others need.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use hyper::body::Body as _;
use identity::Principal;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::call::Whose;
use crate::front::{config::FrontLimits, error::Error};
use crate::protocol::{Refusal, Skim};

/// How many times the largest body is read on for a request's id. What is even longer is refused without one.
const SKIMMED: usize = 16;
/// Bodies that are read on for that at once. More are refused without an id.
const SKIMS: usize = 64;

/// What is read and held now.
pub(crate) struct Bodies {
    state: Mutex<State>,
    skims: Semaphore,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { state: Mutex::default(), skims: Semaphore::new(SKIMS) }
    }
}

#[derive(Default)]
struct State {
    bytes: usize,
    shares: HashMap<String, Share>,
}

#[derive(Default)]
struct Share {
    /// Requests whose body is being read.
    reading: usize,
    /// Bytes of those, and of requests that are not yet answered.
    bytes: usize,
}

impl Bodies {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that was read. It counts until it is dropped.
pub(crate) struct Held {
    bytes: Bytes,
    _counted: Counted,
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the body of a caller's request. One that can't be kept is read on all the same, for the sake of the request's id,
/// which the refusal then has; and because an answer before its end cuts the connection of a client that still
/// sends: it never reads why.
pub(crate) async fn read(
    bodies: &Arc<Bodies>,
    limits: &FrontLimits,
    principal: &Principal,
    headers: &HeaderMap,
    body: Body,
) -> Result<Held, Refusal> {
    if body.is_end_stream() {
        let mut counted = Counted::begin(bodies, principal, limits)?;
        counted.is_read();
        return Ok(Held { bytes: Bytes::new(), _counted: counted });
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let mut arriving = Arriving::new(body, limits);
    match arriving.keep(bodies, principal, announced).await {
        Ok(counted) => Ok(Held { bytes: arriving.kept(), _counted: counted }),
        // What came too slowly, or broke off, has no more to come.
        Err(refusal) if arriving.is_over => Err(refusal),
        Err(refusal) => {
            let id = arriving.skim(bodies, announced).await;
            Err(id.iter().fold(refusal, |refusal, id| refusal.for_raw_id(id)))
        }
    }
}

/// A body on its way.
struct Arriving<'a> {
    chunks: BodyDataStream,
    limits: &'a FrontLimits,
    deadline: Instant,
    /// What has come: small bodies come in one piece, and are not copied.
    first: Bytes,
    rest: BytesMut,
    /// The last piece, which may not have been kept.
    last: Bytes,
    /// Nothing more is to come.
    is_over: bool,
}

impl<'a> Arriving<'a> {
    fn new(body: Body, limits: &'a FrontLimits) -> Self {
        Self {
            chunks: body.into_data_stream(),
            limits,
            deadline: Instant::now() + limits.body_time,
            first: Bytes::new(),
            rest: BytesMut::new(),
            last: Bytes::new(),
            is_over: false,
        }
    }

    /// Keeps all of it, within its caller's share.
    async fn keep(
        &mut self,
        bodies: &Arc<Bodies>,
        principal: &Principal,
        announced: Option<u64>,
    ) -> Result<Counted, Refusal> {
        let most = self.limits.request.body_bytes;
        let mut counted = Counted::begin(bodies, principal, self.limits)?;
        if announced.is_some_and(|length| length > most as u64) {
            return Err(Refusal::body_too_large(most));
        }
        while let Some(chunk) = self.next().await? {
            if self.first.len() + self.rest.len() + chunk.len() > most {
                return Err(Refusal::body_too_large(most));
            }
            counted.add(chunk.len(), self.limits)?;
            if self.first.is_empty() && self.rest.is_empty() {
                self.first = chunk;
            } else {
                if self.rest.is_empty() {
                    self.rest.extend_from_slice(&std::mem::take(&mut self.first));
                }
                self.rest.extend_from_slice(&chunk);
            }
            self.last = Bytes::new();
        }
        counted.is_read();
        Ok(counted)
    }

    fn kept(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let until = self.deadline.min(Instant::now() + self.limits.body_pause);
        let come = timeout_at(until, self.chunks.next()).await;
        self.is_over = !matches!(come, Ok(Some(Ok(_))));
        match come {
            Ok(Some(Ok(chunk))) => {
                self.last = chunk.clone();
                Ok(Some(chunk))
            }
            Ok(Some(Err(_))) => Err(Error::BodyCut.into()),
            Ok(None) => Ok(None),
            Err(_) => Err(too_slow(self.limits, until == self.deadline).into()),
        }
    }

    /// Lets all of it pass, and reads the id of the request in it. None where it is too long even for that, too many
    /// are read so at once, or it is no request.
    async fn skim(mut self, bodies: &Bodies, announced: Option<u64>) -> Option<Box<RawValue>> {
        let most = self.limits.request.body_bytes.saturating_mul(SKIMMED);
        if announced.is_some_and(|length| length > most as u64) {
            return None;
        }
        let _place = bodies.skims.try_acquire().ok()?;
        let mut skim = Skim::new(self.limits.request.id_bytes);
        let mut passed = self.first.len() + self.rest.len() + self.last.len();
        for piece in [std::mem::take(&mut self.first), std::mem::take(&mut self.rest).freeze()] {
            skim.feed(&piece);
        }
        skim.feed(&std::mem::take(&mut self.last));
        while let Some(chunk) = self.next().await.ok()? {
            passed += chunk.len();
            if passed > most {
                return None;
            }
            skim.feed(&chunk);
        }
        skim.id()
    }
}

fn too_slow(limits: &FrontLimits, whole: bool) -> Error {
    match whole {
        true => Error::BodyTooSlow(limits.body_time.as_secs_f32()),
        false => Error::BodyPaused(limits.body_pause.as_secs_f32()),
    }
}

/// What one body counts for: its principal, and its organisation.
struct Counted {
    bodies: Arc<Bodies>,
    keys: [String; 2],
    bytes: usize,
    reading: bool,
}

impl Counted {
    fn begin(bodies: &Arc<Bodies>, principal: &Principal, limits: &FrontLimits) -> Result<Self, Error> {
        let keys = [principal.key(), format!("{}|{}", principal.issuer, principal.organisation)];
        let most = [limits.calls_of_principal, limits.calls_of_organisation];
        let mut state = bodies.lock();
        let reading = |key: &String| state.shares.get(key).map_or(0, |share| share.reading);
        if let Some(share) = keys.iter().zip(most).position(|(key, most)| reading(key) >= most) {
            return Err(Error::TooManyRequests(whose(share)));
        }
        for key in &keys {
            state.shares.entry(key.clone()).or_default().reading += 1;
        }
        drop(state);
        Ok(Self { bodies: bodies.clone(), keys, bytes: 0, reading: true })
    }

    fn add(&mut self, bytes: usize, limits: &FrontLimits) -> Result<(), Error> {
        let most = [limits.bodies / 4, limits.bodies / 2];
        let mut state = self.bodies.lock();
        let held = |key: &String| state.shares.get(key).map_or(0, |share| share.bytes);
        if let Some(share) = self.keys.iter().zip(most).position(|(key, most)| held(key) + bytes > most) {
            return Err(Error::TooManyBytes(whose(share)));
        }
        if state.bytes + bytes > limits.bodies {
            return Err(Error::BodiesFull);
        }
        state.bytes += bytes;
        for key in &self.keys {
            state.shares.entry(key.clone()).or_default().bytes += bytes;
        }
        drop(state);
        self.bytes += bytes;
        Ok(())
    }

    /// The body is read: from now on it counts by its bytes alone.
    fn is_read(&mut self) {
        if std::mem::take(&mut self.reading) {
            self.give_back(1, 0);
        }
    }

    fn give_back(&self, reading: usize, bytes: usize) {
        let mut state = self.bodies.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        for key in &self.keys {
            let Some(share) = state.shares.get_mut(key) else { continue };
            share.reading = share.reading.saturating_sub(reading);
            share.bytes = share.bytes.saturating_sub(bytes);
            if share.reading == 0 && share.bytes == 0 {
                state.shares.remove(key);
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.give_back(usize::from(self.reading), self.bytes);
    }
}

/// Whose share of [`Counted::keys`] it is.
fn whose(share: usize) -> Whose {
    if share == 0 { Whose::Principal } else { Whose::Organisation }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(subject: &str, organisation: &str) -> Principal {
        Principal::new("i", subject, organisation)
    }

    #[test]
    fn each_has_a_share_and_gives_it_back() {
        let bodies = Arc::new(Bodies::default());
        let limits = FrontLimits {
            calls_of_principal: 2,
            calls_of_organisation: 3,
            bodies: 800,
            ..FrontLimits::default()
        };
        let begin =
            |subject, organisation| Counted::begin(&bodies, &principal(subject, organisation), &limits);
        let status =
            |refused: Result<(), Error>| refused.map_err(|error| Refusal::from(error).status().as_u16());

        let mut own = [begin("a", "o").unwrap(), begin("a", "o").unwrap()];
        let refused = begin("a", "o").map(drop).unwrap_err();
        assert!(matches!(refused, Error::TooManyRequests(Whose::Principal)), "{refused:?}");
        let mut other = begin("b", "o").unwrap();
        let refused = begin("c", "o").map(drop).unwrap_err();
        assert!(matches!(refused, Error::TooManyRequests(Whose::Organisation)), "{refused:?}");

        // A principal has a quarter, an organisation half, of the bytes.
        assert_eq!(own.each_mut().map(|body| status(body.add(100, &limits))), [Ok(()), Ok(())]);
        assert_eq!(own.each_mut().map(|body| status(body.add(1, &limits))), [Err(429), Err(429)]);
        assert_eq!((status(other.add(200, &limits)), status(other.add(1, &limits))), (Ok(()), Err(429)));
        let mut more = ["d", "e"].map(|subject| begin(subject, "p").unwrap());
        assert!(more.iter_mut().all(|body| body.add(200, &limits).is_ok()));
        // All of it is taken: nobody's fault.
        let mut late = begin("z", "q").unwrap();
        assert_eq!(status(late.add(1, &limits)), Err(503));

        own[0].is_read();
        drop(begin("a", "o").expect("the place of the one that is read"));
        drop((own, other, more));
        assert_eq!(status(late.add(200, &limits)), Ok(()));
        drop(late);
        assert!(bodies.lock().shares.is_empty() && bodies.lock().bytes == 0);
    }
}
