//! What all clients of the soak share.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::tokens::{self, Wish};
use e2e::{Client, EntryPoint, Stack};

use crate::faults::Blows;
use crate::ledger::Ledger;
use crate::notices::Notices;

/// A user in an organisation.
pub(crate) type Person = (&'static str, &'static str);

/// Whom clients act for.
pub(crate) const PEOPLE: [Person; 4] =
    [("thor", "org-1"), ("hel", "org-2"), ("freya", "org-1"), ("freya", "org-2")];
/// How old a token may become: it lives for 300 s.
const TOKEN: Duration = Duration::from_secs(100);

/// What all clients share.
pub(crate) struct World {
    /// The stack.
    pub(crate) stack: Stack,
    /// What came of it all.
    pub(crate) ledger: Ledger,
    /// The faults so far.
    pub(crate) blows: Blows,
    /// What was announced to whom.
    pub(crate) notices: Notices,
    tokens: Mutex<HashMap<Person, String>>,
    numbers: AtomicU64,
    started: Instant,
    /// Until when clients begin something new.
    pub(crate) until: Instant,
}

impl World {
    /// The world, with a token for everybody.
    pub(crate) async fn new(stack: Stack, length: Duration) -> Self {
        let mut all = HashMap::new();
        for (user, organisation) in PEOPLE {
            let token = tokens::fetch(&stack, &Wish::usual(&stack, user, organisation)).await;
            all.insert((user, organisation), token);
        }
        let started = Instant::now();
        Self {
            stack,
            ledger: Ledger::default(),
            blows: Blows::default(),
            notices: Notices::default(),
            tokens: Mutex::new(all),
            numbers: AtomicU64::new(1),
            started,
            until: started + length,
        }
    }

    /// Seconds since the start.
    pub(crate) fn at(&self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.started).as_secs_f64()
    }

    /// How long clients begin something new.
    pub(crate) fn length(&self) -> Duration {
        self.until - self.started
    }

    /// Whether clients go on.
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// A number that nothing else in this run has.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A client without a session.
    pub(crate) fn client(&self, entry_point: EntryPoint, person: Person) -> Client {
        Client::at(self.stack.endpoint(entry_point, person.1), self.token(person))
    }

    /// Somebody's token.
    pub(crate) fn token(&self, person: Person) -> String {
        self.tokens.lock().unwrap()[&person].clone()
    }

    /// Gets new tokens before the old ones expire; while Keycloak is away, again and again.
    pub(crate) async fn keep_tokens(&self) {
        loop {
            tokio::time::sleep(TOKEN).await;
            for (user, organisation) in PEOPLE {
                let token = loop {
                    match tokens::try_fetch(&self.stack, &Wish::usual(&self.stack, user, organisation)).await
                    {
                        Ok(token) => break token,
                        Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
                    }
                };
                self.tokens.lock().unwrap().insert((user, organisation), token);
            }
        }
    }

    /// The work's output; none when it takes longer than a request may that was begun at `begun`, for a tool that
    /// needs `budget`: it hangs.
    pub(crate) async fn in_time<T>(
        &self,
        started: Instant,
        budget: Duration,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            if started.elapsed() > self.blows.patience(started, budget) {
                return None;
            }
        }
    }
}
