//! A record as a hash in Redis. The name of each field stands here once, for both ways.

use std::borrow::Cow;
use std::collections::HashMap;

use super::codec::{Result, nonsense};
use crate::call::{Message, Order, Reach, Rerun, Retry, Run, Snapshot, State, Via};
use crate::id::{CallId, Ticket};
use crate::protocol::Era;

/// A field with its value.
pub(super) type Field<'a> = (&'static str, Cow<'a, str>);

/// Fields as they were read.
pub(super) type Fields = HashMap<String, String>;

/// The fields of `state()` in `prelude.lua`, in its order.
pub(super) const STATE: [&str; 11] = [
    "events",
    "cancel",
    "reach",
    "at_node",
    "at_request",
    "asked",
    "ticket",
    "since",
    "channel",
    "from",
    "gate",
];

/// What one field of a hash holds, or several.
pub(super) trait Stored: Sized {
    fn write<'a>(&'a self, name: &'static str, into: &mut Vec<Field<'a>>);

    /// # Errors
    /// A field is missing, or holds something else.
    fn read(name: &str, from: &mut Fields) -> Result<Self>;

    /// All fields of it.
    fn fields(&self) -> Vec<Field<'_>> {
        let mut fields = Vec::with_capacity(32);
        self.write("", &mut fields);
        fields
    }
}

/// Fields of a type whose value stands in no field by itself.
macro_rules! parts {
    ($type:ident { $($part:ident: $name:literal),* $(,)? } $(without $left:ident)?) => {
        impl Stored for $type {
            fn write<'a>(&'a self, _: &'static str, into: &mut Vec<Field<'a>>) {
                $(self.$part.write($name, into);)*
            }

            fn read(_: &str, from: &mut Fields) -> Result<Self> {
                Ok(Self { $($part: Stored::read($name, from)?,)* $($left: Default::default())? })
            }
        }
    };
}

parts!(Order {
    server: "server",
    job: "job",
    era: "era",
    via: "via",
    tool: "tool",
    assertion: "assertion",
    principal: "principal",
    organisation: "organisation",
    session: "session",
    request_id: "request_id",
    lost: "lost",
    node: "node",
    request: "request",
    stream: "stream",
    retry: "retry",
    task: "task",
});

parts!(Retry { name: "retry", fingerprint: "fingerprint" });

parts!(State { event_count: "events", cancel: "cancel", reach: "reach" });

parts!(Snapshot {
    order: "",
    epoch: "epoch",
    run: "run",
    rerun: "rerun",
    state: "",
    out: "out",
    channels: "channels",
} without log);

/// A type whose variants are words.
macro_rules! words {
    ($type:ident { $($variant:ident: $word:literal),* $(,)? }) => {
        impl $type {
            pub(super) fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl Stored for $type {
            fn write<'a>(&'a self, name: &'static str, into: &mut Vec<Field<'a>>) {
                into.push((name, self.word().into()));
            }

            fn read(name: &str, from: &mut Fields) -> Result<Self> {
                match required(name, from)?.as_str() {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(nonsense(name)),
                }
            }
        }
    };
}

words!(Era { Stateless: "stateless", Stateful: "stateful" });
words!(Via { Pushpin: "pushpin", Backend: "backend" });
words!(Run { Queued: "queued", Running: "running", Done: "done", Cancelled: "cancelled" });
words!(Rerun { Safe: "safe", Unsafe: "unsafe" });

/// A type whose variant is a word in its field, and has fields of its own.
macro_rules! variants {
    ($type:ident { $($variant:ident: $word:literal { $($part:ident: $name:literal),* }),* $(,)? }) => {
        impl Stored for $type {
            fn write<'a>(&'a self, name: &'static str, into: &mut Vec<Field<'a>>) {
                match self {
                    $(Self::$variant { $($part),* } => {
                        into.push((name, $word.into()));
                        $($part.write($name, into);)*
                    })*
                }
            }

            fn read(name: &str, from: &mut Fields) -> Result<Self> {
                match required(name, from)?.as_str() {
                    $($word => Ok(Self::$variant { $($part: Stored::read($name, from)?),* }),)*
                    _ => Err(nonsense(name)),
                }
            }
        }
    };
}

variants!(Reach {
    Node: "node" { node: "at_node", request: "at_request", asked: "asked" },
    Offered: "offered" { ticket: "ticket", since: "since" },
    Held: "held" { channel: "channel", from: "from", gate: "gate", since: "since", ticket: "ticket" },
    None: "none" {},
});

fn required(name: &str, from: &mut Fields) -> Result<String> {
    from.remove(name).ok_or_else(|| nonsense(name))
}

/// Values that are texts, or are written as such.
macro_rules! texts {
    ($($type:ty: $write:expr, $read:expr;)*) => {$(
        impl Stored for $type {
            fn write<'a>(&'a self, name: &'static str, into: &mut Vec<Field<'a>>) {
                let write: fn(&'a $type) -> Cow<'a, str> = $write;
                into.push((name, write(self)));
            }

            fn read(name: &str, from: &mut Fields) -> Result<Self> {
                let read: fn(String) -> Option<Self> = $read;
                read(required(name, from)?).ok_or_else(|| nonsense(name))
            }
        }
    )*};
}

texts! {
    String: |text| text.as_str().into(), Some;
    Message: |text| (&**text).into(), |text| Some(text.into());
    u32: |number| number.to_string().into(), |text| text.parse().ok();
    u64: |number| number.to_string().into(), |text| text.parse().ok();
    CallId: |call| call.to_string().into(), |text| text.parse().ok();
    Ticket: |ticket| ticket.to_string().into(), |text| text.parse().ok();
    bool: |flag| digit(*flag).into(), |text| match text.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    };
    // A hash forgets no field by itself: a ticket that counts no more is empty.
    Option<Ticket>: |ticket| ticket.map(|ticket| ticket.to_string()).unwrap_or_default().into(),
        |text| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
}

pub(super) fn digit(flag: bool) -> &'static str {
    if flag { "1" } else { "0" }
}

/// Values that may be absent.
macro_rules! optional {
    ($($type:ty),*) => {$(
        impl Stored for Option<$type> {
            fn write<'a>(&'a self, name: &'static str, into: &mut Vec<Field<'a>>) {
                if let Some(value) = self {
                    value.write(name, into);
                }
            }

            fn read(name: &str, from: &mut Fields) -> Result<Self> {
                from.contains_key(name).then(|| Stored::read(name, from)).transpose()
            }
        }
    )*};
}

optional!(String, Message, CallId, Retry, Rerun);

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(reach: Reach, retry: Option<Retry>) -> Snapshot {
        let order = Order {
            server: "s".into(),
            job: "{}".into(),
            era: Era::Stateful,
            via: Via::Backend,
            tool: Some(String::new()),
            assertion: "a".into(),
            principal: "p".into(),
            organisation: "o".into(),
            session: Some("session".into()),
            request_id: None,
            lost: "lost".into(),
            node: "n".into(),
            request: 7,
            stream: None,
            retry,
            task: Some(CallId::random()),
        };
        Snapshot {
            order,
            epoch: 3,
            run: Run::Done,
            rerun: Some(Rerun::Safe),
            state: State { reach, event_count: 2, cancel: true },
            out: Some("out".into()),
            log: Vec::new(),
            channels: 4,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let ticket = Ticket::random();
        for reach in [
            Reach::Node { node: "n".into(), request: 7, asked: 9 },
            Reach::Offered { ticket, since: 5 },
            Reach::Held { channel: 2, from: 1, gate: true, since: 5, ticket: Some(ticket) },
            Reach::Held { channel: 2, from: 1, gate: false, since: 5, ticket: None },
            Reach::None,
        ] {
            let retry = Some(Retry { name: "r".into(), fingerprint: "f".into() });
            for written in [snapshot(reach.clone(), retry), snapshot(reach, None)] {
                let fields = written.fields();
                let mut names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), fields.len(), "two values under one name: {fields:?}");
                let read = |fields: Vec<Field<'_>>| {
                    let owned = fields.into_iter().map(|(name, text)| (name.to_owned(), text.into_owned()));
                    Snapshot::read("", &mut owned.collect())
                };
                assert_eq!(read(fields.clone()), Ok(written.clone()));
                for left_out in ["server", "era", "request", "epoch", "run", "cancel", "reach"] {
                    let fields = fields.iter().filter(|(name, _)| *name != left_out).cloned().collect();
                    assert!(read(fields).is_err(), "without {left_out}");
                }
            }
        }
    }
}
