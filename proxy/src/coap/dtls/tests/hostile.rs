//! What nobody honest sends.

use std::time::Duration;

use super::client::{Client, Under};
use super::limits;
use crate::coap::clockwork::Timed;
use crate::coap::dtls::hello;
use crate::coap::random::Random;

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.bits() % u64::try_from(bound).unwrap()).unwrap()
}

/// Changes a few bytes, cuts, or adds.
fn mutated(random: &mut Random, datagram: &[u8]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    for _ in 0..=below(random, 4) {
        let at = below(random, bytes.len().max(1));
        match below(random, 6) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&random.bits().to_be_bytes()),
            2 => bytes.extend_from_within(at.min(bytes.len())..),
            3 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = 0xff),
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (at % 8)),
        }
    }
    bytes
}

#[test]
fn garbage_leaves_nothing() {
    let mut under = Under::new(limits());
    let mut random = Random::default();
    let endpoint = Client::new(1, "sensor").endpoint;
    for length in 0..2000 {
        let mut bytes: Vec<u8> = (0..length).map(|_| random.bits().to_be_bytes()[0]).collect();
        if length % 2 == 0 {
            let header = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes.iter_mut().zip(header).for_each(|(byte, from)| *byte = from);
        }
        let sent = under.dtls.receive(&endpoint, &bytes, under.now).transmits;
        assert!(sent.iter().map(|transmit| transmit.bytes.len()).sum::<usize>() <= bytes.len());
    }
    assert_eq!((under.dtls.handshakes.len(), under.dtls.sessions.len()), (0, 0));
}

#[test]
fn every_mutation_of_a_handshake_ends_it_or_not_and_harms_nobody() {
    let mut under = Under::new(limits());
    let mut bystander = Client::new(9, "other");
    under.connect(&mut bystander).unwrap();
    let mut random = Random::default();
    let inputs = if std::env::var_os("SANDBAR_SOAK").is_some() { 10_000_000 } else { 20_000 };
    let (mut round, mut input) = (0, 0);
    while input < inputs {
        round += 1;
        // Now and then a handshake has a chance.
        let most = [2, 40][round % 2];
        let mut client = Client::new(1, "sensor");
        let mut steps = 0;
        loop {
            let sent = client.sent();
            if sent.is_empty() || steps == 8 {
                break;
            }
            steps += 1;
            for datagram in sent {
                for _ in 0..=below(&mut random, most) {
                    input += 1;
                    let mutated = mutated(&mut random, &datagram);
                    for transmit in under.dtls.receive(&client.endpoint, &mutated, under.now).transmits {
                        assert!(transmit.bytes.len() < 1500);
                    }
                }
                for transmit in under.dtls.receive(&client.endpoint, &datagram, under.now).transmits {
                    client.receive(&transmit.bytes);
                }
            }
        }
        assert!(under.dtls.handshakes.len() <= 1);
        under.now += Duration::from_millis(1);
        if round % 50 == 0 {
            assert_eq!(under.says(&mut bystander, b"x").len(), 1);
        }
    }
    let counters = &under.counters;
    assert!(counters.handshakes_done.get() > 100 && counters.handshakes_failed.get() > 100, "{:?}", counters.list());
    under.now += limits().handshake_time_max;
    under.dtls.tick(under.now, &mut Vec::new());
    assert_eq!(under.dtls.handshakes.len(), 0);
    let mut after = Client::new(1, "sensor");
    assert!(under.connect(&mut after).is_some());
}

#[test]
fn forged_and_repeated_records_are_dropped_and_counted_and_the_session_goes_on() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    under.connect(&mut client).unwrap();
    client.say(b"once");
    let [genuine] = client.sent().try_into().unwrap();
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    let heard = |under: &mut Under, datagram: &[u8]| {
        let arrival = under.dtls.receive(&client.endpoint, datagram, under.now);
        assert!(arrival.transmits.is_empty());
        arrival.messages.len()
    };
    assert_eq!(heard(&mut under, &forged), 0);
    assert_eq!(heard(&mut under, &genuine), 1);
    for _ in 0..100 {
        assert_eq!(heard(&mut under, &genuine), 0);
    }
    assert_eq!(under.counters.records_dropped.get(), 101);
    // An alert and a goodbye that nothing protects.
    for description in [0, 40] {
        let mut alert = hello::alert(hello::Alert::HandshakeFailure, 99);
        *alert.last_mut().unwrap() = description;
        assert_eq!(heard(&mut under, &alert), 0);
    }
    let mut random = Random::default();
    for _ in 0..2000 {
        let bytes = mutated(&mut random, &genuine);
        assert_eq!(heard(&mut under, &bytes), 0);
    }
    assert_eq!(under.says(&mut client, b"again").len(), 1);
}

#[test]
fn half_open_handshakes_are_few_whoever_opens_them_and_others_get_through() {
    let mut under = Under::new(limits());
    for address in 0..=255 {
        for port in 1..=20 {
            let mut client = Client::at([10, 0, 0, address], port, "sensor");
            let hello = under.hello_with_cookie(&mut client);
            under.dtls.receive(&client.endpoint, &hello, under.now);
        }
        under.now += Duration::from_millis(20);
    }
    assert_eq!(under.dtls.handshakes.len(), limits().handshakes_max);
    assert!(under.connect(&mut Client::new(1, "sensor")).is_some());
    under.now += limits().handshake_time_max;
    while under.dtls.next_deadline().is_some_and(|due| due <= under.now) {
        under.dtls.tick(under.now, &mut Vec::new());
    }
    assert_eq!((under.dtls.handshakes.len(), under.dtls.sessions.len()), (0, 1));
}
