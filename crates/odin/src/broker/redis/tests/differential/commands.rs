//! The commands of the differential test.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::super::{Beat, Broker, Claimed, Unavailable};
use crate::call::{Message, Order, Snapshot};
use crate::id::{CallChannel, CallId, Ticket};
use crate::runner::Rerun;

/// Commands with a part of a reply: all of them come up in the sequences, or the test shows too little.
pub(super) const OUTCOMES: &[(&str, &str)] = &[
    ("Enqueue", "Accepted"),
    ("Enqueue", "Full"),
    ("Enqueue", "Cancelled"),
    ("Enqueue", "same: true"),
    ("Enqueue", "same: false"),
    ("Offer", "Wait"),
    ("Offer", "Done"),
    ("Offer", "Offered"),
    ("Offer", "Cancelled"),
    ("Offer", "Missing"),
    ("Hold", "session: Some"),
    ("Hold", "session: None"),
    ("Hold", "None"),
    ("Read", "events: [\""),
    ("Read", "out: Some"),
    ("Read", "over: true"),
    ("Resume", "Unknown"),
    ("Resume", "Replay { events: [\""),
    ("Resume", "Held { events: [\""),
    ("Resume", "Joined"),
    ("Join", "Unknown"),
    ("Join", "Cancelled"),
    ("Join", "Done"),
    ("Join", "Waits"),
    ("Post", "true"),
    ("Post", "false"),
    ("Inbox", "[\""),
    ("Take", "Some(Snapshot"),
    ("Take", "None"),
    ("Emit", "Ok(State { reach: Node"),
    ("Emit", "Ok(State { reach: Held"),
    ("Emit", "Ok(State { reach: None"),
    ("Emit", "Fenced"),
    ("Emit", "Missing"),
    ("Finish", "Ok(State { reach: Node"),
    ("Finish", "Ok(State { reach: Offered"),
    ("Finish", "Ok(State { reach: None"),
    ("Finish", "Fenced"),
    ("Gate", "gate: true"),
    ("Gate", "gate: false"),
    ("Lost", "reach: None"),
    ("Published", "Ok"),
    ("Published", "Missing"),
    ("DropWork", "Ok(None)"),
    ("DropWork", "Ok(Some"),
    ("Beat", "reach: None"),
    ("Beat", "cancel: true"),
    ("Beat", "reach: Held"),
    ("Beat", "Fenced"),
    ("Claim", "claim: Run"),
    ("Claim", "claim: Publish"),
    ("Claim", "close: Some"),
    ("Claim", "out: Some(\"lost\")"),
    ("Claim", "reach: Offered"),
    ("Restore", "Ok(State"),
    ("Restore", "Fenced"),
    ("Stray", "farewell: Some"),
    ("Stray", "None"),
    ("Stray", "hi: 0, farewell: None"),
    ("Remember", "true"),
    ("Remember", "false"),
    ("Recall", "level"),
];

/// One command for both brokers.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Announce(&'static str),
    Enqueue(CallId, Arc<Order>),
    Offer(CallId, &'static str, u64, Ticket, bool),
    Hold(Ticket, &'static str),
    Read(CallId, &'static str, u64, u32),
    Abandon(CallId, &'static str, u64),
    Resume(CallId, &'static str, u32, Option<(&'static str, u64)>),
    Join(CallId, &'static str, &'static str, u64),
    Cancel(&'static str, &'static str),
    Post(CallId, &'static str, Message),
    Remember(&'static str, &'static str, Message),
    Recall(&'static str),
    Next(&'static str, usize),
    Undelivered(&'static str),
    Take(&'static str, CallId, Rerun),
    Inbox(CallId, u32),
    Emit(CallId, u32, u32, Vec<Message>),
    Finish(CallId, u32, Message),
    Gate(CallId, u32, u32),
    Lost(CallId, u32, u32),
    Published(CallId, u32),
    DropWork(CallId, u32),
    Beat(&'static str, Vec<Beat>),
    Claim(&'static str),
    Restore(CallId, &'static str, Box<Snapshot>),
    Stray(CallChannel),
    Advance(u64),
    Forget,
}

/// The reply to a command as text.
pub(super) async fn ask(broker: &dyn Broker, command: &Command) -> std::result::Result<String, Unavailable> {
    Ok(match command.clone() {
        Command::Announce(node) => format!("{:?}", broker.announce(node).await?),
        Command::Enqueue(call, order) => format!("{:?}", broker.enqueue(call, (*order).clone()).await?),
        Command::Offer(call, node, request, ticket, may_hold) => {
            format!("{:?}", broker.offer(call, node, request, ticket, may_hold).await?)
        }
        Command::Hold(ticket, assertion) => format!("{:?}", broker.hold(ticket, assertion).await?),
        Command::Read(call, node, request, from) => {
            format!("{:?}", broker.read(call, node, request, from).await?)
        }
        Command::Abandon(call, node, request) => {
            format!("{:?}", broker.abandon(call, node, request).await?)
        }
        Command::Resume(call, session, last, at) => {
            format!("{:?}", broker.resume(call, session, last, at).await?)
        }
        Command::Join(call, name, node, request) => {
            format!("{:?}", broker.join(call, name, node, request).await?)
        }
        Command::Cancel(session, id) => format!("{:?}", broker.cancel(session, id).await?),
        Command::Post(call, session, message) => {
            format!("{:?}", broker.post(call, session, message).await?)
        }
        Command::Remember(session, field, value) => {
            format!("{:?}", broker.remember(session, field, &value, Duration::from_secs(86_400)).await?)
        }
        Command::Recall(session) => format!("{:?}", broker.recall(session).await?),
        Command::Inbox(call, epoch) => format!("{:?}", broker.inbox(call, epoch).await?),
        Command::Emit(call, epoch, first, events) => {
            format!("{:?}", broker.emit(call, epoch, first, &events).await?)
        }
        Command::Finish(call, epoch, out) => format!("{:?}", broker.finish(call, epoch, &out).await?),
        Command::Gate(call, epoch, channel) => format!("{:?}", broker.gate(call, epoch, channel).await?),
        Command::Lost(call, epoch, channel) => format!("{:?}", broker.lost(call, epoch, channel).await?),
        Command::Published(call, epoch) => format!("{:?}", broker.published(call, epoch).await?),
        Command::DropWork(call, epoch) => format!("{:?}", broker.drop_work(call, epoch).await?),
        Command::Claim(worker) => {
            let mut claimed: Vec<Claimed> = broker.claim("s", worker, 100).await?;
            claimed.sort_by_key(|claimed| claimed.call);
            format!("{claimed:?}")
        }
        Command::Restore(call, worker, snapshot) => {
            format!("{:?}", broker.restore(call, worker, *snapshot).await?)
        }
        Command::Stray(channel) => format!("{:?}", broker.stray(channel).await?),
        command => unreachable!("{command:?} is handled by its caller"),
    })
}
