//! A network that loses and repeats: every call runs once and is answered.

use std::time::Duration;

use coap_lite::{Packet, RequestType};
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Client, Door, block, block_of, code, request, with};
use crate::draw::Draw;
use crate::echo::pattern;

/// A client behind a network that loses three in ten datagrams of each direction and repeats two.
struct Unlucky {
    client: Client,
    draw: Draw,
}

impl Unlucky {
    async fn send(&mut self, bytes: &[u8]) {
        let copies = match self.draw.below(10) {
            0..3 => 0,
            3..5 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            self.client.send_bytes(bytes).await;
        }
    }

    /// Sends a confirmable request until it is acknowledged, and gives its answer.
    async fn ask(&mut self, packet: Packet) -> Packet {
        let packet = self.client.numbered(packet);
        let bytes = packet.to_bytes_unlimited().unwrap();
        let mut acknowledged = false;
        for _ in 0..100 {
            if !acknowledged {
                self.send(&bytes).await;
            }
            let Some(received) = self.client.receive_within(Duration::from_millis(30)).await else {
                continue;
            };
            if self.draw.below(10) < 3 {
                continue;
            }
            let [kind, _, high, low] = received[..4] else {
                panic!("{received:?}");
            };
            if kind >> 4 & 3 == 0 {
                // Answers of earlier calls are still sent again until their acknowledgement gets through.
                self.send(&[0x60, 0, high, low]).await;
            }
            let answer = Packet::from_bytes(&received).unwrap();
            acknowledged |= answer.header.message_id == packet.header.message_id && kind >> 4 & 3 == 2;
            if answer.get_token() == packet.get_token() {
                return answer;
            }
        }
        panic!("no answer");
    }
}

async fn unlucky(door: &Door, seed: u64) -> Unlucky {
    Unlucky { client: door.client().await, draw: Draw(seed) }
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

#[tokio::test]
async fn every_call_runs_once_and_is_answered() {
    let door = Door::open(hurried());
    let mut unlucky = unlucky(&door, 0x1234_5678_9abc_def1).await;
    for call in 0..150_u64 {
        let (path, payload) = if call % 3 == 0 { ("/test/sleep", "20") } else { ("/test", "fast") };
        let answer = unlucky.ask(request(RequestType::Post, path, payload.as_bytes())).await;
        assert_eq!((code(&answer), answer.payload), ("2.04".into(), payload.into()));
        assert_eq!(door.echo.runs(), call + 1);
    }
    assert!(door.counters.repeated.get() > 20);
    assert!(door.counters.retransmitted.get() > 5);
    door.close().await;
}

#[tokio::test]
async fn a_payload_in_blocks_goes_through_whole() {
    let door = Door::open(hurried());
    let mut unlucky = unlucky(&door, 0xfeed_beef_0bad_cafe).await;
    let payload = pattern(20_000);
    let count = u32::try_from(payload.len().div_ceil(512)).unwrap();
    let mut echoed = Vec::new();
    for (number, bytes) in (0..).zip(payload.chunks(512)) {
        let more = number + 1 < count;
        let packet = with(request(RequestType::Post, "/test", bytes), 27, &block(number, more, 5));
        let packet = if more { packet } else { with(packet, 23, &block(0, false, 5)) };
        let answer = unlucky.ask(packet).await;
        assert_eq!(code(&answer), if more { "2.31" } else { "2.04" });
        if !more {
            echoed = answer.payload;
        }
    }
    for number in 1..count {
        let packet = with(request(RequestType::Post, "/test", b""), 23, &block(number, false, 5));
        let answer = unlucky.ask(packet).await;
        assert_eq!(block_of(&answer, coap_lite::CoapOption::Block2), (number, number + 1 < count, 5));
        echoed.extend_from_slice(&answer.payload);
    }
    assert!(echoed == payload);
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}
