//! The worker's side of a call that came straight from its backend, until the store says that it is this worker's.

use super::super::{Gone, Message};

/// What the worker learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectInput {
    /// The tool sent an event, or asks the client.
    Emitted,
    /// The tool ended.
    Finished {
        /// Its answer; none: a notification, or it was stopped.
        out: Option<Message>,
        /// The answer means nothing without the record: it is the handle of a task, or too long for a link.
        needs_record: bool,
    },
    /// The worker sees the link broken.
    Broken,
    /// CANCEL came on the link.
    Cancel,
    /// The backend has the answer that was sent in doubt.
    Got,
    /// The reply to REGISTER; none: it was not answered, and may be carried out or not.
    Replied(Option<Result<(), Gone>>),
    /// This worker takes the same call from the queue, or claims it.
    Superseded,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the worker learns something, or the time is reached (milliseconds of the local clock).
    Wait {
        /// The time, if there is one.
        until: Option<u64>,
    },
    /// REGISTER; answer with [`DirectInput::Replied`].
    Register,
    /// ANSWER, and forget the call: the store never hears of it.
    Answer(Message),
    /// ANSWER?; the call remains this worker's to register until GOT.
    AnswerInDoubt(Message),
    /// The call is this worker's, as after TAKE.
    Own {
        /// REGISTERED on the link: the backend is to look at the record.
        tell: bool,
        /// The client is gone: the record is to be given up.
        cancelled: bool,
    },
    /// The backend has the answer: close the record with it, if there is one.
    Clear(Message),
    /// Stop the tool, if it still runs, and forget the call.
    Stop {
        /// REGISTERED on the link: the backend is to look at the record.
        tell: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The store never heard of the call.
    Direct,
    /// REGISTER is under way.
    Asking,
    /// REGISTER was sent, and not answered.
    Unanswered,
    /// Its owner.
    Owner,
    /// Another has it, or it is over.
    Refused,
    /// The backend has the answer.
    Got,
    Superseded,
}

/// The worker's side of one call.
#[derive(Debug, Clone)]
pub struct DirectRun {
    phase: Phase,
    /// When the call is written down if it still runs, in milliseconds of the local clock.
    hold: u64,
    linked: bool,
    emitted: bool,
    needs_record: bool,
    /// The tool's end, with its answer.
    ended: Option<Option<Message>>,
    /// An answer was sent in doubt.
    in_doubt: bool,
    cancelled: bool,
}

impl DirectRun {
    /// The tool was started. `hold`: when the call is to be written down if it still runs, in milliseconds of the
    /// local clock.
    pub fn new(hold: u64) -> Self {
        Self {
            phase: Phase::Direct,
            hold,
            linked: true,
            emitted: false,
            needs_record: false,
            ended: None,
            in_doubt: false,
            cancelled: false,
        }
    }

    /// Whether the reply to REGISTER is still wanted.
    pub fn is_asking(&self) -> bool {
        self.phase == Phase::Asking
    }

    /// Takes in what the worker learned.
    pub fn input(&mut self, input: DirectInput) {
        match input {
            DirectInput::Emitted => self.emitted = true,
            DirectInput::Finished { out, needs_record } => {
                self.ended.get_or_insert(out);
                self.needs_record |= needs_record;
            }
            DirectInput::Broken => self.linked = false,
            DirectInput::Cancel => self.cancelled = true,
            DirectInput::Got if self.in_doubt && matches!(self.phase, Phase::Asking | Phase::Unanswered) => {
                self.phase = Phase::Got;
            }
            DirectInput::Got => {}
            DirectInput::Replied(reply) if self.phase == Phase::Asking => {
                self.phase = match reply {
                    None => Phase::Unanswered,
                    Some(Ok(())) => Phase::Owner,
                    Some(Err(_)) => Phase::Refused,
                };
            }
            DirectInput::Replied(_) => {}
            DirectInput::Superseded => self.phase = Phase::Superseded,
        }
    }

    /// What to do now. `now` in milliseconds of the local clock.
    pub fn next(&mut self, now: u64) -> Step {
        // After an answer the backend looks at nothing.
        let tell = self.linked && !self.in_doubt;
        match self.phase {
            Phase::Direct if self.cancelled => Step::Stop { tell: false },
            Phase::Direct => self.direct(now, tell),
            Phase::Asking => Step::Wait { until: None },
            Phase::Unanswered => match self.answer() {
                // It remains the owner to be: the link may lose the answer.
                Some(out) if !self.in_doubt && !self.cancelled => {
                    self.in_doubt = true;
                    Step::AnswerInDoubt(out)
                }
                _ => self.register(),
            },
            Phase::Owner => Step::Own { tell, cancelled: self.cancelled },
            Phase::Refused | Phase::Superseded => Step::Stop { tell },
            Phase::Got => match &self.ended {
                Some(Some(out)) => Step::Clear(out.clone()),
                _ => Step::Stop { tell: false },
            },
        }
    }

    fn direct(&mut self, now: u64, tell: bool) -> Step {
        match &self.ended {
            Some(None) if !self.emitted => return Step::Stop { tell },
            None if self.linked && !self.emitted && now < self.hold => {
                return Step::Wait { until: Some(self.hold) };
            }
            _ => {}
        }
        match self.answer() {
            Some(out) if !self.emitted => Step::Answer(out),
            _ => self.register(),
        }
    }

    /// The answer, if it can go on the link.
    fn answer(&self) -> Option<Message> {
        self.ended.clone().flatten().filter(|_| self.linked && !self.needs_record)
    }

    /// Also for a link that is broken: its backend registers the call as well, and waits for what the record says.
    fn register(&mut self) -> Step {
        self.phase = Phase::Asking;
        Step::Register
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: u64 = 100;

    fn run(inputs: &[DirectInput]) -> DirectRun {
        let mut run = DirectRun::new(HOLD);
        inputs.iter().for_each(|input| run.input(input.clone()));
        run
    }

    fn finished() -> DirectInput {
        DirectInput::Finished { out: Some("out".into()), needs_record: false }
    }

    /// A run whose REGISTER was not answered.
    fn unanswered(inputs: &[DirectInput]) -> DirectRun {
        let mut run = run(inputs);
        assert_eq!(run.next(HOLD), Step::Register);
        run.input(DirectInput::Replied(None));
        run
    }

    #[test]
    fn a_quick_call_is_answered_and_forgotten() {
        let mut direct = run(&[]);
        assert_eq!(direct.next(0), Step::Wait { until: Some(HOLD) });
        direct.input(finished());
        assert_eq!(direct.next(50), Step::Answer("out".into()));
        // Late, but before REGISTER was sent.
        assert_eq!(run(&[finished()]).next(HOLD), Step::Answer("out".into()));
    }

    #[test]
    fn what_outlives_its_request_is_written_down() {
        let task = DirectInput::Finished { out: Some("out".into()), needs_record: true };
        let cases: [(&[DirectInput], u64); 6] = [
            (&[], HOLD),
            (&[DirectInput::Emitted], 0),
            (&[DirectInput::Emitted, finished()], 0),
            (&[DirectInput::Broken], 0),
            (&[finished(), DirectInput::Broken], 0),
            (&[task], 0),
        ];
        for (inputs, now) in cases {
            let mut direct = run(inputs);
            assert_eq!(direct.next(now), Step::Register, "{inputs:?}");
            assert_eq!(direct.next(now), Step::Wait { until: None }, "{inputs:?}: once at a time");
            direct.input(DirectInput::Replied(None));
            direct.input(DirectInput::Broken);
            assert_eq!(direct.next(now), Step::Register, "{inputs:?}: until it is answered");
            direct.input(DirectInput::Replied(Some(Ok(()))));
            assert_eq!(direct.next(now), Step::Own { tell: false, cancelled: false }, "{inputs:?}");
        }
    }

    #[test]
    fn the_backend_is_told_after_every_reply() {
        for (reply, step) in [
            (Ok(()), Step::Own { tell: true, cancelled: false }),
            (Err(Gone::Missing), Step::Stop { tell: true }),
            (Err(Gone::Fenced), Step::Stop { tell: true }),
        ] {
            let mut direct = run(&[]);
            assert_eq!(direct.next(HOLD), Step::Register);
            direct.input(DirectInput::Replied(Some(reply)));
            assert_eq!(direct.next(HOLD), step);
        }
        assert_eq!(run(&[DirectInput::Superseded]).next(0), Step::Stop { tell: true });
        let stopped = DirectInput::Finished { out: None, needs_record: false };
        assert_eq!(run(&[stopped]).next(0), Step::Stop { tell: true });
    }

    #[test]
    fn an_answer_in_doubt_is_sent_once_and_cleared_when_confirmed() {
        let mut direct = unanswered(&[]);
        direct.input(finished());
        assert_eq!(direct.next(200), Step::AnswerInDoubt("out".into()));
        assert_eq!(direct.next(200), Step::Register);
        let mut owner = direct.clone();
        owner.input(DirectInput::Replied(Some(Ok(()))));
        assert_eq!(owner.next(200), Step::Own { tell: false, cancelled: false });
        direct.input(DirectInput::Got);
        assert_eq!(direct.next(200), Step::Clear("out".into()));
    }

    #[test]
    fn an_answer_that_needs_the_record_is_not_sent_in_doubt() {
        let mut direct = unanswered(&[]);
        direct.input(DirectInput::Finished { out: Some("out".into()), needs_record: true });
        assert_eq!(direct.next(200), Step::Register);
    }

    #[test]
    fn a_cancelled_call_is_forgotten_or_given_up_in_the_record() {
        assert_eq!(run(&[DirectInput::Cancel]).next(0), Step::Stop { tell: false });
        let mut direct = unanswered(&[]);
        direct.input(DirectInput::Cancel);
        direct.input(finished());
        assert_eq!(direct.next(200), Step::Register, "no answer to nobody");
        direct.input(DirectInput::Replied(Some(Ok(()))));
        assert_eq!(direct.next(200), Step::Own { tell: true, cancelled: true });
    }
}
