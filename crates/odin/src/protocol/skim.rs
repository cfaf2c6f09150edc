//! The id of a request whose body is not kept: read as it passes, in a few bytes of memory.
//!
//! Of a body that is too large, or for which there is no room, nothing more is needed than the id to refuse it under.

use serde_json::value::RawValue;

/// Reads a body piece by piece. What it finds is good for an answer, not for a decision: it does not judge whether the
/// body is JSON to the last letter.
#[derive(Debug)]
pub struct Skim {
    /// Bytes that an id may have.
    most: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The name or the scalar that is being read among the outermost members.
    token: Vec<u8>,
    name: Vec<u8>,
    id: Option<Vec<u8>>,
    has_method: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Within,
    Behind,
    /// It is no request, or names two ids.
    Unreadable,
}

impl Skim {
    /// Begins. `most`: bytes that an id may have, as JSON.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            depth: 0,
            in_string: false,
            escaped: false,
            token: Vec::new(),
            name: Vec::new(),
            id: None,
            has_method: false,
            state: State::Before,
        }
    }

    /// Takes the next piece of the body.
    pub fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.state == State::Unreadable {
                return;
            }
            self.take(*byte);
        }
    }

    /// The id, if the body was one request, as it was sent.
    pub fn id(self) -> Option<Box<RawValue>> {
        let id = self.id.filter(|_| self.state == State::Behind && self.has_method)?;
        let id = RawValue::from_string(String::from_utf8(id).ok()?).ok()?;
        (id.get().starts_with('"') || id.get().parse::<i64>().is_ok()).then_some(id)
    }

    fn take(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match (self.state, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (State::Before, b'{') => {
                self.depth = 1;
                self.state = State::Within;
            }
            (State::Within, b'"') => {
                self.in_string = true;
                self.keep(byte);
            }
            (State::Within, b'{' | b'[') => {
                self.keep(byte);
                self.depth += 1;
            }
            (State::Within, b'}' | b']') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.end_member();
                    self.end();
                }
            }
            (State::Within, b':') if self.depth == 1 => self.name = std::mem::take(&mut self.token),
            (State::Within, b',') if self.depth == 1 => self.end_member(),
            (State::Within, _) => self.keep(byte),
            _ => self.state = State::Unreadable,
        }
    }

    /// Keeps a byte of an outermost member, and one more than an id may have: so one that is too long is none.
    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.token.len() <= self.most {
            self.token.push(byte);
        }
    }

    fn end_member(&mut self) {
        let (name, value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.token));
        match name.as_slice() {
            b"\"id\"" if self.id.is_some() || value.len() > self.most => self.state = State::Unreadable,
            b"\"id\"" => self.id = Some(value),
            b"\"method\"" => self.has_method = value.starts_with(b"\""),
            _ => {}
        }
    }

    fn end(&mut self) {
        if self.state == State::Within {
            self.state = State::Behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn id(pieces: &[&str]) -> Option<String> {
        let mut skim = Skim::new(16);
        pieces.iter().for_each(|piece| skim.feed(piece.as_bytes()));
        skim.id().map(|id| id.get().to_owned())
    }

    #[test]
    fn only_a_whole_request_has_an_id() {
        assert_eq!(id(&[r#"{"id":7,"method":"m"}"#]).as_deref(), Some("7"));
        assert_eq!(
            id(&[r#" { "method" : "m", "params" : {"id": 1}, "id" : "a\"}" } "#]).as_deref(),
            Some(r#""a\"}""#)
        );
        for none in [
            "",
            r#"{"id":7,"method":"m""#,
            r#"{"id":7}"#,
            r#"{"id":7,"result":{}}"#,
            r#"{"id":null,"method":"m"}"#,
            r#"{"id":7,"id":8,"method":"m"}"#,
            r#"{"id":[7],"method":"m"}"#,
            r#"{"id":7.5,"method":"m"}"#,
            r#"{"id":"0123456789abcdef","method":"m"}"#,
            r#"[{"id":7,"method":"m"}]"#,
            r#"{"id":7,"method":"m"} {"id":8,"method":"m"}"#,
            r#"{"method":"m","params":{"id":7}}"#,
        ] {
            assert_eq!(id(&[none]), None, "{none}");
        }
    }

    #[test]
    fn a_long_body_takes_no_memory() {
        let mut skim = Skim::new(512);
        skim.feed(br#"{"method":"tools/call","params":{"arguments":{"text":""#);
        for _ in 0..1000 {
            skim.feed(&[b'x'; 1000]);
        }
        skim.feed(br#""}},"jsonrpc":"2.0","id":"last"}"#);
        assert!(skim.token.capacity() < 4096, "{}", skim.token.capacity());
        assert_eq!(skim.id().unwrap().get(), r#""last""#);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<i64>().prop_map(Value::from), ".*".prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let object = prop::collection::btree_map(".*", inner.clone(), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                object.prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_parser_finds(
            params in any_json(),
            own in prop_oneof![any::<i64>().prop_map(Value::from), "[a-z\"\\\\]{0,9}".prop_map(Value::from)],
            pretty in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let message = json!({ "jsonrpc": "2.0", "params": params, "id": own, "method": "m", "x": "{\"id\":9" });
            let text = if pretty { serde_json::to_string_pretty(&message) } else { serde_json::to_string(&message) };
            let text = text.unwrap();
            let mut skim = Skim::new(64);
            let (before, after) = text.as_bytes().split_at(cut.index(text.len() + 1));
            skim.feed(before);
            skim.feed(after);
            prop_assert_eq!(skim.id().map(|id| id.get().to_owned()), Some(own.to_string()));
        }
    }
}
