//! Names of calls, tickets and channels.
//!
//! Ids of calls and tickets begin with a byte that is 0: room for the number of a shard, should records ever be spread
//! over several Redis.

use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Length of a [`CallId`] in text, in characters.
pub const CALL_ID_LEN: usize = 34;
/// Length of a [`Ticket`] in text, in characters. The gateway checks it before it goes into a request.
pub const TICKET_LEN: usize = 32;

/// The first byte of ids of calls and of tickets.
const RESERVED: u8 = 0;

/// Text that is not an id of the expected form. Answered as an unknown id: it tells a caller nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct InvalidId;

/// Name of one call: a zero byte and 128 random bits. In text 34 lower-case hexadecimal digits.
///
/// It is unguessable, and it is the stem of the call's Pushpin channels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    random: [u8; 16],
}

impl CallId {
    /// A new id.
    pub fn random() -> Self {
        Self { random: rand::random() }
    }

    /// An id of the given bits; for tests and simulations that must be repeatable.
    pub const fn from_bits(random: [u8; 16]) -> Self {
        Self { random }
    }

    /// The random bits, which name it among all.
    pub const fn bits(self) -> [u8; 16] {
        self.random
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &[RESERVED])?;
        write_hex(f, &self.random)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CallId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bytes: [u8; 17] = parse_hex(text)?;
        match bytes {
            [RESERVED, random @ ..] => Ok(Self { random }),
            _ => Err(InvalidId),
        }
    }
}

/// What a client's connection is handed over with: a zero byte and 120 random bits, good for one call and a few
/// seconds. In text 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    random: [u8; 15],
}

impl Ticket {
    /// A new ticket.
    pub fn random() -> Self {
        Self { random: rand::random() }
    }

    /// A ticket of the given bits; for tests and simulations that must be repeatable.
    pub const fn from_bits(random: [u8; 15]) -> Self {
        Self { random }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &[RESERVED])?;
        write_hex(f, &self.random)
    }
}

/// A ticket opens a call's stream: it is not for logs.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

impl FromStr for Ticket {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bytes: [u8; 16] = parse_hex(text)?;
        match bytes {
            [RESERVED, random @ ..] => Ok(Self { random }),
            _ => Err(InvalidId),
        }
    }
}

/// A Pushpin channel of one call: each successful hold gets a new number, so that what was meant for an
/// abandoned hold never reaches its successor. In text `{call}-{number}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct CallChannel {
    /// The call.
    pub call: CallId,
    /// Number of the hold, from 1.
    pub number: u32,
}

impl fmt::Display for CallChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.call, self.number)
    }
}

impl FromStr for CallChannel {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (call, number) = text.split_once('-').ok_or(InvalidId)?;
        let canonical = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().map_err(|_| InvalidId)?;
        if canonical { Ok(Self { call: call.parse()?, number }) } else { Err(InvalidId) }
    }
}

macro_rules! serde_as_text {
    ($($id:ty),*) => {$(
        impl Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(CallId, Ticket, CallChannel);

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    digits(bytes).try_for_each(|digit| f.write_char(digit))
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    digits(bytes).collect()
}

/// Each call and each hash is written so: `format!` would make a text of every byte.
fn digits(bytes: &[u8]) -> impl Iterator<Item = char> {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], InvalidId> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        _ => Err(InvalidId),
    };
    if text.len() != N * 2 {
        return Err(InvalidId);
    }
    let mut out = [0u8; N];
    for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return Err(InvalidId) };
        *slot = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let call = CallId::random();
        assert_eq!(call.to_string().len(), CALL_ID_LEN);
        assert_eq!(call.to_string().parse(), Ok(call));
        let ticket = Ticket::random();
        assert_eq!(ticket.to_string().len(), TICKET_LEN);
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
        let channel = CallChannel { call, number: 12 };
        assert_eq!(channel.to_string().parse(), Ok(channel));
    }

    #[test]
    fn other_spellings_are_not_ids() {
        let call = CallId::from_bits([0xab; 16]).to_string();
        for wrong in [
            String::new(),
            call.replacen("00", "01", 1),
            call.to_uppercase(),
            format!("{call}0"),
            call.replace('a', "g"),
        ] {
            assert_eq!(wrong.parse::<CallId>(), Err(InvalidId), "{wrong}");
        }
        for wrong in
            [format!("{call}-"), format!("{call}-01"), format!("{call}-+1"), format!("{call}-x"), call]
        {
            assert_eq!(wrong.parse::<CallChannel>(), Err(InvalidId), "{wrong}");
        }
    }
}
