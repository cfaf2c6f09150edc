//! Backends find workers by the store, and keep what they have while it is silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::announce;
use super::{HOLD, Links, identity, key, limits, listen, order, until, worker};
use crate::call::Timing;
use crate::call::direct::Heard;
use crate::id::CallId;
use crate::store::{Bus, MemoryStore, StoreLimits};

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Timing::default(), StoreLimits::default()))
}

/// A worker that is announced until the guards are dropped.
fn announced(store: &Arc<MemoryStore>, name: &str) -> (super::Listening, DropGuard) {
    let own = identity(name, &key(1));
    let listening = listen(&"127.0.0.1:0".parse().unwrap(), own.clone(), worker(4, true));
    let (store, address, ended) = (store.clone(), listening.address.clone(), CancellationToken::new());
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move { announce(store, &own, &address, &ended).await });
    (listening, guard)
}

fn follow(store: &Arc<MemoryStore>, name: &str) -> Links {
    let links = Links::new(identity(name, &key(1)), limits());
    tokio::spawn(links.clone().follow(store.clone()));
    links
}

/// Waits until the backend has looked at the store twice.
async fn looked(store: &MemoryStore) {
    for _ in 0..2 {
        store.leave("linked:s", "a").await.unwrap();
        until("the backend looks", || {
            let members = futures::executor::block_on(store.members("linked:s")).unwrap();
            members.contains(&"a".to_owned())
        })
        .await;
    }
}

fn names(links: &Links) -> BTreeSet<String> {
    links.workers().into_iter().collect()
}

#[tokio::test]
async fn links_come_and_go_with_the_workers() {
    let store = store();
    let (one, two) = (announced(&store, "w1"), announced(&store, "w2"));
    let links = follow(&store, "a");
    until("links to both", || links.workers().len() == 2 && links.free() >= 8).await;
    let mut direct = links.dispatch(CallId::random(), &order("1"), HOLD, Some("w1")).unwrap();
    assert_eq!(direct.worker(), "w2");
    assert_eq!(direct.heard().await, Heard::Answer("1".into()));
    drop(one);
    until("one is gone", || names(&links) == BTreeSet::from(["w2".into()])).await;
    // What is announced and not there costs nothing; a link that broke comes back.
    let third = announced(&store, "w3");
    until("a new one", || names(&links).contains("w3")).await;
    // The store knows nobody any more: links that stand are kept.
    store.forget();
    for worker in ["w1", "w2", "w3"] {
        let members = store.members("links:s").await.unwrap();
        for member in members.iter().filter(|member| member.starts_with(worker)) {
            store.leave("links:s", member).await.unwrap();
        }
    }
    looked(&store).await;
    assert!(names(&links).is_superset(&BTreeSet::from(["w2".into(), "w3".into()])));
    drop((two, third));
    until("all are gone", || links.workers().is_empty()).await;
}

#[tokio::test]
async fn a_backend_keeps_links_to_some_of_many_workers() {
    let store = store();
    let workers: Vec<_> = (0..12).map(|n| announced(&store, &format!("w{n}"))).collect();
    // As many backends as there are in a site: each has eight of twelve.
    for n in 0..12 {
        store.enter("linked:s", &format!("b{n}"), Duration::from_secs(60), 100).await.unwrap();
    }
    until("all are announced", || {
        let members = futures::executor::block_on(store.members("links:s")).unwrap();
        members.len() == 12
    })
    .await;
    let links = follow(&store, "a");
    until("eight links", || links.workers().len() == 8 && links.free() >= 32).await;
    looked(&store).await;
    assert_eq!(names(&links).len(), 8);
    drop(workers);
}
