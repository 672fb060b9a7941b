//! Requests to groups (RFC 7252, section 8), over a network of the test's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use coap_lite::{CoapOption, MessageType, Packet, RequestType};
use nix::net::if_::if_nametoindex;
use sandbar_proxy::coap::{BindError, CoapConfig, CoapDoor, Counter, GroupConfig};
use tokio::net::UdpSocket;

use crate::client::{Door, block, block_of, code, non, request, text, uint, with};
use crate::echo::Echo;
use crate::network::{LINK_V6, SITE_V6, V4, in_its_own};

const PATIENCE: Duration = Duration::from_secs(10);
const ALL_NODES: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 187);

fn groups(interface: &str, leisure_ms: u64) -> CoapConfig {
    let groups = GroupConfig {
        interfaces: vec![interface.parse().unwrap()],
        leisure: Duration::from_millis(leisure_ms),
        ..GroupConfig::default()
    };
    CoapConfig { groups, ..CoapConfig::default() }
}

fn discovery() -> Packet {
    non(request(RequestType::Get, "/.well-known/core", b""))
}

/// A client that asks whom it likes, and hears whoever answers.
struct Asking {
    socket: UdpSocket,
    sent: u16,
}

impl Asking {
    async fn from(address: impl Into<SocketAddr>) -> Self {
        Self { socket: UdpSocket::bind(address.into()).await.unwrap(), sent: 0 }
    }

    /// Sends a packet with a message id and a token of its own, and gives the token.
    async fn send(&mut self, packet: &Packet, to: SocketAddr) -> Vec<u8> {
        self.sent += 1;
        let mut packet = packet.clone();
        packet.header.message_id = self.sent;
        packet.set_token(self.sent.to_be_bytes().to_vec());
        self.socket.send_to(&packet.to_bytes_unlimited().unwrap(), to).await.unwrap();
        packet.get_token().to_vec()
    }

    /// Asks again when there is no answer for a second, as clients do: none of these datagrams is confirmed, and an interface that has just come up
    /// may lose one.
    async fn ask_until_heard(&mut self, packet: &Packet, to: SocketAddr) -> (Vec<u8>, (Packet, SocketAddr)) {
        for _ in 1..PATIENCE.as_secs() {
            let token = self.send(packet, to).await;
            if let Ok(heard) = tokio::time::timeout(Duration::from_secs(1), self.hear()).await {
                return (token, heard);
            }
        }
        panic!("there is no answer");
    }

    async fn hear(&self) -> (Packet, SocketAddr) {
        let mut buffer = [0; 2048];
        let heard = tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await;
        let (length, from) = heard.expect("an answer").unwrap();
        (Packet::from_bytes(&buffer[..length]).unwrap(), from)
    }
}

async fn counts(counter: &Counter, times: u64) {
    let start = Instant::now();
    while counter.get() < times {
        assert!(start.elapsed() < PATIENCE, "{} of {times}", counter.get());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(counter.get(), times);
}

fn v4(index: usize) -> IpAddr {
    V4[index].parse().unwrap()
}

/// At whatever address the door listens, it answers from the one that it is asked at without groups.
async fn answers_a_group(door: &str, from: SocketAddr, group: impl Fn(u16) -> SocketAddr, expected: IpAddr) {
    let door = Door::open_at(door, groups("v0", 20));
    let mut client = Asking::from(from).await;
    let (token, (answer, at)) = client.ask_until_heard(&discovery(), group(door.address.port())).await;
    assert_eq!((at.ip(), at.port()), (expected, door.address.port()));
    assert_eq!((answer.header.get_type(), code(&answer)), (MessageType::NonConfirmable, "2.05".to_owned()));
    assert_eq!((answer.get_token(), uint(&answer, CoapOption::ContentFormat)), (token.as_slice(), Some(40)));
    assert!(text(&answer).contains("</test/echo>"), "{}", text(&answer));
    let asked = u64::from(client.sent);
    assert_eq!((door.counters.group_requests.get(), door.counters.group_answers.get()), (asked, asked));
    assert_eq!((door.counters.unanswerable.get(), door.echo.runs()), (0, 0), "each datagram comes once");
    door.close().await;
}

#[test]
fn a_door_at_all_addresses_answers_the_group() {
    in_its_own(async || {
        answers_a_group("0.0.0.0:0", (v4(0), 0).into(), |port| (ALL_NODES, port).into(), v4(0)).await;
    });
}

#[test]
fn a_door_at_one_address_answers_the_group() {
    in_its_own(async || {
        let door = format!("{}:0", V4[1]);
        answers_a_group(&door, (v4(0), 0).into(), |port| (ALL_NODES, port).into(), v4(1)).await;
    });
}

#[test]
fn groups_of_ipv6_are_answered_in_the_link_and_in_the_site() {
    in_its_own(async || {
        let index = if_nametoindex("v0").unwrap();
        for (from, group) in [(LINK_V6, "ff02::fd"), (SITE_V6, "ff05::fd"), (LINK_V6, "ff05::fd")] {
            let own: Ipv6Addr = from.parse().unwrap();
            let of_v0 = |address: &str, port| SocketAddrV6::new(address.parse().unwrap(), port, 0, index).into();
            answers_a_group("[::]:0", of_v0(from, 0), |port| of_v0(group, port), own.into()).await;
        }
    });
}

#[test]
fn what_is_no_unconfirmed_discovery_is_answered_by_silence() {
    in_its_own(async || {
        let door = Door::open_at("0.0.0.0:0", groups("v0", 0));
        let group = (ALL_NODES, door.address.port()).into();
        let mut client = Asking::from((v4(0), 0)).await;
        let mut ping = Packet::new();
        ping.header.set_type(MessageType::Confirmable);
        let ignored = [
            request(RequestType::Get, "/.well-known/core", b""),
            non(request(RequestType::Post, "/.well-known/core", b"")),
            non(request(RequestType::Get, "/test/echo", b"")),
            non(request(RequestType::Get, "/nothing", b"")),
            with(discovery(), 17, &[50]),
            with(discovery(), 9, b"unknown and critical"),
            with(discovery(), 23, &block(1, false, 6)),
        ];
        for packet in &ignored {
            client.send(packet, group).await;
        }
        for bytes in [&[0x40, 0, 1, 1][..], &[0x70, 0, 1, 2], &[0x60, 0, 1, 3], &[0x40, 1, 1, 4, 0xff], &[0x40]] {
            client.socket.send_to(bytes, group).await.unwrap();
        }
        counts(&door.counters.group_ignored, 12).await;
        client.send(&with(discovery(), 15, b"rt=nothing.has.it"), group).await;
        client.send(&with(discovery(), 258, &[2]), group).await;
        counts(&door.counters.group_unmatched, 2).await;
        let token = client.send(&with(discovery(), 15, b"rt=sandbar.application"), group).await;
        let (answer, _) = client.hear().await;
        assert_eq!(
            (answer.get_token(), text(&answer)),
            (&token[..], "</test>;rt=\"sandbar.application\";obs".to_owned())
        );
        assert_eq!((door.echo.runs(), door.counters.group_answers.get()), (0, 1));
        door.close().await;
    });
}

#[test]
fn all_hosts_answer_each_when_it_likes() {
    in_its_own(async || {
        const EACH: usize = 24;
        const LEISURE_MS: u64 = 400;
        let mut config = groups("all", LEISURE_MS);
        config.groups.pending_per_address_max = 64;
        let first = Door::open_at(&format!("{}:0", V4[0]), config.clone());
        let port = first.address.port();
        let second = Door::open_at(&format!("{}:{port}", V4[1]), config);
        let mut client = Asking::from((v4(0), 0)).await;
        for _ in 0..EACH {
            client.send(&discovery(), (ALL_NODES, port).into()).await;
        }
        let mut heard = Vec::new();
        for _ in 0..EACH * 2 {
            let (_, from) = client.hear().await;
            heard.push((Instant::now(), from.ip()));
        }
        let spread = heard[heard.len() - 1].0 - heard[0].0;
        assert!(spread >= Duration::from_millis(LEISURE_MS / 4), "{spread:?}");
        for address in [v4(0), v4(1)] {
            assert_eq!(heard.iter().filter(|(_, from)| *from == address).count(), EACH, "{address}");
        }
        first.close().await;
        second.close().await;
    });
}

#[test]
fn a_list_that_is_cut_goes_on_by_the_doors_own_address() {
    in_its_own(async || {
        let door = Door::open_at("0.0.0.0:0", groups("v0", 0));
        let mut client = Asking::from((v4(1), 0)).await;
        let group = (ALL_NODES, door.address.port()).into();
        client.send(&with(discovery(), 23, &block(0, false, 2)), group).await;
        let (first, at) = client.hear().await;
        let (mut list, mut number, mut more) = (text(&first), 0, block_of(&first, CoapOption::Block2).1);
        while more {
            number += 1;
            client.send(&with(discovery(), 23, &block(number, false, 2)), at).await;
            let (next, _) = client.hear().await;
            list.push_str(&text(&next));
            more = block_of(&next, CoapOption::Block2).1;
        }
        assert!(number > 1 && list.starts_with("</.well-known/core>") && list.contains("</test/overloaded>"), "{list}");
        door.close().await;
    });
}

#[test]
fn a_flood_is_dropped_and_counted() {
    in_its_own(async || {
        let mut config = groups("v0", 600_000);
        config.groups.pending_max = 10;
        config.groups.pending_per_address_max = 6;
        let door = Door::open_at("0.0.0.0:0", config);
        let group = (ALL_NODES, door.address.port()).into();
        for address in [v4(0), v4(1)] {
            let mut client = Asking::from((address, 0)).await;
            for _ in 0..50 {
                client.send(&discovery(), group).await;
            }
        }
        counts(&door.counters.group_requests, 100).await;
        counts(&door.counters.group_dropped, 90).await;
        assert_eq!(door.counters.receive_errors.get(), 0);
        door.close().await;
    });
}

#[test]
fn other_interfaces_and_other_networks_are_not_heard() {
    in_its_own(async || {
        let config = CoapConfig { networks: Some(vec!["10.9.0.2/32".parse().unwrap()]), ..groups(V4[0], 0) };
        let door = Door::open_at("0.0.0.0:0", config);
        let group = (ALL_NODES, door.address.port()).into();
        // Somebody else on this host has joined there.
        let other = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        other.join_multicast_v4(ALL_NODES, Ipv4Addr::LOCALHOST).unwrap();
        let mut by_loopback = Asking::from((v4(1), 0)).await;
        let loopback = socket2::SockRef::from(&by_loopback.socket);
        loopback.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        by_loopback.send(&discovery(), group).await;
        Asking::from((v4(0), 0)).await.send(&discovery(), group).await;
        let mut client = Asking::from((v4(1), 0)).await;
        client.send(&discovery(), group).await;
        client.hear().await;
        let counters = &door.counters;
        assert_eq!((counters.outside.get(), counters.group_requests.get(), counters.datagrams.get()), (1, 1, 2));
        door.close().await;
    });
}

#[test]
fn the_doors_address_stays_its_own() {
    in_its_own(async || {
        let door = Door::open_at("0.0.0.0:0", groups("v0", 0));
        let rival = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        rival.set_reuse_address(true).unwrap();
        let address = SocketAddr::from((v4(0), door.address.port()));
        assert!(rival.bind(&address.into()).is_err(), "nobody may share it");
        door.close().await;
    });
}

#[tokio::test]
async fn an_interface_that_is_not_there_is_an_error() {
    let opened = CoapDoor::bind("127.0.0.1:0".parse().unwrap(), Echo::default(), groups("nowhere0", 0));
    let Err(BindError::NoInterface { interface }) = opened else { panic!("{opened:?}") };
    assert_eq!(interface.to_string(), "nowhere0");
}

#[tokio::test]
async fn a_door_that_reaches_no_such_interface_has_no_groups() {
    let door = CoapDoor::bind("127.0.0.1:0".parse().unwrap(), Echo::default(), groups("all", 0)).unwrap();
    assert_eq!(door.groups().count(), 0);
    let door = CoapDoor::bind("127.0.0.1:0".parse().unwrap(), Echo::default(), groups("lo", 0)).unwrap();
    assert_eq!(door.groups().collect::<Vec<_>>(), [IpAddr::from(ALL_NODES)]);
}
