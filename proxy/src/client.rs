//! A CoAP client (RFC 7252, 7959): what the demonstration sends its readings and pictures with.
//!
//! One request at a time on one socket: confirmable, retransmitted, in blocks of 1,024 bytes both ways where a payload is
//! longer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use coap_lite::error::MessageError;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Before the first retransmission; doubles with each (RFC 7252, 4.8).
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
const RETRANSMISSIONS_MAX: u32 = 4;
/// The exponent of the size of blocks: 2^(4 + 6) = 1,024 bytes.
const BLOCK_EXPONENT: u32 = 6;
/// Bytes of an answer in blocks; a server that sends on and on is cut off.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Larger than any datagram of a server that keeps to blocks.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket cannot be used.
    #[error("cannot talk to {to}")]
    Socket {
        /// The server.
        to: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The request cannot be put into a message.
    #[error("the request does not fit a message: {0}")]
    Encode(MessageError),
    /// The server did not acknowledge the request, or did not answer in time.
    #[error("no answer from {to} within {} ms", after.as_millis())]
    NoAnswer {
        /// The server.
        to: SocketAddr,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server rejected the message.
    #[error("{to} does not understand the request")]
    Reset {
        /// The server.
        to: SocketAddr,
    },
    /// The server's blocks do not fit together, or never end.
    #[error("the answer's blocks do not fit together")]
    Blocks,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The path, such as `thermostat` or `thermostat/ingest`.
    pub path: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// Its format (CoAP Content-Formats registry).
    pub content_format: Option<u16>,
}

/// A response, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Class and detail: (2, 4) for 2.04.
    pub code: (u8, u8),
    /// The payload; of an error, its diagnostic.
    pub payload: Vec<u8>,
    /// Its format, if the server says it.
    pub content_format: Option<u16>,
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    to: SocketAddr,
    next: u16,
    /// How long to wait for an answer to a request, retransmissions and all.
    patience: Duration,
}

impl Client {
    /// A client of the server at this address, with a socket of its own.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn connect(to: SocketAddr, patience: Duration) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Socket { to, source };
        let any: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(to).await.map_err(failed)?;
        // What an earlier client on this port has asked must not be taken for ours.
        let next = socket.local_addr().map_err(failed)?.port();
        Ok(Self { socket, to, next, patience })
    }

    /// Calls with POST, and waits for the whole answer.
    ///
    /// # Errors
    /// When there is none. An answer that refuses is an answer.
    pub async fn post(&mut self, call: &Call<'_>) -> Result<Response, ClientError> {
        let first = self.upload(call).await?;
        self.download(call, first).await
    }

    async fn upload(&mut self, call: &Call<'_>) -> Result<Packet, ClientError> {
        let block_bytes = 1 << (BLOCK_EXPONENT + 4);
        if call.payload.len() <= block_bytes {
            let request = self.request(call, call.payload);
            return self.exchange(request).await;
        }
        let last = (call.payload.len() - 1) / block_bytes;
        for (number, block) in call.payload.chunks(block_bytes).enumerate() {
            let mut request = self.request(call, block);
            request.add_option(CoapOption::Block1, block_option(number, number < last));
            if number == 0 {
                request.add_option(CoapOption::Size1, uint(call.payload.len()));
            }
            let response = self.exchange(request).await?;
            // Anything but "go on" is the answer, before the last block a refusal.
            if number == last || code(&response) != (2, 31) {
                return Ok(response);
            }
        }
        Err(ClientError::Blocks)
    }

    async fn download(&mut self, call: &Call<'_>, first: Packet) -> Result<Response, ClientError> {
        let mut payload = first.payload.clone();
        let mut block = block_of(&first);
        while let Some((number, true, exponent)) = block {
            let block_bytes = 1usize << (exponent + 4);
            if payload.len() != (number + 1) * block_bytes || payload.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::Blocks);
            }
            // The same options as the request itself, or it would be another request.
            let mut request = self.request(call, &[]);
            request.add_option(CoapOption::Block2, uint((number + 1) << 4 | exponent));
            let response = self.exchange(request).await?;
            block = block_of(&response);
            if block.is_none_or(|(got, ..)| got != number + 1) {
                return Err(ClientError::Blocks);
            }
            payload.extend_from_slice(&response.payload);
        }
        let content_format = first.get_first_option(CoapOption::ContentFormat).and_then(|value| number_of(value));
        let content_format = content_format.and_then(|number| u16::try_from(number).ok());
        Ok(Response { code: code(&first), payload, content_format })
    }

    fn request(&mut self, call: &Call<'_>, payload: &[u8]) -> Packet {
        self.next = self.next.wrapping_add(1);
        let mut packet = Packet::new();
        packet.header.set_type(MessageType::Confirmable);
        packet.header.code = MessageClass::Request(RequestType::Post);
        packet.header.message_id = self.next;
        packet.set_token(self.next.to_be_bytes().to_vec());
        for segment in call.path.split('/').filter(|segment| !segment.is_empty()) {
            packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
        }
        if let Some(content_format) = call.content_format {
            packet.add_option(CoapOption::ContentFormat, uint(content_format.into()));
        }
        packet.payload = payload.to_vec();
        packet
    }

    /// Sends a confirmable request until it is acknowledged, and waits for its answer.
    async fn exchange(&self, request: Packet) -> Result<Packet, ClientError> {
        let bytes = request.to_bytes().map_err(ClientError::Encode)?;
        let began = Instant::now();
        let until = began + self.patience;
        let mut pause = ACK_TIMEOUT;
        let mut acknowledged = false;
        for _ in 0..=RETRANSMISSIONS_MAX {
            if !acknowledged {
                self.socket.send(&bytes).await.map_err(|source| ClientError::Socket { to: self.to, source })?;
            }
            let again = Instant::now() + pause;
            loop {
                let wait_until = if acknowledged { until } else { again.min(until) };
                let Ok(received) = timeout_at(wait_until, self.receive(&request)).await else { break };
                match received? {
                    Heard::Answer(answer) => return Ok(answer),
                    Heard::Acknowledged => acknowledged = true,
                }
            }
            if Instant::now() >= until {
                break;
            }
            pause *= 2;
        }
        Err(ClientError::NoAnswer { to: self.to, after: began.elapsed() })
    }

    /// The next datagram that concerns the request.
    async fn receive(&self, request: &Packet) -> Result<Heard, ClientError> {
        let failed = |source| ClientError::Socket { to: self.to, source };
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let len = self.socket.recv(&mut bytes).await.map_err(failed)?;
            let Ok(packet) = Packet::from_bytes(&bytes[..len]) else { continue };
            let same_message = packet.header.message_id == request.header.message_id;
            let kind = packet.header.get_type();
            match packet.header.code {
                MessageClass::Empty if same_message && kind == MessageType::Reset => {
                    return Err(ClientError::Reset { to: self.to });
                }
                MessageClass::Empty if same_message => return Ok(Heard::Acknowledged),
                MessageClass::Response(_) if packet.get_token() == request.get_token() => {
                    if kind == MessageType::Confirmable {
                        self.acknowledge(packet.header.message_id).await?;
                    }
                    return Ok(Heard::Answer(packet));
                }
                // A repetition of an answer to an earlier request: its acknowledgement was lost.
                MessageClass::Response(_) if kind == MessageType::Confirmable => {
                    self.acknowledge(packet.header.message_id).await?;
                }
                MessageClass::Empty
                | MessageClass::Request(_)
                | MessageClass::Response(_)
                | MessageClass::Reserved(_) => {}
            }
        }
    }

    async fn acknowledge(&self, message_id: u16) -> Result<(), ClientError> {
        let mut packet = Packet::new();
        packet.header.set_type(MessageType::Acknowledgement);
        packet.header.code = MessageClass::Empty;
        packet.header.message_id = message_id;
        let bytes = packet.to_bytes().map_err(ClientError::Encode)?;
        self.socket.send(&bytes).await.map_err(|source| ClientError::Socket { to: self.to, source })?;
        Ok(())
    }
}

/// What a datagram says of a request.
enum Heard {
    Answer(Packet),
    /// The answer comes later, in a message of its own.
    Acknowledged,
}

fn code(packet: &Packet) -> (u8, u8) {
    let code = u8::from(packet.header.code);
    (code >> 5, code & 0x1F)
}

/// The value of a block option with our size of blocks.
fn block_option(number: usize, more: bool) -> Vec<u8> {
    uint(number << 4 | usize::from(more) << 3 | BLOCK_EXPONENT as usize)
}

/// Number, whether more follow, and exponent of a response's Block2.
fn block_of(packet: &Packet) -> Option<(usize, bool, usize)> {
    let value = number_of(packet.get_first_option(CoapOption::Block2)?)?;
    Some((value >> 4, value & 8 != 0, value & 7))
}

fn number_of(value: &[u8]) -> Option<usize> {
    (value.len() <= 4).then(|| value.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// A number as options have it: big-endian, without leading zeros.
fn uint(number: usize) -> Vec<u8> {
    number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_options_have_no_leading_zeros() {
        assert_eq!(uint(0), Vec::<u8>::new());
        assert_eq!(uint(0x0102), [1, 2]);
        assert_eq!(number_of(&uint(70_000)), Some(70_000));
        assert_eq!(number_of(&[0; 5]), None);
    }

    #[test]
    fn block_options_say_number_more_and_size() {
        assert_eq!(block_option(0, true), [0x0E]);
        assert_eq!(block_option(16, false), [0x01, 0x06]);
    }
}
