//! What operators tell, and the streams on which it is heard.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e::random::RngExt;
use e2e::{Exchange, Form};
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::calls::{Call, Ending, Tool};
use crate::clients::{self, pause, seat};
use crate::ledger::Evil;
use crate::world::World;

/// Before and after a notice, and around each fault: within this time a notice may be missed.
const MARGIN: Duration = Duration::from_secs(3);
/// After a fault: links and streams come back.
const AFTER: Duration = Duration::from_secs(10);

/// All notices, and all streams.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    sent: Mutex<Vec<Sent>>,
    heard: Mutex<Vec<Heard>>,
}

#[derive(Debug)]
struct Sent {
    organisation: &'static str,
    text: String,
    at: Instant,
}

/// A stream of a session, and what came on it.
#[derive(Debug)]
struct Heard {
    who: String,
    organisation: &'static str,
    from: Instant,
    to: Instant,
    texts: BTreeSet<String>,
}

impl Notices {
    /// Notices that a stream missed although it stood all the while and nothing was broken; and how many were
    /// looked for.
    pub(crate) fn missed(&self, world: &World) -> (Vec<String>, usize) {
        let (sent, heard) = (self.sent.lock().unwrap(), self.heard.lock().unwrap());
        let (mut missed, mut count) = (Vec::new(), 0);
        for notice in sent.iter() {
            if !world.blows.around(notice.at, notice.at + MARGIN, AFTER).is_empty() {
                continue;
            }
            for stream in heard.iter().filter(|stream| {
                stream.organisation == notice.organisation
                    && stream.from + MARGIN < notice.at
                    && notice.at + MARGIN < stream.to
            }) {
                count += 1;
                if !stream.texts.contains(&notice.text) {
                    missed.push(format!(
                        "{} at {:.2} s, by {}",
                        notice.text,
                        world.at(notice.at),
                        stream.who
                    ));
                }
            }
        }
        (missed, count)
    }
}

/// Tells one organisation after the other something.
pub(crate) async fn tell(world: &World, mut random: StdRng) {
    let http = e2e::client::http();
    let state = &world.stack.state;
    for number in 1_u64.. {
        tokio::time::sleep(Duration::from_millis(random.random_range(200..800))).await;
        if !world.goes_on() {
            return;
        }
        let organisation = ["org-1", "org-2"][random.random_range(0..2)];
        let text = format!("news {organisation} {number}");
        let audience = json!({"organisation": {"issuer": state.issuer(), "organisation": organisation}});
        let bodies = [
            json!({"audience": audience, "method": "notifications/message",
                "params": {"level": "notice", "data": text}}),
            json!({"audience": audience, "method": "notifications/tools/list_changed", "params": {}}),
        ];
        let backend = random.random_range(1..=state.size.backends);
        let address = state.admin_address(backend).expect("the stack has an admin API");
        for body in bodies {
            let post = http.post(format!("http://{address}/notify")).bearer_auth(&state.secrets.admin_token);
            let at = Instant::now();
            let sent = post.json(&body).timeout(Duration::from_secs(10)).send().await;
            let sent = sent.is_ok_and(|answer| answer.status().is_success());
            world.ledger.count("operator", if sent { "sent" } else { "not sent" });
            if sent && body["method"] == "notifications/message" {
                let notice = Sent { organisation, text: text.clone(), at };
                world.notices.sent.lock().unwrap().push(notice);
            }
        }
    }
}

/// A session that listens on its own stream: each notice once, and none of others.
pub(crate) async fn listener(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("listener {entry_point:?}");
    while world.goes_on() {
        pause(&mut random).await;
        let Some(mut client) = clients::begin(world, &name, entry_point, person).await else { continue };
        let mut all = BTreeSet::new();
        for round in 0..random.random_range(1..5) {
            if !world.goes_on() {
                break;
            }
            client.token = world.token(person);
            let started = Instant::now();
            let call = Call { tool: Tool::Echo, text: "a GET".to_owned(), total_ms: 0, events: 0 };
            let get = Exchange::of(client.get(None), 0);
            let Some(mut stream) = world.in_time(started, Duration::ZERO, get).await else {
                world.ledger.ended(world, &name, &call, started, Err((Evil::Hung, "GET".to_owned())), None);
                continue;
            };
            if stream.form() != Form::Stream {
                let judged = match stream.status() {
                    0 => Ok(Ending::Cut),
                    status @ 400.. => Ok(Ending::Error(format!("{status}"))),
                    status => Err((Evil::Wrong, format!("{status} to GET"))),
                };
                world.ledger.ended(world, &name, &call, started, judged, Some(&stream));
                pause(&mut random).await;
                continue;
            }
            let from = Instant::now();
            let leaves = Duration::from_millis(random.random_range(1_000..20_000));
            let leaves = leaves.min(world.until.saturating_duration_since(Instant::now()));
            let _ = tokio::time::timeout(leaves, async { while stream.more().await {} }).await;
            world.ledger.count(&name, if stream.end.is_some() { "ended" } else { "left" });
            let texts = judge(world, &name, person.1, &stream, &mut all);
            let to = stream.end.as_ref().map_or_else(Instant::now, |(_, at)| *at);
            let who = format!("{name} {person:?}, stream {round} from {:.2} s", world.at(from));
            world.notices.heard.lock().unwrap().push(Heard { who, organisation: person.1, from, to, texts });
        }
    }
}

/// Looks at what came on a stream.
fn judge(
    world: &World,
    name: &str,
    organisation: &str,
    stream: &Exchange,
    all: &mut BTreeSet<String>,
) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for arrived in &stream.messages {
        let message = &arrived.message;
        let evil = |evil, what: &str| world.ledger.evil(evil, format!("{what} for {name}: {message}"));
        match message["method"].as_str() {
            Some("notifications/tools/list_changed") => {}
            Some("notifications/message") => {
                let text = message["params"]["data"].as_str().unwrap_or_default().to_owned();
                if !text.starts_with(&format!("news {organisation} ")) {
                    evil(Evil::Foreign, "a notice");
                } else if !all.insert(text.clone()) {
                    evil(Evil::Doubled, "a notice");
                }
                texts.insert(text);
            }
            _ => evil(Evil::Wrong, "something else on a session's own stream"),
        }
    }
    texts
}

/// A modern client that listens: acknowledged at once, and gets its own organisation's changes only.
pub(crate) async fn subscriber(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("subscriber {entry_point:?}");
    while world.goes_on() {
        pause(&mut random).await;
        let client = world.client(entry_point, person);
        let started = Instant::now();
        let call = Call { tool: Tool::Echo, text: "subscriptions/listen".to_owned(), total_ms: 0, events: 0 };
        let id = 1_000 + world.number();
        let filter = json!({"notifications": {"toolsListChanged": true}});
        let mut open = None;
        let opening = async {
            let stream =
                open.insert(Exchange::of(client.build(id, "subscriptions/listen", filter), id).await);
            stream.read_messages(1).await;
        };
        if world.in_time(started, Duration::ZERO, opening).await.is_none() {
            let hung = Err((Evil::Hung, "not acknowledged".to_owned()));
            world.ledger.ended(world, &name, &call, started, hung, open.as_ref());
            continue;
        }
        let Some(mut stream) = open else { continue };
        let acknowledged = |message: &Value| message["method"] == "notifications/subscriptions/acknowledged";
        if !stream.messages.first().is_some_and(|first| acknowledged(&first.message)) {
            let judged = call.judge(&stream.to_end().await, true);
            let judged = match judged {
                Ok(Ending::Whole | Ending::Closed) => Err((Evil::Wrong, "no acknowledgement".to_owned())),
                other => other,
            };
            world.ledger.ended(world, &name, &call, started, judged, None);
            continue;
        }
        let leaves = Duration::from_millis(random.random_range(1_000..20_000));
        let leaves = leaves.min(world.until.saturating_duration_since(Instant::now()));
        let _ = tokio::time::timeout(leaves, async { while stream.more().await {} }).await;
        world.ledger.count(&name, if stream.end.is_some() { "ended" } else { "left" });
        for arrived in &stream.messages[1..] {
            let message = &arrived.message;
            let own = message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == id;
            let change = message["method"] == "notifications/tools/list_changed";
            if !(change && own || message["id"] == id) {
                world.ledger.evil(Evil::Wrong, format!("on the stream of {name} {id}: {message}"));
            }
        }
    }
}
