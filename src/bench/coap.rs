//! Calls over CoAP: one socket, one request at a time, as a datagram that was made beforehand and differs in two numbers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use tokio::net::UdpSocket;

use super::tally::End;
use super::target::Url;

/// What goes into one datagram with its options, whatever lies between.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1024;
/// First wait for an answer or an acknowledgement, doubled each time (RFC 7252, 4.2; without the part by chance).
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests from one socket: a number of the message's own is not used again while the server may remember it.
const SOCKET_CALLS_MAX: u16 = 60_000;
/// Of an answer no more is looked at than its head.
const DATAGRAM_BYTES_MAX: usize = 2048;
const TOKEN_AT: usize = 4;
const TOKEN_BYTES: usize = 4;

/// One socket of a load.
#[derive(Debug)]
pub(crate) struct CoapLane {
    to: SocketAddr,
    socket: Option<UdpSocket>,
    datagram: Vec<u8>,
    confirmable: bool,
    /// With this socket.
    calls: u16,
    id: u16,
    number: u32,
    input: Box<[u8]>,
}

/// The datagram that all lanes send, but for message id and token.
///
/// # Errors
/// When the path or the payload does not fit.
pub(crate) fn datagram(url: &Url, payload: &[u8], confirmable: bool) -> Result<Vec<u8>, String> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "a payload of {} bytes: over CoAP one datagram is sent, of up to {PAYLOAD_BYTES_MAX}",
            payload.len()
        ));
    }
    let mut packet = Packet::new();
    packet.header.set_type(if confirmable { MessageType::Confirmable } else { MessageType::NonConfirmable });
    packet.header.code = MessageClass::Request(RequestType::Post);
    packet.set_token(vec![0; TOKEN_BYTES]);
    let (path, query) = url.path.split_once('?').unwrap_or((&url.path, ""));
    for part in path.split('/').filter(|part| !part.is_empty()) {
        packet.add_option(CoapOption::UriPath, part.as_bytes().to_vec());
    }
    for part in query.split('&').filter(|part| !part.is_empty()) {
        packet.add_option(CoapOption::UriQuery, part.as_bytes().to_vec());
    }
    packet.payload = payload.to_vec();
    packet.to_bytes().map_err(|error| error.to_string())
}

impl CoapLane {
    /// Its numbers start by chance: to a server that remembers a socket with the same port, from a run just before, the same numbers
    /// would be the same call, and its answer the old one.
    pub(crate) fn new(to: SocketAddr, datagram: Vec<u8>, confirmable: bool) -> Self {
        let input = vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice();
        let (id, number) = (fastrand::u16(..), fastrand::u32(..));
        Self { to, socket: None, datagram, confirmable, calls: 0, id, number, input }
    }

    /// Makes one call. One that is not waited for may be left: its socket is closed, and the next call opens another.
    pub(crate) async fn call(&mut self) -> End {
        match self.exchange().await {
            Ok(end) => end,
            Err(error) => {
                self.socket = None;
                End::of(&error)
            }
        }
    }

    async fn exchange(&mut self) -> io::Result<End> {
        if self.calls >= SOCKET_CALLS_MAX {
            self.socket = None;
        }
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(self.to).await?;
                self.calls = 0;
                socket
            }
        };
        self.calls += 1;
        self.id = self.id.wrapping_add(1);
        self.number = self.number.wrapping_add(1);
        self.datagram[2..4].copy_from_slice(&self.id.to_be_bytes());
        self.datagram[TOKEN_AT..TOKEN_AT + TOKEN_BYTES].copy_from_slice(&self.number.to_be_bytes());
        let end = self.until_answered(&socket).await;
        self.socket = Some(socket);
        end
    }

    async fn until_answered(&mut self, socket: &UdpSocket) -> io::Result<End> {
        socket.send(&self.datagram).await?;
        let mut pause = ACK_TIMEOUT;
        let mut acknowledged = !self.confirmable;
        loop {
            let received = if acknowledged {
                socket.recv(&mut self.input).await?
            } else {
                match tokio::time::timeout(pause, socket.recv(&mut self.input)).await {
                    Ok(received) => received?,
                    Err(_) => {
                        pause *= 2;
                        socket.send(&self.datagram).await?;
                        continue;
                    }
                }
            };
            match self.judge(&self.input[..received]) {
                Heard::Other => {}
                Heard::Acknowledged => acknowledged = true,
                Heard::Reset => return Ok(End::Error("reset".to_owned())),
                Heard::Answer { code, acknowledge } => {
                    if let Some(id) = acknowledge {
                        let [high, low] = id.to_be_bytes();
                        socket.send(&[0x60, 0, high, low]).await?;
                    }
                    return Ok(end(code));
                }
            }
        }
    }

    fn judge(&self, datagram: &[u8]) -> Heard {
        let &[first, code, high, low, ..] = datagram else { return Heard::Other };
        let id = u16::from_be_bytes([high, low]);
        let (version, kind, token_bytes) = (first >> 6, first >> 4 & 3, usize::from(first & 0xF));
        if version != 1 {
            return Heard::Other;
        }
        const CON: u8 = 0;
        const ACK: u8 = 2;
        const RST: u8 = 3;
        match (kind, code) {
            (ACK, 0) if id == self.id => Heard::Acknowledged,
            (RST, 0) if id == self.id => Heard::Reset,
            (_, 0) => Heard::Other,
            (kind, code) => {
                let token = datagram.get(TOKEN_AT..TOKEN_AT + TOKEN_BYTES);
                if token_bytes != TOKEN_BYTES || token != Some(&self.number.to_be_bytes()[..]) {
                    return Heard::Other;
                }
                Heard::Answer { code, acknowledge: (kind == CON).then_some(id) }
            }
        }
    }
}

/// What a datagram means to the call under way.
enum Heard {
    /// Nothing: it is of another.
    Other,
    /// The request has arrived; the answer comes later.
    Acknowledged,
    /// The server makes nothing of the request.
    Reset,
    /// The answer, and the message to be acknowledged.
    Answer { code: u8, acknowledge: Option<u16> },
}

fn end(code: u8) -> End {
    const OVERLOADED: u8 = 5 << 5 | 3;
    match code {
        0x40..0x60 => End::Done,
        OVERLOADED => End::Refused,
        code => End::Error(format!("code {}.{:02}", code >> 5, code & 0x1F)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        Url { authority: "127.0.0.1:5683".to_owned(), path: "/a/f?q=1".to_owned() }
    }

    #[test]
    fn the_datagram_is_a_request_whose_numbers_lie_where_they_are_written() {
        let bytes = datagram(&url(), b"x", true).unwrap();
        assert_eq!(bytes[0], 0x40 | u8::try_from(TOKEN_BYTES).unwrap());
        let packet = Packet::from_bytes(&bytes).unwrap();
        let path: Vec<_> = packet.get_option(CoapOption::UriPath).unwrap().iter().cloned().collect();
        assert_eq!((path, packet.payload), (vec![b"a".to_vec(), b"f".to_vec()], b"x".to_vec()));
        assert!(datagram(&url(), &[0; 1025], true).is_err());
    }

    #[tokio::test]
    async fn a_lost_datagram_is_sent_again_and_a_separate_answer_acknowledged() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let mut lane = CoapLane::new(to, datagram(&url(), b"x", true).unwrap(), true);
        let serve = async {
            let mut buffer = [0; 2048];
            let mut requests = Vec::new();
            while requests.len() < 2 {
                let (len, from) = server.recv_from(&mut buffer).await.unwrap();
                requests.push(buffer[..len].to_vec());
                server.send_to(b"\x40", from).await.unwrap();
                if requests.len() == 2 {
                    let token = &buffer[4..8];
                    server.send_to(&[0x60, 0, buffer[2], buffer[3]], from).await.unwrap();
                    server.send_to(&[&[0x44, 0x45, 7, 7][..], b"none", b"\xFFy"].concat(), from).await.unwrap();
                    server.send_to(&[&[0x44, 0x45, 7, 8][..], token, b"\xFFy"].concat(), from).await.unwrap();
                }
            }
            let (len, _) = server.recv_from(&mut buffer).await.unwrap();
            (requests, buffer[..len].to_vec())
        };
        let ((requests, acknowledgement), end) = tokio::join!(serve, lane.call());
        assert_eq!(end, End::Done);
        assert_eq!(requests[0], requests[1], "the same message");
        assert_eq!(acknowledgement, [0x60, 0, 7, 8]);
    }

    /// Else a server that guards against repeated messages would give the second the first one's answer.
    #[tokio::test]
    async fn lanes_do_not_use_the_same_numbers() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let mut heads = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut lane = CoapLane::new(to, datagram(&url(), b"x", true).unwrap(), true);
            let mut buffer = [0; 2048];
            tokio::select! {
                end = lane.call() => panic!("nobody answers: {end:?}"),
                received = server.recv_from(&mut buffer) => { received.unwrap(); }
            }
            heads.insert(buffer[2..8].to_vec());
        }
        assert_eq!(heads.len(), 3);
    }

    #[test]
    fn codes_say_how_it_ended() {
        assert_eq!((end(0x45), end(0xA3)), (End::Done, End::Refused));
        assert_eq!(end(0x84), End::Error("code 4.04".to_owned()));
    }
}
