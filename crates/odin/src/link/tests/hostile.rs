//! Sides that are not who they should be.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use super::super::frame::FrameCodec;
use super::super::{InvalidLinkKeys, NoLink, greeting, serve};
use super::{HOLD, Identity, LinkKeys, Links, identity, key, limits, linked, order, until, worker};
use crate::call::{Order, direct::Heard};
use crate::id::CallId;

type Served = JoinHandle<Result<(), NoLink>>;

fn served(own: Identity) -> (DuplexStream, Served) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let ended = CancellationToken::new();
    (near, tokio::spawn(async move { serve(far, &own, worker(4, true), limits(), &ended).await }))
}

/// What both sides say when they meet.
async fn meet(backend: Identity, own: Identity) -> (Result<(), NoLink>, Result<(), NoLink>) {
    let (near, served) = served(own);
    let links = Links::new(backend, limits());
    let attached = links.clone();
    let attached = tokio::spawn(async move { attached.attach(near).await });
    let deadline = Instant::now() + Duration::from_secs(5);
    while !served.is_finished() && Instant::now() < deadline && links.free() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(links);
    attached.abort();
    let near = attached.await.unwrap_or(Ok(()));
    (near, served.await.unwrap())
}

#[tokio::test]
async fn both_sides_need_one_of_the_keys() {
    let (one, two) = (key(1), key(2));
    let (new_first, old_first) = (format!("{two},{one}"), format!("{one},{two}"));
    // As a key is changed, on one node after the other.
    let both = [&new_first, &old_first];
    let alike = [(&one, &one), (&new_first, &old_first), (&two, &two)];
    let pairs = both.iter().flat_map(|both| [(&one, *both), (*both, &one), (&two, *both), (*both, &two)]);
    for (backend, worker) in alike.into_iter().chain(pairs) {
        let (near, far) = meet(identity("a", backend), identity("w", worker)).await;
        assert!(near.is_ok() && far.is_ok(), "{near:?} {far:?}");
    }
    let (near, far) = meet(identity("a", &one), identity("w", &two)).await;
    assert!(matches!(near, Err(NoLink::Key)), "{near:?}");
    assert!(far.is_err());
}

#[tokio::test]
async fn a_worker_of_another_server_refuses_and_says_so() {
    let other = Identity { server: "other".into(), ..identity("w", &key(1)) };
    let (near, far) = meet(identity("a", &key(1)), other).await;
    assert!(near.unwrap_err().to_string().contains("another server"));
    assert!(far.is_err());
}

#[test]
fn keys_are_long_enough_and_not_too_many() {
    assert!(LinkKeys::parse(&format!("{}, {}", key(1), key(2))).is_ok());
    assert_eq!(LinkKeys::parse("").unwrap_err(), InvalidLinkKeys::Count(0));
    assert_eq!(LinkKeys::parse(&[key(1), key(2), key(3)].join(",")).unwrap_err(), InvalidLinkKeys::Count(3));
    assert_eq!(LinkKeys::parse("AAAA").unwrap_err(), InvalidLinkKeys::Short(3));
    assert_eq!(LinkKeys::parse("?").unwrap_err(), InvalidLinkKeys::Encoding);
    assert!(!format!("{:?}", LinkKeys::parse(&key(1)).unwrap()).contains(&key(1)));
}

/// A frame of the greeting, as the other side would write it.
fn frame(kind: u8, body: &str) -> Vec<u8> {
    let mut frame = (18 + body.len() as u32).to_be_bytes().to_vec();
    frame.extend([kind, 0]);
    frame.extend([0; 16]);
    frame.extend(body.as_bytes());
    frame
}

#[tokio::test]
async fn what_does_not_greet_is_turned_away() {
    let hello = r#"{"versions":[1],"name":"a","server":"s","nonce":"n"}"#;
    let cases: [(&str, Vec<Vec<u8>>); 7] = [
        ("no version in common", vec![frame(1, &hello.replace("[1]", "[7,9]"))]),
        ("a frame of 2", vec![2_000_000_000u32.to_be_bytes().to_vec()]),
        ("out of turn", vec![frame(16, "{}")]),
        ("none of this node's link keys", vec![frame(1, hello), frame(3, r#"{"proof":"AAAA"}"#)]),
        ("none of this node's link keys", vec![frame(1, hello), frame(3, r#"{"proof":""}"#)]),
        ("missing field", vec![frame(1, "{}")]),
        ("too long", vec![frame(1, &hello.replace("\"a\"", &format!("{:?}", "a".repeat(300))))]),
    ];
    for (why, frames) in cases {
        let (mut near, served) = served(identity("w", &key(1)));
        for frame in frames {
            let _ = near.write_all(&frame).await;
        }
        let error = tokio::time::timeout(Duration::from_secs(5), served).await.unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let (near, served) = served(identity("w", &key(1)));
    drop(near);
    assert!(served.await.unwrap().is_err());
}

#[tokio::test]
async fn who_says_nothing_is_turned_away_in_time() {
    let (_near, served) = served(identity("w", &key(1)));
    let error = tokio::time::timeout(Duration::from_secs(10), served).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, NoLink::Silent), "{error}");
    let (near, _far) = tokio::io::duplex(1024);
    let links = Links::new(identity("a", &key(1)), limits());
    let error = tokio::time::timeout(Duration::from_secs(10), links.attach(near)).await.unwrap().unwrap_err();
    assert!(matches!(error, NoLink::Silent), "{error}");
}

#[tokio::test]
async fn a_link_that_goes_silent_breaks_on_both_sides() {
    let (near, middle) = tokio::io::duplex(64 * 1024);
    let (other, far) = tokio::io::duplex(64 * 1024);
    let calls = worker(4, false);
    let (own, ended) = (identity("w", &key(1)), CancellationToken::new());
    let served = tokio::spawn({
        let calls = calls.clone();
        async move { serve(far, &own, calls, limits(), &ended).await }
    });
    let stop = CancellationToken::new();
    // A wire that carries nothing from then on, and is not closed.
    let wire = tokio::spawn({
        let stop = stop.clone();
        async move {
            let (mut middle, mut other) = (middle, other);
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut middle, &mut other) => {}
                () = stop.cancelled() => std::future::pending::<()>().await,
            }
        }
    });
    let links = Links::new(identity("a", &key(1)), limits());
    let attached = links.clone();
    tokio::spawn(async move { attached.attach(near).await });
    until("a link", || links.free() > 0).await;
    let mut direct = links.dispatch(CallId::random(), &order("1"), HOLD, None).unwrap();
    until("it came", || !calls.dispatched.lock().unwrap().is_empty()).await;
    let begun = Instant::now();
    stop.cancel();
    assert_eq!(direct.heard().await, Heard::Broken);
    assert!(begun.elapsed() >= limits().lease - limits().beat, "not before a lease of silence");
    assert!(served.await.unwrap().is_ok());
    wire.abort();
}

/// A backend that has the key, and then does as it likes.
async fn greeted() -> (Framed<DuplexStream, FrameCodec>, Served) {
    let (near, served) = served(identity("w", &key(1)));
    let mut framed = Framed::new(near, FrameCodec::for_greeting());
    assert_eq!(greeting::call(&mut framed, &identity("a", &key(1))).await.unwrap(), "w");
    (framed, served)
}

#[tokio::test]
async fn noise_after_the_greeting_breaks_the_link() {
    for noise in [&[0xff; 64][..], &frame(99, "?"), &frame(16, "{}"), &frame(8, "")] {
        let (mut backend, served) = greeted().await;
        backend.get_mut().write_all(noise).await.unwrap();
        tokio::time::timeout(limits().lease * 5, served).await.unwrap().unwrap().unwrap();
        let mut rest = Vec::new();
        backend.get_mut().read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_later_release_may_add_is_skipped() {
    let (mut backend, served) = greeted().await;
    backend.get_mut().write_all(&frame(200, "news")).await.unwrap();
    backend.get_mut().write_all(&frame(17, "")).await.unwrap();
    let mut beat = [0; 4 + 18 + 12];
    for _ in 0..3 {
        backend.get_mut().read_exact(&mut beat).await.unwrap();
        backend.get_mut().write_all(&frame(200, "more")).await.unwrap();
    }
    assert!(!served.is_finished());
}

#[tokio::test]
async fn a_call_of_another_server_breaks_the_link() {
    let calls = worker(4, true);
    let links = linked(calls.clone()).await;
    let foreign = Order { server: "other".into(), ..order("1") };
    let mut direct = links.dispatch(CallId::random(), &foreign, HOLD, None).unwrap();
    assert_eq!(direct.heard().await, Heard::Broken);
    assert!(calls.dispatched.lock().unwrap().is_empty());
}
