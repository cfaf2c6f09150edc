//! Bodies that come slowly, or not at all.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Backend, PATIENCE};

/// What a backend's memory must stay under, in bytes.
const MEMORY: u64 = 200 * 1024 * 1024;
const UPLOADS: usize = 1_000;

/// The whole answer: a connection that was not read to its end is closed after it.
async fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = Vec::new();
    // A reset may follow the answer, as the rest of the body was not read.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("no answer");
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.unwrap_or_default(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_uploads_of_one_user_harm_nobody_else() {
    let backend = Backend::start(&[], &[("ASGARD_BODY_PAUSE_S", "20"), ("ASGARD_LOG", "error")]).await;
    let part = vec![b' '; 400 * 1024];
    // Each sends a part of the largest body, and then nothing more.
    let uploads = join_all((0..UPLOADS).map(|_| backend.upload("slow", 4_000_000, &part))).await;
    let echo = json!({"text": "x"});
    for _ in 0..200 {
        let other = backend.call("other", "echo", echo.clone()).send().await.unwrap();
        assert_eq!(other.status(), 200, "{}", other.text().await.unwrap());
    }
    let held = backend.memory("VmHWM");
    assert!(held < MEMORY, "{} MB", held >> 20);
    println!("{UPLOADS} uploads of {} kB each: {} MB at most", part.len() >> 10, held >> 20);
    // The user's own share is used up, and the errors say so.
    let own = backend.upload("slow", 4_000_000, &part).await;
    let (status, text) = answer(own).await;
    assert!(status == 429 && text.contains("You have too many") && text.contains("retry-after"), "{text}");
    // Those within the share end when nothing more comes of them.
    let mut statuses = BTreeMap::new();
    for (status, text) in join_all(uploads.into_iter().map(answer)).await {
        match status {
            408 => assert!(text.contains("Nothing of the body has come for 20 s"), "{text}"),
            429 => assert!(text.contains("You have too many"), "{text}"),
            // The answer was lost with the connection, which still sent.
            0 => {}
            other => panic!("{other}: {text}"),
        }
        *statuses.entry(status).or_insert(0) += 1;
    }
    println!("answers: {statuses:?}");
    assert!(statuses[&408] > 10 && statuses.get(&429).is_some_and(|count| *count > 100), "{statuses:?}");
    // And the share is free again.
    let again = backend.call("slow", "echo", echo).send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert!(backend.memory("VmHWM") < MEMORY, "{} MB", backend.memory("VmHWM") >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_time_however_steadily_it_trickles() {
    let backend = Backend::start(&["--body-time-s", "3", "--body-pause-s", "2"], &[]).await;
    let mut trickle = backend.upload("slow", 4_000, b" ").await;
    let (mut reader, mut writer) = trickle.split();
    let mut text = vec![0; 4096];
    let drip = async {
        loop {
            let _ = writer.write_all(b" ").await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let count = tokio::select! {
        () = drip => 0,
        count = tokio::time::timeout(PATIENCE, reader.read(&mut text)) => count.expect("no answer").unwrap(),
    };
    let text = String::from_utf8_lossy(&text[..count]);
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("longer than 3 s to arrive"), "{text}");

    // What is too large is refused by its announcement; what ends early is no request.
    let (status, text) = answer(backend.upload("slow", 4 << 20 | 1, b"").await).await;
    assert_eq!(status, 413, "{text}");
    let mut early = backend.upload("slow", 4_000, b" ").await;
    early.shutdown().await.unwrap();
    let (status, text) = answer(early).await;
    assert!(status == 400 || text.is_empty(), "{text}");
}
