//! Who gets what, over the bus.

use std::sync::Arc;
use std::time::Duration;

use identity::Principal;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::call::Timing;
use crate::store::{MemoryStore, StoreLimits};

fn principal(subject: &str, organisation: &str) -> Principal {
    Principal::new("https://issuer.example", subject, organisation)
}

struct Site {
    store: Arc<MemoryStore>,
    key: BroadcastKey,
    to: Broadcaster,
}

impl Site {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new(Timing::default(), StoreLimits::default()));
        let key = BroadcastKey::random();
        let to = Broadcaster::new("s", key.clone(), store.clone(), None);
        Self { store, key, to }
    }

    async fn listen(&self, principal: &Principal, topics: &Topics, id: &str) -> Following {
        let subscription = self.to.listen_subscription(principal, topics, id);
        subscription.follow(self.store.as_ref()).await.unwrap()
    }

    async fn session(&self, principal: &Principal, key: &str, level: Option<&str>) -> Following {
        self.to.session_subscription(principal, key, level).follow(self.store.as_ref()).await.unwrap()
    }

    async fn notify(&self, audience: Audience, notice: Notice) {
        self.to.notify(&audience, &notice).await.unwrap();
    }
}

/// All that has come for a stream.
async fn came(stream: &mut Following) -> Vec<Value> {
    let mut all = Vec::new();
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), stream.next()).await {
        let text = std::str::from_utf8(&event).unwrap();
        let data = text.strip_prefix("event: message\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        all.push(serde_json::from_str(data).unwrap());
    }
    all
}

fn methods(messages: &[Value]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| message["method"].as_str().unwrap().strip_prefix("notifications/").unwrap())
        .collect()
}

const ALL: Topics =
    Topics { tools: true, prompts: true, resources: true, uris: Vec::new(), tasks: Vec::new() };

#[tokio::test]
async fn a_modern_stream_gets_what_it_asked_for_under_its_own_id() {
    let site = Site::new();
    let thor = principal("thor", "asgard");
    let tools = Topics { tools: true, uris: vec!["a://1".into()], ..Topics::default() };
    let mut first = site.listen(&thor, &tools, r#""100% %(id)s ü""#).await;
    let mut second = site.listen(&thor, &ALL, "7").await;
    site.notify(Audience::Everyone, Notice::tools_changed()).await;
    site.notify(Audience::principal(&thor), Notice::prompts_changed()).await;
    site.notify(Audience::organisation_of(&thor), Notice::resource_updated("a://1").unwrap()).await;
    site.notify(Audience::Everyone, Notice::resource_updated("a://2").unwrap()).await;
    site.notify(Audience::Everyone, Notice::log(LogLevel::Alert, None, &1).unwrap()).await;
    let tag = |id: Value| json!({ "io.modelcontextprotocol/subscriptionId": id });
    assert_eq!(
        came(&mut first).await,
        [
            json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed",
                "params": { "_meta": tag("100% %(id)s ü".into()) } }),
            json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated",
                "params": { "uri": "a://1", "_meta": tag("100% %(id)s ü".into()) } }),
        ]
    );
    let second = came(&mut second).await;
    assert_eq!(methods(&second), ["tools/list_changed", "prompts/list_changed"]);
    assert!(second.iter().all(|message| message["params"]["_meta"] == tag(7.into())));
}

#[tokio::test]
async fn nobody_else_hears_it() {
    let site = Site::new();
    let thor = principal("thor", "asgard");
    let abroad = principal("thor", "midgard");
    let loki = principal("loki", "asgard");
    let elsewhere = Principal::new("https://other.example", &*thor.subject, &*thor.organisation);
    let mut streams = Vec::new();
    for principal in [&thor, &loki, &abroad, &elsewhere] {
        streams.push((
            site.listen(principal, &ALL, "1").await,
            site.session(principal, &principal.key(), None).await,
        ));
    }
    // Another server of the same site, with the same key.
    let other = Broadcaster::new("other", site.key.clone(), site.store.clone(), None);
    other.notify(&Audience::Everyone, &Notice::tools_changed()).await.unwrap();
    site.notify(Audience::principal(&thor), Notice::tools_changed()).await;
    site.notify(Audience::organisation_of(&thor), Notice::prompts_changed()).await;
    site.notify(Audience::Session(abroad.key()), Notice::resources_changed()).await;
    let mut seen = Vec::new();
    for (listen, session) in &mut streams {
        seen.push((came(listen).await, came(session).await));
    }
    let seen: Vec<_> = seen.iter().map(|(listen, session)| (methods(listen), methods(session))).collect();
    let (tools, prompts) = ("tools/list_changed", "prompts/list_changed");
    assert_eq!(seen[0], (vec![tools, prompts], vec![tools, prompts]));
    assert_eq!(seen[1], (vec![prompts], vec![prompts]));
    assert_eq!(seen[2], (vec![], vec!["resources/list_changed"]));
    assert_eq!(seen[3], (vec![], vec![]));
}

#[tokio::test]
async fn a_session_gets_its_levels_and_its_resources() {
    let site = Site::new();
    let thor = principal("thor", "asgard");
    let mut all = site.session(&thor, "all", None).await;
    let mut severe = site.session(&thor, "severe", Some("error")).await;
    for level in [LogLevel::Debug, LogLevel::Warning, LogLevel::Error, LogLevel::Emergency] {
        let notice = Notice::log(level, Some("forge"), &json!({ "at": level })).unwrap();
        site.notify(Audience::Everyone, notice).await;
    }
    let levels = |messages: Vec<Value>| -> Vec<String> {
        messages.iter().map(|message| message["params"]["level"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(levels(came(&mut all).await), ["debug", "warning", "error", "emergency"]);
    assert_eq!(levels(came(&mut severe).await), ["error", "emergency"]);

    let live = Duration::from_secs(60);
    assert!(site.to.subscribe(&thor, "all", "a://1", live).await.unwrap());
    let update = || Notice::resource_updated("a://1").unwrap();
    let nobody = [Audience::Session("severe".into()), Audience::principal(&principal("loki", "asgard"))];
    for audience in nobody {
        site.notify(audience, update()).await;
    }
    assert!(came(&mut all).await.is_empty());
    for audience in [Audience::Everyone, Audience::Session("all".into()), Audience::organisation_of(&thor)] {
        site.notify(audience, update()).await;
    }
    let expected = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": { "uri": "a://1" } });
    assert_eq!(came(&mut all).await, vec![expected; 3]);
    site.to.unsubscribe(&thor, "all", "a://1").await.unwrap();
    site.notify(Audience::Everyone, update()).await;
    assert!(came(&mut all).await.is_empty());
    assert!(came(&mut severe).await.is_empty());
}

#[tokio::test]
async fn a_session_has_a_bound_of_resources() {
    let site = Site::new();
    let thor = principal("thor", "asgard");
    let subscribe = async |number: usize| {
        site.to.subscribe(&thor, "s", &format!("a://{number}"), Duration::from_secs(60)).await.unwrap()
    };
    for number in 0..RESOURCES_OF_SESSION {
        assert!(subscribe(number).await);
    }
    assert!(!subscribe(RESOURCES_OF_SESSION).await);
    assert!(subscribe(0).await, "again the same is nothing new");
    site.to.unsubscribe(&thor, "s", "a://0").await.unwrap();
    assert!(subscribe(RESOURCES_OF_SESSION).await);
}

#[tokio::test]
async fn a_task_is_told_to_its_subscribers_alone() {
    let site = Site::new();
    let thor = principal("thor", "asgard");
    let (task, other) = (CallId::random(), CallId::random());
    let mut with = site.listen(&thor, &Topics { tasks: vec![task], ..ALL }, "1").await;
    let mut without = site.listen(&thor, &ALL, "2").await;
    let params = |id: CallId| {
        RawValue::from_string(format!(r#"{{"taskId":"{id}","status":"working","result":{{"n":1e2}}}}"#))
            .unwrap()
    };
    site.to.task_status(task, &params(task)).await.unwrap();
    site.to.task_status_soon(other, &params(other));
    site.to.task_status_soon(task, &params(task));
    let first = timeout(Duration::from_secs(5), with.next()).await.unwrap().unwrap();
    let second = timeout(Duration::from_secs(5), with.next()).await.unwrap().unwrap();
    assert_eq!(first, second);
    let text = std::str::from_utf8(&first).unwrap();
    assert!(text.contains(&task.to_string()) && text.contains("1e2"), "{text}");
    assert!(came(&mut with).await.is_empty() && came(&mut without).await.is_empty());
}

#[tokio::test]
async fn an_audience_can_be_closed() {
    let site = Site::new();
    let (thor, loki) = (principal("thor", "asgard"), principal("loki", "midgard"));
    let mut modern = site.listen(&thor, &Topics::default(), r#""x""#).await;
    let mut session = site.session(&thor, "s", None).await;
    let mut stays = site.listen(&loki, &ALL, "1").await;
    site.to.close(&Audience::organisation_of(&thor)).await.unwrap();
    let last = timeout(Duration::from_secs(5), modern.next()).await.unwrap().unwrap();
    let last: Value = serde_json::from_slice(last.strip_prefix(b"event: message\ndata: ").unwrap()).unwrap();
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&"x".into(), &"complete".into()));
    assert_eq!(timeout(Duration::from_secs(5), modern.next()).await.unwrap(), None);
    assert_eq!(timeout(Duration::from_secs(5), session.next()).await.unwrap(), None);
    assert!(came(&mut stays).await.is_empty());
    site.notify(Audience::Everyone, Notice::tools_changed()).await;
    assert_eq!(came(&mut stays).await.len(), 1);
}

#[tokio::test]
async fn openings_are_bounded_for_each_principal() {
    let site = Site::new();
    let (thor, loki) = (principal("thor", "asgard"), principal("loki", "asgard"));
    let open = async |of: &Principal, session: Option<&str>| {
        site.to.register(LongLivedStream::new(of, session).named(false), Duration::from_secs(60)).await
    };
    let first = open(&thor, None).await.unwrap();
    for number in 1..256 {
        open(&thor, (number % 2 == 0).then_some("s")).await.unwrap();
    }
    assert_eq!(open(&thor, None).await, Err(NotOpened::TooManyOfYours));
    assert!(open(&loki, None).await.is_ok());
    // One that stands makes room.
    site.to.settled(&first).await;
    assert!(open(&thor, Some("s")).await.is_ok());
    assert_eq!(open(&thor, Some("s")).await, Err(NotOpened::TooManyOfYours));
}

#[tokio::test]
async fn a_sessions_streams_are_ordered_and_bounded_whatever_the_clocks_say() {
    let site = Site::new();
    let thor = principal("thor", "asgard");
    let mut streams = Vec::new();
    for _ in 0..6 {
        let stream = LongLivedStream::new(&thor, Some("s")).named(true);
        let followed = site.to.session_subscription(&thor, "s", None).of(&stream);
        let followed = followed.follow(site.store.as_ref()).await.unwrap();
        streams.push((site.to.register(stream, Duration::from_secs(60)).await.unwrap(), followed));
    }
    // Two had to make room.
    for (_, followed) in &mut streams[..2] {
        let last = timeout(Duration::from_secs(5), followed.next()).await.unwrap().unwrap();
        assert_eq!(&last[..], b"retry: 600000\n\n");
        assert_eq!(timeout(Duration::from_secs(5), followed.next()).await.unwrap(), None);
    }
    while let Some((newest, mut followed)) = streams.pop().filter(|_| streams.len() >= 2) {
        site.notify(Audience::Everyone, Notice::tools_changed()).await;
        assert_eq!(came(&mut followed).await.len(), 1);
        for (_, other) in &mut streams[2..] {
            assert!(came(other).await.is_empty());
        }
        drop(site.to.keep(newest));
        let left = streams.len() - 2;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while site.to.special().await.unwrap().len() != if left > 1 { left } else { 0 } {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[test]
fn a_stream_fits_into_pushpins_channels() {
    let uris: Vec<String> = (0..30).map(|number| format!("a://{number}")).collect();
    let tasks: Vec<CallId> = (0..4).map(|_| CallId::random()).collect();
    let mut topics = Topics { uris: uris.clone(), tasks: tasks.clone(), ..ALL };
    topics.bound();
    assert_eq!((topics.uris.as_slice(), topics.tasks), (&uris[..9], tasks));
    let mut topics = Topics { uris, ..Topics::default() };
    topics.bound();
    assert_eq!(topics.uris.len(), 16);
}
