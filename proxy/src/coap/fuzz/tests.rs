//! Programs drawn at random: datagrams of four peers, most of them well formed and then damaged, some of them sent to a group, steps of
//! time, ends of calls, and outputs and accepted calls that are observed. And the inputs that are kept for the fuzzer.
//!
//! `SANDBAR_SOAK` makes it ten million datagrams, where it is else a hundred thousand.

#![allow(clippy::print_stdout, reason = "says how fast it was")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};

use super::run::{Run, TICKETS};
use super::{LAYERS, VERIFY};
use crate::coap::counters::CoapCounters;

const DATAGRAMS: usize = 100_000;
const DATAGRAMS_SOAK: usize = 10_000_000;
const STEPS: usize = 40;

/// One of these paths, or the location of an accepted call.
fn add_path(packet: &mut Packet, draw: &mut fastrand::Rng, paths: &[&[&str]]) {
    let ticket = draw.choice(&TICKETS).unwrap().to_string();
    let location = ["a", sandbar_runtime::ACCEPTED_CALLS, &ticket];
    let path = if draw.u8(0..4) == 0 { &location[..] } else { *draw.choice(paths).unwrap() };
    for segment in path {
        packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
    }
}

/// A request of which everything that makes a difference is drawn.
fn request(draw: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = Packet::new();
    packet.header.set_type(*draw.choice(&[MessageType::Confirmable, MessageType::NonConfirmable]).unwrap());
    let methods = [RequestType::Get, RequestType::Post, RequestType::Put, RequestType::Fetch, RequestType::Delete];
    packet.header.code = MessageClass::Request(*draw.choice(&methods).unwrap());
    packet.header.message_id = draw.u16(0..12);
    packet.set_token(vec![draw.u8(0..2); draw.usize(0..9)]);
    let paths: [&[&str]; 5] = [&["a"], &["a"], &["a", "f"], &["b"], &[".well-known", "core"]];
    add_path(&mut packet, draw, &paths);
    if draw.u8(0..6) == 0 {
        packet.add_option(CoapOption::UriQuery, b"async".to_vec());
    }
    for option in [1, 5, 6, 12, 15, 17, 23, 27, 27, 35, 60, 252, 258, 292] {
        if draw.u8(0..6) == 0 {
            let value = if matches!(option, 23 | 27) {
                vec![draw.u8(0..6) << 4 | draw.u8(0..2) << 3 | draw.u8(..) & 7]
            } else {
                (0..draw.usize(0..4)).map(|_| draw.u8(..)).collect()
            };
            packet.add_option(CoapOption::from(option), value);
        }
    }
    packet.payload = vec![1; *draw.choice(&[0, 1, 16, 32, 64, 512, 1024, 1024, 5000]).unwrap()];
    packet.to_bytes_unlimited().unwrap()
}

/// A request to observe, or to observe no more.
fn observe(draw: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = Packet::new();
    packet.header.set_type(*draw.choice(&[MessageType::Confirmable, MessageType::NonConfirmable]).unwrap());
    packet.header.code = MessageClass::Request(*draw.choice(&[RequestType::Get, RequestType::Fetch]).unwrap());
    packet.header.message_id = draw.u16(..);
    packet.set_token(vec![draw.u8(0..3)]);
    packet.add_option(CoapOption::Observe, if draw.u8(0..5) == 0 { vec![1] } else { Vec::new() });
    add_path(&mut packet, draw, &[&["a"], &["a", "f"], &["a"], &["a", "f"], &["a", "g"]]);
    if draw.u8(0..4) == 0 {
        packet.add_option(CoapOption::Block2, vec![draw.u8(0..7)]);
    }
    if draw.u8(0..4) == 0 {
        packet.add_option(CoapOption::Accept, vec![50]);
    }
    packet.to_bytes_unlimited().unwrap()
}

/// What a host sends to all of its network: a request for discovery, as a rule one that need not be confirmed.
fn discovery(draw: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = Packet::new();
    let kinds = [MessageType::Confirmable, MessageType::NonConfirmable];
    packet.header.set_type(kinds[usize::from(draw.u8(0..8) > 0)]);
    packet.header.code = MessageClass::Request(RequestType::Get);
    packet.header.message_id = draw.u16(0..12);
    packet.set_token(vec![draw.u8(0..2); draw.usize(0..9)]);
    for segment in [".well-known", "core"] {
        packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
    }
    if let Some(filter) = *draw.choice(&[None, None, Some("rt=sandbar.function"), Some("href=/nothing*")]).unwrap() {
        packet.add_option(CoapOption::UriQuery, filter.as_bytes().to_vec());
    }
    for (option, value) in [(17, 40), (17, 50), (23, draw.u8(0..8)), (258, 2), (258, 24)] {
        if draw.u8(0..6) == 0 {
            packet.add_option(CoapOption::from(option), vec![value]);
        }
    }
    packet.to_bytes_unlimited().unwrap()
}

fn damaged(draw: &mut fastrand::Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..draw.usize(0..4) {
        let at = draw.usize(0..bytes.len().clamp(1, 64));
        match draw.u8(0..5) {
            0 if at < bytes.len() => bytes[at] = draw.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << draw.u8(0..8),
            2 if at < bytes.len() => {
                bytes.remove(at);
            }
            3 => bytes.insert(at.min(bytes.len()), draw.u8(..)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn nothing_that_is_sent_breaks_the_door_or_stays_in_it() {
    let soak = std::env::var_os("SANDBAR_SOAK").is_some();
    let datagrams = if soak { DATAGRAMS_SOAK } else { DATAGRAMS };
    let counters = Arc::<CoapCounters>::default();
    let (mut sent, mut seed, began) = (0, 0, Instant::now());
    while sent < datagrams {
        seed += 1;
        // A failure names its seed, which alone makes the same run again.
        let mut draw = fastrand::Rng::with_seed(seed);
        let mut run = Run::new(VERIFY[usize::from(seed % 4 == 0)], &counters);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                match draw.u8(0..14) {
                    0 => run.pass(Duration::from_millis(*draw.choice(&[1, 100, 250, 3000, 61_000, 150_000]).unwrap())),
                    1 | 2 => run.end_call(draw.usize(..), *draw.choice(&[0, 10, 1024, 1025, 3000, 7000]).unwrap()),
                    3 => {
                        let function = *draw.choice(&[None, Some("f")]).unwrap();
                        let format = *draw.choice(&[None, None, None, Some(50)]).unwrap();
                        match draw.u8(0..8) {
                            0 => run.reconsider(function),
                            _ => run.publish(function, *draw.choice(&[0, 10, 1025, 3000, 9000]).unwrap(), format),
                        }
                    }
                    13 => {
                        let format = *draw.choice(&[None, Some(50)]).unwrap();
                        run.accepted_goes_on(draw.usize(..), *draw.choice(&[0, 10, 1025, 3000, 9000]).unwrap(), format);
                    }
                    4 => {
                        let whole = observe(&mut draw);
                        run.datagram(draw.u16(1..5), &whole);
                        sent += 1;
                    }
                    7 => {
                        let whole = if draw.u8(0..8) == 0 { request(&mut draw) } else { discovery(&mut draw) };
                        let bytes = if draw.u8(0..4) == 0 { damaged(&mut draw, whole) } else { whole };
                        run.by_group(draw.u16(1..5), &bytes);
                        sent += 1;
                    }
                    5 => {
                        let accepts = draw.u8(0..3) > 0;
                        run.reply_to_last(accepts);
                    }
                    6 => {
                        let kind = draw.u8(4..8) << 4;
                        run.datagram(draw.u16(1..5), &[kind, 0, draw.u8(..), draw.u8(..)]);
                    }
                    _ => {
                        let whole = request(&mut draw);
                        let bytes = if draw.bool() { damaged(&mut draw, whole) } else { whole };
                        run.datagram(draw.u16(1..5), &bytes);
                        sent += 1;
                    }
                }
            }
            run.end();
        }));
        assert!(told.is_ok(), "seed {seed}");
    }
    let looked_at = |name: &str| name.starts_with("observers") || name.starts_with("group_");
    let never: Vec<_> = counters.list().into_iter().filter(|(name, count)| looked_at(name) && *count == 0).collect();
    // Sessions are another door's; the socket counts what comes by a group.
    let elsewhere = [("group_requests", 0), ("observers_gone", 0)];
    assert_eq!(never, elsewhere, "all that becomes of observations and of what came by groups has happened");
    println!("{sent} datagrams in {:?}", began.elapsed());
}

#[test]
fn the_kept_inputs_harm_no_layer() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (layer, tried) in LAYERS {
        let inputs: Vec<_> = std::fs::read_dir(corpus.join(layer)).unwrap().collect();
        assert!(!inputs.is_empty(), "{layer} has inputs");
        for input in inputs {
            let path = input.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            // Cut short and damaged as well: each is where a fuzzer begins.
            for length in 0..=bytes.len() {
                tried(&bytes[..length]);
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0xff;
                tried(&damaged);
            }
        }
    }
}
