//! Keycloak (Heimdall) changes its keys, or is away: who has a good token does not notice; nobody gets in without.
//!
//! Where the gateway asks Keycloak about tokens (introspection), who was logged out or removed is refused at once.
//!
//! `E2E_DOWN_S` is how long Keycloak stays away, in seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use asgard::state::{TokenCheck, Tokens};
use asgard::supervisor::control::Request;
use asgard::supervisor::part::Kind;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use e2e::keycloak::Keycloak;
use e2e::login::{Ask, Person, register};
use e2e::stack::wait;
use e2e::tokens::{self, Wish};
use e2e::{Client, EntryPoint, Stack};
use reqwest::Method;
use serde_json::{Value, json};

/// How long a part may take.
const LIMIT: Duration = Duration::from_secs(120);

fn header(token: &str) -> Value {
    let part = token.split('.').next().unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn kid(token: &str) -> String {
    header(token)["kid"].as_str().unwrap().to_owned()
}

/// The token with another key's id: its signature is then as good as any stranger's.
fn with_kid(token: &str, kid: &str) -> String {
    let mut head = header(token);
    head["kid"] = json!(kid);
    let rest = token.split_once('.').unwrap().1;
    format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(head.to_string()))
}

/// The status of a quick call with that token; a success is looked at as a whole.
async fn call(stack: &Stack, entry_point: EntryPoint, token: &str) -> u16 {
    let client = Client::at(stack.endpoint(entry_point, "org-1"), token.to_owned());
    let exchange = client.tool("echo", json!({"text": "x"})).await;
    if exchange.status() == 200 {
        exchange.check_whole(0).unwrap();
    }
    exchange.status()
}

/// Starts Keycloak and waits until it is ready. On a busy machine it takes minutes.
async fn start_keycloak(stack: &Stack) {
    stack.order(&Request::Start("keycloak".to_owned())).await;
    wait("Keycloak is ready", Duration::from_secs(300), async || {
        let keycloak = stack.of_kind(Kind::Keycloak).await.remove(0);
        keycloak.ready.then_some(())
    })
    .await;
}

async fn fresh(stack: &Stack) -> String {
    fresh_of(stack, "thor").await
}

async fn fresh_of(stack: &Stack, user: &str) -> String {
    tokens::fetch(stack, &Wish::usual(stack, user, "org-1")).await
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test heimdall"]
async fn a_new_key_costs_no_request() {
    let stack = Arc::new(Stack::claim().await);
    let keycloak = Keycloak::of(&stack);
    for left in keycloak.get("/components?type=org.keycloak.keys.KeyProvider").await.as_array().unwrap() {
        if left["name"] == "a new key" {
            let path = format!("/components/{}", left["id"].as_str().unwrap());
            keycloak.change(Method::DELETE, &path, None).await;
        }
    }
    let old = fresh(&stack).await;
    let stop = Arc::new(AtomicBool::new(false));
    // Calls in all, and those with another key than the first.
    let (calls, renewed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // People who call all the time, each with the newest token that there is, or with the one from the start.
    let callers: Vec<_> = (0..6)
        .map(|number| {
            let (stack, stop, old) = (stack.clone(), stop.clone(), old.clone());
            let (calls, renewed) = (calls.clone(), renewed.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                let mut kids = BTreeMap::<String, u64>::new();
                while !stop.load(Ordering::Relaxed) {
                    let token = if number % 3 == 0 { old.clone() } else { fresh(&stack).await };
                    let entry_point = EntryPoint::BOTH[number % 2];
                    let status = call(&stack, entry_point, &token).await;
                    *kids.entry(kid(&token)).or_default() += 1;
                    calls.fetch_add(1, Ordering::Relaxed);
                    renewed.fetch_add(u64::from(kid(&token) != kid(&old)), Ordering::Relaxed);
                    if status != 200 {
                        failed.push((entry_point, kid(&token), status));
                    }
                }
                (failed, kids)
            })
        })
        .collect();
    let reaches = async |counter: &AtomicU64, count: u64| {
        wait("calls go on", LIMIT, async || (counter.load(Ordering::Relaxed) >= count).then_some(())).await;
    };
    reaches(&calls, 30).await;
    let realm = keycloak.get("").await["id"].clone();
    let component = json!({
        "name": "a new key",
        "providerId": "rsa-generated",
        "providerType": "org.keycloak.keys.KeyProvider",
        "parentId": realm,
        "config": {"priority": ["500"], "enabled": ["true"], "active": ["true"], "algorithm": ["RS256"]},
    });
    let made = keycloak.change(Method::POST, "/components", Some(&component)).await;
    let made = made.as_str().and_then(|url| url.rsplit('/').next()).unwrap().to_owned();
    reaches(&renewed, 30).await;
    stop.store(true, Ordering::Relaxed);
    let mut kids = BTreeMap::<String, u64>::new();
    for caller in callers {
        let (failed, of_caller) = caller.await.unwrap();
        assert_eq!(failed, [], "requests failed while the key changed");
        of_caller.into_iter().for_each(|(kid, count)| *kids.entry(kid).or_default() += count);
    }
    assert!(kids.len() == 2 && kids[&kid(&old)] >= 10, "calls by key: {kids:?}");
    println!("Bifrost: a key rotated; {} calls by key: {kids:?}, none failed", calls.load(Ordering::Relaxed));
    keycloak.change(Method::DELETE, &format!("/components/{made}"), None).await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test heimdall"]
async fn without_keycloak_known_keys_are_good_and_nothing_else_is() {
    let stack = Stack::claim().await;
    let down: u64 = std::env::var("E2E_DOWN_S").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    let good = fresh(&stack).await;
    let unknown = with_kid(&good, "a-key-that-nobody-knows");
    let mut forged = good.clone();
    forged.replace_range(good.len() - 8..good.len() - 4, "AAAA");
    // Each worker of the gateway has fetched the keys.
    for _ in 0..20 {
        for entry_point in EntryPoint::BOTH {
            assert_eq!(call(&stack, entry_point, &good).await, 200);
        }
    }
    let keycloak = stack.of_kind(Kind::Keycloak).await.remove(0);
    stack.order(&Request::Stop(keycloak.name.clone())).await;
    let (started, mut passed, mut refused) = (Instant::now(), 0_u32, BTreeMap::<u16, u32>::new());
    while started.elapsed() < Duration::from_secs(down) {
        for entry_point in EntryPoint::BOTH {
            assert_eq!(
                call(&stack, entry_point, &good).await,
                200,
                "after {:?} without Keycloak",
                started.elapsed()
            );
            passed += 1;
            assert_eq!(
                call(&stack, entry_point, &forged).await,
                401,
                "a signature is wrong, whoever is away"
            );
            assert_eq!(call(&stack, entry_point, "").await, 401);
            let status = call(&stack, entry_point, &unknown).await;
            assert!([401, 503].contains(&status), "an unknown key: {status}");
            *refused.entry(status).or_default() += 1;
        }
    }
    assert!(refused.contains_key(&503), "an unknown key, and nobody to ask: {refused:?}");

    // A gateway that starts now knows no key at all.
    let gateway = stack.of_kind(Kind::Gateway).await.remove(0);
    stack.order(&Request::Stop(gateway.name.clone())).await;
    stack.order(&Request::Start(gateway.name.clone())).await;
    stack.kinds_back(Some(&[Kind::Gateway]), &[]).await;
    let before: u64 = stack.served().await.values().sum();
    for entry_point in EntryPoint::BOTH {
        for token in [&good, &forged, &unknown] {
            let client = Client::at(stack.endpoint(entry_point, "org-1"), token.clone());
            let exchange = client.tool("echo", json!({"text": "x"})).await;
            assert_eq!(exchange.status(), 503, "{entry_point:?}: {}", exchange.outline());
        }
        assert_eq!(call(&stack, entry_point, "").await, 401, "where to get one is known nevertheless");
    }
    let after: u64 = stack.served().await.values().sum();
    assert_eq!(before, after, "no backend was asked");

    start_keycloak(&stack).await;
    let started = Instant::now();
    for entry_point in EntryPoint::BOTH {
        wait("it works again", LIMIT, async || (call(&stack, entry_point, &good).await == 200).then_some(()))
            .await;
    }
    println!(
        "Bifrost: {down} s without Keycloak: {passed} calls with known keys passed, an unknown key got {refused:?}; \
         works {} ms after it is back",
        started.elapsed().as_millis()
    );
}

/// How long the gateway may believe Keycloak's last word, in seconds.
const CACHE_S: u16 = 2;

/// A person with a token of a real session: a self-registered client, code and PKCE.
async fn session_token(stack: &Stack, user: &str) -> String {
    let redirect = format!("http://localhost:{}/oauth/callback", stack.state.ports.inspector);
    let metadata = json!({
        "client_name": "a test's client",
        "redirect_uris": [redirect],
        "token_endpoint_auth_method": "none",
        "scope": "mcp:tools organization",
    });
    let (status, answer) = register(stack, &metadata, None).await;
    assert_eq!(status, 201, "{answer}");
    let resource = stack.state.resource("org-1");
    let ask = Ask {
        client: answer["client_id"].as_str().unwrap(),
        redirect: &redirect,
        scope: "mcp:tools organization",
        resource: Some(&resource),
    };
    Person::sample(user, "org-1").log_in(stack, &ask).await.token().to_owned()
}

/// From now on the token passes for no longer than the gateway may believe Keycloak's last word; afterwards never.
async fn ends(stack: &Stack, token: &str, what: &str) {
    let started = Instant::now();
    let limit = Duration::from_secs(u64::from(CACHE_S) + 2);
    while call(stack, EntryPoint::Bifrost, token).await == 200 {
        assert!(started.elapsed() < limit, "{what}: it passes after {:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed();
    // Each thread of the gateway has a memory of its own; the last one's ends with the cache time.
    tokio::time::sleep(limit.saturating_sub(started.elapsed())).await;
    for _ in 0..10 {
        for entry_point in EntryPoint::BOTH {
            assert_eq!(call(stack, entry_point, token).await, 401, "{what}");
        }
    }
    println!("Bifrost: {what}: refused after {} ms (cache {CACHE_S} s)", took.as_millis());
}

/// Lets the gateway check tokens in another way.
async fn checks(stack: &Stack, tokens: Tokens) {
    let mut state = stack.state.clone();
    state.tokens = tokens;
    state.save(&stack.paths).unwrap();
    let output = tokio::process::Command::new(asgard::stack::program(&stack.paths))
        .arg("reload")
        .env("ASGARD_ROOT", &stack.paths.root)
        .env("ASGARD_HOME", &stack.paths.home)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for entry_point in EntryPoint::BOTH {
        stack.answers(entry_point, LIMIT).await;
    }
}

async fn asking_keycloak(stack: &Stack, check: TokenCheck) {
    checks(stack, Tokens { check, cache_s: CACHE_S }).await;
    let keycloak = Keycloak::of(stack);

    // Another's session ends, this one goes on.
    let stays = session_token(stack, "freya").await;
    let token = session_token(stack, "thor").await;
    for entry_point in EntryPoint::BOTH {
        assert_eq!(call(stack, entry_point, &token).await, 200);
    }
    let thor = keycloak.user("thor").await;
    keycloak.change(Method::POST, &format!("/users/{thor}/logout"), None).await;
    ends(stack, &token, &format!("{check:?}: logged out")).await;

    let token = session_token(stack, "thor").await;
    assert_eq!(call(stack, EntryPoint::Bifrost, &token).await, 200);
    let organisation = keycloak.organisation("org-1").await;
    let members = format!("/organizations/{organisation}/members");
    keycloak.change(Method::DELETE, &format!("{members}/{thor}"), None).await;
    ends(stack, &token, &format!("{check:?}: removed from the organisation")).await;
    keycloak.change(Method::POST, &members, Some(&json!(thor))).await;

    let token = session_token(stack, "thor").await;
    assert_eq!(call(stack, EntryPoint::Bifrost, &token).await, 200);
    keycloak.change(Method::PUT, &format!("/users/{thor}"), Some(&json!({"enabled": false}))).await;
    ends(stack, &token, &format!("{check:?}: user disabled")).await;
    keycloak.change(Method::PUT, &format!("/users/{thor}"), Some(&json!({"enabled": true}))).await;
    assert_eq!(call(stack, EntryPoint::Bifrost, &stays).await, 200, "the other session lives");

    // Nobody to ask: what was said lately holds for the cache's time, then nothing passes.
    if check == TokenCheck::Both {
        return;
    }
    stack.order(&Request::Stop("keycloak".to_owned())).await;
    // Each thread of the gateway has a memory of its own, and each ends with the cache time (to the second).
    tokio::time::sleep(Duration::from_secs(u64::from(CACHE_S) + 1)).await;
    let before: u64 = stack.served().await.values().sum();
    for _ in 0..10 {
        for entry_point in EntryPoint::BOTH {
            assert_eq!(call(stack, entry_point, &stays).await, 503);
        }
    }
    assert_eq!(before, stack.served().await.values().sum::<u64>(), "no backend was asked");
    start_keycloak(stack).await;
    let usual = fresh_of(stack, "freya").await;
    wait("it works again", LIMIT, async || {
        (call(stack, EntryPoint::Bifrost, &usual).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a running stack: ./asgard test heimdall"]
async fn who_was_sent_away_is_refused_when_the_gateway_asks() {
    let stack = Stack::claim().await;
    for check in [TokenCheck::Both, TokenCheck::Introspection] {
        asking_keycloak(&stack, check).await;
    }
    checks(&stack, Tokens::default()).await;
}
