//! Datagrams that are no messages, or only just.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use coap_lite::RequestType;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use crate::abuse::{serves_on, times};
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

fn byte(draw: &mut Draw) -> u8 {
    u8::try_from(draw.below(256)).unwrap()
}

fn mutated(draw: &mut Draw, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = seeds[draw.below(seeds.len())].clone();
    for _ in 0..=draw.below(6) {
        let at = draw.below(datagram.len().max(1));
        match draw.below(5) {
            0 if !datagram.is_empty() => datagram[at] = byte(draw),
            1 if !datagram.is_empty() => datagram[at] ^= 1 << draw.below(8),
            2 => datagram.insert(at.min(datagram.len()), byte(draw)),
            3 if !datagram.is_empty() => {
                datagram.remove(at);
            }
            _ => datagram.truncate(at),
        }
    }
    datagram
}

/// 5,000 messages that were damaged, and a few hundred short datagrams of chance.
pub(crate) async fn mutated_messages(door: &Door) {
    let mut draw = Draw(0x2545_f491_4f6c_dd1d);
    let (seeds, before) = (seeds(), door.counters.malformed.get());
    let stranger = door.client().await;
    for round in 0..times(5000) {
        stranger.send_bytes(&mutated(&mut draw, &seeds)).await;
        if round % 10 == 0 {
            let chance: Vec<u8> = (0..draw.below(200)).map(|_| byte(&mut draw)).collect();
            stranger.send_bytes(&chance).await;
        }
        if round % 100 == 0 {
            serves_on(door).await;
        }
    }
    assert!(door.counters.malformed.get() - before > 500);
}

/// Datagrams as large as there are: of chance, such with a header, and with nothing but options of no length.
pub(crate) async fn largest_datagrams(door: &Door) {
    let mut draw = Draw(77);
    let stranger = door.client().await;
    for _ in 0..times(50) {
        let mut datagram: Vec<u8> = (0..65_507).map(|_| byte(&mut draw)).collect();
        stranger.send_bytes(&datagram).await;
        datagram[..4].copy_from_slice(&[0x40, 0x02, 0, 1]);
        stranger.send_bytes(&datagram).await;
        datagram[4..].fill(0);
        stranger.send_bytes(&datagram).await;
        serves_on(door).await;
    }
    let mut client = door.client().await;
    for length in [1024, 1300, 9000, 60_000] {
        let answer = client.ask(request(RequestType::Post, "/test", &vec![1; length])).await;
        assert_eq!((code(&answer), answer.payload), ("2.04".into(), vec![1; 1024]));
    }
}

/// Options of every length that a datagram of an Ethernet holds: critical ones and others, each beside a block option.
pub(crate) async fn options_of_every_length(door: &Door) {
    for option in [4, 11, 15, 27, 2048] {
        let mut client = door.client().await;
        for length in 0..1400 {
            let packet = with(request(RequestType::Post, "/test", b"x"), option, &vec![b'a'; length]);
            let answer = client.ask(with(packet, 23, &block(0, false, 2))).await;
            let taken = option % 2 == 0 || option == 15 && length <= 255;
            assert!(!taken || code(&answer) == "2.04", "option {option} of {length} bytes: {answer:?}");
        }
    }
}

/// A socket that sends what it is given, if this process may have one.
fn raw(protocol: SockProtocol) -> Option<OwnedFd> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), protocol);
    raw.inspect_err(|error| eprintln!("SKIPPED: a raw socket needs a privilege: {error}")).ok()
}

fn send_raw(raw: &OwnedFd, datagram: &[u8], door: &Door) {
    let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, door.address.port()));
    sendto(raw.as_raw_fd(), datagram, &to, MsgFlags::empty()).unwrap();
}

/// A UDP datagram of no checksum.
fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let header = [from, to, length, 0].map(u16::to_be_bytes);
    [header.as_flattened(), payload].concat()
}

/// Datagrams that come from port 0, where nobody can be answered.
pub(crate) async fn port_zero(door: &Door) {
    let Some(raw_socket) = raw(SockProtocol::Udp) else { return };
    let before = door.counters.unanswerable.get();
    let count = u64::from(times(100));
    for _ in 0..count {
        send_raw(&raw_socket, &udp(0, door.address.port(), &[0x40, 0, 0, 1]), door);
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    while door.counters.unanswerable.get() < before + count {
        assert!(start.elapsed() < Duration::from_secs(10), "{} of {count}", door.counters.unanswerable.get() - before);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Requests and first blocks whose senders are others than they say: thousands of addresses, each once, none of which will ever answer.
pub(crate) async fn spoofed_senders(door: &Door) {
    let Some(raw_socket) = raw(SockProtocol::Raw) else { return };
    let slow = request(RequestType::Post, "/test/sleep", b"30").to_bytes_unlimited().unwrap();
    let part =
        with(request(RequestType::Put, "/test", &[0; 1024]), 27, &block(0, true, 6)).to_bytes_unlimited().unwrap();
    let before = door.counters.requests.get();
    let count = times(5000);
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let payload = if number % 2 == 0 { &slow } else { &part };
        let datagram = udp(4000 + u16::from(c), door.address.port(), payload);
        // Version 4, five words, time to live, UDP; the kernel fills in length and checksum.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 127, 128 + a, b, c, 127, 0, 0, 1];
        packet.extend_from_slice(&datagram);
        send_raw(&raw_socket, &packet, door);
        if number % 50 == 0 {
            serves_on(door).await;
        }
    }
    assert!(door.counters.requests.get() - before >= u64::from(count), "they were taken for what they said");
}
