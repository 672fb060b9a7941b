use std::sync::Arc;
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};

use super::*;
use crate::coap::clockwork::Timed;
use crate::coap::config::{CoapConfig, GroupConfig};
use crate::coap::counters::CoapCounters;
use crate::coap::layers::tests::nobody;
use crate::coap::message::{Received, read};
use crate::coap::verify::CoapVerify;

const LEISURE: Duration = Duration::from_secs(4);

struct Door {
    layers: Layers,
    counters: Arc<CoapCounters>,
    now: Instant,
    next_id: u16,
}

fn config() -> CoapConfig {
    let groups = GroupConfig { leisure: LEISURE, pending_max: 6, pending_per_address_max: 2, ..GroupConfig::default() };
    CoapConfig { groups, ..CoapConfig::default() }
}

/// A peer with a port of its own at one of the network's hosts.
fn peer(host: u8, port: u16) -> Endpoint {
    Endpoint { remote: ([10, 0, 0, host], port).into(), local: None, session: None }
}

fn links() -> Response {
    Response { payload: "</a>".into(), ..Response::new(ResponseType::Content) }
}

impl Door {
    fn new(config: CoapConfig) -> Self {
        let (now, counters) = (Instant::now(), Arc::<CoapCounters>::default());
        let layers = Layers::new(Arc::new(config), Arc::clone(&counters), 1024, nobody(), now);
        Self { layers, counters, now, next_id: 0 }
    }

    /// Asks for discovery under a message id of its own. Whether it was taken in.
    fn ask(&mut self, from: &Endpoint, answer: Response) -> bool {
        self.next_id += 1;
        self.repeat(from, answer)
    }

    /// The same, as it was sent last.
    fn repeat(&mut self, from: &Endpoint, answer: Response) -> bool {
        let mut packet = Packet::new();
        packet.header.set_type(MessageType::NonConfirmable);
        packet.header.code = MessageClass::Request(RequestType::Get);
        packet.header.message_id = self.next_id;
        packet.add_option(CoapOption::UriPath, b".well-known".to_vec());
        packet.add_option(CoapOption::UriPath, b"core".to_vec());
        let Received::Request(message) = read(&packet.to_bytes().unwrap(), 64) else { panic!("a request") };
        let taken = self.layers.group_request(from, &message, self.now);
        if taken {
            self.layers.group_answered(from, &message, &RequestOptions::default(), answer, self.now);
        }
        taken
    }

    /// What leaves in this time, and how long after now.
    fn wait(&mut self, time: Duration) -> Vec<(Duration, Endpoint)> {
        let (start, mut left) = (self.now, Vec::new());
        while let Some(due) = self.layers.next_deadline().filter(|due| *due <= start + time) {
            let mut out = Vec::new();
            self.layers.tick(due, &mut out);
            left.extend(out.iter().map(|transmit| (due - start, transmit.to)));
        }
        self.now = start + time;
        left
    }
}

#[test]
fn answers_spread_over_the_leisure() {
    let mut config = config();
    config.groups.pending_max = 1000;
    config.groups.pending_per_address_max = 1000;
    let mut door = Door::new(config);
    for port in 1..=1000 {
        assert!(door.ask(&peer(1, port), links()));
    }
    let left = door.wait(LEISURE);
    assert_eq!((left.len(), door.counters.group_answers.get()), (1000, 1000));
    for quarter in 0..4 {
        let of_it =
            left.iter().filter(|(after, _)| *after >= LEISURE / 4 * quarter && *after < LEISURE / 4 * (quarter + 1));
        assert!((150..350).contains(&of_it.count()), "quarter {quarter}");
    }
    let mut answered: Vec<u16> = left.iter().map(|(_, to)| to.remote.port()).collect();
    assert!(!answered.is_sorted(), "in an order of chance");
    answered.sort_unstable();
    assert_eq!(answered, (1..=1000).collect::<Vec<u16>>());
}

#[test]
fn what_waits_is_bounded_in_all_and_for_each_address() {
    let mut door = Door::new(config());
    let taken: Vec<bool> = (1..=4).map(|port| door.ask(&peer(1, port), links())).collect();
    assert_eq!(taken, [true, true, false, false], "two of one address, whatever its ports");
    let taken: Vec<bool> = (2..=7).map(|host| door.ask(&peer(host, 1), links())).collect();
    assert_eq!(taken, [true, true, true, true, false, false], "six in all");
    assert_eq!(door.counters.group_dropped.get(), 4);
    assert_eq!(door.wait(LEISURE).len(), 6);
    assert!(door.ask(&peer(1, 9), links()), "there is room again");
    assert_eq!(door.wait(LEISURE).len(), 1);
    door.wait(Duration::from_secs(300));
    assert!(door.layers.is_empty(), "{:?}", door.layers);
}

#[test]
fn a_repeated_request_is_not_answered_again() {
    let mut door = Door::new(config());
    assert!(door.ask(&peer(1, 1), links()));
    assert!(!door.repeat(&peer(1, 1), links()), "while it waits");
    assert_eq!(door.wait(LEISURE).len(), 1);
    assert!(!door.repeat(&peer(1, 1), links()), "and after");
    assert_eq!((door.counters.repeated.get(), door.wait(LEISURE).len()), (2, 0));
}

#[test]
fn a_peer_has_its_rate_here_as_well() {
    let mut door = Door::new(CoapConfig { rate_per_peer: 1, rate_burst: 1, ..config() });
    let taken: Vec<bool> = (0..2).map(|_| door.ask(&peer(1, 1), links())).collect();
    assert_eq!(taken, [true, true]);
    door.wait(Duration::from_millis(10));
    assert!(!door.ask(&peer(1, 1), links()));
    assert_eq!((door.counters.rate_limited.get(), door.counters.group_dropped.get()), (1, 1));
    door.wait(LEISURE);
    assert!(door.ask(&peer(1, 1), links()));
}

#[test]
fn where_there_is_nothing_to_tell_nothing_is_sent_and_the_place_is_taken_all_the_same() {
    let mut door = Door::new(config());
    let error = Response::error(ResponseType::NotAcceptable, "no");
    for (host, nothing) in (1..).zip([Response::new(ResponseType::Content), error]) {
        assert!(door.ask(&peer(host, 1), nothing.clone()));
        assert!(door.ask(&peer(host, 2), nothing.clone()));
        assert!(!door.ask(&peer(host, 3), nothing));
    }
    assert_eq!((door.counters.group_unmatched.get(), door.wait(LEISURE).len()), (4, 0));
    assert_eq!(door.counters.group_answers.get(), 0);
    door.wait(Duration::from_secs(300));
    assert!(door.layers.is_empty());
}

#[test]
fn an_address_that_has_to_be_shown_is_not_told_so() {
    let mut door = Door::new(CoapConfig { verify: CoapVerify::Always, ..config() });
    assert!(!door.ask(&peer(1, 1), links()));
    assert_eq!((door.counters.group_ignored.get(), door.counters.challenged.get()), (1, 0));
    assert!(door.wait(LEISURE).is_empty() && door.layers.is_empty());
}
