use http::HeaderMap;

use crate::id::CallId;
use crate::protocol::sse::{Event, EventError, EventId, KEEP_ALIVE, stream_headers};

const CALL: &str = "00abababababababababababababababab";

/// One event as a client reads it (HTML standard, event stream interpretation).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub(super) id: String,
    pub(super) event: String,
    pub(super) retry: Option<u32>,
    pub(super) data: String,
}

/// Reads a stream as a browser does, primes (events without data) included.
pub(super) fn read(stream: &str) -> Vec<Read> {
    let mut events = Vec::new();
    let mut event = Read::default();
    let mut empty = true;
    for line in stream.replace("\r\n", "\n").split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() && !empty => {
                event.data.pop();
                events.push(std::mem::take(&mut event));
                empty = true;
                continue;
            }
            "id" => event.id = value.to_owned(),
            "event" => event.event = value.to_owned(),
            "retry" => event.retry = value.parse().ok(),
            "data" => {
                event.data.push_str(value);
                event.data.push('\n');
            }
            _ => continue,
        }
        empty = false;
    }
    assert!(empty, "the stream ends inside an event");
    events
}

fn write(event: Event<'_>) -> String {
    let mut out = Vec::new();
    event.write(&mut out, 10_000).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn exact_bytes() {
    let id = EventId { call: CallId::from_bits([0xab; 16]), number: 0 };
    assert_eq!(write(Event::message("{}")), "event: message\ndata: {}\n\n");
    assert_eq!(write(Event::prime(id)), format!("id: {CALL}-0\ndata:\n\n"));
    assert_eq!(
        write(Event::message("{}").with_id(id).with_type("other").with_retry(250)),
        format!("id: {CALL}-0\nevent: other\nretry: 250\ndata: {{}}\n\n")
    );
    assert_eq!(write(Event { retry: Some(1), ..Event::default() }), "retry: 1\n\n");
    let plain = |data| write(Event { data: Some(data), ..Event::default() });
    assert_eq!(plain("a\nb\r\nc\rd\n"), "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n");
    assert_eq!(plain("\nid: 7\n\ndata: x"), "data: \ndata: id: 7\ndata: \ndata: data: x\n\n");
    assert_eq!(read(std::str::from_utf8(KEEP_ALIVE).unwrap()), []);
}

#[test]
fn refuses_what_would_break_the_stream() {
    let mut out = b"before".to_vec();
    for event in ["", "a b", "a\nb", "é", &"x".repeat(65)] {
        assert_eq!(Event::message("{}").with_type(event).write(&mut out, 1_000), Err(EventError::Type));
    }
    assert_eq!(
        Event::message("0123456789").write(&mut out, 32),
        Err(EventError::TooLarge { size: 33, limit: 32 })
    );
    assert_eq!(
        Event::message("0123456789").write(&mut out, 9),
        Err(EventError::TooLarge { size: 10, limit: 9 })
    );
    assert_eq!(out, b"before");
    Event::message("0123456789").write(&mut out, 33).unwrap();
    assert_eq!(out, b"beforeevent: message\ndata: 0123456789\n\n");
}

#[test]
fn event_ids() {
    for number in [0, 17, u32::MAX] {
        let id = EventId { call: CallId::from_bits([0xab; 16]), number };
        assert_eq!(id.to_string(), format!("{CALL}-{number}"));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    for text in [
        String::new(),
        "-".into(),
        CALL.into(),
        format!("{CALL}-"),
        format!("{CALL}-01"),
        format!("{CALL}-+1"),
        format!("{CALL}--1"),
        format!("{CALL}-1-1"),
        format!("{CALL}-4294967296"),
        format!("{CALL} -1"),
        format!("{}-1", CALL.to_uppercase()),
        format!("{}-1", &CALL[1..]),
        format!(" {CALL}-1"),
    ] {
        assert!(text.parse::<EventId>().is_err(), "{text}");
    }
}

#[test]
fn headers_of_a_stream() {
    let mut headers = HeaderMap::new();
    stream_headers(&mut headers);
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
}
