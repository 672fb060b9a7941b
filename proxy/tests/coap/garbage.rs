//! Whatever arrives, the door goes on serving.

use std::net::Ipv4Addr;
use std::time::Duration;

use coap_lite::RequestType;
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Door, block, code, request, with};
use crate::draw::Draw;

fn seeds() -> Vec<Vec<u8>> {
    let post = request(RequestType::Post, "/test/echo", b"payload");
    let packets = [
        post.clone(),
        with(post.clone(), 27, &block(0, true, 0)),
        with(post.clone(), 27, &block(3, false, 6)),
        with(post.clone(), 23, &block(1, false, 6)),
        with(with(post.clone(), 12, &[50]), 17, &[50]),
        with(with(post, 60, &[0xff; 4]), 258, &[2]),
        with(request(RequestType::Get, "/.well-known/core", b""), 15, b"rt=*"),
        request(RequestType::Post, "/test/big", b"5000"),
    ];
    packets.iter().map(|packet| packet.to_bytes_unlimited().unwrap()).collect()
}

fn mutated(draw: &mut Draw, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = seeds[draw.below(seeds.len())].clone();
    for _ in 0..=draw.below(6) {
        let at = draw.below(datagram.len().max(1));
        match draw.below(5) {
            0 if !datagram.is_empty() => datagram[at] = draw.byte(),
            1 if !datagram.is_empty() => datagram[at] ^= 1 << draw.below(8),
            2 => datagram.insert(at.min(datagram.len()), draw.byte()),
            3 if !datagram.is_empty() => {
                datagram.remove(at);
            }
            _ => datagram.truncate(at),
        }
    }
    datagram
}

#[tokio::test]
async fn mutated_messages_do_not_stop_the_door() {
    let door = Door::open(CoapConfig::default());
    let mut draw = Draw(0x2545_f491_4f6c_dd1d);
    let seeds = seeds();
    let stranger = door.client().await;
    let mut client = door.client().await;
    for round in 0..20_000 {
        let datagram = if round % 10 == 0 {
            (0..draw.below(200)).map(|_| draw.byte()).collect()
        } else {
            mutated(&mut draw, &seeds)
        };
        stranger.send_bytes(&datagram).await;
        if round % 500 == 0 {
            let answer = client.ask(request(RequestType::Post, "/test", b"x")).await;
            assert_eq!(code(&answer), "2.04");
        }
    }
    assert!(door.counters.malformed.get() > 1000);
    door.close().await;
}

#[tokio::test]
async fn the_largest_datagrams_do_not_stop_the_door() {
    let door = Door::open(CoapConfig::default());
    let mut draw = Draw(77);
    let stranger = door.client().await;
    for _ in 0..20 {
        let mut datagram: Vec<u8> = (0..65_507).map(|_| draw.byte()).collect();
        stranger.send_bytes(&datagram).await;
        datagram[..4].copy_from_slice(&[0x40, 0x02, 0, 1]);
        stranger.send_bytes(&datagram).await;
        // Nothing but options of no length.
        datagram[4..].fill(0);
        stranger.send_bytes(&datagram).await;
    }
    let mut client = door.client().await;
    for length in [1024, 1300, 9000, 60_000] {
        let answer = client.ask(request(RequestType::Post, "/test", &vec![1; length])).await;
        assert_eq!(code(&answer), "2.04");
        assert_eq!(answer.payload, [1; 1024]);
    }
    door.close().await;
}

#[tokio::test]
async fn options_of_every_length_do_not_stop_the_door() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    for length in (0..1400).step_by(7) {
        for option in [4, 11, 15, 27, 2048] {
            let packet = with(request(RequestType::Post, "/test", b"x"), option, &vec![b'a'; length]);
            let packet = with(packet, 23, &block(0, false, 2));
            client.ask(packet).await;
        }
    }
    door.close().await;
}

#[tokio::test]
async fn a_datagram_from_port_zero_does_not_stop_the_door() {
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};
    use std::os::fd::AsRawFd;

    let door = Door::open(CoapConfig::default());
    let raw = match socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Udp) {
        Ok(raw) => raw,
        Err(error) => {
            eprintln!("SKIPPED: a raw socket needs a privilege: {error}");
            door.close().await;
            return;
        }
    };
    let ping = [0x40, 0, 0, 1];
    let port = door.address.port().to_be_bytes();
    // Source port 0, no checksum.
    let datagram = [&[0, 0, port[0], port[1], 0, 12, 0, 0][..], &ping].concat();
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, door.address.port()));
    for _ in 0..100 {
        sendto(raw.as_raw_fd(), &datagram, &to, MsgFlags::empty()).unwrap();
    }
    let mut client = door.client().await;
    let answer = client.ask(request(RequestType::Post, "/test", b"x")).await;
    assert_eq!(code(&answer), "2.04");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(door.counters.unanswerable.get(), 100);
    door.close().await;
}
