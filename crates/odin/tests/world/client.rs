//! The client of the simulation, which notices when something is lost, doubled or out of order.

use odin::call::Send;
use odin::protocol::Era;

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the answer of its request.
    Direct,
    /// Its connection is being handed over, or it resumes.
    Holding,
    /// Pushpin holds its stream.
    Streaming,
    /// It has the answer.
    Answered,
    /// It got an error before any stream.
    Refused,
    /// Its stream ended without an answer.
    Broken,
    /// It went away, or gave up.
    Gone,
}

impl Phase {
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Direct | Self::Holding | Self::Streaming)
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    pub phase: Phase,
    pub last: u32,
    /// The run of the tool that the last event came from.
    run: u32,
    pub resuming: bool,
    pub wrong: Option<String>,
    /// It was told that nobody knows what became of its call.
    pub lost: bool,
    /// Events may be missing: what a lost worker had not yet sent.
    gaps: bool,
    /// Number of the event that stands for the end of the stream on the tool's own wish.
    hang_up: Option<u32>,
}

impl Client {
    pub fn new(era: Era, stream: bool, hang_up: Option<u32>) -> Self {
        let gaps = era == Era::Stateless || stream;
        Self {
            phase: Phase::Direct,
            last: 0,
            run: 0,
            resuming: false,
            wrong: None,
            lost: false,
            gaps,
            hang_up,
        }
    }

    /// One JSON answer.
    pub fn answer(&mut self, out: &str) {
        self.lost |= out == "lost";
        if self.phase == Phase::Direct {
            self.phase = Phase::Answered;
        } else if self.phase != Phase::Gone {
            self.wrong = Some(format!("a JSON answer in phase {:?}", self.phase));
        }
    }

    /// An error instead of an answer or a stream.
    pub fn refuse(&mut self) {
        if self.phase == Phase::Direct || self.phase == Phase::Holding {
            self.phase = Phase::Refused;
        }
    }

    /// The connection ended.
    pub fn cut(&mut self) {
        self.phase = match self.phase {
            Phase::Direct => Phase::Refused,
            Phase::Holding if !self.resuming => Phase::Refused,
            Phase::Holding | Phase::Streaming => Phase::Broken,
            other => other,
        };
    }

    /// One item of the stream.
    pub fn receive(&mut self, item: &Send) {
        if let Send::Events(first, events) = item {
            (*first..)
                .zip(events)
                .for_each(|(number, event)| self.receive(&Send::Event(number, event.clone())));
            return;
        }
        if self.phase == Phase::Gone || matches!(item, Send::Burn(_)) {
            return;
        }
        if self.phase == Phase::Answered {
            self.wrong = Some(format!("{item:?} after the answer"));
            return;
        }
        let (number, is_final) = match item {
            Send::Event(number, text) => {
                // The tool numbers its events: a repeated run must not shift or repeat them, and nothing of the
                // run before may come through once it has begun.
                let run =
                    text.strip_prefix(&format!("event {number} of run ")).and_then(|run| run.parse().ok());
                match run {
                    Some(run) if run >= self.run => self.run = run,
                    Some(run) => {
                        self.wrong = Some(format!("{item:?}: of run {run} after one of run {}", self.run))
                    }
                    None => self.wrong = Some(format!("{item:?}: not the event of that number")),
                }
                (*number, false)
            }
            Send::Final(number, out) => {
                self.lost |= &**out == "lost";
                (*number, true)
            }
            Send::Events(..) | Send::Burn(_) | Send::Close => return,
        };
        let hung_up = self.hang_up == Some(self.last + 1) && number == self.last + 2;
        let is_next = number == self.last + 1 || hung_up;
        if number <= self.last {
            self.wrong = Some(format!("{item:?} after number {}", self.last));
        } else if !self.gaps && !is_next {
            self.wrong = Some(format!("{item:?} after number {}: a gap", self.last));
        }
        self.last = number;
        if is_final {
            self.phase = Phase::Answered;
        }
    }
}
