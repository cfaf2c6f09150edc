use std::time::Duration;

use super::*;
use crate::call::Via;

const GATHER: u64 = 100;

fn message(text: &str) -> Message {
    text.into()
}

fn held(channel: u32, gate: bool) -> State {
    let reach = Reach::Held { channel, from: 0, gate, since: 0, ticket: None };
    State { reach, event_count: 0, cancel: false }
}

fn delivery(state: State) -> Delivery {
    let order = Order {
        server: "s".into(),
        job: "{}".into(),
        era: Era::Stateful,
        via: Via::Pushpin,
        tool: None,
        assertion: String::new(),
        principal: String::new(),
        organisation: String::new(),
        session: None,
        request_id: None,
        lost: "lost".into(),
        node: "n".into(),
        request: 1,
        stream: None,
        retry: None,
        task: None,
    };
    let gather = Duration::from_millis(GATHER);
    Delivery::taken(&order, state, DeliveryLimits::default().with_item_bytes(10).with_gather(gather))
}

fn emitted(delivery: &mut Delivery, texts: &[&str]) {
    texts.iter().for_each(|text| delivery.input(Input::Emitted(message(text))));
}

/// The texts that are to be written down now; none: it waits until then.
fn emit(delivery: &mut Delivery, now: u64) -> Result<Vec<String>, Option<u64>> {
    match delivery.next(now) {
        Action::Emit { first, events } => {
            let action = Action::Emit { first, events: events.clone() };
            let state = delivery.state.clone();
            delivery.replied(&action, Ok(state), now);
            Ok(events.iter().map(|event| event.to_string()).collect())
        }
        Action::Wait { until } => Err(until),
        other => panic!("{other:?}"),
    }
}

/// What goes out until there is nothing more.
fn sent(delivery: &mut Delivery, now: u64) -> Vec<Send> {
    let mut all = Vec::new();
    while let Action::Send { items, .. } = delivery.next(now) {
        delivery.sent(&items, SendOutcome::Sent, now);
        all.extend(items);
    }
    all
}

fn open(delivery: &mut Delivery, channel: u32, now: u64) {
    delivery.input(Input::Seen(Ok(held(channel, false))));
    delivery.input(Input::Subscribed { pushpin: 0, channel });
    let gate = delivery.next(now);
    assert_eq!(gate, Action::Gate { channel });
    delivery.replied(&gate, Ok(held(channel, true)), now);
}

#[test]
fn events_that_follow_each_other_are_written_down_together() {
    let mut delivery = delivery(held(1, false));
    emitted(&mut delivery, &["1"]);
    assert_eq!(emit(&mut delivery, 1_000), Ok(vec!["1".into()]), "the first waits for nothing");
    emitted(&mut delivery, &["2"]);
    assert_eq!(emit(&mut delivery, 1_010), Err(Some(1_000 + GATHER)));
    emitted(&mut delivery, &["3"]);
    assert_eq!(emit(&mut delivery, 1_000 + GATHER), Ok(vec!["2".into(), "3".into()]));
    assert_eq!(emit(&mut delivery, 1_200), Err(None));
    emitted(&mut delivery, &["4"]);
    assert_eq!(emit(&mut delivery, 1_300), Ok(vec!["4".into()]), "after a silence it waits for nothing");
}

#[test]
fn a_question_much_at_once_and_the_end_wait_for_nothing() {
    for what in [
        Input::Asked("question".into()),
        Input::Emitted("more than ten bytes".into()),
        Input::Finished(Some("out".into())),
    ] {
        let mut delivery = delivery(held(1, false));
        emitted(&mut delivery, &["1"]);
        assert_eq!(emit(&mut delivery, 1_000).unwrap().len(), 1);
        emitted(&mut delivery, &["2"]);
        delivery.input(what.clone());
        let expected = if matches!(what, Input::Finished(_)) { 1 } else { 2 };
        assert_eq!(emit(&mut delivery, 1_001).unwrap().len(), expected, "{what:?}");
        emitted(&mut delivery, &["3"]);
        if expected == 2 {
            assert_eq!(emit(&mut delivery, 1_002), Err(Some(1_001 + GATHER)), "{what:?}: only once");
        }
    }
}

#[test]
fn a_subscription_says_that_the_client_is_held() {
    let offered = State {
        reach: Reach::Offered { ticket: crate::id::Ticket::random(), since: 0 },
        event_count: 0,
        cancel: false,
    };
    let mut delivery = delivery(offered.clone());
    assert_eq!(delivery.next(0), Action::Wait { until: None });
    delivery.input(Input::Subscribed { pushpin: 0, channel: 1 });
    let gate = delivery.next(1);
    assert_eq!(gate, Action::Gate { channel: 1 });
    // Not this one: the offer is newer than that channel.
    delivery.replied(&gate, Ok(offered), 1);
    assert_eq!(delivery.next(2), Action::Wait { until: None }, "not asked over and over");
    delivery.input(Input::Subscribed { pushpin: 0, channel: 2 });
    let gate = delivery.next(3);
    assert_eq!(gate, Action::Gate { channel: 2 });
    delivery.replied(&gate, Ok(held(2, true)), 3);
    assert_eq!(delivery.open_channel(), Some((0, 2)));
}

#[test]
fn events_go_out_together_within_the_bytes_of_an_item() {
    let mut delivery = delivery(held(1, false));
    emitted(&mut delivery, &["1234", "5678", "90", "x", "longer than an item", "y"]);
    assert_eq!(emit(&mut delivery, 0).unwrap().len(), 6);
    open(&mut delivery, 1, 0);
    let item =
        |first, events: &[&str]| Send::Events(first, events.iter().map(|text| message(text)).collect());
    assert_eq!(
        sent(&mut delivery, 1),
        [
            item(1, &["1234", "5678", "90"]),
            Send::Event(4, message("x")),
            Send::Event(5, message("longer than an item")),
            Send::Event(6, message("y")),
        ]
    );
}

#[test]
fn what_was_one_item_on_a_channel_is_one_there_for_ever() {
    let mut delivery = delivery(held(1, false));
    emitted(&mut delivery, &["1"]);
    assert!(emit(&mut delivery, 0).is_ok());
    open(&mut delivery, 1, 0);
    let first = Send::Event(1, message("1"));
    assert_eq!(delivery.next(1), Action::Send { pushpin: 0, channel: 1, items: vec![first.clone()] });
    // It may have arrived all the same: its id is known to Pushpin then, with this one event.
    delivery.sent(std::slice::from_ref(&first), SendOutcome::NotSent, 1);
    delivery.input(Input::Link { pushpin: 0, link: Link::Down });
    emitted(&mut delivery, &["2", "3"]);
    assert_eq!(emit(&mut delivery, GATHER).unwrap().len(), 2);
    open(&mut delivery, 1, GATHER);
    let rest = Send::Events(2, vec![message("2"), message("3")]);
    assert_eq!(sent(&mut delivery, GATHER + 1), [first, rest]);
    // On another channel nothing has an id yet.
    delivery.input(Input::Unsubscribed { pushpin: 0, channel: 1 });
    assert_eq!(delivery.next(GATHER + 2), Action::Lost { channel: 1 });
    delivery.replied(&Action::Lost { channel: 1 }, Ok(held(2, false)), GATHER + 2);
    open(&mut delivery, 2, GATHER + 2);
    let all = Send::Events(1, vec![message("1"), message("2"), message("3")]);
    assert_eq!(sent(&mut delivery, GATHER + 3), [all]);
}

#[test]
fn what_a_tool_says_last_goes_out_before_its_answer_is_stored() {
    for outcome in [SendOutcome::Sent, SendOutcome::NotSent] {
        let mut delivery = delivery(held(1, false));
        open(&mut delivery, 1, 0);
        emitted(&mut delivery, &["1"]);
        assert!(emit(&mut delivery, 0).is_ok());
        assert_eq!(sent(&mut delivery, 0).len(), 1);
        emitted(&mut delivery, &["2"]);
        delivery.input(Input::Finished(Some("out".into())));
        assert_eq!(emit(&mut delivery, 1), Ok(vec!["2".into()]));
        let last = Send::Event(2, message("2"));
        assert_eq!(delivery.next(1), Action::Send { pushpin: 0, channel: 1, items: vec![last.clone()] });
        delivery.sent(std::slice::from_ref(&last), outcome, 1);
        // Whether or not it could be sent: the answer is not held back.
        let finish = Action::Finish { out: "out".into() };
        assert_eq!(delivery.next(1), finish);
        delivery.replied(&finish, Ok(held(1, true)), 1);
        let answer = Send::Final(3, "out".into());
        let rest = if outcome == SendOutcome::Sent { vec![answer] } else { vec![last, answer] };
        let all = sent(&mut delivery, 1);
        assert_eq!(all.iter().filter(|item| **item != Send::Close).cloned().collect::<Vec<_>>(), rest);
    }
}
