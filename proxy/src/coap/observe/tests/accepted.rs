//! Accepted calls that are observed.

use super::*;

const NOT_ENDED: &[u8] = br#"{"outcome":"accepted"}"#;

/// What an answer says: its code, Observe, Content-Format and Max-Age.
fn said(packet: &Packet) -> (String, bool, Option<u8>, Option<u8>) {
    let number = |option| packet.get_first_option(option).map(|value| value.first().copied().unwrap_or(0));
    let observed = number(CoapOption::Observe).is_some();
    (packet.header.get_code(), observed, number(CoapOption::ContentFormat), number(CoapOption::MaxAge))
}

#[test]
fn the_end_of_a_call_is_told_once_in_a_message_that_is_no_notification() {
    let mut door = Door::new(CoapConfig::default());
    let answer = door.get_call(1, 1, &[], &[]);
    assert_eq!(said(&answer), ("2.05".to_owned(), true, Some(50), None));
    assert_eq!(answer.payload, NOT_ENDED);
    assert!(door.outputs.is_watched());
    let ended = Response { content_format: Some(60), payload: "done".into(), ..Response::new(ResponseType::Content) };
    let told = door.end_call(&ended);
    let [(to, last)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*to, last.get_token(), last.header.get_type()), (peer(1), &[1][..], Confirmable));
    assert_eq!((said(last), last.payload.as_slice()), (("2.05".to_owned(), false, Some(60), None), &b"done"[..]));
    assert!(!door.outputs.is_watched(), "nothing is left to observe");
    assert!(door.end_call(&ended).is_empty(), "it is told once");
    // It is sent until it is acknowledged, as an answer that comes late is.
    let again = door.pass(4 * SECOND);
    assert!(!again.is_empty() && again.iter().all(|(_, packet, _)| packet == last));
    door.acknowledge(&peer(1), last);
    assert!(door.pass(Duration::from_secs(400)).is_empty());
    assert_eq!(door.counters.observers_answered.get(), 1);
    assert!(door.layers.is_empty(), "{:?}", door.layers);
}

#[test]
fn an_end_for_many_is_told_in_turns_and_leaves_others_alone() {
    let mut door = Door::new(CoapConfig::default());
    let many = 600;
    for number in 0..many {
        // Some observe a function besides, and one of them observes the call twice.
        if number % 3 == 0 {
            door.observe(number, 2, "f");
        }
        assert!(said(&door.get_call(number, 1, &[], &[])).1);
    }
    assert!(said(&door.get_call(7, 3, &[], &[])).1);
    let failed = Response::error(ResponseType::InternalServerError, "it broke");
    let mut told = Vec::new();
    for expected in [TURNS_AT_ONCE, TURNS_AT_ONCE, many as usize + 1 - 2 * TURNS_AT_ONCE, 0] {
        let sent = door.end_call(&failed);
        assert_eq!(sent.len(), expected);
        told.extend(sent);
    }
    let mut peers: Vec<_> = told.iter().map(|(to, packet)| (to.remote, packet.get_token()[0])).collect();
    peers.sort();
    let mut expected: Vec<_> = (0..many).map(|number| (peer(number).remote, 1)).chain([(peer(7).remote, 3)]).collect();
    expected.sort();
    assert_eq!(peers, expected, "each was told, under its token");
    assert!(told.iter().all(|(_, packet)| said(packet) == ("5.00".to_owned(), false, None, Some(0))));
    told.iter().for_each(|(to, packet)| door.acknowledge(to, packet));
    door.publish("f", "x");
    assert_eq!(door.pass(Duration::ZERO).len(), 200, "who observes the function still does");
    door.pass(Duration::from_secs(400));
    assert_eq!(door.counters.observers_answered.get(), 601);
    assert!(door.layers.is_empty() && !door.outputs.is_watched());
}

#[test]
fn a_call_that_is_observed_no_more_or_not_for_want_of_room_is_told_as_to_one_who_asks_again() {
    let mut door = Door::new(CoapConfig { observers_max: 1, ..CoapConfig::default() });
    assert!(said(&door.get_call(1, 1, &[], &[])).1);
    let full = door.get_call(2, 1, &[], &[]);
    assert_eq!((said(&full), full.payload.as_slice()), (("2.05".to_owned(), false, Some(50), Some(1)), NOT_ENDED));
    let stopped = door.get_call(1, 1, &[1], &[]);
    assert_eq!(
        (said(&stopped), stopped.payload.as_slice()),
        (("2.05".to_owned(), false, Some(50), Some(1)), NOT_ENDED)
    );
    assert!(door.end_call(&Response::new(ResponseType::Content)).is_empty() && !door.outputs.is_watched());
    assert_eq!((door.counters.observers_refused.get(), door.counters.observers_cancelled.get()), (1, 1));
}

#[test]
fn only_the_answer_to_a_call_has_to_have_the_format_that_is_asked_for() {
    let mut door = Door::new(CoapConfig::default());
    let answer = door.get_call(1, 1, &[], &[(CoapOption::Accept, &[60])]);
    assert_eq!((said(&answer), answer.payload.len()), (("2.05".to_owned(), true, None, None), 0));
    assert!(said(&door.get_call(2, 1, &[], &[])).1);
    let by_format = |accept: Option<u16>| {
        let code = if accept == Some(60) { ResponseType::NotAcceptable } else { ResponseType::Content };
        Response::new(code)
    };
    let told = door.layers.call_ended(&watched_call(), by_format, door.now);
    let mut codes: Vec<_> =
        told.iter().map(|sent| (sent.to.remote, Packet::from_bytes(&sent.bytes).unwrap().header.get_code())).collect();
    codes.sort();
    assert_eq!(codes, [(peer(1).remote, "4.06".to_owned()), (peer(2).remote, "2.05".to_owned())]);
}

#[test]
fn a_call_in_blocks_is_begun_and_ended_in_such_as_were_asked_for() {
    let mut door = Door::new(CoapConfig::default());
    let mut first = door.get_call(1, 1, &[], &[(CoapOption::Block2, &[0])]);
    let ended = Response {
        etag: Some(Box::from([3])),
        payload: b"an answer of more than sixteen bytes".as_slice().into(),
        ..Response::new(ResponseType::Content)
    };
    for (whole, observed) in [(NOT_ENDED, true), (&ended.payload[..], false)] {
        assert_eq!((said(&first).1, first.payload.as_slice()), (observed, &whole[..16]));
        let mut payload = first.payload.clone();
        for number in 1..u8::try_from(whole.len().div_ceil(16)).unwrap() {
            let target = Target::Accepted { application: "a".to_owned(), ticket: TICKET };
            let path = ["a", ".calls", &TICKET.to_string()];
            // A later block is asked for without Observe; a value that asks for nothing stands for that.
            let next = door.ask(1, 9, target, &path, &[2], &[(CoapOption::Block2, &[number << 4])]);
            assert_eq!(next.get_first_option(CoapOption::ETag), first.get_first_option(CoapOption::ETag));
            payload.extend(next.payload);
        }
        assert_eq!(payload, whole);
        if observed {
            first = door.end_call(&ended).remove(0).1;
        }
    }
}

#[test]
fn a_peer_that_observes_a_call_for_days_is_asked_for_a_sign_of_life() {
    let config = CoapConfig::default();
    let (day, mut door) = (config.observe_idle_max, Door::new(config));
    assert!(said(&door.get_call(1, 1, &[], &[])).1);
    let sent = door.pass(day + SECOND);
    let [(_, packet, _)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((said(packet), packet.payload.as_slice()), (("2.05".to_owned(), true, Some(50), None), NOT_ENDED));
    // It is not, and the call ends meanwhile: the answer takes its place.
    assert_eq!(door.end_call(&Response::new(ResponseType::Content)).len(), 1);
    assert!(door.pass(400 * SECOND).iter().all(|(_, packet, _)| !said(packet).1));
    assert_eq!((door.counters.observers_answered.get(), door.counters.observers_unreachable.get()), (1, 0));
    door.pass(400 * SECOND);
    assert!(door.layers.is_empty() && !door.outputs.is_watched());
}
