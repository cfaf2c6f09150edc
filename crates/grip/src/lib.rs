//! GRIP for Pushpin, without lost messages.
//!
//! [Pushpin](https://pushpin.org) is a reverse proxy that holds client connections for an origin: the origin
//! answers with `Grip-*` headers and forgets the request; what is published later reaches the client. This
//! library has the three things that an origin needs:
//!
//! - [`Hold`]: the headers that make Pushpin hold a response;
//! - [`verify_grip_sig`]: the proof that a request came through Pushpin;
//! - [`Publisher`]: publishing to any number of Pushpins over ZeroMQ (or HTTP), with events that tell which
//!   channels have a subscriber. A message that is sent after [`Event::Subscribed`] is not lost to the race
//!   between the answer and the opening of the hold.

mod endpoint;
mod hold;
mod item;
mod publisher;
mod sig;
#[cfg(feature = "test-support")]
pub mod test_support;

pub use endpoint::{Endpoint, EndpointError};
pub use hold::{Channel, Hold, HoldError, KeepAlive, MAX_CHANNELS, MAX_REQUEST_BODY, MIN_CLOSE_DELAY, Mode};
pub use item::{Item, ItemError, MAX_ITEM, Payload, Response};
pub use publisher::{Event, HttpPublisher, Publisher, PublisherOptions, SendError};
pub use sig::{GripSigError, MAX_GRIP_SIG, sign_grip_sig, verify_grip_sig};
