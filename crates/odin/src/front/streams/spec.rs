//! Long-lived streams: a session's own, that of HTTP+SSE, and a call's that is resumed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broadcast::{LongLivedStream, NotOpened, Subscription};
use crate::front::{
    error::{Error, Result},
    state::Front,
};
use crate::id::CallId;

/// What a stream is to be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Spec {
    /// The rest of a call's stream.
    Call {
        call: CallId,
        /// Key of the session.
        session: String,
        /// Number of the last event that the client has.
        last: u32,
    },
    /// What is published on some channels.
    Channels {
        /// Whose it is.
        stream: Box<LongLivedStream>,
        /// The channels of messages for this stream alone.
        channels: Vec<String>,
        /// What notifications it gets.
        subscription: Subscription,
        /// What the stream begins with.
        content: String,
    },
}

/// The channel of a session's own stream.
pub(crate) fn session_channel(key: &str) -> String {
    format!("s-{key}")
}

/// Enters a stream that is to be opened.
pub(super) async fn register(front: &Front, stream: LongLivedStream) -> Result<LongLivedStream> {
    let live = Duration::from_secs(front.config.sessions.lifetime());
    front.broadcaster.register(stream, live).await.map_err(|error| match error {
        NotOpened::Unavailable(error) => Error::Store(error),
        NotOpened::TooManyOfYours => Error::TooManyOpening,
        NotOpened::TooMany => Error::StreamsFull,
    })
}
