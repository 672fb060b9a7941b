use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, Packet, RequestType, ResponseType};
use sandbar_runtime::outputs::{Output, Outputs, Subject};
use sandbar_runtime::{AnswerProperties, CallId, Ticket};

use super::super::clockwork::Timed;
use super::*;
use crate::coap::blockwise::download::Tagger;
use crate::coap::call::{Inquiry, Target};
use crate::coap::datagram::Endpoint;
use crate::coap::layers::{Layers, Reaction};
use crate::coap::message::{Received, read};
use crate::coap::option;
use crate::coap::visitor::Visitor;

#[path = "tests/accepted.rs"]
mod accepted;

const SECOND: Duration = Duration::from_secs(1);

/// A door without a socket or a clock.
struct Door {
    layers: Layers,
    counters: Arc<CoapCounters>,
    outputs: Arc<Outputs>,
    tagger: Tagger,
    now: Instant,
    next_id: u16,
}

fn peer(number: u32) -> Endpoint {
    let [_, a, b, c] = number.to_be_bytes();
    Endpoint { remote: std::net::SocketAddr::from(([10, a, b, c], 9)), local: None, session: None }
}

fn watched(function: &str) -> Watched {
    Watched { application: "a".to_owned(), subject: Subject::Function(function.to_owned()) }
}

const TICKET: Ticket = Ticket { call: CallId(7), secret: 9 };

fn watched_call() -> Watched {
    Watched { application: "a".to_owned(), subject: Subject::Call(TICKET) }
}

impl Door {
    fn new(config: CoapConfig) -> Self {
        let (counters, outputs, now) = (Arc::<CoapCounters>::default(), Arc::<Outputs>::default(), Instant::now());
        let watcher = Arc::new(outputs.watcher());
        let layers = Layers::new(Arc::new(config), Arc::clone(&counters), 8192, watcher, now);
        Self { layers, counters, outputs, tagger: Tagger::default(), now, next_id: 0 }
    }

    /// A confirmable GET of `/a/FUNCTION` with this Observe option, and what it is answered.
    fn get(&mut self, from: u32, token: u8, function: &str, observe: &[u8], more: &[(CoapOption, &[u8])]) -> Packet {
        let target =
            Target::Function { application: "a".to_owned(), function: Some(function.to_owned()), rest: Vec::new() };
        self.ask(from, token, target, &["a", function], observe, more)
    }

    /// The same of the location of an accepted call that has not ended.
    fn get_call(&mut self, from: u32, token: u8, observe: &[u8], more: &[(CoapOption, &[u8])]) -> Packet {
        let target = Target::Accepted { application: "a".to_owned(), ticket: TICKET };
        self.ask(from, token, target, &["a", ".calls", &TICKET.to_string()], observe, more)
    }

    fn ask(
        &mut self,
        from: u32,
        token: u8,
        target: Target,
        path: &[&str],
        observe: &[u8],
        more: &[(CoapOption, &[u8])],
    ) -> Packet {
        self.next_id = self.next_id.wrapping_add(1);
        let mut packet = Packet::new();
        packet.header.code = MessageClass::Request(RequestType::Get);
        packet.header.message_id = self.next_id;
        packet.set_token(vec![token]);
        packet.add_option(CoapOption::Observe, observe.to_vec());
        for segment in path {
            packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
        }
        more.iter().for_each(|(option, value)| packet.add_option(*option, value.to_vec()));
        let Received::Request(message) = read(&packet.to_bytes_unlimited().unwrap(), 64) else { panic!("no request") };
        let visitor = Visitor::Stranger(peer(from).remote.ip());
        let inquiry = option::read(&message.packet).map(|options| Inquiry {
            target,
            options,
            method: sandbar_runtime::Method::Get,
            visitor,
            observable: true,
        });
        let reaction = self.layers.request(&peer(from), message, inquiry, self.now);
        let Reaction::Send(transmit) = reaction else { panic!("{reaction:?}") };
        Packet::from_bytes(&transmit.bytes).unwrap()
    }

    fn observe(&mut self, from: u32, token: u8, function: &str) {
        let answer = self.get(from, token, function, &[], &[]);
        assert!(answer.get_first_option(CoapOption::Observe).is_some(), "{answer:?}");
    }

    /// The accepted call ends with this answer; in one go. Gives what was sent.
    fn end_call(&mut self, answer: &Response) -> Vec<(Endpoint, Packet)> {
        let sent = self.layers.call_ended(&watched_call(), |_| answer.clone(), self.now);
        sent.into_iter().map(|sent| (sent.to, Packet::from_bytes(&sent.bytes).unwrap())).collect()
    }

    fn publish(&mut self, function: &str, payload: &str) {
        let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
        let output = Output { payload, content_format: None, properties: AnswerProperties::default() };
        self.layers.published(&watched(function), Representation::new(output, &self.tagger), 1);
    }

    /// Lets time pass, in as many steps as there is something to do, and gives what was sent: to whom, and when.
    fn pass(&mut self, time: Duration) -> Vec<(Endpoint, Packet, Instant)> {
        let end = self.now + time;
        let mut sent = Vec::new();
        loop {
            let mut out = Vec::new();
            self.layers.tick(self.now, &mut out);
            assert!(out.len() <= TURNS_AT_ONCE, "{} at once", out.len());
            let now = self.now;
            sent.extend(out.into_iter().map(|sent| (sent.to, Packet::from_bytes(&sent.bytes).unwrap(), now)));
            match self.layers.next_deadline() {
                Some(due) if due <= end => self.now = self.now.max(due),
                _ => break,
            }
        }
        self.now = end;
        sent
    }

    fn acknowledge(&mut self, from: &Endpoint, packet: &Packet) {
        self.layers.confirmed(from, packet.header.message_id, self.now);
    }

    /// As [`Self::pass`] for the time of a round trip, after which all that wants it is acknowledged. Gives kinds and payloads.
    fn round(&mut self, time: Duration) -> Vec<(MessageType, String)> {
        let sent = self.pass(time);
        for (to, packet, _) in &sent {
            if packet.header.get_type() == MessageType::Confirmable {
                self.acknowledge(to, packet);
            }
        }
        sent.into_iter().map(|(_, packet, _)| kind_and_text(&packet)).collect()
    }
}

fn kind_and_text(packet: &Packet) -> (MessageType, String) {
    (packet.header.get_type(), String::from_utf8(packet.payload.clone()).unwrap())
}

use MessageType::{Confirmable, NonConfirmable};

#[test]
fn between_two_notifications_lies_a_round_trip() {
    let mut door = Door::new(CoapConfig::default());
    door.observe(1, 1, "f");
    door.publish("f", "1");
    let round_trip = Duration::from_millis(300);
    assert_eq!(door.round(round_trip), [(Confirmable, "1".to_owned())]);
    let begun = door.now;
    let mut sent = Vec::new();
    for number in 0..29 {
        door.publish("f", &number.to_string());
        sent.extend(door.pass(Duration::from_millis(50)));
    }
    let times: Vec<_> = sent.iter().map(|(_, _, at)| at.duration_since(begun)).collect();
    assert_eq!(times, [0, 1, 2, 3, 4].map(|trips| round_trip * trips));
    assert!(sent.iter().all(|(_, packet, _)| packet.header.get_type() == NonConfirmable));
    let texts: Vec<_> = sent.iter().map(|(_, packet, _)| kind_and_text(packet).1).collect();
    assert_eq!(texts, ["0", "5", "11", "17", "23"], "the newest at that time");
}

#[test]
fn now_and_then_a_notification_has_to_be_acknowledged() {
    let config = CoapConfig { observe_confirm_every: 4, ..CoapConfig::default() };
    let (after, mut door) = (config.observe_confirm_after, Door::new(config));
    door.observe(1, 1, "f");
    let kinds: Vec<_> = (0..9)
        .map(|_| {
            door.publish("f", "x");
            door.round(SECOND)[0].0
        })
        .collect();
    let [con, non] = [Confirmable, NonConfirmable];
    assert_eq!(kinds, [con, non, non, non, con, non, non, non, con]);
    door.pass(after);
    door.publish("f", "x");
    assert_eq!(door.round(SECOND)[0].0, con, "it was not heard of for long");
}

#[test]
fn a_peer_that_is_quiet_for_a_day_is_asked_for_a_sign_of_life() {
    let config = CoapConfig::default();
    let (day, mut door) = (config.observe_idle_max, Door::new(config));
    door.observe(1, 1, "f");
    door.publish("f", "x");
    assert_eq!(door.round(SECOND).len(), 1);
    for _ in 0..2 {
        assert!(door.pass(day - 2 * SECOND).is_empty());
        assert_eq!(door.round(2 * SECOND), [(Confirmable, "x".to_owned())]);
    }
    assert_eq!(door.counters.observers_unreachable.get(), 0);
    // Not acknowledged this time: sent five times in all, and given up.
    assert_eq!(door.pass(day + 300 * SECOND).len(), 5);
    assert_eq!(door.counters.observers_unreachable.get(), 1);
    assert!(door.layers.is_empty() && !door.outputs.is_watched(), "{:?}", door.layers);
}

#[test]
fn a_peer_has_one_unacknowledged_notification_and_its_observations_take_turns() {
    let mut door = Door::new(CoapConfig::default());
    for (token, function) in [(1, "f"), (2, "g"), (3, "h")] {
        door.observe(1, token, function);
        door.publish(function, function);
    }
    let first = door.pass(SECOND);
    assert_eq!(first.len(), 1, "{first:?}");
    door.acknowledge(&peer(1), &first[0].1);
    let mut texts: Vec<_> =
        first.into_iter().chain(door.pass(3 * SECOND)).map(|(_, packet, _)| packet.payload).collect();
    texts.sort();
    assert_eq!(texts, [b"f", b"g", b"h"]);
    // Given up together: it is the peer that is gone.
    door.pass(Duration::from_secs(400));
    for function in ["f", "g"] {
        door.publish(function, "new");
    }
    let sent = door.pass(Duration::from_secs(200));
    assert!(sent.iter().all(|(_, packet, _)| packet.header.get_type() == Confirmable));
    assert_eq!((sent.len(), door.counters.observers_unreachable.get()), (5, 3));
    door.pass(Duration::from_secs(400));
    assert!(door.layers.is_empty(), "{:?}", door.layers);
}

#[test]
fn an_output_for_many_is_sent_in_turns_and_begun_again_for_a_newer_one() {
    let mut door = Door::new(CoapConfig::default());
    let many = 1000;
    for number in 0..many {
        door.observe(number, 1, "f");
    }
    door.publish("f", "1");
    let mut out = Vec::new();
    door.layers.tick(door.now, &mut out);
    assert_eq!(out.len(), TURNS_AT_ONCE);
    door.publish("f", "2");
    let mut sent = out.iter().map(|sent| (sent.to, Packet::from_bytes(&sent.bytes).unwrap())).collect::<Vec<_>>();
    sent.extend(door.pass(Duration::ZERO).into_iter().map(|(to, packet, _)| (to, packet)));
    assert_eq!(sent.len(), many as usize, "each was sent one of them, and owes an acknowledgement");
    for (to, packet) in &sent {
        door.acknowledge(to, packet);
    }
    let rest = door.pass(SECOND);
    assert_eq!(rest.len(), TURNS_AT_ONCE, "those who were sent the older one");
    assert!(rest.iter().all(|(_, packet, _)| packet.payload == b"2"));
    for number in 0..many {
        let answer = door.get(number, 1, "f", &[1], &[]);
        assert_eq!((answer.payload.as_slice(), answer.get_first_option(CoapOption::Observe)), (&b"2"[..], None));
    }
    door.pass(Duration::from_secs(400));
    assert!(door.layers.is_empty() && !door.outputs.is_watched());
}

#[test]
fn only_those_who_may_not_observe_any_more_are_told_so() {
    let mut door = Door::new(CoapConfig::default());
    for (number, function) in [(1, "f"), (2, "f"), (2, "g"), (3, "g")] {
        door.observe(number, if function == "f" { 1 } else { 2 }, function);
    }
    let judge = |who: &Visitor, what: &Watched| {
        let Visitor::Stranger(address) = who else { panic!("{who:?}") };
        let gone = what.subject == Subject::Function("f".to_owned()) && *address == peer(2).remote.ip();
        if gone { Err(Response::error(ResponseType::Forbidden, "not any more")) } else { Ok(()) }
    };
    assert!(door.layers.reconsider(Some("other"), judge, door.now).is_empty());
    let told = door.layers.reconsider(Some("a"), judge, door.now);
    let [told] = &told[..] else { panic!("{told:?}") };
    let packet = Packet::from_bytes(&told.bytes).unwrap();
    assert_eq!((told.to, packet.get_token(), packet.header.get_code().as_str()), (peer(2), &[1][..], "4.03"));
    for function in ["f", "g"] {
        door.publish(function, function);
    }
    let mut told: Vec<_> =
        door.pass(Duration::ZERO).into_iter().map(|(to, packet, _)| (to.remote, packet.payload)).collect();
    told.sort();
    let expected = [(1, b"f"), (2, b"g"), (3, b"g")].map(|(number, text)| (peer(number).remote, text.to_vec()));
    assert_eq!(told, expected);
}

#[test]
fn a_session_that_has_ended_leaves_nothing() {
    let mut door = Door::new(CoapConfig::default());
    for token in 0..5 {
        door.observe(1, token, "f");
    }
    door.publish("f", "x");
    door.pass(Duration::ZERO);
    door.layers.ended(&peer(1));
    assert_eq!(door.counters.observers_gone.get(), 5);
    door.pass(Duration::from_secs(400));
    assert!(door.layers.is_empty() && !door.outputs.is_watched());
}

#[test]
fn a_state_that_the_observer_does_not_take_begins_no_observation() {
    let mut door = Door::new(CoapConfig::default());
    door.observe(1, 1, "f");
    let output = Output { payload: "x".into(), content_format: Some(60), properties: AnswerProperties::default() };
    door.layers.published(&watched("f"), Representation::new(output, &door.tagger), 1);
    let answer = door.get(2, 1, "f", &[], &[(CoapOption::Accept, &[50])]);
    assert_eq!((answer.header.get_code().as_str(), answer.get_first_option(CoapOption::Observe)), ("4.06", None));
    let answer = door.get(2, 1, "f", &[], &[(CoapOption::Accept, &[60])]);
    assert_eq!((answer.header.get_code().as_str(), answer.payload.as_slice()), ("2.05", &b"x"[..]));
    assert_eq!(door.counters.observers_registered.get(), 2);
}

#[test]
fn an_output_beyond_the_room_for_all_is_counted_and_told_to_nobody() {
    let mut door = Door::new(CoapConfig { observed_bytes_max: 10, ..CoapConfig::default() });
    door.observe(1, 1, "f");
    door.observe(2, 1, "g");
    door.publish("f", "123456");
    door.publish("g", "123456");
    assert_eq!((door.pass(Duration::ZERO).len(), door.counters.outputs_too_large.get()), (1, 1));
    door.publish("f", "1");
    door.publish("g", "123456");
    assert_eq!(door.counters.outputs_too_large.get(), 1);
}

/// Whatever comes and goes in whatever order: whoever observes is sent the newest state in the end, and nobody else is sent anything.
#[test]
fn who_observes_gets_the_newest_state_whoever_else_comes_and_goes() {
    for seed in 0..30 {
        let mut draw = fastrand::Rng::with_seed(seed);
        let mut door = Door::new(CoapConfig::default());
        let mut observing = std::collections::BTreeMap::<(u32, u8), &str>::new();
        let mut newest = HashMap::<&str, u32>::new();
        let mut late = Vec::new();
        let mut shown = std::collections::BTreeMap::<(u32, u8), u32>::new();
        for step in 1..400 {
            let key = (draw.u32(0..20), draw.u8(0..3));
            let function = *draw.choice(&["f", "g", "h"]).unwrap();
            match draw.u8(0..6) {
                0..=2 => {
                    door.observe(key.0, key.1, function);
                    observing.insert(key, function);
                }
                3 => {
                    door.get(key.0, key.1, function, &[1], &[]);
                    observing.remove(&key);
                }
                _ => {
                    door.publish(function, &step.to_string());
                    newest.insert(function, step);
                }
            }
            let passes = *draw.choice(&[Duration::ZERO, Duration::from_millis(5), SECOND]).unwrap();
            // Some acknowledgements are late.
            late.extend(door.pass(passes).into_iter().map(|(to, packet, _)| (to, packet)));
            if draw.bool() {
                late.drain(..).for_each(|(to, packet)| door.acknowledge(&to, &packet));
            }
        }
        for (function, step) in [("f", 1000), ("g", 1001), ("h", 1002)] {
            door.publish(function, &step.to_string());
            newest.insert(function, step);
        }
        for _ in 0..40 {
            for (to, packet, _) in door.pass(SECOND) {
                let std::net::IpAddr::V4(address) = to.remote.ip() else { panic!("{to:?}") };
                let number = u32::from(address) & 0xFF_FFFF;
                shown.insert((number, packet.get_token()[0]), kind_and_text(&packet).1.parse().unwrap());
                door.acknowledge(&to, &packet);
            }
        }
        assert_eq!(door.counters.observers_unreachable.get(), 0, "seed {seed}");
        let expected: std::collections::BTreeMap<_, _> = observing.iter().map(|(key, f)| (*key, newest[f])).collect();
        assert_eq!(shown, expected, "seed {seed}");
    }
}

#[test]
fn observe_numbers_rise_as_section_4_4_compares_them() {
    let opened = Instant::now();
    let clock = Clock { opened, first: 0xFF_FF00 };
    let mut last = clock.now(opened);
    for step in 0..2000_u64 {
        let now = opened + Duration::from_micros(step * 100);
        let number = clock.after(last, now);
        assert!(number <= NUMBER_MAX);
        let ahead = number.wrapping_sub(last) & NUMBER_MAX;
        assert!((1..1 << 23).contains(&ahead), "{last} {number}");
        last = number;
    }
}
