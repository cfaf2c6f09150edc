//! The commands of the differential test.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::super::{Beat, Claimed, Room, Store, Unavailable};
use crate::call::{Fence, Message, Order, Registrant, Rerun, Snapshot};
use crate::id::{CallChannel, CallId, Ticket};

/// Commands with a part of a reply: all of them come up in the sequences, or the test shows too little.
pub(super) const OUTCOMES: &[(&str, &str)] = &[
    ("Enqueue", "Accepted"),
    ("Enqueue", "Full"),
    ("Enqueue", "TooMany(Principal)"),
    ("Enqueue", "TooMany(Organisation)"),
    ("Enqueue", "Cancelled"),
    ("Enqueue", "same: true"),
    ("Enqueue", "same: false"),
    ("Offer", "Queued"),
    ("Offer", "Wait"),
    ("Withdraw", "Withdrawn"),
    ("Withdraw", "Running"),
    ("Withdraw", "Missing"),
    ("Offer", "Done"),
    ("Offer", "Offered"),
    ("Offer", "Cancelled"),
    ("Offer", "Missing"),
    ("Hold", "session: Some"),
    ("Hold", "session: None"),
    ("Hold", "None"),
    ("Read", "events: [\""),
    ("Read", "out: Some"),
    ("Read", "Queued"),
    ("Read", "Cancelled"),
    ("Read", "Missing"),
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
    ("Inbox", "messages: [\""),
    ("Take", "Some(Snapshot"),
    ("Take", "None"),
    ("Register", "Ok(State { reach: Node"),
    ("Register", "Ok(State { reach: None"),
    ("Register", "Ok(State { reach: Offered"),
    ("Register", "Missing"),
    ("Register", "Fenced"),
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
    ("Claim", "rerun: None"),
    ("Claim", "close: Some"),
    ("Claim", "out: Some(\"lost\")"),
    ("Claim", "reach: Offered"),
    ("Restore", "Ok(State"),
    ("Restore", "Fenced"),
    ("OrphanedStream", "final_message: Some"),
    ("OrphanedStream", "None"),
    ("OrphanedStream", "event_count: 0, final_message: None"),
    ("Remember", "true"),
    ("Remember", "false"),
    ("Recall", "level"),
];

/// A worker's name and epoch.
pub(super) type By = (&'static str, u32);

fn fence_of((worker, epoch): By) -> Fence<'static> {
    Fence::new(worker, epoch)
}

/// One command for both stores.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Enqueue(CallId, Arc<Order>),
    Offer(CallId, &'static str, u64, Ticket, bool),
    Withdraw(CallId, &'static str, u64),
    Hold(Ticket, &'static str),
    Read(CallId, &'static str, u64, u32),
    Abandon(CallId, &'static str, u64),
    Resume(CallId, &'static str, u32, Option<(&'static str, u64)>),
    Join(CallId, &'static str, &'static str, u64),
    Cancel(&'static str, &'static str),
    Post(CallId, &'static str, Message),
    Remember(&'static str, &'static str, Message),
    Recall(&'static str),
    Next(&'static str, Room),
    /// The worker, the line's call, the name of the attempt.
    Take(&'static str, CallId, &'static str, Rerun),
    Register(CallId, Arc<Order>, &'static str, Registrant),
    Inbox(CallId, By, u64),
    Emit(CallId, By, u32, Vec<Message>),
    Finish(CallId, By, Message),
    Gate(CallId, By, u32),
    Lost(CallId, By, u32),
    Published(CallId, By),
    DropWork(CallId, By),
    Beat(&'static str, Vec<Beat>),
    Claim(&'static str, u64),
    Restore(CallId, &'static str, Box<Snapshot>),
    OrphanedStream(CallChannel),
    Advance(u64),
    Forget,
}

/// The reply to a command as text.
pub(super) async fn ask(store: &dyn Store, command: &Command) -> std::result::Result<String, Unavailable> {
    Ok(match command.clone() {
        Command::Enqueue(call, order) => format!("{:?}", store.enqueue(call, (*order).clone()).await?),
        Command::Offer(call, node, request, ticket, may_hold) => {
            format!("{:?}", store.offer(call, node, request, ticket, may_hold).await?)
        }
        Command::Withdraw(call, node, request) => {
            format!("{:?}", store.withdraw(call, node, request).await?)
        }
        Command::Hold(ticket, assertion) => format!("{:?}", store.hold(ticket, assertion).await?),
        Command::Read(call, node, request, from) => {
            format!("{:?}", store.read(call, node, request, from).await?)
        }
        Command::Abandon(call, node, request) => {
            format!("{:?}", store.abandon(call, node, request).await?)
        }
        Command::Resume(call, session, last, at) => {
            format!("{:?}", store.resume(call, session, last, at).await?)
        }
        Command::Join(call, name, node, request) => {
            format!("{:?}", store.join(call, name, node, request).await?)
        }
        Command::Cancel(session, id) => format!("{:?}", store.cancel(session, id).await?),
        Command::Post(call, session, message) => {
            format!("{:?}", store.post(call, session, message).await?)
        }
        Command::Remember(session, field, value) => {
            format!("{:?}", store.remember(session, field, &value, Duration::from_secs(86_400)).await?)
        }
        Command::Recall(session) => format!("{:?}", store.recall(session).await?),
        Command::Inbox(call, fence, after) => {
            format!("{:?}", store.inbox(call, fence_of(fence), after).await?)
        }
        Command::Emit(call, fence, first, events) => {
            format!("{:?}", store.emit(call, fence_of(fence), first, &events).await?)
        }
        Command::Finish(call, fence, out) => {
            format!("{:?}", store.finish(call, fence_of(fence), &out).await?)
        }
        Command::Gate(call, fence, channel) => {
            format!("{:?}", store.gate(call, fence_of(fence), channel).await?)
        }
        Command::Lost(call, fence, channel) => {
            format!("{:?}", store.lost(call, fence_of(fence), channel).await?)
        }
        Command::Published(call, fence) => format!("{:?}", store.published(call, fence_of(fence)).await?),
        Command::DropWork(call, fence) => format!("{:?}", store.drop_work(call, fence_of(fence)).await?),
        Command::Claim(worker, by) => {
            let mut claimed: Vec<Claimed> = store.claim("s", worker, 100, by).await?;
            claimed.sort_by_key(|claimed| claimed.call);
            format!("{claimed:?}")
        }
        Command::Restore(call, worker, snapshot) => {
            format!("{:?}", store.restore(call, worker, *snapshot).await?)
        }
        Command::OrphanedStream(channel) => format!("{:?}", store.orphaned(channel).await?),
        command => unreachable!("{command:?} is handled by its caller"),
    })
}
