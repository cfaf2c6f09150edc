//! What came of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e::Exchange;

use crate::calls::{Call, Ending};
use crate::faults::{Blow, Fault, Victim};
use crate::world::World;

/// How long after a part is ready again its death may still be felt.
const AFTER: Duration = Duration::from_secs(10);

/// What must never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Evil {
    /// Not the answer to what was asked, or no proper answer.
    Wrong,
    /// Twice what may be once.
    Doubled,
    /// Nothing in time.
    Hung,
    /// What belongs to another user or organisation.
    Foreign,
    /// An error that nothing explains.
    Unexplained,
}

/// What came of it all.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    endings: BTreeMap<String, BTreeMap<String, u32>>,
    evils: Vec<(Evil, String)>,
    /// Time beyond the tool's own, of calls that were answered.
    late: Vec<Duration>,
    /// Calls that were refused with the advice to try again: they must not run, nor have run.
    refused: BTreeMap<String, String>,
    /// Calls that must run at most once.
    once: BTreeSet<String>,
    /// Streams that were cut although nothing was killed.
    cuts: Vec<String>,
}

impl Ledger {
    /// Something that must not be.
    pub(crate) fn evil(&self, evil: Evil, text: String) {
        println!("{evil:?}: {text}");
        self.0.lock().unwrap().evils.push((evil, text));
    }

    /// Counts how something ended.
    pub(crate) fn count(&self, client: &str, ending: &str) {
        let mut inner = self.0.lock().unwrap();
        *inner.endings.entry(client.to_owned()).or_default().entry(ending.to_owned()).or_default() += 1;
    }

    /// A call that must run at most once was sent.
    pub(crate) fn once(&self, call: &Call) {
        if call.is_unsafe() {
            self.0.lock().unwrap().once.insert(call.text.clone());
        }
    }

    /// Notes how a call ended.
    pub(crate) fn ended(
        &self,
        world: &World,
        client: &str,
        call: &Call,
        started: Instant,
        judged: Result<Ending, (Evil, String)>,
        exchange: Option<&Exchange>,
    ) {
        let context = || {
            let until = world.at(Instant::now());
            let outline = exchange.map(Exchange::outline).unwrap_or_default();
            format!("{client} from {:.2} to {until:.2} s, {call:?}: {outline}", world.at(started))
        };
        let ending = match judged {
            Ok(ending) => ending,
            Err((evil, text)) => {
                let around = world.blows.around(started, Instant::now(), AFTER);
                return self.evil(evil, format!("{text}, with {}; {}", list(&around), context()));
            }
        };
        let around = world.blows.around(started, Instant::now(), AFTER);
        let name = match &ending {
            Ending::Error(text) => text.chars().take(70).collect(),
            other => format!("{other:?}"),
        };
        self.count(client, &name);
        match &ending {
            Ending::Whole => {
                self.0.lock().unwrap().late.push(started.elapsed().saturating_sub(call.budget()));
            }
            // A stream that nothing explains may have been cut by Pushpin itself: its log must say so.
            Ending::Cut if around.is_empty() => self.0.lock().unwrap().cuts.push(context()),
            _ if !around.iter().any(|blow| explains(blow, &ending, call)) => {
                self.evil(Evil::Unexplained, format!("{ending:?} with {}; {}", list(&around), context()));
            }
            _ => {}
        }
        if let Ending::Error(text) = &ending
            && text.contains("ry again")
            && call.is_unsafe()
        {
            self.0.lock().unwrap().refused.insert(call.text.clone(), format!("{text} ({})", context()));
        }
    }

    /// What must not be, so far.
    pub(crate) fn evils(&self) -> Vec<(Evil, String)> {
        self.0.lock().unwrap().evils.clone()
    }

    /// Unsafe calls that were sent.
    pub(crate) fn all_once(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().once.clone()
    }

    /// Unsafe calls whose clients got an error that says to try again, with its text.
    pub(crate) fn refused(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap().refused.clone()
    }

    /// Streams that were cut while nothing was wrong.
    pub(crate) fn cuts(&self) -> Vec<String> {
        self.0.lock().unwrap().cuts.clone()
    }

    /// Prints what came of it.
    pub(crate) fn print(&self) {
        let mut inner = self.0.lock().unwrap();
        for (client, endings) in &inner.endings {
            println!("{client}: {endings:?}");
        }
        inner.late.sort();
        let at =
            |share: usize| inner.late.get(inner.late.len() * share / 1000).map_or(0, |late| late.as_millis());
        println!(
            "time beyond the tool's own, of {} whole answers: p50 {} ms, p99 {} ms, p99.9 {} ms, most {} ms",
            inner.late.len(),
            at(500),
            at(990),
            at(999),
            inner.late.last().map_or(0, Duration::as_millis)
        );
    }
}

fn list(blows: &[Blow]) -> String {
    let all: Vec<String> = blows.iter().map(|blow| format!("{:?} {:?}", blow.fault, blow.victim)).collect();
    if all.is_empty() { "no fault about".to_owned() } else { all.join(", ") }
}

/// Whether docs/calls.md says that a call may end like that when that part dies or pauses.
fn explains(blow: &Blow, ending: &Ending, call: &Call) -> bool {
    let error = match ending {
        Ending::Error(text) => text.as_str(),
        _ => "",
    };
    match blow.victim {
        // Known keys pass, and no call needs Keycloak.
        Victim::Keycloak => false,
        // Another takes over: what may not run again has an unknown outcome, and steps may be lost.
        Victim::Worker | Victim::Workers => match ending {
            Ending::Gaps => true,
            _ => call.is_unsafe() && error.contains("outcome is unknown"),
        },
        // Everything is late, and nothing is lost.
        Victim::Gateway => blow.fault == Fault::Kill,
        _ => true,
    }
}
