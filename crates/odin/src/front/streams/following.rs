//! Long-lived streams of the backend's own: what is cast is sent on.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::KEEP_ALIVE;
use crate::broadcast::{self, Kept, Subscription};
use crate::call::HANG_UP;
use crate::front::{calls::Handle, http::event_stream, state::Front};
use crate::protocol::sse;
use crate::store::{self, Cast};

/// What is cast on some channels, before its stream is entered: from then on it misses nothing.
pub(super) struct Followed {
    messages: Option<mpsc::Receiver<Cast>>,
    notices: broadcast::Following,
}

pub(super) async fn follow(
    front: &Front,
    channels: Vec<String>,
    subscription: Subscription,
) -> store::Result<Followed> {
    let store = front.store.as_ref();
    let messages = if channels.is_empty() { None } else { Some(store.follow(&channels).await?) };
    Ok(Followed { messages, notices: subscription.follow(store).await? })
}

impl Followed {
    /// The stream, which begins with `content`. `counted` counts for the caller as long as it stands.
    pub(super) fn into_response(self, content: String, kept: Kept, counted: Handle) -> Response {
        let Self { messages, notices } = self;
        Following { messages, notices, first: Some(content), _kept: kept, _counted: counted }.into_response()
    }
}

/// A stream of what is cast.
struct Following {
    /// Messages for this stream alone.
    messages: Option<mpsc::Receiver<Cast>>,
    notices: broadcast::Following,
    first: Option<String>,
    _kept: Kept,
    _counted: Handle,
}

impl Following {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(first.into());
        }
        let message = async {
            match &mut self.messages {
                Some(messages) => messages.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = message => match message {
                Some((_, message)) if &*message == HANG_UP => None,
                Some((_, message)) => Some(sse::message(&message).into()),
                None => None,
            },
            notice = self.notices.next() => notice,
            () = tokio::time::sleep(KEEP_ALIVE) => Some(Bytes::from_static(sse::KEEP_ALIVE)),
        }
    }

    fn into_response(self) -> Response {
        let chunks = futures::stream::unfold(self, |mut following| async move {
            let chunk = following.next().await?;
            Some((Ok::<_, Infallible>(chunk), following))
        });
        event_stream(Body::from_stream(chunks))
    }
}
