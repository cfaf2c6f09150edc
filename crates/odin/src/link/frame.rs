//! What travels on a link: frames of bounded length.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::id::CallId;

/// Bytes of one frame after its length. Longer messages are split, so that none makes others wait for long.
pub(super) const FRAME: usize = 64 * 1024;
/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// Bytes of a frame's head: kind, whether more follows, the call.
const HEAD: usize = 1 + 1 + 16;
/// Most bytes of a frame's body.
pub(super) const BODY: usize = FRAME - HEAD;
/// Most bytes of a frame before both sides know each other.
pub(super) const GREETING: usize = 2 * 1024;

/// What a frame says. From 128 on: what a side that does not know it may skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(pub(super) u8);

impl Kind {
    pub(super) const HELLO: Self = Self(1);
    pub(super) const WELCOME: Self = Self(2);
    pub(super) const PROOF: Self = Self(3);
    pub(super) const REFUSED: Self = Self(4);
    pub(super) const BEAT: Self = Self(8);
    pub(super) const DISPATCH: Self = Self(16);
    pub(super) const CANCEL: Self = Self(17);
    pub(super) const GOT: Self = Self(18);
    pub(super) const BUSY: Self = Self(32);
    pub(super) const ANSWER: Self = Self(33);
    pub(super) const IN_DOUBT: Self = Self(34);
    pub(super) const REGISTERED: Self = Self(35);
    pub(super) const HINT: Self = Self(36);

    /// Whether a side that does not know it skips it.
    pub(super) fn is_optional(self) -> bool {
        self.0 >= 128
    }
}

/// A frame as it was read. Its body shares the buffer that was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// The message goes on in the call's next frame.
    pub(super) more: bool,
    /// All zero in frames that are no call's.
    pub(super) call: CallId,
    pub(super) body: Bytes,
}

/// A frame to be written: its body is `head` and then `body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) more: bool,
    pub(super) call: CallId,
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Outgoing {
    /// A frame that is no call's.
    pub(super) fn of_link(kind: Kind, body: Bytes) -> Self {
        Self { kind, more: false, call: CallId::from_bits([0; 16]), head: Bytes::new(), body }
    }

    pub(super) fn len(&self) -> usize {
        HEAD + self.head.len() + self.body.len()
    }

    /// The frames of one message. `head` fits into a frame.
    pub(super) fn split(kind: Kind, call: CallId, head: Bytes, mut body: Bytes) -> Vec<Self> {
        let mut frames = Vec::with_capacity(1 + body.len() / BODY);
        let mut head = Some(head);
        loop {
            let head = head.take().unwrap_or_default();
            let part = body.split_to(body.len().min(BODY - head.len().min(BODY)));
            let more = !body.is_empty();
            frames.push(Self { kind, more, call, head, body: part });
            if !more {
                return frames;
            }
        }
    }
}

/// What is wrong with the bytes of a link; it is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// A frame of that many bytes.
    #[error("a frame of {0} bytes, where at most {1} are allowed")]
    Length(usize, usize),
    /// A frame whose flags make no sense.
    #[error("a frame that is malformed")]
    Malformed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Frames of at most `most` bytes.
#[derive(Debug)]
pub(super) struct FrameCodec {
    most: usize,
}

impl FrameCodec {
    /// For the greeting; nobody knows yet who is there.
    pub(super) fn for_greeting() -> Self {
        Self { most: GREETING }
    }

    pub(super) fn for_calls() -> Self {
        Self { most: FRAME }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, read: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(length) = read.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(HEAD..=self.most).contains(&length) {
            return Err(FrameError::Length(length, self.most));
        }
        if read.len() < LENGTH + length {
            read.reserve(LENGTH + length - read.len());
            return Ok(None);
        }
        read.advance(LENGTH);
        let mut frame = read.split_to(length).freeze();
        let kind = Kind(frame.get_u8());
        let more = match frame.get_u8() {
            0 => false,
            1 => true,
            _ => return Err(FrameError::Malformed),
        };
        let mut call = [0; 16];
        frame.copy_to_slice(&mut call);
        Ok(Some(Frame { kind, more, call: CallId::from_bits(call), body: frame }))
    }
}

impl Encoder<Outgoing> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Outgoing, written: &mut BytesMut) -> Result<(), FrameError> {
        let length = frame.len();
        if length > self.most {
            return Err(FrameError::Length(length, self.most));
        }
        written.reserve(LENGTH + length);
        // Bounded by FRAME.
        written.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        written.put_u8(frame.kind.0);
        written.put_u8(u8::from(frame.more));
        written.put_slice(&frame.call.bits());
        written.put_slice(&frame.head);
        written.put_slice(&frame.body);
        Ok(())
    }
}
