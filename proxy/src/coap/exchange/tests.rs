use super::*;
use crate::coap::message::{Received, read};
use coap_lite::{Packet, ResponseType};

fn peer(port: u16) -> Endpoint {
    Endpoint { remote: std::net::SocketAddr::from(([127, 0, 0, 1], port)), local: None, session: None }
}

/// A GET with a token of one byte.
fn get(confirmable: bool, id: u16, token: u8) -> Message {
    let [high, low] = id.to_be_bytes();
    let first = if confirmable { 0x41 } else { 0x51 };
    let Received::Request(message) = read(&[first, 1, high, low, token], 64) else {
        panic!("no request");
    };
    message
}

fn exchanges(config: CoapConfig) -> (Exchanges, Instant) {
    let now = Instant::now();
    let counters = Arc::new(CoapCounters::default());
    (Exchanges::new(Arc::new(config), counters, now), now)
}

fn content() -> Response {
    Response { payload: "answer".into(), ..Response::new(ResponseType::Content) }
}

fn repeated(recall: Recall) -> Option<Transmit> {
    let Recall::Repeated(again) = recall else {
        panic!("{recall:?}");
    };
    again
}

fn decoded(transmit: &Transmit) -> (MessageType, u16, Vec<u8>) {
    let packet = Packet::from_bytes(&transmit.bytes).unwrap();
    (packet.header.get_type(), packet.header.message_id, packet.payload)
}

fn ticked(exchanges: &mut Exchanges, now: Instant) -> Vec<Transmit> {
    let mut out = Vec::new();
    exchanges.tick(now, &mut out);
    out
}

const CALL: Need = Need::Call { payload_bytes: 0 };

#[test]
fn a_repeated_request_gets_the_same_answer() {
    let (mut exchanges, now) = exchanges(CoapConfig::default());
    let request = get(true, 7, 1);
    assert!(matches!(exchanges.recall(&peer(1), &request), Recall::New));
    let id = exchanges.begin(&peer(1), &request, 0, now);
    assert!(repeated(exchanges.recall(&peer(1), &request)).is_none());
    let answer = exchanges.finish(id, Some(&content()), now).unwrap();
    assert_eq!(decoded(&answer), (MessageType::Acknowledgement, 7, b"answer".to_vec()));
    let again = repeated(exchanges.recall(&peer(1), &request)).unwrap();
    assert_eq!(again.bytes, answer.bytes);
    assert!(matches!(exchanges.recall(&peer(2), &request), Recall::New));
    assert!(exchanges.finish(id, Some(&content()), now).is_none());
}

#[test]
fn another_token_is_another_request() {
    let (mut exchanges, now) = exchanges(CoapConfig::default());
    let id = exchanges.begin(&peer(1), &get(true, 7, 1), 0, now);
    let other = get(true, 7, 2);
    assert!(matches!(exchanges.recall(&peer(1), &other), Recall::Occupied));
    exchanges.finish(id, Some(&content()), now);
    assert!(matches!(exchanges.recall(&peer(1), &other), Recall::New));
    exchanges.begin(&peer(1), &other, 0, now);
    assert_eq!(exchanges.count, 1);
}

#[test]
fn nothing_is_due_soon_once_calls_have_been_answered() {
    let config = CoapConfig::default();
    let (wait, lifetime) = (config.acknowledge_after, config.confirmable_lifetime);
    let (mut exchanges, start) = exchanges(config);
    let at = |ms| start + Duration::from_millis(ms);
    let answered = exchanges.begin(&peer(1), &get(true, 1, 1), 0, start);
    exchanges.finish(answered, Some(&content()), at(1));
    assert!(exchanges.next_deadline() >= Some(start + lifetime));
    let slow = exchanges.begin(&peer(1), &get(true, 2, 1), 0, at(2));
    for number in 3..100 {
        let id = exchanges.begin(&peer(1), &get(true, number, 1), 0, at(number.into()));
        exchanges.finish(id, Some(&content()), at(number.into()));
    }
    assert_eq!(exchanges.next_deadline(), Some(at(2) + wait), "the slow one's");
    assert_eq!(ticked(&mut exchanges, at(2) + wait).len(), 1);
    assert!(exchanges.next_deadline() >= Some(start + lifetime), "none of those after it");
    assert!(exchanges.finish(slow, Some(&content()), at(300)).is_some());
}

#[test]
fn a_slow_call_is_acknowledged_and_answered_separately() {
    let config = CoapConfig::default();
    let (wait, first) = (config.acknowledge_after, config.acknowledgement_timeout);
    let (mut exchanges, start) = exchanges(config);
    let request = get(true, 7, 1);
    let id = exchanges.begin(&peer(1), &request, 0, start);
    assert_eq!(exchanges.next_deadline(), Some(start + wait));
    assert!(ticked(&mut exchanges, start + wait / 2).is_empty());
    let acknowledged = ticked(&mut exchanges, start + wait);
    assert_eq!(acknowledged[0].bytes[..], [0x60, 0, 0, 7]);
    let again = repeated(exchanges.recall(&peer(1), &request)).unwrap();
    assert_eq!(again.bytes[..], [0x60, 0, 0, 7]);

    let mut now = start + Duration::from_secs(1);
    let answer = exchanges.finish(id, Some(&content()), now).unwrap();
    let (kind, message_id, payload) = decoded(&answer);
    assert_eq!((kind, payload), (MessageType::Confirmable, b"answer".to_vec()));
    let mut waits = Vec::new();
    loop {
        let due = exchanges.timing.next_deadline().unwrap();
        let out = ticked(&mut exchanges, due);
        if out.is_empty() {
            break;
        }
        assert_eq!(out[0].bytes, answer.bytes);
        waits.push(due - now);
        now = due;
    }
    assert_eq!(waits.len(), 4);
    assert!(waits[0] >= first && waits[0] <= first.mul_f64(1.5));
    for two in waits.windows(2) {
        assert_eq!(two[1], two[0] * 2);
    }
    assert_eq!(exchanges.counters.unacknowledged.get(), 1);
    assert!(!exchanges.confirmed(&peer(1), message_id));
    let again = repeated(exchanges.recall(&peer(1), &request)).unwrap();
    assert_eq!(again.bytes[..], [0x60, 0, 0, 7]);
}

#[test]
fn an_acknowledgement_ends_retransmission() {
    let (mut exchanges, start) = exchanges(CoapConfig::default());
    let id = exchanges.begin(&peer(1), &get(true, 7, 1), 0, start);
    let later = start + Duration::from_millis(300);
    ticked(&mut exchanges, later);
    let answer = exchanges.finish(id, Some(&content()), later).unwrap();
    let (_, message_id, _) = decoded(&answer);
    assert!(!exchanges.confirmed(&peer(2), message_id));
    assert!(!exchanges.confirmed(&peer(1), message_id.wrapping_add(1)));
    assert!(exchanges.confirmed(&peer(1), message_id));
    assert!(ticked(&mut exchanges, later + Duration::from_secs(100)).is_empty());
    assert_eq!(exchanges.confirmations, 0);
}

#[test]
fn a_non_confirmable_request_is_answered_alike_and_once() {
    let (mut exchanges, now) = exchanges(CoapConfig::default());
    let first = exchanges.begin(&peer(1), &get(false, 7, 1), 0, now);
    let second = exchanges.begin(&peer(1), &get(false, 8, 2), 0, now);
    assert!(ticked(&mut exchanges, now + Duration::from_secs(1)).is_empty());
    let one = decoded(&exchanges.finish(first, Some(&content()), now).unwrap());
    let two = decoded(&exchanges.finish(second, Some(&content()), now).unwrap());
    assert_eq!((one.0, two.0), (MessageType::NonConfirmable, MessageType::NonConfirmable));
    assert_eq!(two.1, one.1.wrapping_add(1));
    assert!(repeated(exchanges.recall(&peer(1), &get(false, 7, 1))).is_none());
}

#[test]
fn an_unwanted_answer_is_still_an_acknowledgement() {
    let (mut exchanges, now) = exchanges(CoapConfig::default());
    let confirmable = exchanges.begin(&peer(1), &get(true, 7, 1), 0, now);
    let bare = exchanges.finish(confirmable, None, now).unwrap();
    assert_eq!(bare.bytes[..], [0x60, 0, 0, 7]);
    let again = repeated(exchanges.recall(&peer(1), &get(true, 7, 1))).unwrap();
    assert_eq!(again.bytes, bare.bytes);
    let not = exchanges.begin(&peer(1), &get(false, 8, 1), 0, now);
    assert!(exchanges.finish(not, None, now).is_none());
    let slow = exchanges.begin(&peer(1), &get(true, 9, 1), 0, now);
    ticked(&mut exchanges, now + Duration::from_secs(1));
    assert!(exchanges.finish(slow, None, now).is_none());
}

#[test]
fn everything_is_forgotten_in_time_but_what_runs() {
    let (mut exchanges, start) = exchanges(CoapConfig::default());
    let done = exchanges.begin(&peer(1), &get(true, 1, 1), 10, start);
    exchanges.finish(done, Some(&content()), start);
    let non = exchanges.begin(&peer(2), &get(false, 2, 1), 10, start);
    exchanges.finish(non, Some(&content()), start);
    let runs = exchanges.begin(&peer(3), &get(true, 3, 1), 10, start);

    ticked(&mut exchanges, start + Duration::from_secs(144));
    assert_eq!(exchanges.count, 3);
    ticked(&mut exchanges, start + Duration::from_secs(147));
    assert_eq!(exchanges.count, 2);
    ticked(&mut exchanges, start + Duration::from_secs(246));
    assert_eq!(exchanges.count, 2);
    let late = start + Duration::from_secs(249);
    ticked(&mut exchanges, late);
    assert_eq!((exchanges.count, exchanges.peers.len()), (1, 1));
    let answer = exchanges.finish(runs, Some(&content()), late).unwrap();
    let (_, message_id, _) = decoded(&answer);
    exchanges.confirmed(&peer(3), message_id);
    ticked(&mut exchanges, late + Duration::from_secs(250));
    assert_eq!((exchanges.count, exchanges.peers.len(), exchanges.bytes), (0, 0, 0));
    assert_eq!((exchanges.calls, exchanges.payload_bytes), (0, 0));
    assert_eq!(exchanges.next_deadline(), None);
}

#[test]
fn what_is_over_is_forgotten_as_others_come_though_the_door_is_never_idle() {
    let (mut exchanges, start) = exchanges(CoapConfig::default());
    let mut note = |id: u16, now| {
        let begun = exchanges.begin(&peer(id), &get(true, id, 1), 0, now);
        exchanges.finish(begun, Some(&content()), now);
        exchanges.count
    };
    (0..100).for_each(|id| {
        note(id, start);
    });
    let later = start + Duration::from_secs(249);
    let counts: Vec<usize> = (100..150).map(|id| note(id, later)).collect();
    assert_eq!(counts, (50..100).rev().collect::<Vec<_>>());
}

#[test]
fn what_does_not_fit_is_refused_not_forgotten() {
    let (mut exchanges, start) =
        exchanges(CoapConfig { exchanges_max: 3, exchanges_per_peer_max: 2, peers_max: 2, ..CoapConfig::default() });
    for id in 0..2 {
        assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), CALL, start), Ok(()));
        let begun = exchanges.begin(&peer(1), &get(true, id, 1), 0, start);
        exchanges.finish(begun, Some(&content()), start);
    }
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), CALL, start), Err(NoRoom::ExchangesOfPeer));
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 1, 2), CALL, start), Ok(()));
    let other = exchanges.begin(&peer(2), &get(true, 0, 1), 0, start);
    exchanges.finish(other, Some(&content()), start);
    assert_eq!(exchanges.vacancy(&peer(2), &get(true, 99, 1), Need::Answer, start), Err(NoRoom::Exchanges));
    assert_eq!(exchanges.vacancy(&peer(3), &get(true, 99, 1), Need::Answer, start), Err(NoRoom::Exchanges));
    assert!(repeated(exchanges.recall(&peer(1), &get(true, 0, 1))).is_some());
    let later = start + Duration::from_secs(249);
    assert_eq!(exchanges.vacancy(&peer(3), &get(true, 99, 1), CALL, later), Ok(()));
}

#[test]
fn memory_is_bounded_overall_and_per_peer() {
    let room = EXCHANGE_BYTES + ANSWER_BYTES_MAX;
    let (mut exchanges, now) = exchanges(CoapConfig {
        exchange_bytes_max: 3 * room + 2 * PEER_BYTES,
        exchange_bytes_per_peer_max: 2 * room + PEER_BYTES,
        ..CoapConfig::default()
    });
    let first = exchanges.begin(&peer(1), &get(true, 1, 1), 0, now);
    exchanges.begin(&peer(1), &get(true, 2, 1), 0, now);
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), CALL, now), Err(NoRoom::ExchangesOfPeer));
    exchanges.begin(&peer(2), &get(true, 3, 1), 0, now);
    assert_eq!(exchanges.vacancy(&peer(2), &get(true, 99, 1), CALL, now), Err(NoRoom::Exchanges));
    let answer = exchanges.finish(first, Some(&content()), now).unwrap();
    let bytes = 3 * room + 2 * PEER_BYTES - ANSWER_BYTES_MAX + answer.bytes.len();
    assert_eq!(exchanges.bytes, bytes);
}

#[test]
fn calls_are_bounded_overall_and_per_peer() {
    let (mut exchanges, start) = exchanges(CoapConfig {
        calls_in_flight_max: 3,
        calls_in_flight_per_peer_max: 2,
        payload_bytes_in_flight_max: 100,
        ..CoapConfig::default()
    });
    let first = exchanges.begin(&peer(1), &get(true, 1, 1), 80, start);
    exchanges.begin(&peer(1), &get(true, 2, 1), 0, start);
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), CALL, start), Err(NoRoom::CallsOfPeer));
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), Need::Answer, start), Ok(()));
    let large = Need::Call { payload_bytes: 21 };
    assert_eq!(exchanges.vacancy(&peer(2), &get(true, 99, 1), large, start), Err(NoRoom::Payloads));
    exchanges.begin(&peer(2), &get(true, 3, 1), 0, start);
    assert_eq!(exchanges.vacancy(&peer(2), &get(true, 99, 1), CALL, start), Err(NoRoom::Calls));

    // An answer that is not acknowledged counts on, for its peer alone.
    let later = start + Duration::from_secs(1);
    ticked(&mut exchanges, later);
    let answer = exchanges.finish(first, Some(&content()), later).unwrap();
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), CALL, later), Err(NoRoom::CallsOfPeer));
    assert_eq!(exchanges.vacancy(&peer(2), &get(true, 99, 1), CALL, later), Ok(()));
    exchanges.confirmed(&peer(1), decoded(&answer).1);
    assert_eq!(exchanges.vacancy(&peer(1), &get(true, 99, 1), CALL, later), Ok(()));
}

#[test]
fn too_many_unacknowledged_answers_go_out_once() {
    let (mut exchanges, start) = exchanges(CoapConfig { confirmations_max: 1, ..CoapConfig::default() });
    let first = exchanges.begin(&peer(1), &get(true, 1, 1), 0, start);
    let second = exchanges.begin(&peer(1), &get(true, 2, 1), 0, start);
    let later = start + Duration::from_secs(1);
    ticked(&mut exchanges, later);
    let one = exchanges.finish(first, Some(&content()), later).unwrap();
    let two = exchanges.finish(second, Some(&content()), later).unwrap();
    assert_eq!(decoded(&one).0, MessageType::Confirmable);
    assert_eq!(decoded(&two).0, MessageType::NonConfirmable);
}

#[test]
fn answers_at_once_are_remembered_and_answers_once_are_not() {
    let (mut exchanges, now) = exchanges(CoapConfig::default());
    let request = get(true, 1, 1);
    exchanges.answer_once(&peer(1), &request, Some(&content())).unwrap();
    assert!(matches!(exchanges.recall(&peer(1), &request), Recall::New));
    let answer = exchanges.answer_at_once(&peer(1), &request, Some(&content()), now).unwrap();
    let again = repeated(exchanges.recall(&peer(1), &request)).unwrap();
    assert_eq!(again.bytes, answer.bytes);
    assert!(exchanges.answer_once(&peer(1), &get(false, 2, 1), None).is_none());
    let bare = exchanges.answer_once(&peer(1), &get(true, 3, 1), None).unwrap();
    assert_eq!(bare.bytes[..], [0x60, 0, 0, 3]);
}

#[test]
fn a_session_that_has_ended_leaves_its_running_calls_alone() {
    let (mut exchanges, now) = exchanges(CoapConfig::default());
    for id in 0..10 {
        exchanges.answer_at_once(&peer(1), &get(id % 2 == 0, id, 1), Some(&content()), now);
    }
    let running = exchanges.begin(&peer(1), &get(true, 10, 1), 0, now);
    let slow = exchanges.begin(&peer(1), &get(true, 11, 1), 0, now);
    ticked(&mut exchanges, now + CoapConfig::default().acknowledge_after);
    exchanges.finish(slow, Some(&content()), now).unwrap();
    exchanges.answer_at_once(&peer(2), &get(true, 1, 1), Some(&content()), now);
    assert_eq!((exchanges.count, exchanges.confirmations, exchanges.peers.len()), (13, 1, 2));
    exchanges.forget(&peer(1));
    assert_eq!((exchanges.count, exchanges.confirmations, exchanges.calls()), (2, 0, 1));
    exchanges.finish(running, None, now);
    exchanges.forget(&peer(1));
    exchanges.forget(&peer(2));
    assert_eq!((exchanges.count, exchanges.bytes, exchanges.peers.len()), (0, 0, 0));
    assert!(ticked(&mut exchanges, now + Duration::from_secs(300)).is_empty());
}

#[test]
fn the_usual_memory_holds_2000_calls_a_second_for_as_long_as_they_count() {
    const PEERS: u16 = 50;
    const PER_SECOND: u64 = 2000;
    let (mut exchanges, start) = exchanges(CoapConfig::default());
    // Datagrams of 64 bytes and a few options.
    let answer = Response { payload: vec![0; 64].into(), max_age_s: Some(0), ..Response::new(ResponseType::Content) };
    let step = Duration::from_secs(1) / u32::try_from(PER_SECOND).unwrap();
    let (mut now, mut out) = (start, Vec::new());
    let ask = |exchanges: &mut Exchanges, call: u64, now| {
        let from = peer(u16::try_from(call % u64::from(PEERS)).unwrap() + 1);
        let request = get(true, u16::try_from(call / u64::from(PEERS) % 65_536).unwrap(), 1);
        exchanges.vacancy(&from, &request, CALL, now).inspect(|()| {
            let id = exchanges.begin(&from, &request, 0, now);
            exchanges.finish(id, Some(&answer), now).unwrap();
        })
    };
    // Longer than any is remembered, so that as many are forgotten as come.
    let calls = PER_SECOND * 300;
    for call in 0..calls {
        assert_eq!(ask(&mut exchanges, call, now), Ok(()), "call {call}");
        now += step;
        if call % 100 == 0 {
            exchanges.tick(now, &mut out);
        }
    }
    assert!(exchanges.bytes <= exchanges.config.exchange_bytes_max);
    // And then all at once: what is beyond the memory is refused, and nothing that counts is forgotten for it.
    let mut taken = 0;
    let refused = loop {
        match ask(&mut exchanges, calls + taken, now) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, NoRoom::Exchanges);
    let oldest = calls - PER_SECOND * 246;
    for call in (oldest..calls + taken).step_by(997) {
        let from = peer(u16::try_from(call % u64::from(PEERS)).unwrap() + 1);
        let request = get(true, u16::try_from(call / u64::from(PEERS) % 65_536).unwrap(), 1);
        assert!(repeated(exchanges.recall(&from, &request)).is_some(), "call {call}");
    }
}

#[test]
fn a_peer_keeps_to_its_rate_and_others_do_not_suffer() {
    let (mut exchanges, start) = exchanges(CoapConfig { rate_per_peer: 10, rate_burst: 3, ..CoapConfig::default() });
    let mut id = 0;
    let mut call = |exchanges: &mut Exchanges, port, at_ms: u64| {
        id += 1;
        let (request, now) = (get(true, id, 1), start + Duration::from_millis(at_ms));
        exchanges.vacancy(&peer(port), &request, CALL, now).inspect(|()| {
            exchanges.begin(&peer(port), &request, 0, now);
        })
    };
    for _ in 0..4 {
        assert_eq!(call(&mut exchanges, 1, 0), Ok(()));
    }
    let wait = Duration::from_millis(100);
    assert_eq!(call(&mut exchanges, 1, 0), Err(NoRoom::Rate { wait }));
    assert_eq!(call(&mut exchanges, 2, 0), Ok(()));
    assert_eq!(call(&mut exchanges, 1, 100), Ok(()), "refusals cost nothing");
    assert_eq!(call(&mut exchanges, 1, 100), Err(NoRoom::Rate { wait }));
    for _ in 0..4 {
        assert_eq!(call(&mut exchanges, 1, 10_000), Ok(()), "a quiet time buys a burst, and no more");
    }
    assert_eq!(call(&mut exchanges, 1, 10_000), Err(NoRoom::Rate { wait }));
}
