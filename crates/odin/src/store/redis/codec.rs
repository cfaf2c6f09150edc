//! How replies look in Redis. Whatever does not fit is [`Unavailable`], never a panic.

use std::str::FromStr;

use redis::Value;

pub(super) use super::super::Result;
use super::super::{Claimed, Held, Inbox, Registered, Unavailable};
use super::record::{Fields, STATE, Stored};
use crate::call::{
    Claim, Gone, Join, Message, Offer, OrphanedStream, Read, Resume, Snapshot, State, Withdraw,
};
use crate::id::CallChannel;

pub(super) fn nonsense(what: &str) -> Unavailable {
    Unavailable(format!("unexpected {what} in Redis"))
}

/// A text; numbers are taken for text as well.
pub(super) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| nonsense("bytes")),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(nonsense("reply")),
    }
}

fn optional(value: Value) -> Result<Option<String>> {
    if value == Value::Nil { Ok(None) } else { text(value).map(Some) }
}

pub(super) fn number<T: FromStr>(value: Value) -> Result<T> {
    text(value)?.parse().map_err(|_| nonsense("number"))
}

pub(super) fn items(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(nonsense("reply")),
    }
}

pub(super) fn fixed<const N: usize>(value: Value) -> Result<[Value; N]> {
    items(value)?.try_into().map_err(|_| nonsense("reply"))
}

pub(super) fn map(value: Value) -> Result<Fields> {
    let mut fields = Fields::new();
    let mut values = items(value)?.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        fields.insert(text(name)?, text(value)?);
    }
    Ok(fields)
}

pub(super) fn messages(value: Value) -> Result<Vec<Message>> {
    items(value)?.into_iter().map(|item| text(item).map(Message::from)).collect()
}

fn message(value: Value) -> Result<Option<Message>> {
    Ok(optional(value)?.map(Message::from))
}

/// Why the record's owner is none, if the reply says so.
pub(super) fn owned(value: Value) -> Result<std::result::Result<Value, Gone>> {
    match value {
        Value::Array(_) => Ok(Ok(value)),
        value => match text(value)?.as_str() {
            "missing" => Ok(Err(Gone::Missing)),
            "fenced" => Ok(Err(Gone::Fenced)),
            _ => Err(nonsense("reply")),
        },
    }
}

pub(super) fn view(value: Value) -> Result<std::result::Result<State, Gone>> {
    owned(value)?.map_or_else(|gone| Ok(Err(gone)), |value| state(value).map(Ok))
}

/// As `state()` in `prelude.lua` returns it.
fn state(value: Value) -> Result<State> {
    let values: [Value; STATE.len()] = fixed(value)?;
    let mut fields = Fields::new();
    for (name, value) in STATE.into_iter().zip(values) {
        fields.extend(optional(value)?.map(|value| (name.to_owned(), value)));
    }
    State::read("", &mut fields)
}

/// As `snapshot()` in `prelude.lua` returns it.
pub(super) fn snapshot(value: Value) -> Result<Snapshot> {
    let [fields, log] = fixed(value)?;
    Ok(Snapshot { log: messages(log)?, ..Snapshot::read("", &mut map(fields)?)? })
}

pub(super) fn offer(value: Value) -> Result<Offer> {
    if let Value::Array(_) = value {
        let [out] = fixed(value)?;
        return Ok(Offer::Done(text(out)?.into()));
    }
    match text(value)?.as_str() {
        "queued" => Ok(Offer::Queued),
        "wait" => Ok(Offer::Wait),
        "offered" => Ok(Offer::Offered),
        "cancelled" => Ok(Offer::Cancelled),
        "missing" => Ok(Offer::Missing),
        _ => Err(nonsense("reply")),
    }
}

pub(super) fn read(value: Value) -> Result<Read> {
    if let Value::Array(_) = value {
        let [events, out] = fixed(value)?;
        return Ok(Read::Events { events: messages(events)?, out: message(out)? });
    }
    match text(value)?.as_str() {
        "queued" => Ok(Read::Queued),
        "cancelled" => Ok(Read::Cancelled),
        "missing" => Ok(Read::Missing),
        _ => Err(nonsense("reply")),
    }
}

pub(super) fn withdraw(value: Value) -> Result<Withdraw> {
    match text(value)?.as_str() {
        "withdrawn" => Ok(Withdraw::Withdrawn),
        "running" => Ok(Withdraw::Running),
        "missing" => Ok(Withdraw::Missing),
        _ => Err(nonsense("reply")),
    }
}

pub(super) fn inbox(value: Value) -> Result<Inbox> {
    let [last, waiting] = fixed(value)?;
    Ok(Inbox { last: number(last)?, messages: messages(waiting)? })
}

pub(super) fn join(value: Value) -> Result<Join> {
    if let Value::Array(_) = value {
        let [out] = fixed(value)?;
        return Ok(Join::Done(text(out)?.into()));
    }
    match text(value)?.as_str() {
        "unknown" => Ok(Join::Unknown),
        "cancelled" => Ok(Join::Cancelled),
        "waits" => Ok(Join::Waits),
        _ => Err(nonsense("reply")),
    }
}

pub(super) fn resume(value: Value) -> Result<Resume> {
    match &value {
        Value::Nil => return Ok(Resume::Unknown),
        Value::BulkString(joined) if joined == b"joined" => return Ok(Resume::Joined),
        _ => {}
    }
    let [events, channel] = fixed(value)?;
    let events = messages(events)?;
    Ok(match channel {
        Value::Nil => Resume::Replay { events },
        channel => Resume::Held { events, channel: number(channel)? },
    })
}

pub(super) fn orphaned(value: Value) -> Result<Option<OrphanedStream>> {
    if value == Value::Nil {
        return Ok(None);
    }
    let [event_count, final_message] = fixed(value)?;
    Ok(Some(OrphanedStream { event_count: number(event_count)?, final_message: message(final_message)? }))
}

pub(super) fn held(value: Value) -> Result<Option<Held>> {
    if value == Value::Nil {
        return Ok(None);
    }
    let [call, channel, session] = fixed(value)?;
    let channel = CallChannel { call: number(call)?, number: number(channel)? };
    Ok(Some(Held { channel, session: optional(session)? }))
}

pub(super) fn dropped(value: Value) -> Result<std::result::Result<Option<State>, Gone>> {
    match value {
        Value::BulkString(text) if text == b"dropped" => Ok(Ok(None)),
        value => Ok(view(value)?.map(Some)),
    }
}

pub(super) fn registered(value: Value) -> Result<std::result::Result<Registered, Gone>> {
    let value = match owned(value)? {
        Ok(value) => value,
        Err(gone) => return Ok(Err(gone)),
    };
    let [generation, view] = fixed(value)?;
    Ok(Ok(Registered { generation: text(generation)?, state: state(view)? }))
}

pub(super) fn claimed(value: Value) -> Result<Claimed> {
    let [call, kind, of, close] = fixed(value)?;
    let call = number(call)?;
    let snapshot = snapshot(of)?;
    let claim = match (text(kind)?.as_str(), &snapshot.out) {
        ("run", _) => Claim::Run,
        ("publish", Some(out)) => Claim::Publish { out: out.clone() },
        _ => return Err(nonsense("claim")),
    };
    let close = match close {
        Value::Nil => None,
        channel => Some(CallChannel { call, number: number(channel)? }),
    };
    Ok(Claimed { call, claim, snapshot, close })
}
