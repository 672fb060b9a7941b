//! What nobody honest sends, drawn at random.
//!
//! Each test prints the seed that it begins with, which the harness shows when it fails; `SANDBAR_DTLS_SEED` gives it one. What the library
//! draws itself (random bytes of messages, nonces, how long it waits) is the operating system's, and so is the secret of
//! our cookies: under a seed the same is damaged in the same way, in messages of the same form and not of the same bytes.
//!
//! `SANDBAR_SOAK` makes it ten million datagrams, where it is else twenty thousand.

#![allow(clippy::print_stdout, reason = "says its seed and how fast it was")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::client::{Client, Under};
use super::limits;
use crate::coap::clockwork::Timed;
use crate::coap::dtls::hello;

const INPUTS: usize = 20_000;
const INPUTS_SOAK: usize = 10_000_000;

/// The seed to begin with: the one that is given, or any.
pub(super) fn first_seed() -> u64 {
    let given = std::env::var("SANDBAR_DTLS_SEED").map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|_| fastrand::u32(..).into());
    println!("SANDBAR_DTLS_SEED={seed}");
    seed
}

/// Changes a few bytes, cuts, or adds.
fn mutated(draw: &mut fastrand::Rng, datagram: &[u8]) -> Vec<u8> {
    let mut bytes = datagram.to_vec();
    for _ in 0..draw.usize(1..5) {
        let at = draw.usize(0..bytes.len().max(1));
        match draw.u8(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&draw.u64(..).to_be_bytes()),
            2 => bytes.extend_from_within(at.min(bytes.len())..),
            3 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = 0xff),
            _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (at % 8)),
        }
    }
    bytes
}

/// A client's handshake, each datagram of which comes damaged up to `most` times before it comes whole. Gives how many came damaged.
fn damaged_handshake(under: &mut Under, draw: &mut fastrand::Rng, most: usize) -> usize {
    let mut client = Client::new(1, "sensor");
    let mut inputs = 0;
    for _ in 0..8 {
        let sent = client.sent();
        if sent.is_empty() {
            break;
        }
        for datagram in sent {
            for _ in 0..draw.usize(1..=most) {
                inputs += 1;
                let mutated = mutated(draw, &datagram);
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
    inputs
}

#[test]
fn garbage_leaves_nothing() {
    let mut under = Under::new(limits());
    let mut draw = fastrand::Rng::with_seed(first_seed());
    let endpoint = Client::new(1, "sensor").endpoint;
    for length in 0..2000 {
        let mut bytes: Vec<u8> = (0..length).map(|_| draw.u8(..)).collect();
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
    let soak = std::env::var_os("SANDBAR_SOAK").is_some();
    let least = if soak { INPUTS_SOAK } else { INPUTS };
    let (mut seed, mut inputs, began) = (first_seed(), 0, Instant::now());
    while inputs < least {
        // A failure names the round's own seed: one that begins there finds it at once.
        let told = catch_unwind(AssertUnwindSafe(|| {
            let mut draw = fastrand::Rng::with_seed(seed);
            // Now and then a handshake has a chance.
            let most = [2, 40][usize::from(seed % 2 == 0)];
            inputs += damaged_handshake(&mut under, &mut draw, most);
            under.now += Duration::from_millis(1);
            if seed % 50 == 0 {
                assert_eq!(under.says(&mut bystander, b"x").len(), 1);
            }
        }));
        assert!(told.is_ok(), "SANDBAR_DTLS_SEED={seed}");
        seed += 1;
    }
    println!("{inputs} damaged datagrams in {:?}", began.elapsed());
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
    let mut draw = fastrand::Rng::with_seed(first_seed());
    for _ in 0..2000 {
        let bytes = mutated(&mut draw, &genuine);
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
