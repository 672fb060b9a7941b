//! The first message of a DTLS client, made by hand: by one who goes no further.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Where in a client's first message its cookie's length stands, if it names no session.
pub(crate) const COOKIE_LENGTH: usize = 13 + 12 + 2 + 32 + 1;

/// A client's first message, with a cookie or without, numbered accordingly.
pub(crate) fn hello(random: u64, cookie: &[u8]) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend_from_slice(&random.to_be_bytes().repeat(4));
    body.push(0);
    body.push(u8::try_from(cookie.len()).unwrap());
    body.extend_from_slice(cookie);
    // PSK_AES128_CCM_8, no compression, extended master secret.
    body.extend_from_slice(&[0, 2, 0xc0, 0xa8, 1, 0, 0, 4, 0, 23, 0, 0]);
    let length = u8::try_from(body.len()).unwrap();
    let sequence = u8::from(!cookie.is_empty());
    let mut datagram = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, sequence, 0, length + 12];
    datagram.extend_from_slice(&[1, 0, 0, length, 0, sequence, 0, 0, 0, 0, 0, length]);
    datagram.extend_from_slice(&body);
    datagram
}

pub(crate) fn socket(address: [u8; 4], door: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((address, 0))).unwrap();
    socket.connect(door).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// The cookie that the door asks this socket for. Whatever else it still has to say is passed over.
pub(crate) fn cookie(socket: &UdpSocket, random: u64) -> Vec<u8> {
    socket.send(&hello(random, &[])).unwrap();
    let mut buffer = [0; 512];
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        if buffer[13] == 3 {
            assert_eq!(usize::from(buffer[27]), length - 28);
            return buffer[28..length].to_vec();
        }
    }
}
