//! The Lua scripts: one for each transition, behind a common prelude.

use std::collections::HashSet;
use std::time::Duration;

use redis::Script;

use super::super::StoreLimits;
use crate::call::Timing;

/// How long a cancellation is remembered for a request that it overtook.
const CANCEL_AHEAD: Duration = Duration::from_secs(10);
/// What waits to wake a worker, at most: more says no more.
const BELL: u64 = 1000;
/// Longer times make no sense to Redis, which adds them to its clock.
const LONGEST: u64 = 1 << 40;

/// Where the scripts read the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// Redis' own clock.
    Redis,
    /// The key `clock` so that a test can move the time. Keys then live an hour longer than
    /// they should, and the times within the values alone count.
    #[cfg(test)]
    Key,
}

/// All scripts, for one site's configuration.
pub(super) struct Scripts {
    pub(super) enqueue: Script,
    pub(super) offer: Script,
    pub(super) withdraw: Script,
    pub(super) hold: Script,
    pub(super) read: Script,
    pub(super) abandon: Script,
    pub(super) resume: Script,
    pub(super) join: Script,
    pub(super) cancel: Script,
    pub(super) post: Script,
    pub(super) next: Script,
    pub(super) pass_on: Script,
    pub(super) take: Script,
    pub(super) register: Script,
    pub(super) inbox: Script,
    pub(super) emit: Script,
    pub(super) finish: Script,
    pub(super) gate: Script,
    pub(super) lost: Script,
    pub(super) published: Script,
    pub(super) drop_work: Script,
    pub(super) beat: Script,
    pub(super) claim: Script,
    pub(super) restore: Script,
    pub(super) orphaned: Script,
    pub(super) remember: Script,
    pub(super) use_once: Script,
    pub(super) enter: Script,
    pub(super) members: Script,
}

macro_rules! script {
    ($head:expr, $name:literal) => {
        Script::new(&assemble(&$head, include_str!(concat!("../lua/", $name, ".lua"))))
    };
}

impl Scripts {
    /// `life`: how long a record outlives everybody who could renew it.
    pub(super) fn new(timing: &Timing, limits: &StoreLimits, life: Duration, clock: Clock) -> Self {
        let head = head(timing, limits, life, clock);
        Self {
            enqueue: script!(head, "enqueue"),
            offer: script!(head, "offer"),
            withdraw: script!(head, "withdraw"),
            hold: script!(head, "hold"),
            read: script!(head, "read"),
            abandon: script!(head, "abandon"),
            resume: script!(head, "resume"),
            join: script!(head, "join"),
            cancel: script!(head, "cancel"),
            post: script!(head, "post"),
            next: script!(head, "next"),
            pass_on: script!(head, "pass_on"),
            take: script!(head, "take"),
            register: script!(head, "register"),
            inbox: script!(head, "inbox"),
            emit: script!(head, "emit"),
            finish: script!(head, "finish"),
            gate: script!(head, "gate"),
            lost: script!(head, "lost"),
            published: script!(head, "published"),
            drop_work: script!(head, "drop_work"),
            beat: script!(head, "beat"),
            claim: script!(head, "claim"),
            restore: script!(head, "restore"),
            orphaned: script!(head, "orphaned"),
            remember: script!(head, "remember"),
            use_once: script!(head, "use_once"),
            enter: script!(head, "enter"),
            members: script!(head, "members"),
        }
    }
}

/// A script with those definitions of the head that it uses: Redis makes each of them anew whenever a script runs.
pub(super) fn assemble(head: &str, own: &str) -> String {
    let is_comment = |line: &&str| line.starts_with("--");
    let code: String = head.lines().filter(|line| !is_comment(line)).flat_map(|line| [line, "\n"]).collect();
    let starts = code.match_indices("local ").map(|(at, _)| at);
    let starts: Vec<usize> = starts
        .filter(|at| code.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with('\n')))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([code.len()]);
    let definitions: Vec<&str> =
        starts.iter().zip(ends).filter_map(|(from, to)| code.get(*from..to)).collect();
    let words = |text: &str| -> Vec<String> {
        let text = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut used: HashSet<String> = own.lines().filter(|line| !is_comment(line)).flat_map(words).collect();
    // A definition uses only earlier ones.
    let mut kept: Vec<&str> = Vec::new();
    for definition in definitions.into_iter().rev() {
        let name = words(definition).into_iter().find(|word| word != "local" && word != "function");
        if name.is_some_and(|name| used.contains(&name)) {
            used.extend(words(definition));
            kept.push(definition);
        }
    }
    kept.into_iter().rev().chain([own]).collect()
}

/// The site's constants and the prelude. Only numbers of the configuration become script text; everything
/// that a client or worker sends is an argument.
pub(super) fn head(timing: &Timing, limits: &StoreLimits, life: Duration, clock: Clock) -> String {
    let (now, slack) = match clock {
        Clock::Redis => (
            "local time = redis.call('TIME')\nlocal now = time[1] * 1000 + math.floor(time[2] / 1000)",
            Duration::ZERO,
        ),
        #[cfg(test)]
        Clock::Key => {
            ("local now = tonumber(redis.call('GET', KEYS[1] .. 'clock'))", Duration::from_secs(3600))
        }
    };
    let constants = [
        ("LEASE", millis(timing.lease)),
        ("SILENCE", millis(timing.silence)),
        ("OFFER", millis(timing.offer)),
        ("GATE", millis(timing.gate)),
        ("START", millis(timing.start)),
        ("KEEP", millis(timing.keep)),
        ("TOMBSTONE", millis(timing.tombstone)),
        ("UNDELIVERED", millis(timing.undelivered)),
        ("CANCEL_AHEAD", millis(CANCEL_AHEAD)),
        ("LIFE", millis(life)),
        ("SLACK", millis(slack)),
        ("QUEUE", limits.queue as u64),
        ("CALLS_BY", limits.calls_of_principal as u64),
        ("CALLS_OF", limits.calls_of_organisation as u64),
        ("BELL", BELL),
        ("INBOX", limits.inbox as u64),
        ("SESSION_FIELDS", limits.session_fields as u64),
        ("TASKS", limits.tasks as u64),
        ("TASKS_OPEN", limits.tasks_open as u64),
    ];
    let mut head: String =
        constants.iter().map(|(name, value)| format!("local {name} = {value}\n")).collect();
    head.push_str(now);
    head.push('\n');
    head.push_str(include_str!("../lua/queue.lua"));
    head.push('\n');
    head.push_str(include_str!("../lua/prelude.lua"));
    head
}

/// A time for Redis, which knows no expiry of zero.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_what_it_uses_and_no_more() {
        let head = "local A = 1\nlocal B = 2\n-- uses D\nlocal function one(x)\n  local B = x\n  return A + B\nend\n\n\
                    local function two()\n  return one(1)\nend\nlocal D = two\n";
        assert_eq!(assemble(head, "-- D\nreturn 1"), "-- D\nreturn 1");
        assert_eq!(assemble(head, "return A"), "local A = 1\nreturn A");
        let one = "local A = 1\nlocal B = 2\nlocal function one(x)\n  local B = x\n  return A + B\nend\n\n";
        assert_eq!(assemble(head, "return one(2)"), format!("{one}return one(2)"));
        let two = format!("{one}local function two()\n  return one(1)\nend\n");
        assert_eq!(assemble(head, "return two()"), format!("{two}return two()"));
        assert_eq!(assemble(head, "return D()"), format!("{two}local D = two\nreturn D()"));
    }
}
