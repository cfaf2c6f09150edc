//! Clients of HTTP+SSE (2024-11-05): everything comes on one stream, and there is no taking it up again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::EntryPoint;
use e2e::random::RngExt;
use e2e::sse::{Piece, Reader};
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::calls::{Call, Ending, Tool};
use crate::clients::{pause, seat};
use crate::ledger::Evil;
use crate::world::{Person, World};

/// One client with its stream.
struct Line {
    http: reqwest::Client,
    token: String,
    endpoint: String,
    stream: reqwest::Response,
    reader: Reader,
    messages: Vec<Value>,
}

/// Why there is nothing more.
enum Lost {
    Cut,
    Refused(u16),
}

impl Line {
    async fn open(url: &str, token: String) -> Result<Self, Lost> {
        let http = e2e::client::http();
        let get = http.get(url).header("accept", "text/event-stream").bearer_auth(&token);
        let stream = get.send().await.map_err(|_| Lost::Cut)?;
        if stream.status().as_u16() != 200 {
            return Err(Lost::Refused(stream.status().as_u16()));
        }
        let (reader, endpoint) = (Reader::default(), String::new());
        let mut line = Self { http, token, endpoint, stream, reader, messages: Vec::new() };
        while line.endpoint.is_empty() {
            let chunk = line.stream.chunk().await.ok().flatten().ok_or(Lost::Cut)?;
            for piece in line.reader.take(&chunk) {
                match piece {
                    Piece::Event { data, .. } if line.endpoint.is_empty() => {
                        let url = reqwest::Url::parse(url).unwrap().join(&data).unwrap();
                        line.endpoint = url.to_string();
                    }
                    Piece::Event { data, .. } => line.messages.push(serde_json::from_str(&data).unwrap()),
                    Piece::Comment => {}
                }
            }
        }
        Ok(line)
    }

    async fn more(&mut self) -> Result<(), Lost> {
        let chunk = self.stream.chunk().await.ok().flatten().ok_or(Lost::Cut)?;
        for piece in self.reader.take(&chunk) {
            if let Piece::Event { data, .. } = piece {
                let message = serde_json::from_str(&data);
                self.messages
                    .push(message.unwrap_or_else(|error| panic!("an event is no JSON ({error}): {data}")));
            }
        }
        Ok(())
    }

    async fn post(&self, message: &Value) -> Result<(), Lost> {
        let post = self.http.post(&self.endpoint).header("content-type", "application/json");
        let answer = post.bearer_auth(&self.token).body(message.to_string()).send().await;
        match answer.map_err(|_| Lost::Cut)?.status().as_u16() {
            202 => Ok(()),
            other => Err(Lost::Refused(other)),
        }
    }
}

fn ending(lost: &Lost) -> Ending {
    match lost {
        Lost::Cut => Ending::Cut,
        Lost::Refused(status) => Ending::Error(format!("{status}")),
    }
}

/// A client of HTTP+SSE: connects, calls, and connects again when its stream has ended.
pub(crate) async fn client(world: &World, number: usize, mut random: StdRng) {
    let (entry_point, person) = seat(number);
    let name = format!("http+sse {entry_point:?}");
    while world.goes_on() {
        pause(&mut random).await;
        if let Err((started, judged)) = life(world, &name, entry_point, person, &mut random).await {
            let call = Call { tool: Tool::Echo, text: "a stream".to_owned(), total_ms: 0, events: 0 };
            world.ledger.ended(world, &name, &call, started, judged, None);
        }
    }
}

type Ended = (Instant, Result<Ending, (Evil, String)>);

async fn life(
    world: &World,
    name: &str,
    entry_point: EntryPoint,
    person: Person,
    random: &mut StdRng,
) -> Result<(), Ended> {
    let url = format!("{}/sse", world.stack.endpoint(entry_point, person.1));
    let started = Instant::now();
    let hung = |what: &str| Err((Evil::Hung, what.to_owned()));
    let opened = world.in_time(started, Duration::ZERO, Line::open(&url, world.token(person))).await;
    let mut line = opened
        .ok_or_else(|| (started, hung("opening a stream")))?
        .map_err(|lost| (started, Ok(ending(&lost))))?;
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "asgard-soak", "version": "1"},
    }});
    let started = Instant::now();
    let greeted = world.in_time(started, Duration::ZERO, async {
        line.post(&hello).await?;
        while !line.messages.iter().any(|message| message["id"] == 1) {
            line.more().await?;
        }
        line.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await
    });
    let greeted = greeted.await.ok_or_else(|| (started, hung("initialize")))?;
    greeted.map_err(|lost| (started, Ok(ending(&lost))))?;
    line.messages.clear();
    for _ in 0..random.random_range(2..10) {
        pause(random).await;
        if !world.goes_on() {
            break;
        }
        line.token = world.token(person);
        round(world, name, &mut line, person, random).await?;
    }
    Ok(())
}

/// Some calls at once, to their answers.
async fn round(
    world: &World,
    name: &str,
    line: &mut Line,
    person: Person,
    random: &mut StdRng,
) -> Result<(), Ended> {
    line.messages.retain(|message| message["method"] == "notifications/message");
    let started = Instant::now();
    let mut sent = BTreeMap::new();
    for _ in 0..random.random_range(1..=3) {
        let call = Call::draw(world, person, random);
        world.ledger.once(&call);
        let id = 1_000 + world.number();
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call.params(id)});
        match world.in_time(started, Duration::ZERO, line.post(&message)).await {
            None => {
                world.ledger.ended(world, name, &call, started, Err((Evil::Hung, "a POST".to_owned())), None)
            }
            Some(Err(lost)) => world.ledger.ended(world, name, &call, started, Ok(ending(&lost)), None),
            Some(Ok(())) => {
                sent.insert(id, call);
            }
        }
    }
    let budget = sent.values().map(Call::budget).max().unwrap_or_default();
    let answered =
        |line: &Line, id: u64| line.messages.iter().any(|m| m["id"] == id && m.get("method").is_none());
    let reading = async {
        while !sent.keys().all(|id| answered(line, *id)) {
            line.more().await?;
        }
        Ok::<_, Lost>(())
    };
    let read = world.in_time(started, budget, reading).await;
    for (id, call) in &sent {
        let token = e2e::client::progress_token(*id);
        let own: Vec<&Value> = line
            .messages
            .iter()
            .filter(|message| message["id"] == *id || message["params"]["progressToken"] == token.as_str())
            .collect();
        let answer = own.iter().find(|message| message["id"] == *id);
        let judged = match (call.check(*id, &own, true), answer, &read) {
            (Err(evil), _, _) => Err(evil),
            (Ok(()), Some(answer), _) => call.judge_answer(answer).map(|ending| {
                // What a lost worker had not sent yet is not sent again on a stream that others use as well.
                let whole = own.len() as u64 == call.events + 1;
                if ending == Ending::Whole && !whole { Ending::Gaps } else { ending }
            }),
            (Ok(()), None, None) => Err((Evil::Hung, "no answer on the stream".to_owned())),
            (Ok(()), None, Some(_)) => Ok(Ending::Cut),
        };
        world.ledger.ended(world, name, call, started, judged, None);
    }
    match read {
        Some(Ok(())) => Ok(()),
        // The calls were judged; the next stream, please.
        _ => {
            world.ledger.count(name, "stream ended");
            Err((Instant::now(), Ok(Ending::Whole)))
        }
    }
}
