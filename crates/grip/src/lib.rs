#![doc = include_str!("../README.md")]

mod endpoint;
mod hold;
mod item;
mod publisher;
mod sig;

pub use endpoint::{Endpoint, EndpointError};
pub use hold::{
    Channel, Hold, HoldError, KeepAlive, MAX_CHANNELS, MAX_META, MAX_REQUEST_BODY, MIN_CLOSE_DELAY, Mode,
};
pub use item::{Item, ItemError, MAX_ITEM, Payload, Response};
pub use publisher::{Event, HttpPublisher, Publisher, PublisherOptions, SendError};
pub use sig::{GripSigError, MAX_GRIP_SIG, sign_grip_sig, verify_grip_sig};
