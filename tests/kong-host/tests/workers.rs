//! The shipped files and the filter where Kong has several workers, and where it names requests.
//!
//! Needs the filter's module: `scripts/build-filter`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail

mod common;
#[path = "common/shipped_gateway.rs"]
mod shipped_gateway;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Server, request, send};
use kong_host::{Gateway, Severity};
use serde_json::{Value, json};
use shipped_gateway::{ENDPOINT, Key, ShippedGateway, claims, filter};
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn a_refusal_has_kongs_own_id_and_the_log_has_it_too() {
    let mine = ("X-Request-Id", "0123456789abcdef0123456789abcdef");
    let refused = async |site: &ShippedGateway| {
        let headers = [("Authorization", "Bearer no-token"), mine];
        let answer = send(site.gateway.address(), request("POST", ENDPOINT, &headers, b"{}")).await;
        let kongs = answer.header("x-kong-request-id").unwrap().to_owned();
        let body: Value = serde_json::from_str(&answer.body().await).unwrap();
        assert_eq!(body["request_id"], kongs.as_str());
        assert_ne!(kongs, mine.1);
        assert!(site.gateway.log().has(Severity::Warn, &format!("request={kongs}")), "{kongs}");
        body["reason"].as_str().unwrap().to_owned()
    };
    let site = ShippedGateway::start(Some(filter())).await;
    assert_eq!(refused(&site).await, "token_malformed");
    // Also where the configuration is not known.
    let change = |mut config: Value| {
        config["public_url"] = json!("nonsense");
        config
    };
    let site = ShippedGateway::with(Some(filter()), change).await;
    assert_eq!(refused(&site).await, "misconfigured");
}

/// Two workers, of which one has asked the identity provider for its keys; then the provider hangs. What the second one
/// answers, and how often the provider was asked.
async fn a_cold_workers_answer(share: bool) -> (u16, usize) {
    let key = Key::new("key-1", 7);
    let jwks = json!({"keys": [key.public()]}).to_string();
    let hangs = Arc::new(AtomicBool::new(false));
    let provider = {
        let hangs = hangs.clone();
        Server::start(move |_, mut stream| {
            let (hangs, jwks) = (hangs.clone(), jwks.clone());
            async move {
                if hangs.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{jwks}", jwks.len());
                stream.write_all(answer.as_bytes()).await.is_ok().then_some(stream)
            }
        })
        .await
    };
    let backend = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let mut config = shipped_gateway::filter_config(&provider.address.to_string());
    config["issuers"][0]["jwks"]["timeout_ms"] = json!(500);
    if !share {
        config.as_object_mut().unwrap().remove("shared_data_bytes");
    }
    let backends = [backend.address.to_string()].into_iter();
    let mut setup =
        shipped_gateway::setup(backends, &provider.address.to_string(), config.to_string(), Some(filter()));
    let one = "KONG_NGINX_WORKER_PROCESSES=1";
    assert!(setup.environment.contains(one));
    setup.environment = setup.environment.replace(one, "KONG_NGINX_WORKER_PROCESSES=2");
    let gateway = Gateway::start(setup).await.unwrap();
    let bearer = format!("Bearer {}", key.token(&claims()));
    // Each is a connection of its own, which the workers take in turns.
    let call = async || {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        send(gateway.address(), request("POST", ENDPOINT, &headers, b"{}")).await.status
    };
    assert_eq!(call().await, 200, "{:?}", gateway.log().lines());
    hangs.store(true, Ordering::Relaxed);
    let cold = call().await;
    assert_eq!(call().await, 200, "the first one again");
    (cold, provider.seen().len())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the filter's module: ./asgard test kong"]
async fn a_cold_worker_serves_while_the_identity_provider_hangs() {
    assert_eq!(a_cold_workers_answer(true).await, (200, 1));
    // Without a zone in the filter's configuration each worker is alone.
    assert_eq!(a_cold_workers_answer(false).await, (503, 2));
}
