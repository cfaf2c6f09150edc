//! A reader of server-sent events (HTML standard, "Server-sent events") that takes bytes as they come.

/// What a stream consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An event with data.
    Event {
        /// The last `id` line of the event itself.
        id: Option<String>,
        /// Its `data` lines, joined.
        data: String,
    },
    /// A comment line.
    Comment,
}

/// Takes bytes, gives pieces.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    id: Option<String>,
    data: Vec<String>,
}

impl Reader {
    /// Takes what has arrived and gives what that completes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8(std::mem::take(&mut self.line)).expect("a stream is UTF-8");
            pieces.extend(self.end_line(line.trim_end_matches('\r')));
        }
        pieces
    }

    /// Whether an event has begun and not ended: then the stream was cut.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        !self.line.is_empty() || !self.data.is_empty() || self.id.is_some()
    }

    fn end_line(&mut self, line: &str) -> Option<Piece> {
        if line.is_empty() {
            let (id, data) = (self.id.take(), std::mem::take(&mut self.data));
            return (!data.is_empty()).then(|| Piece::Event { id, data: data.join("\n") });
        }
        match line.split_once(':') {
            Some(("", _)) => return Some(Piece::Comment),
            Some(("data", value)) => self.data.push(value.strip_prefix(' ').unwrap_or(value).to_owned()),
            Some(("id", value)) => self.id = Some(value.strip_prefix(' ').unwrap_or(value).to_owned()),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_whatever_the_chunks() {
        let text = ":\n\nid: a-1\ndata: {\ndata: }\n\nevent: x\r\ndata:y\r\n\r\ndata: cut";
        let expected = [
            Piece::Comment,
            Piece::Event { id: Some("a-1".into()), data: "{\n}".into() },
            Piece::Event { id: None, data: "y".into() },
        ];
        for size in [1, 2, 7, text.len()] {
            let mut reader = Reader::default();
            let pieces: Vec<Piece> =
                text.as_bytes().chunks(size).flat_map(|chunk| reader.take(chunk)).collect();
            assert_eq!(pieces, expected, "chunks of {size}");
            assert!(reader.is_amid());
        }
    }
}
