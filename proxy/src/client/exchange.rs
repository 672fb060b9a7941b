//! One request and its answer, in one message each (RFC 7252, 4.2 and 5.2).
//!
//! ```text
//!            ┌── no answer: again, after twice the wait
//!   sent ────┴──▶ answered, piggy-backed or not
//!     └── empty acknowledgement ──▶ waiting ──▶ answered, in a message of the server's own that we acknowledge
//! ```
//!
//! One that is not confirmable is sent once, and waited for from then on.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Duration;

use coap_lite::{MessageClass, MessageType, Packet};
use tokio::time::{Instant, timeout_at};

use super::ClientError;
use super::channel::Channel;
use super::prepared::TOKEN_BYTES;

/// The shortest wait before the first retransmission (ACK_TIMEOUT); the wait doubles with each.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer the first wait may be, drawn at random: ACK_TIMEOUT × (ACK_RANDOM_FACTOR - 1).
const ACK_TIMEOUT_SPREAD_MS: u64 = 1000;
const RETRANSMISSIONS_MAX: u32 = 4;
/// Where a message has its id and its token; where, in its first byte, it says its kind, and which kind is repeated (RFC 7252, section 3).
const ID_AT: Range<usize> = 2..4;
const TOKEN_AT: Range<usize> = 4..4 + TOKEN_BYTES;
const KIND: u8 = 0b0011_0000;
const CONFIRMABLE: u8 = 0;

/// The requests over one channel, one after the other.
#[derive(Debug)]
pub(super) struct Exchanges {
    channel: Channel,
    /// Counts requests from a random number on. The token is all of it, the message id its lower half: a server that
    /// still remembers an earlier client on this port, or this one 65,536 requests ago, tells them from us by the token.
    serial: u32,
    first: u32,
    output: Vec<u8>,
}

/// What a datagram says of a request.
enum Heard {
    Answer(Packet),
    /// The answer comes later, in a message of its own.
    Acknowledged,
}

impl Exchanges {
    pub(super) fn over(channel: Channel) -> Self {
        let [a, b, c, d, ..] = random().to_ne_bytes();
        let serial = u32::from_ne_bytes([a, b, c, d]);
        Self { channel, serial, first: serial, output: Vec::new() }
    }

    /// Requests sent so far, each counted once.
    pub(super) fn begun(&self) -> u32 {
        self.serial.wrapping_sub(self.first)
    }

    /// Sends a request, until it is acknowledged if it is confirmable, and waits for its answer. Its id and token are written here.
    pub(super) async fn exchange(&mut self, request: &[u8], until: Instant) -> Result<Packet, ClientError> {
        self.serial = self.serial.wrapping_add(1);
        self.output.clear();
        self.output.extend_from_slice(request);
        let token = self.serial.to_be_bytes();
        self.output[ID_AT].copy_from_slice(&token[2..]);
        self.output[TOKEN_AT].copy_from_slice(&token);
        let began = Instant::now();
        self.channel.ready(until).await?;
        if request[0] & KIND != CONFIRMABLE {
            self.channel.send(&self.output).await?;
            return self.answer(began, until).await;
        }
        let mut pause = ACK_TIMEOUT + Duration::from_millis(random() % ACK_TIMEOUT_SPREAD_MS);
        for _ in 0..=RETRANSMISSIONS_MAX {
            self.channel.send(&self.output).await?;
            let again = until.min(Instant::now() + pause);
            match timeout_at(again, self.receive()).await {
                Ok(Ok(Heard::Answer(answer))) => return Ok(answer),
                Ok(Ok(Heard::Acknowledged)) => return self.answer(began, until).await,
                Ok(Err(error)) => return Err(error),
                Err(_) if again == until => break,
                Err(_) => pause *= 2,
            }
        }
        Err(ClientError::NoAnswer { to: self.channel.to, after: began.elapsed() })
    }

    /// Waits for the answer to a request that needs no more sending.
    async fn answer(&mut self, began: Instant, until: Instant) -> Result<Packet, ClientError> {
        loop {
            match timeout_at(until, self.receive()).await {
                Ok(Ok(Heard::Answer(answer))) => return Ok(answer),
                // Of a retransmission that crossed with the first acknowledgement.
                Ok(Ok(Heard::Acknowledged)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ClientError::NoAnswer { to: self.channel.to, after: began.elapsed() }),
            }
        }
    }

    /// The next datagram that concerns the request.
    async fn receive(&mut self) -> Result<Heard, ClientError> {
        let token = self.serial.to_be_bytes();
        loop {
            let Ok(packet) = Packet::from_bytes(self.channel.receive().await?) else { continue };
            let id = packet.header.message_id;
            let same_message = id.to_be_bytes() == token[2..];
            let kind = packet.header.get_type();
            match (packet.header.code, kind) {
                (MessageClass::Empty, MessageType::Reset) if same_message => {
                    return Err(ClientError::Reset { to: self.channel.to });
                }
                (MessageClass::Empty, MessageType::Acknowledgement) if same_message => return Ok(Heard::Acknowledged),
                (MessageClass::Response(_), MessageType::Acknowledgement) if !same_message => {}
                (MessageClass::Response(_), _) => {
                    // That of an earlier request as well: its acknowledgement was lost.
                    if kind == MessageType::Confirmable {
                        self.acknowledge(id).await?;
                    }
                    if packet.get_token() == token {
                        return Ok(Heard::Answer(packet));
                    }
                }
                (MessageClass::Empty | MessageClass::Request(_) | MessageClass::Reserved(_), _) => {}
            }
        }
    }

    async fn acknowledge(&mut self, message_id: u16) -> Result<(), ClientError> {
        let mut packet = Packet::new();
        packet.header.set_type(MessageType::Acknowledgement);
        packet.header.code = MessageClass::Empty;
        packet.header.message_id = message_id;
        let bytes = packet.to_bytes().map_err(ClientError::Encode)?;
        self.channel.send(&bytes).await
    }
}

/// A number that is another one each time; nobody's secret.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
