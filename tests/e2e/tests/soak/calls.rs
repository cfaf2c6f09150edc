//! One call of a tool: what is asked, and what may be answered.

use std::time::Duration;

use e2e::exchange::End;
use e2e::random::RngExt;
use e2e::{Exchange, Form};
use serde_json::{Value, json};

use crate::ledger::Evil;
use crate::world::{Person, World};

/// The tools that are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Quick; may run again.
    Echo,
    /// Takes its time; may run again.
    SlowEcho,
    /// Takes its time; must not run again, and has a journal.
    Count,
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The tool.
    pub(crate) tool: Tool,
    /// What the answer must repeat: who calls, and a number of its own.
    pub(crate) text: String,
    /// What the tool needs.
    pub(crate) total_ms: u64,
    /// Steps that it reports.
    pub(crate) events: u64,
}

/// How a call ended for its client, if all is well.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// Everything came.
    Whole,
    /// The answer came, but not all steps.
    Gaps,
    /// An error that says what it is.
    Error(String),
    /// The connection was cut.
    Cut,
    /// The stream was closed before the answer.
    Closed,
}

impl Call {
    /// A call at random.
    pub(crate) fn draw(world: &World, person: Person, random: &mut impl RngExt) -> Self {
        let tool = match random.random_range(0..100) {
            0..30 => Tool::Echo,
            30..60 => Tool::SlowEcho,
            _ => Tool::Count,
        };
        // Short, about hold_after, and long.
        let total_ms = match random.random_range(0..4) {
            _ if tool == Tool::Echo => 0,
            0 => 0,
            1 => random.random_range(10..200),
            2 => random.random_range(100..1_500),
            _ => random.random_range(1_000..5_000),
        };
        let events = if total_ms > 0 && random.random_bool(0.6) { random.random_range(1..=20) } else { 0 };
        Self { tool, text: format!("{}@{}#{}", person.0, person.1, world.number()), total_ms, events }
    }

    /// The tool's name.
    pub(crate) fn name(&self) -> &'static str {
        match self.tool {
            Tool::Echo => "echo",
            Tool::SlowEcho => "slow_echo",
            Tool::Count => "slow_count",
        }
    }

    /// Parameters of `tools/call`, with a progress token where there are steps.
    pub(crate) fn params(&self, id: u64) -> Value {
        let arguments = match self.tool {
            Tool::Echo => json!({"text": self.text}),
            Tool::SlowEcho => json!({"text": self.text, "total_ms": self.total_ms, "events": self.events}),
            Tool::Count => json!({"label": self.text, "total_ms": self.total_ms, "events": self.events}),
        };
        let mut params = json!({"name": self.name(), "arguments": arguments});
        if self.events > 0 {
            params["_meta"] = json!({"progressToken": e2e::client::progress_token(id)});
        }
        params
    }

    /// What the tool needs.
    pub(crate) fn budget(&self) -> Duration {
        Duration::from_millis(self.total_ms)
    }

    /// Whether it must run at most once.
    pub(crate) fn is_unsafe(&self) -> bool {
        self.tool == Tool::Count
    }

    /// Judges the messages that came for it, in order: whether all of them are its own, and each came once.
    pub(crate) fn check(&self, id: u64, messages: &[&Value], modern: bool) -> Result<(), (Evil, String)> {
        let token = e2e::client::progress_token(id);
        let (mut last, mut answers) = (0, 0);
        for message in messages {
            self.own(message)?;
            if message["method"] == "notifications/progress"
                && message["params"]["progressToken"] == token.as_str()
            {
                let step = message["params"]["progress"].as_f64().map_or(0, |step| step as u64);
                if step <= last {
                    return Err((Evil::Doubled, format!("step {step} after step {last}")));
                }
                if !modern && step != last + 1 {
                    return Err((Evil::Wrong, format!("step {step} after step {last} in a session")));
                }
                if answers > 0 {
                    return Err((Evil::Wrong, format!("step {step} after the answer")));
                }
                last = step;
            } else if message["id"] == id && message.get("method").is_none() {
                answers += 1;
            } else {
                return Err((Evil::Wrong, format!("a message that belongs to nothing: {message}")));
            }
        }
        if answers > 1 {
            return Err((Evil::Doubled, format!("{answers} answers")));
        }
        Ok(())
    }

    /// Whether a message names another call, or another caller.
    fn own(&self, message: &Value) -> Result<(), (Evil, String)> {
        let text = message.to_string();
        for (at, _) in text.match_indices("@org-") {
            let from = text[..at].rfind(|c: char| !c.is_ascii_lowercase()).map_or(0, |before| before + 1);
            let rest = text[at..].find('#').map_or("", |hash| &text[at + hash + 1..]);
            let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
            let named = &text[from..text.len() - rest.len() + digits.len()];
            if named != self.text {
                let who = |text: &str| text.split('#').next().map(str::to_owned);
                let evil = if who(named) == who(&self.text) { Evil::Wrong } else { Evil::Foreign };
                return Err((evil, format!("{named} in the answer to {}", self.text)));
            }
        }
        Ok(())
    }

    /// Judges an answer.
    pub(crate) fn judge_answer(&self, answer: &Value) -> Result<Ending, (Evil, String)> {
        if let Some(error) = answer.get("error") {
            let message = error["message"].as_str().unwrap_or_default();
            if message.is_empty() {
                return Err((Evil::Wrong, format!("an error that says nothing: {error}")));
            }
            return Ok(Ending::Error(format!("{} {}", error["code"], start(message))));
        }
        let result = &answer["result"];
        let said = match self.tool {
            Tool::Echo => &result["content"][0]["text"],
            Tool::SlowEcho => &result["structuredContent"]["text"],
            Tool::Count => &result["structuredContent"]["label"],
        };
        if *said == self.text.as_str() {
            Ok(Ending::Whole)
        } else {
            Err((Evil::Wrong, format!("not the answer to {}: {answer}", self.text)))
        }
    }

    /// Judges an exchange that has ended.
    pub(crate) fn judge(&self, exchange: &Exchange, modern: bool) -> Result<Ending, (Evil, String)> {
        let messages: Vec<&Value> = exchange.messages.iter().map(|arrived| &arrived.message).collect();
        let ids: Vec<&String> = exchange.messages.iter().filter_map(|arrived| arrived.id.as_ref()).collect();
        if ids.iter().collect::<std::collections::BTreeSet<_>>().len() != ids.len() {
            return Err((Evil::Doubled, "an event id came twice".to_owned()));
        }
        let end = exchange.end.as_ref().map(|(end, _)| end);
        if let Some(End::Stuck) = end {
            return Err((Evil::Hung, "silent for 40 s".to_owned()));
        }
        // A refusal may come without the request's id: the gateway's, for one.
        if exchange.form() == Form::Error && exchange.answer().is_none() {
            return self.refused(exchange, end);
        }
        self.check(exchange.id, &messages, modern)?;
        let ending = match (exchange.answer(), end) {
            (Some(answer), _) => self.judge_answer(answer)?,
            (None, Some(End::Cut(_))) => Ending::Cut,
            (None, _) if exchange.form() == Form::Stream => Ending::Closed,
            (None, _) => return Err((Evil::Wrong, "no answer".to_owned())),
        };
        let wanted = if exchange.form() == Form::Stream { self.events } else { 0 };
        let steps = exchange.steps().len() as u64;
        match ending {
            Ending::Whole if steps < wanted && modern => Ok(Ending::Gaps),
            Ending::Whole if steps != wanted => {
                Err((Evil::Wrong, format!("{steps} of {wanted} steps in a session")))
            }
            ending => Ok(ending),
        }
    }

    fn refused(&self, exchange: &Exchange, end: Option<&End>) -> Result<Ending, (Evil, String)> {
        let body: Value = serde_json::from_str(&exchange.text).unwrap_or_default();
        self.own(&Value::String(exchange.text.clone()))?;
        let said = body["error"]["message"].as_str().or(body["message"].as_str()).unwrap_or(&exchange.text);
        match (exchange.status(), end) {
            (0, _) | (_, Some(End::Cut(_))) => Ok(Ending::Cut),
            (status @ 400.., _) => Ok(Ending::Error(format!("{status} {}", start(said)))),
            (status, _) => Err((Evil::Wrong, format!("neither an answer nor an error, with {status}"))),
        }
    }
}

/// The beginning of what an error says.
fn start(text: &str) -> String {
    text.trim().chars().take(300).collect()
}
