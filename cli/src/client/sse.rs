//! Server-sent events (WHATWG HTML, section 9.2), as far as MCP uses them: the `data` of each event.

/// Puts a stream of bytes together to events.
#[derive(Debug)]
pub struct Events {
    line: Vec<u8>,
    data: String,
    has_data: bool,
    after_return: bool,
    limit: usize,
}

impl Events {
    /// No event may be longer than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), data: String::new(), has_data: false, after_return: false, limit }
    }

    /// Takes some bytes; returns the data of the events that they complete.
    ///
    /// # Errors
    /// When an event is too long, or a line is no UTF-8.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, String> {
        let mut complete = Vec::new();
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => self.end_line(&mut complete)?,
                other => {
                    if self.line.len() + self.data.len() >= self.limit {
                        return Err(format!("an event of the stream is longer than {} bytes", self.limit));
                    }
                    self.line.push(*other);
                }
            }
        }
        Ok(complete)
    }

    fn end_line(&mut self, complete: &mut Vec<String>) -> Result<(), String> {
        let line = String::from_utf8(std::mem::take(&mut self.line))
            .map_err(|_| "the stream is no UTF-8".to_owned())?;
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            if std::mem::take(&mut self.has_data) && !data.is_empty() {
                complete.push(data);
            }
            return Ok(());
        }
        // Comments begin with a colon; event names, ids and retry times do not matter here.
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        if field == "data" {
            if self.has_data {
                self.data.push('\n');
            }
            self.has_data = true;
            self.data.push_str(value.strip_prefix(' ').unwrap_or(value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&str]) -> Vec<String> {
        let mut events = Events::new(100);
        chunks.iter().flat_map(|chunk| events.feed(chunk.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn events_of_all_forms() {
        assert_eq!(events(&["data: a\n\n"]), ["a"]);
        assert_eq!(events(&["da", "ta:a\r", "\n\r\ndata: b\r\rdata: c\n", "\n"]), ["a", "b", "c"]);
        assert_eq!(events(&["id: 1\nevent: message\ndata: {\ndata: }\n\n"]), ["{\n}"]);
        assert_eq!(events(&[": keep-alive\n\n", "\n\n", "retry: 5\n\n", "data:\n\n"]), Vec::<String>::new());
        assert_eq!(events(&["data: cut off"]), Vec::<String>::new());
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::new(10);
        assert!(events.feed(b"data: 123456789").is_err());
    }
}
