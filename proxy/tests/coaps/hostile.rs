//! What nobody honest sends; afterwards the door answers, and nothing is left.

use std::time::{Duration, Instant};

use sandbar_proxy::coap::DtlsConfig;

use crate::client::{Client, Door, PATIENCE};
use crate::hello::{COOKIE_LENGTH, cookie, hello, socket};

fn until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn thousands_of_half_open_handshakes_delay_nobody() {
    let limits = DtlsConfig { handshake_time_max: Duration::from_secs(2), ..DtlsConfig::default() };
    let door = Door::open(limits.clone());
    let mut before = Client::connected(door.address, 1);
    let mut slowest = Duration::ZERO;
    for round in 0_u8..40 {
        let client = socket([127, 0, 1, round], door.address);
        for random in 0..100 {
            // Each another first message of the same address: as if the client began anew each time.
            let random = u64::from(round) << 32 | random;
            client.send(&hello(random, &cookie(&client, random))).unwrap();
        }
        let start = Instant::now();
        assert_eq!(before.call(b"still").header.get_code(), "2.04");
        Client::connected(door.address, 2).goodbye();
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "a call and a handshake took {slowest:?}");
    assert!(door.counters.handshakes_begun.get() > 3000, "{}", door.counters.handshakes_begun.get());
    let under_way = || {
        let counters = &door.counters;
        counters.handshakes_begun.get() - counters.handshakes_done.get() - counters.handshakes_failed.get()
    };
    assert!(under_way() <= limits.handshakes_max as u64);
    until("all are over", || under_way() == 0);
    assert_eq!(before.call(b"after").header.get_code(), "2.04");
}

#[test]
fn a_hello_from_an_address_that_is_not_the_senders_begins_nothing() {
    let door = Door::open(DtlsConfig::default());
    let honest = socket([127, 0, 0, 1], door.address);
    let good = cookie(&honest, 7);
    let begun = || door.counters.handshakes_begun.get();
    // Another address with the first one's cookie, the first one with another's offer, and with made-up ones.
    let other = socket([127, 0, 0, 2], door.address);
    for _ in 0..1000 {
        other.send(&hello(7, &good)).unwrap();
        honest.send(&hello(8, &good)).unwrap();
        honest.send(&hello(7, &[0; 32])).unwrap();
        honest.send(&hello(7, &good[..31])).unwrap();
    }
    until("all are looked at", || door.counters.records_dropped.get() == 4000);
    assert_eq!(begun(), 0);
    honest.send(&hello(7, &good)).unwrap();
    until("the genuine one is taken", || begun() == 1);
    assert_eq!(hello(7, &good)[COOKIE_LENGTH], 32);
}

#[test]
fn garbage_and_repeated_records_change_nothing() {
    let door = Door::open(DtlsConfig::default());
    let mut client = Client::connected(door.address, 3);
    client.call(b"once");
    let genuine = client.last.clone();
    let stranger = socket([127, 0, 0, 1], door.address);
    let mut seed = 1_u64;
    for round in 0..2000_usize {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = genuine.clone();
        let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
        bytes[at] ^= 1 << (seed >> 61);
        // From the session's own address: changed, repeated, cut.
        client.socket.send(&bytes).unwrap();
        client.socket.send(&genuine).unwrap();
        client.socket.send(&genuine[..at]).unwrap();
        stranger.send(&bytes).unwrap();
        stranger.send(&seed.to_be_bytes().repeat(round % 8 * 100)).unwrap();
        if round % 100 == 0 {
            let answer = client.call(b"again");
            assert_eq!(answer.payload, b"niaga");
        }
    }
    assert_eq!(client.call(b"after").payload, b"retfa");
    assert_eq!(door.counters.calls.get(), 22);
    assert!(door.counters.records_dropped.get() > 5000);
    assert_eq!((door.sessions(), door.counters.repeated.get()), (1, 0));
}
