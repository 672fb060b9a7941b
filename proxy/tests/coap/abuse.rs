//! What clients do that are broken, gone, or mean no good. What it leaves is looked at by the test `coap_abuse`.
//!
//! `SANDBAR_SOAK` makes it ten times as much.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use coap_lite::{CoapOption, Packet, RequestType};
use sandbar_proxy::coap::{CoapConfig, CoapVerify, TransferLimits};
use tokio::net::UdpSocket;

use crate::client::{Door, block, code, request, with};

pub(crate) fn times(short: u32) -> u32 {
    if std::env::var_os("SANDBAR_SOAK").is_some() { 10 * short } else { short }
}

/// Calls are answered, if need be after the cookie was given back. That may take a repetition: what floods a door floods its socket.
pub(crate) async fn serves_on(door: &Door) {
    let mut client = door.client().await;
    let mut packet = client.numbered(request(RequestType::Post, "/test", b"x"));
    for _ in 0..100 {
        client.send(&packet).await;
        let Some(received) = client.receive_within(Duration::from_millis(100)).await else { continue };
        let answer = Packet::from_bytes(&received).unwrap();
        match answer.get_first_option(CoapOption::from(252)) {
            Some(cookie) => packet = client.numbered(with(request(RequestType::Post, "/test", b"x"), 252, cookie)),
            None => return assert_eq!(code(&answer), "2.04"),
        }
    }
    panic!("the door answers no more");
}

/// Waits until something is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A door that forgets soon what it must remember for minutes.
pub(crate) fn forgetful() -> CoapConfig {
    let transfers = TransferLimits {
        idle_max: Duration::from_secs(1),
        transfers_max: 20_000,
        transfers_per_peer_max: 200,
        ..TransferLimits::default()
    };
    CoapConfig {
        // All that come at once are served.
        calls_in_flight_max: 4096,
        acknowledge_after: Duration::from_millis(20),
        acknowledgement_timeout: Duration::from_millis(20),
        confirmable_lifetime: Duration::from_millis(500),
        non_confirmable_lifetime: Duration::from_millis(500),
        uploads: transfers.clone(),
        downloads: transfers,
        ..CoapConfig::default()
    }
}

/// Such a door that has peers show where they are.
pub(crate) fn wary() -> CoapConfig {
    CoapConfig { verify: CoapVerify::Always, ..forgetful() }
}

/// A socket with an address of its own, which nobody else on this host has.
async fn stranger(door: &Door, number: u32) -> UdpSocket {
    let [_, a, b, c] = number.to_be_bytes();
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::new(127, 64 + a, b, c), 0))).await.unwrap();
    socket.connect(door.address).await.unwrap();
    socket
}

/// 10,000 copies of one request, each answered alike, for one run.
pub(crate) async fn duplicates(door: &Door) {
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test", b"x")).to_bytes_unlimited().unwrap();
    let (runs, repeated, copies) = (door.echo.runs(), door.counters.repeated.get(), times(10_000));
    client.send_bytes(&packet).await;
    let first = client.receive_bytes().await;
    for _ in 1..copies {
        client.send_bytes(&packet).await;
        assert_eq!(client.receive_bytes().await, first);
    }
    assert_eq!((door.echo.runs() - runs, door.counters.repeated.get() - repeated), (1, u64::from(copies) - 1));
}

/// Uploads of which the first block comes and no other, each of another peer.
pub(crate) async fn abandoned_uploads(door: &Door) {
    let (given_up, begun, runs) = (door.counters.transfers_expired.get(), times(1000), door.echo.runs());
    let part =
        with(request(RequestType::Put, "/test", &[0; 1024]), 27, &block(0, true, 6)).to_bytes_unlimited().unwrap();
    for number in 0..begun {
        let socket = stranger(door, number).await;
        socket.send(&part).await.unwrap();
        let mut answer = [0; 64];
        socket.recv(&mut answer).await.unwrap();
        assert_eq!(answer[1], 0x5f, "2.31");
    }
    let expired = || door.counters.transfers_expired.get() - given_up;
    until("all are given up", || expired() == u64::from(begun)).await;
    assert_eq!(door.echo.runs(), runs);
}

/// Clients that are gone before their answer is there.
pub(crate) async fn vanished_clients(door: &Door) {
    let (counters, runs, gone) = (&door.counters, door.echo.runs(), times(200));
    let (given_up, early) = (counters.unacknowledged.get(), counters.acknowledged_early.get());
    let packet = request(RequestType::Post, "/test/sleep", b"300").to_bytes_unlimited().unwrap();
    for number in 0..gone {
        // Closed at once: the kernel tells the door's socket of each datagram that finds nobody.
        stranger(door, number).await.send(&packet).await.unwrap();
    }
    until("all have run", || door.echo.runs() - runs == u64::from(gone)).await;
    // A call that ends before its acknowledgement is due, as on a slow machine, is answered with it: nobody waits for more.
    let (separate, unheard) =
        (|| counters.acknowledged_early.get() - early, || counters.unacknowledged.get() - given_up);
    until("all answers are given up", || separate() > u64::from(gone) / 2 && separate() == unheard()).await;
}
