//! Frames and messages, whatever comes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

use super::super::frame::{FRAME, Frame, FrameCodec, GREETING, Kind, Outgoing};
use super::super::message::{self, MESSAGE, ToWorker};
use super::super::wire::Parts;
use super::{limits, order};
use crate::id::CallId;

fn call(byte: u8) -> CallId {
    CallId::from_bits([byte; 16])
}

/// All frames of bytes that come in pieces of this size.
fn decode(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let (mut codec, mut read, mut frames) = (FrameCodec::for_calls(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        read.extend_from_slice(piece);
        while let Some(frame) = codec.decode(&mut read).unwrap() {
            frames.push(frame);
        }
    }
    assert!(read.is_empty());
    frames
}

proptest! {
    #[test]
    fn what_is_sent_in_parts_is_whole_again(
        lengths in prop::collection::vec(0..300_000usize, 1..5),
        piece in 1..200_000usize,
    ) {
        let messages: Vec<(CallId, Bytes)> = lengths
            .iter()
            .enumerate()
            .map(|(n, length)| (call(n as u8 + 1), Bytes::from(vec![n as u8; *length])))
            .collect();
        // One frame of each by turns, as the queue gives them out.
        let mut waiting: Vec<_> = messages
            .iter()
            .map(|(call, body)| {
                Outgoing::split(Kind::ANSWER, *call, Bytes::from_static(b"head"), body.clone()).into_iter()
            })
            .collect();
        let mut written = BytesMut::new();
        loop {
            let before = written.len();
            for frame in waiting.iter_mut().filter_map(Iterator::next) {
                prop_assert!(frame.len() <= FRAME);
                FrameCodec::for_calls().encode(frame, &mut written).unwrap();
            }
            if written.len() == before {
                break;
            }
        }
        let mut parts = Parts::new(limits());
        let mut whole = Vec::new();
        for frame in decode(&written, piece) {
            whole.extend(parts.add(frame).unwrap().map(|(_, call, body)| (call, body.slice(4..))));
        }
        whole.sort_by_key(|(call, _)| *call);
        prop_assert_eq!(whole, messages);
    }

    #[test]
    fn no_bytes_make_a_frame_that_is_too_long(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut read = BytesMut::from(&*bytes);
        let mut codec = FrameCodec::for_greeting();
        while let Ok(Some(frame)) = codec.decode(&mut read) {
            prop_assert!(frame.body.len() <= GREETING);
        }
        // Nothing is made room for that was only announced.
        prop_assert!(read.capacity() <= 200 + GREETING + 64);
    }

    #[test]
    fn no_bytes_are_taken_for_a_message_that_they_are_not(
        kind in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let body = Bytes::from(body);
        let _ = message::to_backend(Kind(kind), body.clone());
        let known = [16, 17, 18].contains(&kind);
        match message::to_worker(Kind(kind), call(1), body) {
            Ok(Some(ToWorker::Dispatch(_))) => prop_assert!(false, "a DISPATCH out of noise"),
            Ok(Some(_)) => prop_assert!(known),
            Ok(None) => prop_assert!(kind >= 128),
            Err(_) => prop_assert!(kind < 128),
        }
    }

    #[test]
    fn parts_are_bounded(
        frames in prop::collection::vec((0..20u8, any::<bool>(), 0..FRAME), 1..100),
    ) {
        let limits = limits().with_bytes(200_000).with_calls(4);
        let mut parts = Parts::new(limits);
        let mut open = std::collections::HashMap::<u8, usize>::new();
        for (number, more, length) in frames {
            let frame = Frame { kind: Kind::HINT, more, call: call(number), body: Bytes::from(vec![0; length]) };
            let taken = parts.add(frame);
            let held: usize = open.values().sum();
            match taken {
                Err(_) => return Ok(()),
                Ok(None) => *open.entry(number).or_default() += length,
                Ok(Some(_)) => drop(open.remove(&number)),
            }
            prop_assert!(held <= 200_000 && open.len() <= 4);
        }
    }
}

#[test]
fn an_order_survives_the_way() {
    let order = order("{\"a\": \"\u{1F600}\"}");
    let (head, body) = message::dispatch(&order, Duration::from_millis(70), 9).ok().unwrap();
    let bytes: Bytes = [head, body].concat().into();
    for cut in 0..bytes.len() - order.job.len() {
        let short = message::to_worker(Kind::DISPATCH, call(1), bytes.slice(..cut));
        assert!(short.is_err(), "cut off at {cut}");
    }
    let Ok(Some(ToWorker::Dispatch(read))) = message::to_worker(Kind::DISPATCH, call(1), bytes) else {
        panic!("not a DISPATCH")
    };
    assert_eq!((&read.order, read.left, read.seen), (&order, Duration::from_millis(70), 9));
}

#[test]
fn a_message_that_is_too_long_or_mixed_up_is_refused() {
    let frame = |kind, more, length| Frame { kind, more, call: call(1), body: Bytes::from(vec![0; length]) };
    let mut parts = Parts::new(limits());
    for _ in 0..MESSAGE / 60_000 {
        parts.add(frame(Kind::ANSWER, true, 60_000)).unwrap();
    }
    assert!(parts.add(frame(Kind::ANSWER, false, 60_000)).is_err());
    let mut parts = Parts::new(limits());
    parts.add(frame(Kind::ANSWER, true, 1)).unwrap();
    assert!(parts.add(frame(Kind::HINT, false, 1)).is_err(), "within another of its call");
    let mut read = BytesMut::from(&[0, 0, 0, 18, 33, 2][..]);
    read.extend_from_slice(&[0; 16]);
    assert!(FrameCodec::for_calls().decode(&mut read).is_err(), "a flag that is none");
}
