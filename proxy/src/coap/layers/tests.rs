use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};

use super::super::call::Target;
use super::super::message::{Received, read};
use super::*;
use sandbar_runtime::Mode;

use crate::coap::visitor::Visitor;
use crate::uri::Location;

const PAYLOAD_BYTES_MAX: usize = 8192;

/// A watcher of a host where nothing happens.
pub(in crate::coap) fn nobody() -> Arc<Watcher> {
    Arc::new(Arc::<sandbar_runtime::outputs::Outputs>::default().watcher())
}

struct Door {
    layers: Layers,
    config: Arc<CoapConfig>,
    now: Instant,
    next_id: u16,
}

fn peer() -> Endpoint {
    Endpoint { remote: std::net::SocketAddr::from(([127, 0, 0, 1], 9)), local: None, session: None }
}

/// A request for a call that is to be accepted.
fn accepts(mut packet: Packet) -> Packet {
    packet.add_option(CoapOption::UriQuery, b"async".to_vec());
    packet
}

/// The answer to a call that was accepted.
fn accepted() -> Response {
    let location = Location::read("/a/.calls/00000000000000010000000000000005").map(Box::new);
    Response { location, ..Response::new(ResponseType::Created) }
}

/// A POST to `/a`.
fn post(options: &[(CoapOption, Vec<u8>)], payload: &[u8]) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Confirmable);
    packet.header.code = MessageClass::Request(RequestType::Post);
    packet.add_option(CoapOption::UriPath, b"a".to_vec());
    for (option, value) in options {
        packet.add_option(*option, value.clone());
    }
    packet.payload = payload.to_vec();
    packet
}

fn block(number: u32, more: bool, exponent: u8) -> Vec<u8> {
    let block = Block { number, more, exponent };
    block.encode()
}

impl Door {
    fn new(config: CoapConfig) -> Self {
        let config = Arc::new(config);
        let now = Instant::now();
        Self {
            layers: Layers::new(Arc::clone(&config), Arc::default(), PAYLOAD_BYTES_MAX, nobody(), now),
            config,
            now,
            next_id: 0,
        }
    }

    /// Hands a request in, with a message id of its own.
    fn request(&mut self, mut packet: Packet) -> Reaction {
        self.next_id += 1;
        packet.header.message_id = self.next_id;
        self.repeat(&packet)
    }

    fn repeat(&mut self, packet: &Packet) -> Reaction {
        let datagram = packet.to_bytes_unlimited().unwrap();
        let Received::Request(message) = read(&datagram, 64) else {
            panic!("no request");
        };
        let inquiry = option::read(&message.packet).map(|options| Inquiry {
            target: Target::Function { application: "a".to_owned(), function: None, rest: Vec::new() },
            options,
            method: Method::Post,
            visitor: Visitor::Stranger([127, 0, 0, 1].into()),
            observable: true,
        });
        self.layers.request(&peer(), message, inquiry, self.now)
    }

    fn answer(&mut self, pending: Pending, response: Response) -> Packet {
        let transmit = self.layers.answered(pending, response, self.now).unwrap();
        Packet::from_bytes(&transmit.bytes).unwrap()
    }
}

fn sent(reaction: Reaction) -> Packet {
    let Reaction::Send(transmit) = reaction else {
        panic!("{reaction:?}");
    };
    Packet::from_bytes(&transmit.bytes).unwrap()
}

fn run(reaction: Reaction) -> (Bytes, Pending) {
    let (request, pending) = call(reaction);
    (request.payload, pending)
}

fn call(reaction: Reaction) -> (sandbar_runtime::Request, Pending) {
    let Reaction::Run(Work::Call(request), pending) = reaction else {
        panic!("{reaction:?}");
    };
    (*request, *pending)
}

fn option_of(packet: &Packet, option: CoapOption) -> Option<Vec<u8>> {
    packet.get_first_option(option).cloned()
}

#[test]
fn an_upload_runs_once_its_payload_is_whole_and_its_answer_comes_in_blocks() {
    let mut door = Door::new(CoapConfig::default());
    let payload: Vec<u8> = (0..=255).cycle().take(2100).collect();
    let mut started = None;
    for (number, bytes) in (0..).zip(payload.chunks(1024)) {
        let value = block(number, bytes.len() == 1024, 6);
        let reaction = door.request(post(&[(CoapOption::Block1, value.clone())], bytes));
        if bytes.len() == 1024 {
            let next = sent(reaction);
            assert_eq!(next.header.get_code(), "2.31");
            assert_eq!(option_of(&next, CoapOption::Block1), Some(value));
        } else {
            started = Some(run(reaction));
        }
    }
    let (whole, pending) = started.unwrap();
    assert_eq!(whole, payload);
    let mut answer = Response { payload: whole, ..Response::new(ResponseType::Changed) };
    answer.etag = Some(Box::from([1; 8]));
    let first = door.answer(pending, answer);
    assert_eq!(first.header.get_code(), "2.04");
    assert_eq!(option_of(&first, CoapOption::Block1), Some(block(2, false, 6)));
    assert_eq!(option_of(&first, CoapOption::Block2), Some(block(0, true, 6)));
    let last = sent(door.request(post(&[(CoapOption::Block2, block(2, false, 6))], &[])));
    assert_eq!(option_of(&last, CoapOption::Block2), Some(block(2, false, 6)));
    assert_eq!(last.payload, payload[2048..]);
    assert_eq!(door.layers.calls(), 0);
}

#[test]
fn a_call_is_accepted_once_however_often_its_request_comes() {
    let mut door = Door::new(CoapConfig::default());
    let mut packet = accepts(post(&[], b"x"));
    packet.header.message_id = 9;
    let (request, pending) = call(door.repeat(&packet));
    assert_eq!((request.mode, request.properties.query.as_str()), (Mode::Asynchronous, ""));
    assert!(matches!(door.repeat(&packet), Reaction::Silence), "it is being stored");
    let created = door.answer(pending, accepted());
    assert_eq!(created.header.get_code(), "2.01");
    let path: Vec<_> = created.get_option(CoapOption::LocationPath).unwrap().iter().map(Vec::as_slice).collect();
    assert_eq!(path, [&b"a"[..], b".calls", b"00000000000000010000000000000005"]);
    assert_eq!(sent(door.repeat(&packet)), created, "the same location again");
    assert_eq!(door.layers.counters.calls.get(), 1);
}

#[test]
fn a_payload_in_blocks_makes_one_call_that_is_accepted() {
    let mut door = Door::new(CoapConfig::default());
    let first = accepts(post(&[(CoapOption::Block1, block(0, true, 2))], &[1; 64]));
    assert_eq!(sent(door.request(first)).header.get_code(), "2.31");
    // Without it, it is another request: none whose first block is here.
    let other = post(&[(CoapOption::Block1, block(1, false, 2))], &[2; 8]);
    assert_eq!(sent(door.request(other)).header.get_code(), "4.08");
    let last = accepts(post(&[(CoapOption::Block1, block(1, false, 2))], &[2; 8]));
    let (request, pending) = call(door.request(last));
    assert_eq!((request.mode, request.payload.len()), (Mode::Asynchronous, 72));
    let created = door.answer(pending, accepted());
    assert_eq!(created.header.get_code(), "2.01");
    assert_eq!(option_of(&created, CoapOption::Block1), Some(block(1, false, 2)));
    assert!(created.get_option(CoapOption::LocationPath).is_some());
}

#[test]
fn a_call_may_be_accepted_without_a_word() {
    let mut door = Door::new(CoapConfig::default());
    let quiet = accepts(post(&[(CoapOption::NoResponse, vec![0b10])], b"x"));
    let (request, pending) = call(door.request(quiet));
    assert_eq!(request.mode, Mode::Asynchronous);
    let bare = door.answer(pending, accepted());
    assert_eq!((bare.header.get_code(), bare.payload.len()), ("0.00".to_owned(), 0));
}

#[test]
fn a_later_block_of_an_answer_never_runs_anything() {
    let mut door = Door::new(CoapConfig::default());
    for options in [
        vec![(CoapOption::Block2, block(1, false, 6))],
        vec![(CoapOption::Block1, block(0, false, 6)), (CoapOption::Block2, block(7, false, 2))],
    ] {
        let refused = sent(door.request(post(&options, &[])));
        assert_eq!(refused.header.get_code(), "4.08");
    }
}

#[test]
fn a_late_repetition_of_block_zero_does_not_begin_again() {
    let mut door = Door::new(CoapConfig::default());
    let mut first = post(&[(CoapOption::Block1, block(0, true, 2))], &[1; 64]);
    first.header.message_id = 1000;
    assert_eq!(sent(door.repeat(&first)).header.get_code(), "2.31");
    sent(door.request(post(&[(CoapOption::Block1, block(1, true, 2))], &[2; 64])));
    assert_eq!(sent(door.repeat(&first)).header.get_code(), "2.31");
    let last = post(&[(CoapOption::Block1, block(2, false, 2))], &[3; 4]);
    assert_eq!(run(door.request(last)).0.len(), 132);
}

#[test]
fn payloads_beyond_the_limit_are_refused_with_the_limit() {
    let mut door = Door::new(CoapConfig::default());
    let large = post(&[], &vec![0; PAYLOAD_BYTES_MAX + 1]);
    let announced = post(&[(CoapOption::Block1, block(0, true, 6)), (CoapOption::Size1, vec![0x20, 0x01])], &[0; 1024]);
    for packet in [large, announced] {
        let refused = sent(door.request(packet));
        assert_eq!(refused.header.get_code(), "4.13");
        assert_eq!(option_of(&refused, CoapOption::Size1), Some(vec![0x20, 0]));
    }
}

#[test]
fn overload_is_said_before_anything_runs_and_stays_said() {
    let mut door = Door::new(CoapConfig { calls_in_flight_per_peer_max: 1, ..CoapConfig::default() });
    let (_, pending) = run(door.request(post(&[], b"x")));
    let mut second = post(&[], b"x");
    second.header.message_id = 500;
    let refused = sent(door.repeat(&second));
    assert_eq!(refused.header.get_code(), "5.03");
    assert_eq!(option_of(&refused, CoapOption::MaxAge), Some(vec![1]));
    door.answer(pending, Response::new(ResponseType::Changed));
    assert_eq!(sent(door.repeat(&second)).header.get_code(), "5.03");
    run(door.request(post(&[], b"x")));
}

#[test]
fn an_upload_survives_overload_at_its_last_block() {
    let mut door = Door::new(CoapConfig { calls_in_flight_per_peer_max: 1, ..CoapConfig::default() });
    let (_, pending) = run(door.request(post(&[], b"x")));
    sent(door.request(post(&[(CoapOption::Block1, block(0, true, 2))], &[1; 64])));
    let last = post(&[(CoapOption::Block1, block(1, false, 2))], &[2; 8]);
    assert_eq!(sent(door.request(last.clone())).header.get_code(), "5.03");
    door.answer(pending, Response::new(ResponseType::Changed));
    assert_eq!(run(door.request(last)).0.len(), 72);
}

#[test]
fn a_message_id_in_use_is_refused_without_disturbing_its_call() {
    let mut door = Door::new(CoapConfig::default());
    let mut first = post(&[], b"x");
    first.header.message_id = 7;
    first.set_token(vec![1]);
    let (_, pending) = run(door.repeat(&first));
    let mut second = first.clone();
    second.set_token(vec![2]);
    let refused = sent(door.repeat(&second));
    assert_eq!((refused.header.get_code(), refused.get_token()), ("5.03".to_owned(), &[2][..]));
    assert!(matches!(door.repeat(&first), Reaction::Silence));
    let answer = door.answer(pending, Response::new(ResponseType::Changed));
    assert_eq!((answer.header.message_id, answer.get_token()), (7, &[1][..]));
}

#[test]
fn unwanted_responses_become_bare_acknowledgements() {
    let mut door = Door::new(CoapConfig::default());
    let quiet = (CoapOption::NoResponse, vec![0b1_1010]);
    let (_, pending) = run(door.request(post(std::slice::from_ref(&quiet), b"x")));
    let bare = door.answer(pending, Response::new(ResponseType::Changed));
    assert_eq!(bare.header.get_code(), "0.00");
    let refused = post(&[quiet.clone(), (CoapOption::ProxyUri, b"coap://x".to_vec())], &[]);
    assert_eq!(sent(door.request(refused)).header.get_code(), "0.00");
    let next = post(&[quiet, (CoapOption::Block1, block(0, true, 2))], &[1; 64]);
    assert_eq!(sent(door.request(next)).header.get_code(), "2.31");
}

#[test]
fn options_that_are_not_understood_silence_only_what_is_not_confirmable() {
    let mut door = Door::new(CoapConfig::default());
    let mut packet = post(&[(CoapOption::Oscore, vec![1])], b"x");
    assert_eq!(sent(door.request(packet.clone())).header.get_code(), "4.02");
    packet.header.set_type(MessageType::NonConfirmable);
    assert!(matches!(door.request(packet), Reaction::Silence));
}

#[test]
fn time_clears_everything_away() {
    let mut door = Door::new(CoapConfig::default());
    sent(door.request(post(&[(CoapOption::Block1, block(0, true, 2))], &[1; 64])));
    let (_, pending) = run(door.request(post(&[], b"x")));
    let large = Response { payload: vec![0; 3000].into(), ..Response::new(ResponseType::Changed) };
    door.answer(pending, large);
    let counters = Arc::clone(&door.layers.counters);
    let mut out = Vec::new();
    let far = door.now + door.config.confirmable_lifetime + Duration::from_secs(2);
    door.layers.tick(far, &mut out);
    assert!(out.is_empty());
    assert_eq!(door.layers.next_deadline(), None);
    assert_eq!(counters.transfers_expired.get(), 2);
    assert_eq!(counters.exchanges_expired.get(), 2);
}
