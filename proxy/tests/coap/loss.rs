//! A network that loses, repeats, delays and turns about: every call runs once and is answered, and payloads are what they were.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use coap_lite::{CoapOption, Packet, RequestType};
use futures_util::future::join_all;
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Client, Door, block, block_of, code, request, with};
use crate::echo::pattern;
use crate::relay::{Fates, Relay};

/// When a request that was not acknowledged is sent again: longer than most round trips here.
const AGAIN_AFTER: Duration = Duration::from_millis(30);
/// Longer than all answers of one batch take, on a slow machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Networks beside the first three in the long form, and how many there are at one time.
const NETWORKS_SOAK: u64 = 300;
const AT_ONCE: u64 = 6;

/// A client behind such a network.
struct Unlucky {
    client: Client,
    relay: Relay,
}

impl Unlucky {
    async fn of(door: &Door, seed: u64) -> Self {
        let relay = Relay::to(door.address, seed).await;
        Self { client: Client::to(relay.address).await, relay }
    }

    /// Sends confirmable requests, all at once, until each is acknowledged; gives their answers, in the order of the requests.
    async fn ask_all(&mut self, packets: Vec<Packet>) -> Vec<Packet> {
        let asked: Vec<Packet> = packets.into_iter().map(|packet| self.client.numbered(packet)).collect();
        let (mut answers, mut acknowledged) = (vec![None; asked.len()], vec![false; asked.len()]);
        let start = Instant::now();
        let mut again = start;
        while answers.iter().any(Option::is_none) {
            assert!(start.elapsed() < PATIENCE, "unanswered: {answers:?}");
            if again <= Instant::now() {
                for (packet, _) in asked.iter().zip(&acknowledged).filter(|(_, acknowledged)| !**acknowledged) {
                    self.client.send(packet).await;
                }
                again = Instant::now() + AGAIN_AFTER;
            }
            let Some(received) = self.client.receive_within(again.saturating_duration_since(Instant::now())).await
            else {
                continue;
            };
            let [kind, _, high, low] = received[..4] else { panic!("{received:?}") };
            if kind >> 4 & 3 == 0 {
                // Answers of earlier calls, too, are sent again until an acknowledgement gets through.
                self.client.send_bytes(&[0x60, 0, high, low]).await;
            }
            let answer = Packet::from_bytes(&received).unwrap();
            for (at, packet) in asked.iter().enumerate() {
                let of_this =
                    answer.header.code != coap_lite::MessageClass::Empty && answer.get_token() == packet.get_token();
                acknowledged[at] |=
                    of_this || kind >> 4 & 3 == 2 && answer.header.message_id == packet.header.message_id;
                if of_this {
                    answers[at].get_or_insert_with(|| answer.clone());
                }
            }
        }
        answers.into_iter().flatten().collect()
    }

    async fn ask(&mut self, packet: Packet) -> Packet {
        self.ask_all(vec![packet]).await.remove(0)
    }

    /// Sends a payload in blocks, has it come back in blocks, and looks whether it is the same.
    async fn echoes(&mut self, payload: &[u8], exponent: u32) {
        let size = 16 << exponent;
        let count = u32::try_from(payload.len().div_ceil(size)).unwrap();
        let mut echoed = Vec::new();
        for (number, bytes) in (0..).zip(payload.chunks(size)) {
            let more = number + 1 < count;
            let packet = with(request(RequestType::Post, "/test", bytes), 27, &block(number, more, exponent));
            let packet = if more { packet } else { with(packet, 23, &block(0, false, exponent)) };
            let answer = self.ask(packet).await;
            assert_eq!(code(&answer), if more { "2.31" } else { "2.04" });
            if !more {
                echoed = answer.payload;
            }
        }
        for number in 1..count {
            let packet = with(request(RequestType::Post, "/test", b""), 23, &block(number, false, exponent));
            let answer = self.ask(packet).await;
            assert_eq!(block_of(&answer, CoapOption::Block2), (number, number + 1 < count, exponent));
            echoed.extend_from_slice(&answer.payload);
        }
        assert!(echoed == payload);
    }

    /// The network did what it is here for.
    fn suffered(&self) {
        let Fates { lost, repeated, overtaken } = &*self.relay.fates;
        for (fate, count) in [("lost", lost), ("repeated", repeated), ("overtaken", overtaken)] {
            assert!(count.load(Ordering::Relaxed) > 0, "{count:?} {fate}");
        }
    }
}

fn hurried() -> CoapConfig {
    CoapConfig {
        acknowledge_after: Duration::from_millis(10),
        acknowledgement_timeout: Duration::from_millis(30),
        // More than the protocol's four, for a network worse than it expects.
        retransmissions_max: 10,
        ..CoapConfig::default()
    }
}

/// 150 calls over such a network; how many requests came again, and how many answers were sent again.
async fn calls_run_once(seed: u64) -> (u64, u64) {
    let door = Door::open(hurried());
    let mut unlucky = Unlucky::of(&door, seed).await;
    for batch in 1..=25_u64 {
        let calls = ["fast", "20", "fast", "60", "fast", "0"];
        let path = |payload| if payload == "fast" { "/test" } else { "/test/sleep" };
        let packets = calls.map(|payload| request(RequestType::Post, path(payload), payload.as_bytes()));
        for (answer, payload) in unlucky.ask_all(packets.to_vec()).await.into_iter().zip(calls) {
            assert_eq!((code(&answer), answer.payload), ("2.04".into(), payload.into()));
        }
        assert_eq!(door.echo.runs(), batch * 6, "seed {seed}");
    }
    unlucky.suffered();
    let told = (door.counters.repeated.get(), door.counters.retransmitted.get());
    door.close().await;
    told
}

/// By three networks; by a hundred times as many with `SANDBAR_SOAK`, some at the same time.
#[tokio::test]
async fn every_call_runs_once_and_is_answered() {
    for seed in [0x1234_5678_9abc_def1, 0x0f0f_1e1e_2d2d_3c3c, 0x9e37_79b9_7f4a_7c15] {
        let (repeated, retransmitted) = calls_run_once(seed).await;
        assert!(repeated > 20 && retransmitted > 5, "{repeated} requests repeated, {retransmitted} answers");
    }
    if std::env::var_os("SANDBAR_SOAK").is_some() {
        let begun = Instant::now();
        let one_after_another = async |first: u64| {
            for round in 0..NETWORKS_SOAK / AT_ONCE {
                // Any but 0, of which no chance comes.
                calls_run_once((first + round * AT_ONCE + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).await;
            }
        };
        join_all((0..AT_ONCE).map(one_after_another)).await;
        println!("{NETWORKS_SOAK} networks in {:.0?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_payload_in_blocks_goes_through_whole() {
    for (exponent, length) in [(0, 600), (2, 2000), (5, 20_000), (6, 40_000)] {
        let door = Door::open(hurried());
        let mut unlucky = Unlucky::of(&door, 0xfeed_beef_0bad_cafe + u64::from(exponent)).await;
        unlucky.echoes(&pattern(length), exponent).await;
        assert_eq!(door.echo.runs(), 1);
        unlucky.suffered();
        door.close().await;
    }
}

#[tokio::test]
async fn payloads_of_several_clients_do_not_mix() {
    let door = Door::open(hurried());
    let transfer = async |seed: u64| {
        let mut unlucky = Unlucky::of(&door, seed).await;
        let payload: Vec<u8> = pattern(4000).iter().map(|byte| byte ^ u8::try_from(seed).unwrap()).collect();
        unlucky.echoes(&payload, 4).await;
        unlucky.suffered();
    };
    tokio::join!(transfer(1), transfer(2), transfer(3), transfer(4));
    assert_eq!(door.echo.runs(), 4);
    door.close().await;
}
