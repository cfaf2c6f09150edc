//! Links between real sides, and sides that are none.

mod discovery;
mod frames;
mod hostile;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Address, Calls, Dispatch, Identity, LinkKeys, LinkLimits, Links, Listener, Peer};
use crate::call::direct::{DirectInput, Heard};
use crate::call::{Order, Via};
use crate::id::CallId;
use crate::protocol::Era;

/// A worker that notes what comes, and answers as it is told.
#[derive(Default)]
struct Worker {
    free: u32,
    dispatched: Mutex<Vec<(Peer, Dispatch)>>,
    inputs: Mutex<Vec<(CallId, DirectInput)>>,
    answers: bool,
}

impl Calls for Worker {
    fn free(&self) -> u32 {
        self.free
    }

    fn dispatch(&self, from: &Peer, dispatch: Dispatch) {
        if self.answers {
            from.answer(dispatch.call, &dispatch.order.job);
        }
        self.dispatched.lock().unwrap().push((from.clone(), dispatch));
    }

    fn input(&self, _from: &Peer, call: CallId, input: DirectInput) {
        self.inputs.lock().unwrap().push((call, input));
    }
}

fn worker(free: u32, answers: bool) -> Arc<Worker> {
    Arc::new(Worker { free, answers, ..Worker::default() })
}

fn key(byte: u8) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode([byte; 32])
}

fn identity(name: &str, keys: &str) -> Identity {
    Identity { name: name.into(), server: "s".into(), keys: LinkKeys::parse(keys).unwrap() }
}

/// Short times, so that a silence shows soon.
fn limits() -> LinkLimits {
    LinkLimits::default().with_beat(Duration::from_millis(50)).with_lease(Duration::from_millis(300))
}

fn order(job: &str) -> Order {
    Order {
        server: "s".into(),
        job: job.into(),
        era: Era::Stateless,
        via: Via::Pushpin,
        tool: Some("report".into()),
        assertion: "a".into(),
        principal: "p".into(),
        organisation: "o".into(),
        session: None,
        request_id: Some("1".into()),
        lost: "lost".into(),
        node: "a".into(),
        request: 1,
        stream: None,
        retry: None,
        task: None,
    }
}

/// A worker's listener at work, until the guard is dropped.
struct Listening {
    address: Address,
    _ended: tokio_util::sync::DropGuard,
}

fn listen(at: &Address, own: Identity, calls: Arc<Worker>) -> Listening {
    let listener = Listener::bind(at).unwrap();
    let (address, ended) = (listener.address().clone(), CancellationToken::new());
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move { listener.run(own, calls, limits(), ended).await.unwrap() });
    Listening { address, _ended: guard }
}

/// A backend with a link in memory to this worker.
async fn linked(calls: Arc<Worker>) -> Links {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let links = Links::new(identity("a", &key(1)), limits());
    let (attached, ended) = (links.clone(), CancellationToken::new());
    tokio::spawn(async move { super::serve(far, &identity("w", &key(1)), calls, limits(), &ended).await });
    tokio::spawn(async move { attached.attach(near).await });
    until("a link with free slots", || links.free() > 0).await;
    links
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const HOLD: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_call_goes_to_a_worker_and_its_answer_comes_back() {
    let (calls, call) = (worker(4, true), CallId::random());
    let links = linked(calls.clone()).await;
    let mut direct = links.dispatch(call, &order("{\"ü\":1}"), HOLD, None).unwrap();
    assert_eq!(direct.worker(), "w");
    assert_eq!(direct.heard().await, Heard::Answer("{\"ü\":1}".into()));
    let dispatched = calls.dispatched.lock().unwrap();
    let (peer, dispatch) = dispatched.first().unwrap();
    assert_eq!(peer.name(), "a");
    assert_eq!(dispatch.order, order("{\"ü\":1}"));
    assert_eq!((dispatch.call, dispatch.left), (call, HOLD));
    assert!(dispatch.seen > 0 && peer.is_fresh(dispatch.seen));
}

#[tokio::test]
async fn long_messages_go_in_parts_and_let_short_ones_pass() {
    let calls = worker(100, true);
    let links = linked(calls).await;
    let long = format!("[\"{}\"]", "x".repeat(1024 * 1024));
    let mut many = Vec::new();
    for _ in 0..3 {
        let direct = links.dispatch(CallId::random(), &order(&long), HOLD, None);
        many.push(direct.unwrap());
    }
    // 4 MiB wait at most; they are written by turns.
    assert!(links.dispatch(CallId::random(), &order(&long), HOLD, None).is_none(), "full");
    let mut short = links.dispatch(CallId::random(), &order("short"), HOLD, None).unwrap();
    let first = tokio::select! {
        biased;
        heard = many[0].heard() => heard,
        heard = short.heard() => heard,
    };
    assert_eq!(first, Heard::Answer("short".into()));
    for direct in &mut many {
        assert_eq!(direct.heard().await, Heard::Answer(long.as_str().into()));
    }
    let longer = "x".repeat(super::MESSAGE);
    assert!(links.dispatch(CallId::random(), &order(&longer), HOLD, None).is_none(), "too long for a link");
}

#[tokio::test]
async fn what_a_worker_says_reaches_its_call_and_no_other() {
    let calls = worker(4, false);
    let links = linked(calls.clone()).await;
    let [one, two] = [CallId::random(), CallId::random()];
    let mut first = links.dispatch(one, &order("1"), HOLD, None).unwrap();
    let mut second = links.dispatch(two, &order("2"), HOLD, None).unwrap();
    until("both came", || calls.dispatched.lock().unwrap().len() == 2).await;
    let peer = calls.dispatched.lock().unwrap()[0].0.clone();
    peer.registered(two);
    peer.hint(two);
    peer.busy(one);
    assert_eq!(first.heard().await, Heard::Busy);
    assert_eq!(second.heard().await, Heard::Registered);
    assert_eq!(second.heard().await, Heard::Hint);
    second.cancel();
    // An answer in doubt is confirmed, also when nobody waits for it any more.
    drop(first);
    peer.answer_in_doubt(one, &"out".into());
    until("cancelled and confirmed", || calls.inputs.lock().unwrap().len() == 2).await;
    let inputs = calls.inputs.lock().unwrap();
    assert!(
        inputs.contains(&(two, DirectInput::Cancel)) && inputs.contains(&(one, DirectInput::Got)),
        "{inputs:?}"
    );
}

#[tokio::test]
async fn each_side_sees_that_the_other_is_gone() {
    let calls = worker(4, false);
    let links = linked(calls.clone()).await;
    let mut direct = links.dispatch(CallId::random(), &order("1"), HOLD, None).unwrap();
    until("it came", || !calls.dispatched.lock().unwrap().is_empty()).await;
    let peer = calls.dispatched.lock().unwrap()[0].0.clone();
    peer.close();
    assert_eq!(direct.heard().await, Heard::Broken);
    tokio::time::timeout(Duration::from_secs(10), peer.broken()).await.unwrap();
    assert!(!peer.hint(CallId::random()) && links.workers().is_empty());
    assert!(links.dispatch(CallId::random(), &order("1"), HOLD, None).is_none());
}

#[tokio::test]
async fn a_call_whose_backend_saw_no_heartbeat_for_a_lease_is_stale() {
    let calls = worker(4, false);
    let links = linked(calls.clone()).await;
    drop(links.dispatch(CallId::random(), &order("1"), HOLD, None).unwrap());
    until("it came", || !calls.dispatched.lock().unwrap().is_empty()).await;
    let (peer, seen) = {
        let dispatched = calls.dispatched.lock().unwrap();
        (dispatched[0].0.clone(), dispatched[0].1.seen)
    };
    assert!(peer.is_fresh(seen));
    until("a lease later", || !peer.is_fresh(seen)).await;
    assert!(!peer.is_fresh(seen + 1_000_000), "one that was never sent");
}

#[tokio::test]
async fn without_a_free_slot_there_is_no_direct_call() {
    let (full, calls) = (worker(0, true), worker(1, false));
    let listening = listen(&"127.0.0.1:0".parse().unwrap(), identity("full", &key(1)), full);
    let links = Links::new(identity("a", &key(1)), limits());
    let Address::Tcp(at) = &listening.address else { panic!("not TCP") };
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let attached = links.clone();
    tokio::spawn(async move { attached.attach(stream).await });
    until("a link", || links.workers() == ["full"]).await;
    assert!(links.dispatch(CallId::random(), &order("1"), HOLD, None).is_none());
    drop(calls);

    // One slot: the second call has none, until a heartbeat says otherwise.
    let calls = worker(1, false);
    let links = linked(calls).await;
    let one = links.dispatch(CallId::random(), &order("1"), HOLD, None);
    assert!(one.is_some() && links.dispatch(CallId::random(), &order("2"), HOLD, None).is_none());
    until("a heartbeat", || links.dispatch(CallId::random(), &order("2"), HOLD, None).is_some()).await;
    assert!(links.dispatch(CallId::random(), &order("2"), HOLD, Some("w")).is_none(), "it was busy");
}

#[tokio::test]
async fn calls_one_after_the_other_are_shared_whatever_was_last_heard_of_free_slots() {
    let links = Links::new(identity("a", &key(1)), limits());
    let listening = [("one", 8), ("two", 7)].map(|(name, free)| {
        listen(&"127.0.0.1:0".parse().unwrap(), identity(name, &key(1)), worker(free, true))
    });
    for Listening { address, .. } in &listening {
        let Address::Tcp(at) = address else { panic!("not TCP") };
        let (stream, attached) = (tokio::net::TcpStream::connect(at).await.unwrap(), links.clone());
        tokio::spawn(async move { attached.attach(stream).await });
    }
    until("two links with free slots", || links.free() == 15).await;
    let mut taken = std::collections::HashSet::new();
    // By chance both of them but once in 2^40.
    for number in 0..40 {
        let mut direct = links.dispatch(CallId::random(), &order("1"), HOLD, None).unwrap();
        assert_eq!(direct.heard().await, Heard::Answer("1".into()), "call {number}");
        taken.insert(direct.worker().to_owned());
    }
    assert_eq!(taken.len(), 2, "one worker took all: {taken:?}");
    // Of calls that are under way each has its half.
    let under_way: Vec<_> =
        (0..8).map(|_| links.dispatch(CallId::random(), &order("1"), HOLD, None).unwrap()).collect();
    let of_one = under_way.iter().filter(|direct| direct.worker() == "one").count();
    assert_eq!(of_one, 4);
}

#[tokio::test]
async fn a_unix_socket_is_a_link_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let at: Address = format!("unix:{}", folder.path().join("w.sock").display()).parse().unwrap();
    for round in 0..2 {
        // The second finds the socket of the first.
        let listening = listen(&at, identity("w", &key(1)), worker(1, true));
        let links = Links::new(identity("a", &key(1)), limits());
        let Address::Unix(path) = &listening.address else { panic!("not a Unix socket") };
        let stream = tokio::net::UnixStream::connect(path).await.unwrap();
        let attached = links.clone();
        tokio::spawn(async move { attached.attach(stream).await });
        until("a link", || links.free() > 0).await;
        let mut direct = links.dispatch(CallId::random(), &order("1"), HOLD, None).unwrap();
        assert_eq!(direct.heard().await, Heard::Answer("1".into()), "round {round}");
        drop(listening);
        assert_eq!(direct.heard().await, Heard::Broken);
    }
}
