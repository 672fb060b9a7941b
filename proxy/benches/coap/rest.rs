//! What a peer takes of the door's memory when it asks for nothing more.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::servers::{Kind, Server};

const PEERS: u32 = 10_000;
/// Those that make the door's memory and its tables what they are anyway.
const PEERS_BEFORE: u32 = 200;

/// Bytes of memory for each peer that has made one call and is remembered with it.
pub(crate) fn bytes_per_peer() -> u64 {
    let server = Server::start(&Kind::Door);
    ask_each(&server, 0..PEERS_BEFORE);
    let before = server.resident_bytes();
    ask_each(&server, PEERS_BEFORE..PEERS_BEFORE + PEERS);
    server.resident_bytes().saturating_sub(before) / u64::from(PEERS)
}

/// One call each, from addresses of their own.
fn ask_each(server: &Server, peers: std::ops::Range<u32>) {
    let mut bytes = [0; 128];
    for peer in peers {
        let [_, _, high, low] = peer.to_be_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, high, low), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let request = [&[0x44, 2, high, low, 1, 2, 3, 4, 0xb4][..], b"test", &[0xff], &[b'x'; 64]].concat();
        socket.send_to(&request, server.address).unwrap();
        socket.recv(&mut bytes).unwrap();
    }
}
