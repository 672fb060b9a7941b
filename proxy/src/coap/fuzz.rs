//! Anything that anybody may send, in any order, with time passing between: datagram → message → layers.
//!
//! An input is a program: datagrams of four peers, most of them well formed and then damaged, steps of time, and ends of calls. After
//! each, what leaves is looked at; at the end all calls are ended, time runs out, and nothing may be left.
//!
//! `SANDBAR_SOAK` makes it ten million datagrams, where it is else a hundred thousand.

#![allow(clippy::print_stdout, reason = "says how fast it was")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};
use sandbar_runtime::{Answer, Origin, Outcome, Request};

use super::call::inquire;
use super::clockwork::Timed;
use super::config::{CoapConfig, TransferLimits};
use super::datagram::{Endpoint, Transmit};
use super::layers::{Layers, Pending, Reaction};
use super::message::{Received, Token, read};
use super::response::Response;
use super::verify::CoapVerify;
use super::visitor::Visitor;
use crate::service::{ServedApplication, Service};

const PAYLOAD_BYTES_MAX: usize = 4096;
/// The longest datagram that leaves: a block and its options, or an echoed token and a diagnostic.
const DATAGRAM_BYTES_MAX: usize = 1152;
const DATAGRAMS: usize = 100_000;
const DATAGRAMS_SOAK: usize = 10_000_000;
const STEPS: usize = 40;

/// One application, `a`.
#[derive(Clone, Debug)]
struct One;

impl Service for One {
    fn find(&self, _: Origin, application: &str, _: Option<&str>) -> Result<(), Box<Answer>> {
        let refused = || Box::new(Answer::refused(Outcome::NotFound, "no such application"));
        (application == "a").then_some(()).ok_or_else(refused)
    }

    async fn call(&self, _: Request) -> Answer {
        Answer::refused(Outcome::Failed, "nothing runs here")
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        Vec::new()
    }
}

/// A door without a socket, and what is known of what it should do.
struct Run {
    layers: Layers,
    config: Arc<CoapConfig>,
    now: Instant,
    pending: Vec<Pending>,
    /// By peer and message id: the token that came last, and when its request ran.
    ran: HashMap<(u16, u16), (Token, Option<Instant>)>,
}

/// Limits so tight that all are met.
fn tight(verify: CoapVerify) -> CoapConfig {
    let transfers = TransferLimits {
        transfers_max: 4,
        transfers_per_peer_max: 2,
        bytes_max: 12_000,
        bytes_per_peer_max: 6000,
        ..TransferLimits::default()
    };
    CoapConfig {
        verify,
        verified_max: 2,
        calls_in_flight_max: 8,
        calls_in_flight_per_peer_max: 4,
        rate_per_peer: 20,
        rate_burst: 8,
        payload_bytes_in_flight_max: 8000,
        peers_max: 3,
        exchanges_max: 24,
        exchanges_per_peer_max: 12,
        exchange_bytes_max: 24 * 1024,
        confirmations_max: 4,
        uploads: transfers.clone(),
        downloads: transfers,
        ..CoapConfig::default()
    }
}

impl Run {
    fn new(verify: CoapVerify) -> Self {
        let (config, now) = (Arc::new(tight(verify)), Instant::now());
        let layers = Layers::new(Arc::clone(&config), Arc::default(), PAYLOAD_BYTES_MAX, now);
        Self { layers, config, now, pending: Vec::new(), ran: HashMap::new() }
    }

    fn datagram(&mut self, port: u16, bytes: &[u8]) {
        let from = Endpoint { remote: std::net::SocketAddr::from(([10, 0, 0, 1], port)), local: None, session: None };
        match read(bytes, self.config.options_max) {
            Received::Request(message) => {
                let (id, token) = (message.id, message.token);
                let last = self.ran.entry((port, id)).or_insert((token, None));
                if last.0 != token {
                    *last = (token, None);
                }
                let inquiry = inquire(&One, &self.config, &message, &Visitor::Stranger(from.remote.ip()));
                match self.layers.request(&from, message, inquiry, self.now) {
                    Reaction::Silence => {}
                    Reaction::Send(transmit) => look_at(&transmit),
                    Reaction::Run(_, pending) => {
                        let before = last.1.replace(self.now);
                        let again = before.is_some_and(|ran| self.now - ran < self.config.non_confirmable_lifetime);
                        assert!(!again, "message {id:04x} of {port} ran twice");
                        self.pending.push(*pending);
                    }
                }
            }
            Received::Acknowledgement(id) | Received::Reset(id) => {
                self.layers.confirmed(&from, id);
            }
            Received::Ping(_) | Received::Malformed(..) | Received::Ignored(_) => {}
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut out = Vec::new();
        self.layers.tick(self.now, &mut out);
        out.iter().for_each(look_at);
    }

    fn end_call(&mut self, which: usize, payload_bytes: usize) {
        if self.pending.is_empty() {
            return;
        }
        let pending = self.pending.swap_remove(which % self.pending.len());
        let payload = Bytes::from(vec![7; payload_bytes]);
        let response = Response { payload, ..Response::new(ResponseType::Changed) };
        self.layers.answered(pending, response, self.now).iter().for_each(look_at);
    }

    /// Everything ends, and nothing is left.
    fn end(mut self) {
        while !self.pending.is_empty() {
            self.end_call(0, 10);
        }
        for _ in 0..8 {
            self.pass(Duration::from_secs(100));
        }
        assert!(self.layers.is_empty(), "{:?}", self.layers);
    }
}

/// What leaves is a message of ours, and no longer than a datagram should be.
fn look_at(transmit: &Transmit) {
    assert!(transmit.bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", transmit.bytes.len());
    let packet = Packet::from_bytes(&transmit.bytes).unwrap();
    assert!(matches!(packet.header.code, MessageClass::Response(_) | MessageClass::Empty), "{packet:?}");
}

/// A request of which everything that makes a difference is drawn.
fn request(draw: &mut fastrand::Rng) -> Vec<u8> {
    let mut packet = Packet::new();
    packet.header.set_type(*draw.choice(&[MessageType::Confirmable, MessageType::NonConfirmable]).unwrap());
    let methods = [RequestType::Get, RequestType::Post, RequestType::Put, RequestType::Fetch, RequestType::Delete];
    packet.header.code = MessageClass::Request(*draw.choice(&methods).unwrap());
    packet.header.message_id = draw.u16(0..12);
    packet.set_token(vec![draw.u8(0..2); draw.usize(0..9)]);
    let path: &[&str] = draw.choice(&[&["a"][..], &["a"], &["a", "f"], &["b"], &[".well-known", "core"]]).unwrap();
    for segment in path {
        packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
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
    let (mut sent, mut seed, began) = (0, 0, Instant::now());
    while sent < datagrams {
        seed += 1;
        // A failure names its seed, which alone makes the same run again.
        let mut draw = fastrand::Rng::with_seed(seed);
        let verify = if seed % 4 == 0 { CoapVerify::Always } else { CoapVerify::Never };
        let mut run = Run::new(verify);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                match draw.u8(0..10) {
                    0 => run.pass(Duration::from_millis(*draw.choice(&[1, 100, 250, 3000, 61_000, 150_000]).unwrap())),
                    1 | 2 => run.end_call(draw.usize(..), *draw.choice(&[0, 10, 1024, 1025, 3000, 7000]).unwrap()),
                    3 => {
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
    println!("{sent} datagrams in {:?}", began.elapsed());
}
