//! One link at work: frames both ways, heartbeats, and how it breaks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Framed, FramedRead, FramedWrite};

use super::LinkLimits;
use super::frame::{Frame, FrameCodec, FrameError, Kind, Outgoing};
use super::message::{MESSAGE, Malformed};
use super::queue::SendQueue;
use crate::id::CallId;

/// Bytes that are written at once.
const WRITE: usize = 128 * 1024;

/// What a side does with what comes. Called within the link's own task: it must not block.
pub(super) trait Side: Send + Sync + 'static {
    /// A whole message of a call.
    fn message(&self, kind: Kind, call: CallId, body: Bytes) -> Result<(), Malformed>;
    /// A heartbeat of the other side, with its number and its free slots.
    fn beat(&self, number: u64, free: u32);
    /// The number of the heartbeat that is sent now, and this side's free slots.
    fn beats(&self) -> (u64, u32);
}

/// Why a link broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the other side was silent for a lease")]
    Silent,
    #[error("the other side took nothing for a lease")]
    Stuck,
    #[error("the other side closed it")]
    Closed,
    #[error("closed by this side")]
    Own,
    #[error("the other side sent {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Carries what comes and goes until the link breaks.
pub(super) async fn carry<S>(
    stream: Framed<S, FrameCodec>,
    queue: Arc<SendQueue>,
    side: Arc<dyn Side>,
    limits: LinkLimits,
) -> Broken
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What the other side sent behind its greeting may be in the buffer already.
    let parts = stream.into_parts();
    let (read, write) = tokio::io::split(parts.io);
    let mut reader = FramedRead::new(read, FrameCodec::for_calls());
    *reader.read_buffer_mut() = parts.read_buf;
    let writer = FramedWrite::new(write, FrameCodec::for_calls());
    let broken = tokio::select! {
        broken = receive(reader, side.as_ref(), limits) => broken,
        broken = send(writer, &queue, side.as_ref(), limits) => broken,
    };
    queue.close();
    broken
}

async fn receive<R: AsyncRead + Unpin>(
    mut reader: FramedRead<R, FrameCodec>,
    side: &dyn Side,
    limits: LinkLimits,
) -> Broken {
    let mut parts = Parts::new(limits);
    loop {
        let frame = match timeout(limits.lease, reader.next()).await {
            Err(_) => return Broken::Silent,
            Ok(None) => return Broken::Closed,
            Ok(Some(Err(error))) => return error.into(),
            Ok(Some(Ok(frame))) => frame,
        };
        let done = match frame.kind {
            Kind::BEAT => beat(side, frame),
            _ => parts.add(frame).and_then(|whole| match whole {
                Some((kind, call, body)) => side.message(kind, call, body),
                None => Ok(()),
            }),
        };
        if let Err(malformed) = done {
            return malformed.into();
        }
    }
}

fn beat(side: &dyn Side, frame: Frame) -> Result<(), Malformed> {
    let mut body = frame.body;
    match (body.try_get_u64(), body.try_get_u32()) {
        (Ok(number), Ok(free)) => {
            side.beat(number, free);
            Ok(())
        }
        _ => Err(Malformed("a heartbeat that is cut off".into())),
    }
}

async fn send<W: AsyncWrite + Unpin>(
    mut writer: FramedWrite<W, FrameCodec>,
    queue: &SendQueue,
    side: &dyn Side,
    limits: LinkLimits,
) -> Broken {
    let mut due = Instant::now();
    loop {
        if queue.is_closed() {
            return Broken::Own;
        }
        // Heartbeats first, between any two writes.
        if Instant::now() >= due {
            due = Instant::now() + limits.beat;
            let (number, free) = side.beats();
            let mut body = BytesMut::with_capacity(12);
            body.put_u64(number);
            body.put_u32(free);
            if let Err(broken) =
                write(&mut writer, Outgoing::of_link(Kind::BEAT, body.freeze()), limits).await
            {
                return broken;
            }
        }
        let mut written = 0;
        while written < WRITE
            && let Some(frame) = queue.pop()
        {
            written += frame.len();
            if let Err(broken) = write(&mut writer, frame, limits).await {
                return broken;
            }
        }
        match timeout(limits.lease, writer.flush()).await {
            Err(_) => return Broken::Stuck,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => {}
        }
        if written < WRITE {
            tokio::select! {
                () = queue.filled() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(
    writer: &mut FramedWrite<W, FrameCodec>,
    frame: Outgoing,
    limits: LinkLimits,
) -> Result<(), Broken> {
    match timeout(limits.lease, writer.feed(frame)).await {
        Err(_) => Err(Broken::Stuck),
        Ok(fed) => Ok(fed?),
    }
}

/// Messages that are not whole yet.
pub(super) struct Parts {
    limits: LinkLimits,
    open: HashMap<CallId, (Kind, BytesMut)>,
    bytes: usize,
}

impl Parts {
    pub(super) fn new(limits: LinkLimits) -> Self {
        Self { limits, open: HashMap::new(), bytes: 0 }
    }

    /// Takes a frame in; the message, when it is whole. What comes in one frame is not copied.
    pub(super) fn add(&mut self, frame: Frame) -> Result<Option<(Kind, CallId, Bytes)>, Malformed> {
        let Frame { kind, more, call, body } = frame;
        let known = self.open.get(&call).map(|(kind, parts)| (*kind, parts.len()));
        let length = body.len() + known.map_or(0, |(_, length)| length);
        if length > MESSAGE {
            return Err(Malformed(format!("over {MESSAGE} bytes")));
        }
        match known {
            Some((known, _)) if known != kind => {
                return Err(Malformed("within another message of its call".into()));
            }
            None if !more => return Ok(Some((kind, call, body))),
            None if self.open.len() >= self.limits.calls => {
                return Err(Malformed(format!("in parts, beside {} others", self.limits.calls)));
            }
            _ => {}
        }
        self.bytes += body.len();
        if self.bytes > self.limits.bytes {
            return Err(Malformed(format!("with which over {} bytes are not whole", self.limits.bytes)));
        }
        let (_, parts) = self.open.entry(call).or_insert_with(|| (kind, BytesMut::new()));
        parts.extend_from_slice(&body);
        if more {
            return Ok(None);
        }
        let whole = self.open.remove(&call).map(|(kind, parts)| (kind, call, parts.freeze()));
        self.bytes -= whole.as_ref().map_or(0, |(_, _, body)| body.len());
        Ok(whole)
    }
}
