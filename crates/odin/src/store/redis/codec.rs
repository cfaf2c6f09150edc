//! How records and replies look in Redis. Whatever does not fit is [`Unavailable`], never a panic.

use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;

use redis::Value;

use super::super::{Claimed, Held, Inbox, Result, Unavailable};
use crate::call::{
    Claim, Gone, Join, Message, Offer, Order, OrphanedStream, Parties, Reach, Read, Rerun, Resume, Retry,
    Run, Snapshot, State, Via, Withdraw,
};
use crate::id::CallChannel;
use crate::protocol::Era;

/// A field of a record with its value.
pub(super) type Field<'a> = (&'static str, Cow<'a, str>);

fn nonsense(what: &str) -> Unavailable {
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

pub(super) fn map(value: Value) -> Result<HashMap<String, String>> {
    let mut fields = HashMap::new();
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
    let [event_count, cancel, kind, node, request, asked, ticket, since, channel, from, gate] = fixed(value)?;
    let reach = match text(kind)?.as_str() {
        "node" => Reach::Node { node: text(node)?, request: number(request)?, asked: number(asked)? },
        "offered" => Reach::Offered {
            ticket: text(ticket)?.parse().map_err(|_| nonsense("ticket"))?,
            since: number(since)?,
        },
        "held" => Reach::Held {
            channel: number(channel)?,
            from: number(from)?,
            gate: flag(&text(gate)?)?,
            since: number(since)?,
            ticket: match optional(ticket)?.as_deref() {
                None | Some("") => None,
                Some(ticket) => Some(ticket.parse().map_err(|_| nonsense("ticket"))?),
            },
        },
        "none" => Reach::None,
        _ => return Err(nonsense("reach")),
    };
    Ok(State { reach, event_count: number(event_count)?, cancel: flag(&text(cancel)?)? })
}

fn flag(text: &str) -> Result<bool> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(nonsense("flag")),
    }
}

/// As `snapshot()` in `prelude.lua` returns it.
pub(super) fn snapshot(value: Value) -> Result<Snapshot> {
    let [state_, fields, log] = fixed(value)?;
    let mut fields = map(fields)?;
    let mut optional = |name: &str| fields.remove(name);
    let out = optional("out").map(Message::from);
    let tool = optional("tool");
    let session = optional("session");
    let request_id = optional("request_id");
    let stream = optional("stream");
    // Records of the release before have none.
    let organisation = optional("organisation").unwrap_or_default();
    let retry =
        optional("retry").zip(optional("fingerprint")).map(|(name, fingerprint)| Retry { name, fingerprint });
    let task = optional("task").map(|task| parse(&task)).transpose()?;
    let mut required = |name: &str| optional(name).ok_or_else(|| nonsense("record"));
    let order = Order {
        server: required("server")?,
        job: required("job")?.into(),
        era: match required("era")?.as_str() {
            "stateless" => Era::Stateless,
            "stateful" => Era::Stateful,
            _ => return Err(nonsense("era")),
        },
        via: match required("via")?.as_str() {
            "pushpin" => Via::Pushpin,
            "backend" => Via::Backend,
            _ => return Err(nonsense("via")),
        },
        tool,
        assertion: required("assertion")?,
        principal: required("principal")?,
        organisation,
        session,
        request_id,
        lost: required("lost")?.into(),
        node: required("node")?,
        request: parse(&required("request")?)?,
        stream,
        retry,
        task,
    };
    Ok(Snapshot {
        order,
        epoch: parse(&required("epoch")?)?,
        run: match required("run")?.as_str() {
            "queued" => Run::Queued,
            "running" => Run::Running,
            "done" => Run::Done,
            "cancelled" => Run::Cancelled,
            _ => return Err(nonsense("run")),
        },
        rerun: match required("rerun")?.as_str() {
            "safe" => Rerun::Safe,
            "unsafe" => Rerun::Unsafe,
            _ => return Err(nonsense("rerun")),
        },
        state: state(state_)?,
        out,
        log: messages(log)?,
        channels: parse(&required("channels")?)?,
    })
}

fn parse<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| nonsense("number"))
}

pub(super) fn rerun(rerun: Rerun) -> &'static str {
    match rerun {
        Rerun::Safe => "safe",
        Rerun::Unsafe => "unsafe",
    }
}

/// The fields of an order.
pub(super) fn order(order: &Order) -> Vec<Field<'_>> {
    let era = match order.era {
        Era::Stateless => "stateless",
        Era::Stateful => "stateful",
    };
    let via = match order.via {
        Via::Pushpin => "pushpin",
        Via::Backend => "backend",
    };
    let mut fields: Vec<Field<'_>> = vec![
        ("server", order.server.as_str().into()),
        ("job", (&*order.job).into()),
        ("era", era.into()),
        ("via", via.into()),
        ("assertion", order.assertion.as_str().into()),
        ("principal", order.principal.as_str().into()),
        ("organisation", order.organisation.as_str().into()),
        ("lost", (&*order.lost).into()),
        ("node", order.node.as_str().into()),
        ("request", order.request.to_string().into()),
    ];
    if let Some(retry) = &order.retry {
        fields.extend([
            ("retry", retry.name.as_str().into()),
            ("fingerprint", retry.fingerprint.as_str().into()),
        ]);
    }
    let optional = [
        ("tool", &order.tool),
        ("session", &order.session),
        ("request_id", &order.request_id),
        ("stream", &order.stream),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            fields.push((name, value.as_str().into()));
        }
    }
    fields.extend(order.task.map(|task| ("task", task.to_string().into())));
    fields.extend(parties(&order.parties()));
    fields
}

/// The fields that say whom a call counts for.
pub(super) fn parties(parties: &Parties) -> [Field<'static>; 2] {
    let Parties { principal, organisation } = parties.clone();
    [("by", principal.into()), ("of", organisation.into())]
}

/// The fields that a backend at the other end of a call makes.
pub(super) fn node(node: &str, request: u64) -> [Field<'_>; 2] {
    [("at_node", node.into()), ("at_request", request.to_string().into())]
}

/// The fields that [`crate::call::Record::restored`] takes from a snapshot, the epoch and the log left out.
pub(super) fn restored(snapshot: &Snapshot) -> Vec<Field<'_>> {
    let run = match snapshot.run {
        Run::Queued => "queued",
        Run::Running => "running",
        Run::Done => "done",
        Run::Cancelled => "cancelled",
    };
    let mut fields = order(&snapshot.order);
    fields.extend([
        ("run", run.into()),
        ("rerun", rerun(snapshot.rerun).into()),
        ("events", snapshot.state.event_count.to_string().into()),
        ("cancel", digit(snapshot.state.cancel).into()),
        ("channels", snapshot.channels.to_string().into()),
    ]);
    if let Some(out) = &snapshot.out {
        fields.push(("out", (&**out).into()));
    }
    let kind = match &snapshot.state.reach {
        Reach::Node { node: at, request, .. } => {
            fields.extend(node(at, *request));
            "node"
        }
        Reach::Offered { ticket, .. } => {
            fields.push(("ticket", ticket.to_string().into()));
            "offered"
        }
        Reach::Held { channel, from, gate, ticket, .. } => {
            fields.extend([
                ("channel", channel.to_string().into()),
                ("from", from.to_string().into()),
                ("gate", digit(*gate).into()),
                ("ticket", ticket.map(|ticket| ticket.to_string()).unwrap_or_default().into()),
            ]);
            "held"
        }
        Reach::None => "none",
    };
    fields.push(("reach", kind.into()));
    fields
}

pub(super) fn digit(flag: bool) -> &'static str {
    if flag { "1" } else { "0" }
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
