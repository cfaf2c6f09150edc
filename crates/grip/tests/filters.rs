//! Message filters of a real Pushpin: one item for many streams, each with its own text in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use common::{Http, Stream, Tracker, publisher, serve};
use grip::{Channel, Hold, Item, MAX_CHANNELS, Publisher};
use kit::pushpin::Pushpin;

/// A Pushpin whose requests `/n` are held as the list says, with `hello` as their first content.
async fn streams(holds: Vec<Hold>) -> (Pushpin, Publisher, Tracker, Vec<Stream>) {
    let count = holds.len();
    let holds = Arc::new(holds);
    let hold = move |Path(number): Path<usize>| {
        let holds = holds.clone();
        async move { (holds[number].headers().unwrap(), "hello 100%\n") }
    };
    let address = serve(Router::new().route("/{number}", get(hold))).await;
    let pushpin = Pushpin::start(std::slice::from_ref(&address), &address).await.unwrap();
    let (publisher, tracker) = publisher(vec![pushpin.endpoint()]).await;
    let http = Http::new();
    let mut streams = Vec::new();
    for number in 0..count {
        streams.push(http.open(pushpin.http(), &format!("/{number}")).await);
    }
    (pushpin, publisher, tracker, streams)
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn each_stream_gets_its_own_value_whatever_it_is() {
    let weird = [
        "1".to_owned(),
        "-9223372036854775808".to_owned(),
        r#""""#.to_owned(),
        r#""a""#.to_owned(),
        r#""a \"quoted\" \\ back\\\\slash""#.to_owned(),
        r#""comma, semi; colon: equals= (paren) <tag> {x} [y]""#.to_owned(),
        r#""100% %(id)s %% %s %n %""#.to_owned(),
        r#""\u00fc\u20ac\ud83d\ude00\u0000\r\n""#.to_owned(),
        r#""  spaces  and a tail ""#.to_owned(),
        r#""; filter=skip-self""#.to_owned(),
        format!("\"{}\"", "\\u00fc".repeat(500)),
    ];
    let hold = |id: &String| {
        let channel = |name: &str| Channel::new(name).filter("require-sub").filter("var-subst");
        let last = if id == "1" { "last-1" } else { "last" };
        Hold::stream(channel("all")).channel(channel(last)).meta("id", id).meta("other", "x")
    };
    let (_pushpin, publisher, tracker, mut streams) = streams(weird.iter().map(hold).collect()).await;
    for channel in ["all", "last", "last-1"] {
        tracker.gate(0, channel).await;
    }
    let content = "data: {\"id\":%(id)s,\"%(other)s\":\"100%% ü\"}\n\n";
    publisher.send(0, vec![Item::content("all", content)]).await.unwrap();
    // The first content is not touched.
    for (stream, id) in streams.iter_mut().zip(&weird) {
        let text = format!("hello 100%\ndata: {{\"id\":{id},\"x\":\"100% ü\"}}\n\n");
        stream.expect(&text).await;
    }
}

#[tokio::test]
#[ignore = "needs Pushpin: ./asgard test grip"]
async fn a_message_can_ask_for_a_second_channel() {
    let channel = |name: &str| Channel::new(name).filter("require-sub").filter("var-subst");
    let hold = |id: &str, names: &[&str]| {
        let first = Hold::stream(channel(names[0])).meta("id", id);
        names[1..].iter().fold(first, |hold, name| hold.channel(channel(name)))
    };
    let many: Vec<String> = (0..MAX_CHANNELS - 2).map(|number| format!("topic-{number}")).collect();
    let mut names = vec!["org-1", "tools"];
    names.extend(many.iter().map(String::as_str));
    let holds = vec![hold("1", &names), hold("2", &["org-1", "prompts"]), hold("3", &["org-2", "tools"])];
    let (_pushpin, publisher, tracker, mut streams) = streams(holds).await;
    for name in names.iter().chain(&["prompts", "org-2"]) {
        tracker.gate(0, name).await;
    }
    let item = |channel: &str, required: &str| {
        Item::content(channel, format!("{required}:%(id)s ")).meta("require_sub", required)
    };
    let last = many.last().unwrap();
    let items = vec![
        item("org-1", "tools"),
        item("org-1", "prompts"),
        item("org-2", "tools"),
        item("org-1", "nothing"),
        item("org-1", last),
        Item::content("org-1", "all:%(id)s "),
        Item::content("org-2", "all:%(id)s "),
    ];
    publisher.send(0, items).await.unwrap();
    streams[0].expect(&format!("hello 100%\ntools:1 {last}:1 all:1 ")).await;
    streams[1].expect("hello 100%\nprompts:2 all:2 ").await;
    streams[2].expect("hello 100%\ntools:3 all:3 ").await;
}
