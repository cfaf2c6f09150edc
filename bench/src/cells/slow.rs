//! Calls that are handed over to Pushpin.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Contestant, Context, Found, each};
use crate::load::{Round, Shape};
use crate::mcp::{Call, Endpoint};
use crate::report::{Figure, Goal};
use crate::wire::Connection;
use crate::{Result, progress};

/// Slow calls at once.
const CONNECTIONS: usize = 16;

/// The cell `slow`: handed over, held, ten events, the result.
pub async fn call(context: &Context) -> Result<Found> {
    let text = "slow but sure";
    let arguments = json!({"text": text, "total_ms": 250, "events": 10});
    let call = Call::new("slow_echo", arguments, text).with_progress();
    let time = context.options.round_time() * 2;
    let contestant = |endpoint: Endpoint| Contestant {
        endpoint,
        call: call.clone(),
        shape: Shape::new(CONNECTIONS, time.max(Duration::from_secs(1))),
    };
    let mut all = vec![contestant(context.stack().await?.bifrost().await?)];
    if let Some(before) = context.before().await? {
        all.push(contestant(before.bifrost().await?));
    }
    let rounds = context.in_turns(&all).await?;
    let mut found = Found {
        paths: all.iter().zip(&rounds).map(|(contestant, rounds)| contestant.path(rounds)).collect(),
        figures: Vec::new(),
    };
    let own = each(&rounds[0], Round::cpu);
    found.figure(Figure::median("slow call: CPU of all parts", "µs", &own));
    if let Some(before) = rounds.get(1) {
        let what = "slow call: CPU of all parts, of the older checkout";
        found.figure(Figure::ratio(what, &own, &each(before, Round::cpu)).with_goal(Goal::AtMost(0.7)));
        for (index, part) in all[0].endpoint.parts.iter().enumerate() {
            let of = |rounds: &[Round]| each(rounds, |round| round.parts[index]);
            found.figure(Figure::ratio(
                &format!("its {}, of the older", part.name),
                &of(&rounds[0]),
                &of(before),
            ));
        }
    }
    Ok(found)
}

/// The cell `events`: many events of one call, as fast as they come, to a client that reads.
pub async fn events(context: &Context) -> Result<Found> {
    let endpoint = context.stack().await?.bifrost().await?;
    let count = context.options.sized(10_000, 200);
    let call = Call::new("slow_echo", json!({"total_ms": 0, "events": count}), "\"result\"").with_progress();
    let (mut rates, mut faults) = (Vec::new(), 0.0);
    for number in 1..=context.options.rounds().min(5) {
        progress(&format!("call {number}, {count} events"));
        let started = Instant::now();
        let mut connection = Connection::open(&endpoint.host).await?;
        let mut body = Vec::new();
        let request = call.modern(&endpoint);
        let read = connection.exchange(&request, &mut body);
        let head = tokio::time::timeout(Duration::from_secs(120), read).await??;
        rates.push(count as f64 / started.elapsed().as_secs_f64());
        if head.status != 200 {
            return Err(endpoint.refused(head.status, &body));
        }
        faults += wrong(&body, count) as f64;
    }
    let mut found = Found::default();
    let rate = Figure::median("events of one call through Pushpin", "a second", &rates);
    found.figure(rate.with_goal(Goal::AtLeast(5000.0)));
    let what = "events or results that are missing, doubled or out of order";
    found.figure(Figure::single(what, "", faults).with_goal(Goal::AtMost(0.0)));
    Ok(found)
}

/// Messages of a stream that are not the next event, or at the end the result.
fn wrong(body: &[u8], events: u64) -> u64 {
    let text = String::from_utf8_lossy(body);
    let messages = text.lines().filter_map(|line| {
        let data = line.strip_prefix("data:")?.trim();
        (!data.is_empty()).then(|| serde_json::from_str::<Value>(data).unwrap_or_default())
    });
    let (mut next, mut wrong, mut results) = (1, 0, 0_u64);
    for message in messages {
        match message["params"]["progress"].as_f64() {
            Some(progress) if progress == next as f64 && results == 0 => next += 1,
            Some(_) => wrong += 1,
            None => results += u64::from(message.get("result").is_some()),
        }
    }
    wrong + (events + 1 - next.min(events + 1)) + results.abs_diff(1)
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn what_is_missing_doubled_or_out_of_order_counts() {
        let stream = |steps: &[u64], results: usize| {
            let event = |n: &u64| format!("data: {{\"params\":{{\"progress\":{n}.0}}}}\n\n");
            let events: String = steps.iter().map(event).collect();
            format!("{events}{}", "data: {\"result\":{}}\n\n".repeat(results)).into_bytes()
        };
        assert_eq!(wrong(&stream(&[1, 2, 3], 1), 3), 0);
        assert_eq!(wrong(&stream(&[1, 2], 1), 3), 1);
        assert_eq!(wrong(&stream(&[1, 2, 2, 3], 1), 3), 1);
        assert_eq!(wrong(&stream(&[1, 2, 3], 0), 3), 1);
        assert!(wrong(&stream(&[2, 1, 3], 1), 3) > 0);
    }
}
