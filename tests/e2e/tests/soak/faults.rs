//! What is done to the parts, and when.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use asgard::process::session_members;
use asgard::supervisor::control::Request;
use asgard::supervisor::part::Kind;
use e2e::random::RngExt;
use e2e::stack::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::World;

/// How long parts may take to be back.
const BACK: Duration = Duration::from_secs(300);
/// How long a worker that is silent keeps its calls (docs/calls.md).
const LEASE: Duration = Duration::from_millis(1_500);
/// How long it takes from a death until another has the work, on a loaded machine.
const TAKEN_OVER: Duration = Duration::from_millis(2_500);
/// Programs of which a Pushpin consists, as Linux shortens their names.
const PUSHPINS: [&str; 4] = ["condure", "zurl", "pushpin-proxy", "pushpin-handler"];

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// The gateway, with all that it has started.
    Gateway,
    /// Pushpin's launcher and all its processes, as a group.
    Pushpin,
    /// One of Pushpin's processes.
    PushpinProcess,
    /// Redis.
    Redis,
    /// One backend.
    Backend,
    /// All backends.
    Backends,
    /// One worker.
    Worker,
    /// All workers.
    Workers,
    /// Keycloak.
    Keycloak,
}

impl Victim {
    /// All that calls pass through.
    pub(crate) const OF_CALLS: [Self; 8] = [
        Self::Gateway,
        Self::Pushpin,
        Self::PushpinProcess,
        Self::Redis,
        Self::Backend,
        Self::Backends,
        Self::Worker,
        Self::Workers,
    ];

    fn kind(self) -> Kind {
        match self {
            Self::Gateway => Kind::Gateway,
            Self::Pushpin | Self::PushpinProcess => Kind::Pushpin,
            Self::Redis => Kind::Redis,
            Self::Backend | Self::Backends => Kind::Backend,
            Self::Worker | Self::Workers => Kind::Worker,
            Self::Keycloak => Kind::Keycloak,
        }
    }
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after that many seconds.
    Stop(u64),
}

/// One fault that was done.
#[derive(Debug, Clone)]
pub(crate) struct Blow {
    /// To whom.
    pub(crate) victim: Victim,
    /// What.
    pub(crate) fault: Fault,
    /// When.
    pub(crate) from: Instant,
    /// When all parts were ready again; none: not yet.
    pub(crate) to: Option<Instant>,
}

impl Blow {
    /// How long it lasted between two moments.
    fn overlap(&self, from: Instant, to: Instant) -> Duration {
        self.to.unwrap_or(to).min(to).saturating_duration_since(self.from.max(from))
    }

    /// By how much it may delay a request that was sent at `sent`: while the part is away, until its work is known
    /// to be lost, and, where that was a tool that runs again, what the tool needs.
    fn delay(&self, sent: Instant, now: Instant, budget: Duration) -> Duration {
        if self.from > now || self.to.is_some_and(|to| to < sent) {
            return Duration::ZERO;
        }
        let away = self.overlap(sent, now);
        let lost = self.fault == Fault::Kill || away > LEASE;
        match self.victim {
            _ if !lost => away,
            Victim::Worker | Victim::Workers => away + TAKEN_OVER + budget,
            _ if self.fault == Fault::Kill => away + TAKEN_OVER,
            _ => away,
        }
    }
}

/// All faults so far.
#[derive(Debug, Default)]
pub(crate) struct Blows(Mutex<Vec<Blow>>);

impl Blows {
    /// All so far.
    pub(crate) fn all(&self) -> Vec<Blow> {
        self.0.lock().unwrap().clone()
    }

    fn begin(&self, victim: Victim, fault: Fault) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(Blow { victim, fault, from: Instant::now(), to: None });
        all.len() - 1
    }

    fn end(&self, index: usize) {
        self.0.lock().unwrap()[index].to = Some(Instant::now());
    }

    /// How long a request may take that was sent at `sent` and whose tool needs `budget`: eight seconds more. One
    /// part that pauses or dies is within that. Whatever else it met counts ([`Blow::delay`]), and so does a pause
    /// of all copies of a part at once.
    pub(crate) fn patience(&self, sent: Instant, budget: Duration) -> Duration {
        let (now, mut all, mut one) = (Instant::now(), Duration::ZERO, Duration::ZERO);
        // No call needs Keycloak.
        for blow in self.0.lock().unwrap().iter().filter(|blow| blow.victim != Victim::Keycloak) {
            let delay = blow.delay(sent, now, budget);
            all += delay;
            if !matches!(blow.victim, Victim::Backends | Victim::Workers) {
                one = one.max(delay);
            }
        }
        budget + Duration::from_secs(8) + all - one
    }

    /// Whether that part is away, or was until a moment ago.
    fn is_recent(&self, victim: Victim) -> bool {
        let around = self.around(Instant::now(), Instant::now(), Duration::from_secs(5));
        around.iter().any(|blow| blow.victim == victim)
    }

    /// Whether a backend or the gateway was killed since then.
    pub(crate) fn killed_a_writer(&self, since: Instant) -> bool {
        let writers = [Victim::Backend, Victim::Backends, Victim::Gateway];
        let around = self.around(since, Instant::now(), Duration::ZERO);
        around.iter().any(|blow| blow.fault == Fault::Kill && writers.contains(&blow.victim))
    }

    /// Faults whose effects may be seen between two moments.
    pub(crate) fn around(&self, from: Instant, to: Instant, after: Duration) -> Vec<Blow> {
        let mut all = self.all();
        all.retain(|blow| blow.from <= to && blow.to.is_none_or(|end| end + after >= from));
        all
    }
}

/// Processes that are stopped; they go on when this is dropped.
struct Stopped(Vec<u32>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
    }
}

fn signal(pid: u32, signal: Signal) {
    // It may have died meanwhile: a runner ends all its processes when one dies.
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// The faults of a run: each victim killed and each stopped, in random order, again and again.
pub(crate) struct Deck {
    victims: Vec<Victim>,
    left: Vec<(Victim, Fault)>,
}

impl Deck {
    /// Of those victims.
    pub(crate) fn new(victims: Vec<Victim>) -> Self {
        Self { victims, left: Vec::new() }
    }

    /// Keycloak's alone: it pauses before it dies, as its next start takes long.
    pub(crate) fn keycloak() -> Self {
        Self { victims: vec![Victim::Keycloak], left: vec![(Victim::Keycloak, Fault::Stop(6))] }
    }

    fn draw(&mut self, random: &mut impl RngExt) -> Option<(Victim, Fault)> {
        if self.left.is_empty() {
            for victim in &self.victims {
                let stop = [1, 3, 6][random.random_range(0..3)];
                self.left.extend([(*victim, Fault::Kill), (*victim, Fault::Stop(stop))]);
            }
        }
        (!self.left.is_empty()).then(|| self.left.swap_remove(random.random_range(0..self.left.len())))
    }
}

/// Does one fault after the other until `end`; each time the parts are ready again before the next. Returns how many.
pub(crate) async fn strike(
    world: &World,
    mut deck: Deck,
    mut random: impl RngExt,
    end: Instant,
    pause: Duration,
) -> usize {
    let mut count = 0;
    loop {
        let wait = pause.mul_f64(random.random_range(0.2..1.8));
        tokio::time::sleep(wait.min(end.saturating_duration_since(Instant::now()))).await;
        if Instant::now() >= end {
            return count;
        }
        let Some((victim, fault)) = deck.draw(&mut random) else { return count };
        // A gateway that starts needs Keycloak's keys.
        if victim == Victim::Gateway && fault == Fault::Kill && world.blows.is_recent(Victim::Keycloak) {
            // Later, if there is something else meanwhile.
            if !deck.left.is_empty() {
                deck.left.push((victim, fault));
            }
            continue;
        }
        while victim == Victim::Keycloak && world.blows.is_recent(Victim::Gateway) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let pids = choose(world, victim, &mut random).await;
        let index = world.blows.begin(victim, fault);
        let start = Instant::now();
        match fault {
            Fault::Kill => {
                pids.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
                back(world, victim.kind(), &pids).await;
            }
            Fault::Stop(seconds) => {
                let stopped = Stopped(pids.clone());
                stopped.0.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                drop(stopped);
                back(world, victim.kind(), &[]).await;
            }
        }
        world.blows.end(index);
        println!(
            "at {:.1} s {fault:?} {victim:?} {pids:?}, ready again {} ms later",
            world.at(start),
            start.elapsed().as_millis()
        );
        count += 1;
    }
}

/// The processes to be hit. A part may be on its way back at that moment.
async fn choose(world: &World, victim: Victim, random: &mut impl RngExt) -> Vec<u32> {
    wait(&format!("{victim:?} has a process"), BACK, async || {
        let leaders: Vec<u32> = world.stack.pids(&[victim.kind()]).await.into_values().collect();
        let leaders = match victim {
            Victim::Backend | Victim::Worker if leaders.len() > 1 => {
                vec![leaders[random.random_range(0..leaders.len())]]
            }
            _ => leaders,
        };
        let mut all: Vec<u32> = leaders.into_iter().flat_map(session_members).collect();
        if victim == Victim::PushpinProcess {
            let wanted = PUSHPINS[random.random_range(0..PUSHPINS.len())];
            all.retain(|pid| name(*pid).is_some_and(|name| wanted.starts_with(&name)));
        }
        (!all.is_empty()).then_some(all)
    })
    .await
}

fn name(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned())
}

/// Waits until parts are ready, with processes that are none of `gone` and all alive. The supervisor starts them
/// again; one that waits long before it does is hurried by an order.
async fn back(world: &World, kind: Kind, gone: &[u32]) {
    // A dead process may still be listed as ready for a moment.
    wait(&format!("{kind:?} is ready again"), BACK, async || {
        let mut parts = world.stack.parts().await;
        parts.retain(|part| part.kind == kind);
        for part in parts.iter().filter(|part| part.pid.is_none()) {
            world.stack.order(&Request::Start(part.name.clone())).await;
        }
        let dead = |pid: u32| gone.contains(&pid) || !asgard::process::is_alive(pid);
        parts.iter().all(|part| part.ready && part.pid.is_some_and(|pid| !dead(pid))).then_some(())
    })
    .await;
}
