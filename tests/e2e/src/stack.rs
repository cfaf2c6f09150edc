//! The running stack: its parts, their processes, and how to kill and await them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use asgard::paths::Paths;
use asgard::state::State;
use asgard::supervisor::control::{self, Request};
use asgard::supervisor::part::{Kind, PartStatus};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Client, Exchange, Form, Journal};

/// How long parts may take to be back. Generous: a busy machine is no failure.
const BACK: Duration = Duration::from_secs(180);

/// The two entry points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryPoint {
    /// The gateway is the edge, and hands streams over to Pushpin.
    Bifrost,
    /// Pushpin is the edge.
    Hermod,
}

impl EntryPoint {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Bifrost, Self::Hermod];
}

/// A stack that nobody else uses meanwhile.
#[derive(Debug)]
pub struct Stack {
    /// Its folders.
    pub paths: Paths,
    /// Its ports and secrets.
    pub state: State,
    /// Held against the other tests, of this and of other processes.
    _lock: File,
}

impl Stack {
    /// Takes the stack that `ASGARD_HOME` names, when no other test has it, and waits until it serves.
    pub async fn claim() -> Self {
        assert!(
            std::env::var_os("ASGARD_HOME").is_some(),
            "these tests need a running stack of their own, whose parts they kill: run ./asgard test, or see \
             tests/e2e/src/lib.rs"
        );
        let paths = Paths::discover().unwrap();
        let state = State::existing(&paths).unwrap();
        let lock = File::create(paths.home.join("e2e.lock")).unwrap();
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await.unwrap().unwrap();
        let stack = Self { paths, state, _lock: lock };
        stack.serving().await;
        stack
    }

    /// The MCP endpoint of an organisation at an entry point.
    #[must_use]
    pub fn endpoint(&self, entry_point: EntryPoint, organisation: &str) -> String {
        format!("{}/api/v1/mcp/{organisation}", self.edge(entry_point))
    }

    /// Scheme, host and port of an entry point's edge.
    #[must_use]
    pub fn edge(&self, entry_point: EntryPoint) -> String {
        match entry_point {
            EntryPoint::Bifrost => self.state.public_url.clone(),
            EntryPoint::Hermod => format!("http://localhost:{}", self.state.ports.pushpin),
        }
    }

    /// The tools' journal from now on.
    #[must_use]
    pub fn journal(&self) -> Journal {
        let file = self.state.env.get("worker").and_then(|env| env.get("ASGARD_JOURNAL"));
        let file = file.unwrap_or_else(|| {
            panic!("the stack keeps no journal: set ASGARD_JOURNAL under [env.worker] in its asgard.toml")
        });
        Journal::from_now(PathBuf::from(file))
    }

    /// All parts as they are now.
    pub async fn parts(&self) -> Vec<PartStatus> {
        self.ask(&Request::Status).await
    }

    /// Parts of one kind.
    pub async fn of_kind(&self, kind: Kind) -> Vec<PartStatus> {
        self.parts().await.into_iter().filter(|part| part.kind == kind).collect()
    }

    /// Processes of the parts of some kinds, by part.
    pub async fn pids(&self, kinds: &[Kind]) -> BTreeMap<String, u32> {
        let parts = self.parts().await.into_iter().filter(|part| kinds.contains(&part.kind));
        parts.filter_map(|part| Some((part.name, part.pid?))).collect()
    }

    /// Kills those processes at once (SIGKILL).
    pub fn kill(pids: impl IntoIterator<Item = u32>) -> Instant {
        for pid in pids {
            kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        }
        Instant::now()
    }

    /// Stops a part in order, or starts it.
    pub async fn order(&self, request: &Request) {
        self.ask(request).await;
    }

    /// Waits until every part is ready with a process that is none of `gone`.
    pub async fn back(&self, gone: &[u32]) {
        self.kinds_back(None, gone).await;
    }

    /// The same for the parts of some kinds, or for all. The supervisor starts parts again that die, ever more
    /// slowly; an order to start them makes it hurry.
    pub async fn kinds_back(&self, kinds: Option<&[Kind]>, gone: &[u32]) {
        wait("the parts are ready again", BACK, async || {
            let mut parts = self.parts().await;
            parts.retain(|part| kinds.is_none_or(|kinds| kinds.contains(&part.kind)));
            for part in parts.iter().filter(|part| part.pid.is_none()) {
                self.ask(&Request::Start(part.name.clone())).await;
            }
            let ready = |part: &PartStatus| part.ready && part.pid.is_some_and(|pid| !gone.contains(&pid));
            parts.iter().all(ready).then_some(())
        })
        .await;
    }

    /// Waits until all parts are ready and calls are answered at both entry points: gateways find out a little later
    /// than the supervisor that a backend is back.
    pub async fn serving(&self) {
        self.back(&[]).await;
        for entry_point in EntryPoint::BOTH {
            self.answers(entry_point, BACK).await;
            self.holds(entry_point, BACK).await;
        }
    }

    /// Waits until quick calls are answered at an entry point, some of them in a row, so that each backend had one.
    pub async fn answers(&self, entry_point: EntryPoint, limit: Duration) {
        let mut row = 0;
        wait("calls are answered", limit, async || {
            // A client of its own each time: no connection from before.
            let client = Client::modern(self, entry_point, "thor", "org-1").await;
            let exchange = client.tool("echo", serde_json::json!({"text": "x"})).await;
            row = if exchange.result().is_some() { row + 1 } else { 0 };
            (row >= 4).then_some(())
        })
        .await;
    }

    /// Waits until every slow call at an entry point is held: a backend whose link to Pushpin has only just come up
    /// answers without.
    pub async fn holds(&self, entry_point: EntryPoint, limit: Duration) {
        wait("slow calls are held", limit, async || {
            let client = Client::modern(self, entry_point, "thor", "org-1").await;
            let call =
                || client.tool_with_progress("slow_echo", serde_json::json!({"total_ms": 150, "events": 2}));
            let exchanges = futures::future::join_all((0..4).map(|_| call())).await;
            let held =
                |exchange: &Exchange| exchange.form() == Form::Stream && exchange.check_whole(2).is_ok();
            exchanges.iter().all(held).then_some(())
        })
        .await;
    }

    /// How many requests Pushpin has received, by its own counter. It tells some tenths of a second late, so
    /// this waits until the number has stood still for a second.
    pub async fn pushpin_requests(&self) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.state.ports.pushpin_metrics);
        let mut last = (0, Instant::now());
        wait("Pushpin's counter stands still", BACK, async || {
            let text = crate::client::http().get(&url).send().await.unwrap().text().await.unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("request_received "));
            let count = line.and_then(|count| count.trim().parse().ok());
            let count = count.unwrap_or_else(|| panic!("no counter in {text}"));
            if count != last.0 {
                last = (count, Instant::now());
            }
            (last.1.elapsed() > Duration::from_secs(1)).then_some(count)
        })
        .await
    }

    /// What each backend counts: `json`, `held`, `streamed`, `errors`, `notified`, by part.
    pub async fn counters(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for part in self.of_kind(Kind::Backend).await {
            let body = statz(&part.address).await;
            let counts = body.as_object().into_iter().flatten();
            let counts = counts.filter(|(name, _)| *name != "waiting");
            all.insert(
                part.name,
                counts.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect(),
            );
        }
        all
    }

    /// Requests that each backend has answered.
    pub async fn served(&self) -> BTreeMap<String, u64> {
        let mut all = self.counters().await;
        for counts in all.values_mut() {
            for other in ["notified", "direct"] {
                counts.remove(other);
            }
        }
        all.into_iter().map(|(name, counts)| (name, counts.values().sum())).collect()
    }

    async fn ask(&self, request: &Request) -> Vec<PartStatus> {
        let reply = control::ask(&self.paths, request).await.unwrap();
        reply.expect("no stack is running in ASGARD_HOME").parts
    }
}

/// What a backend or a worker says of itself; null when it does not answer.
pub async fn statz(address: &str) -> serde_json::Value {
    let get = crate::client::http().get(format!("http://{address}/statz"));
    async { get.send().await.ok()?.json().await.ok() }.await.unwrap_or_default()
}

/// Asks again and again until there is something, for at most `limit`.
pub async fn wait<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
