//! One confirmable request and its answer, in one message each (RFC 7252, 4.2 and 5.2).
//!
//! ```text
//!            ┌── no answer: again, after twice the wait
//!   sent ────┴──▶ answered, piggy-backed or not
//!     └── empty acknowledgement ──▶ waiting ──▶ answered, in a message of the server's own that we acknowledge
//! ```

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use coap_lite::{MessageClass, MessageType, Packet};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::ClientError;

/// The shortest wait before the first retransmission (ACK_TIMEOUT); the wait doubles with each.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer the first wait may be, drawn at random: ACK_TIMEOUT × (ACK_RANDOM_FACTOR - 1).
const ACK_TIMEOUT_SPREAD_MS: u64 = 1000;
const RETRANSMISSIONS_MAX: u32 = 4;
/// No datagram is larger.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// The requests of one socket, one after the other.
#[derive(Debug)]
pub(super) struct Exchanges {
    socket: UdpSocket,
    to: SocketAddr,
    /// Counts requests from a random number on. The token is all of it, the message id its lower half: a server that
    /// still remembers an earlier client on this port, or this one 65,536 requests ago, tells them from us by the token.
    serial: u32,
    buffer: Vec<u8>,
}

/// What a datagram says of a request.
enum Heard {
    Answer(Packet),
    /// The answer comes later, in a message of its own.
    Acknowledged,
}

impl Exchanges {
    pub(super) async fn open(to: SocketAddr) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Socket { to, source };
        let any: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(to).await.map_err(failed)?;
        let [a, b, c, d, ..] = random().to_ne_bytes();
        Ok(Self { socket, to, serial: u32::from_ne_bytes([a, b, c, d]), buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Sends a request until it is acknowledged, and waits for its answer.
    pub(super) async fn exchange(&mut self, mut request: Packet, until: Instant) -> Result<Packet, ClientError> {
        self.serial = self.serial.wrapping_add(1);
        let token = self.serial.to_be_bytes();
        request.header.set_type(MessageType::Confirmable);
        request.header.message_id = u16::from_be_bytes([token[2], token[3]]);
        request.set_token(token.to_vec());
        let bytes = request.to_bytes().map_err(ClientError::Encode)?;
        let began = Instant::now();
        let mut pause = ACK_TIMEOUT + Duration::from_millis(random() % ACK_TIMEOUT_SPREAD_MS);
        for _ in 0..=RETRANSMISSIONS_MAX {
            self.send(&bytes).await?;
            let again = until.min(Instant::now() + pause);
            match timeout_at(again, self.receive(&request)).await {
                Ok(Ok(Heard::Answer(answer))) => return Ok(answer),
                Ok(Ok(Heard::Acknowledged)) => return self.answer(&request, began, until).await,
                Ok(Err(error)) => return Err(error),
                Err(_) if again == until => break,
                Err(_) => pause *= 2,
            }
        }
        Err(ClientError::NoAnswer { to: self.to, after: began.elapsed() })
    }

    /// Waits for the answer to a request that has been acknowledged.
    async fn answer(&mut self, request: &Packet, began: Instant, until: Instant) -> Result<Packet, ClientError> {
        loop {
            match timeout_at(until, self.receive(request)).await {
                Ok(Ok(Heard::Answer(answer))) => return Ok(answer),
                // Of a retransmission that crossed with the first acknowledgement.
                Ok(Ok(Heard::Acknowledged)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ClientError::NoAnswer { to: self.to, after: began.elapsed() }),
            }
        }
    }

    /// The next datagram that concerns the request.
    async fn receive(&mut self, request: &Packet) -> Result<Heard, ClientError> {
        loop {
            let received = self.socket.recv(&mut self.buffer).await;
            let len = received.map_err(|source| ClientError::Socket { to: self.to, source })?;
            let Ok(packet) = Packet::from_bytes(&self.buffer[..len]) else { continue };
            let id = packet.header.message_id;
            let same_message = id == request.header.message_id;
            let kind = packet.header.get_type();
            match (packet.header.code, kind) {
                (MessageClass::Empty, MessageType::Reset) if same_message => {
                    return Err(ClientError::Reset { to: self.to });
                }
                (MessageClass::Empty, MessageType::Acknowledgement) if same_message => return Ok(Heard::Acknowledged),
                (MessageClass::Response(_), MessageType::Acknowledgement) if !same_message => {}
                (MessageClass::Response(_), _) => {
                    // That of an earlier request as well: its acknowledgement was lost.
                    if kind == MessageType::Confirmable {
                        self.acknowledge(id).await?;
                    }
                    if packet.get_token() == request.get_token() {
                        return Ok(Heard::Answer(packet));
                    }
                }
                (MessageClass::Empty | MessageClass::Request(_) | MessageClass::Reserved(_), _) => {}
            }
        }
    }

    async fn acknowledge(&self, message_id: u16) -> Result<(), ClientError> {
        let mut packet = Packet::new();
        packet.header.set_type(MessageType::Acknowledgement);
        packet.header.code = MessageClass::Empty;
        packet.header.message_id = message_id;
        let bytes = packet.to_bytes().map_err(ClientError::Encode)?;
        self.send(&bytes).await
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let sent = self.socket.send(bytes).await;
        sent.map(drop).map_err(|source| ClientError::Socket { to: self.to, source })
    }
}

/// A number that is another one each time; nobody's secret.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
