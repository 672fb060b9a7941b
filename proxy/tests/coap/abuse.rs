//! What clients do that are broken, gone, or mean no good: afterwards the door serves on, and holds nothing for them.
//!
//! `SANDBAR_SOAK` makes it ten times as much.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use coap_lite::RequestType;
use sandbar_proxy::coap::{CoapConfig, TransferLimits};
use tokio::net::UdpSocket;

use crate::client::{Door, block, code, request, with};

fn times(short: u32) -> u32 {
    if std::env::var_os("SANDBAR_SOAK").is_some() { 10 * short } else { short }
}

async fn serves_on(door: &Door) {
    let mut client = door.client().await;
    assert_eq!(code(&client.ask(request(RequestType::Post, "/test", b"x")).await), "2.04");
}

/// A socket with an address of its own, which nobody else on this host has.
async fn stranger(door: &Door, number: u32) -> UdpSocket {
    let [_, a, b, c] = number.to_be_bytes();
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::new(127, 64 + a, b, c), 0))).await.unwrap();
    socket.connect(door.address).await.unwrap();
    socket
}

#[tokio::test]
async fn duplicates_run_once() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test", b"x")).to_bytes_unlimited().unwrap();
    let copies = times(10_000);
    client.send_bytes(&packet).await;
    let first = client.receive_bytes().await;
    for _ in 1..copies {
        client.send_bytes(&packet).await;
        assert_eq!(client.receive_bytes().await, first);
    }
    assert_eq!((door.echo.runs(), door.counters.repeated.get()), (1, u64::from(copies) - 1));
    serves_on(&door).await;
    door.close().await;
}

#[tokio::test]
async fn abandoned_uploads_are_given_up() {
    let uploads =
        TransferLimits { idle_max: Duration::from_secs(1), transfers_max: 20_000, ..TransferLimits::default() };
    let door = Door::open(CoapConfig { uploads, ..CoapConfig::default() });
    let begun = times(1000);
    let part =
        with(request(RequestType::Put, "/test", &[0; 1024]), 27, &block(0, true, 6)).to_bytes_unlimited().unwrap();
    for number in 0..begun {
        let socket = stranger(&door, number).await;
        socket.send(&part).await.unwrap();
        let mut answer = [0; 64];
        socket.recv(&mut answer).await.unwrap();
        assert_eq!(answer[1], 0x5f, "2.31");
    }
    let start = Instant::now();
    while door.counters.transfers_expired.get() < u64::from(begun) {
        assert!(start.elapsed() < Duration::from_secs(10), "{} given up", door.counters.transfers_expired.get());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(door.echo.runs(), 0);
    serves_on(&door).await;
    door.close().await;
}

#[tokio::test]
async fn clients_that_are_gone_before_their_answer_are_given_up() {
    let door = Door::open(CoapConfig {
        acknowledge_after: Duration::from_millis(20),
        acknowledgement_timeout: Duration::from_millis(20),
        ..CoapConfig::default()
    });
    let gone = times(200);
    let packet = request(RequestType::Post, "/test/sleep", b"100").to_bytes_unlimited().unwrap();
    for number in 0..gone {
        // Closed at once: the kernel tells the door's socket of each datagram that finds nobody.
        stranger(&door, number).await.send(&packet).await.unwrap();
    }
    let start = Instant::now();
    while door.counters.unacknowledged.get() < u64::from(gone) {
        assert!(start.elapsed() < Duration::from_secs(20), "{} given up", door.counters.unacknowledged.get());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(door.echo.runs(), u64::from(gone));
    serves_on(&door).await;
    door.close().await;
}
