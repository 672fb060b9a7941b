//! A CoAP client (RFC 7252, 7959), over coaps too: what the demonstration sends its readings and pictures with, and `sandbar invoke`
//! and `sandbar bench` their calls.
//!
//! ```text
//!   prepared      a request as messages: its path as options, its payload whole or in parts
//!      │
//!   client        a request and its whole response, in blocks of up to 1,024 bytes where a payload is longer
//!      │
//!   exchange      one message until it is answered: retransmission, piggy-backed and separate responses
//!      │
//!   channel       a socket, with a session over it for coaps: a handshake before the first request
//! ```
//!
//! One request at a time on one socket; for more at once, more clients. Every request ends by the client's patience.
//!
//! A server that wants to see first that our address is ours (4.01 with an Echo option; RFC 9175, section 2.3) is sent the same
//! request again, once, with what it gave; and from then on it is given that with each request, as it may ask of any.
//!
//! It does not begin a refused upload again in smaller blocks, or observe.

mod block;
mod channel;
mod exchange;
mod prepared;
mod session;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coap_lite::error::MessageError;
use coap_lite::{CoapOption, Packet};
use sandbar_runtime::Outcome;
use tokio::time::Instant;

use self::block::{Block, number_of, shortest};
use self::channel::Channel;
use self::exchange::Exchanges;
pub use self::prepared::PreparedRequest;
pub use self::session::{Credentials, SessionError};
use crate::outcome::outcome_of;
use crate::uri;

/// Bytes of a response in blocks; a server that sends on and on is cut off.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// "Go on" with an upload.
const CONTINUE: (u8, u8) = (2, 31);
/// With an Echo option: once more, with that.
const UNAUTHORIZED: (u8, u8) = (4, 1);
/// The number of the Echo option (RFC 9175), which the codec has no name for, and how many bytes it may have.
const ECHO: u16 = 252;
const ECHO_BYTES: std::ops::RangeInclusive<usize> = 1..=40;

/// Why there is no response.
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
    /// The path, or the query after it, is none that could be sent.
    #[error("`{part}` cannot be part of a path or query: {why}")]
    Uri {
        /// The segment or argument.
        part: String,
        /// What is wrong with it.
        why: &'static str,
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
    /// There is no session with the server.
    #[error("no session with {to}")]
    Session {
        /// The server.
        to: SocketAddr,
        /// Why not.
        #[source]
        source: SessionError,
    },
    /// The server rejected the message.
    #[error("{to} does not understand the request")]
    Reset {
        /// The server.
        to: SocketAddr,
    },
    /// The payload is longer than blocks can be counted.
    #[error("a payload of {bytes} bytes is too long for the blocks that the server takes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The server's blocks do not fit together, or never end.
    #[error("the answer's blocks do not fit together")]
    Blocks,
}

/// What is to be done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Ask for what is there.
    Get,
    /// Call, with a payload.
    Post,
    /// Call, with a payload; the same again changes nothing.
    Put,
    /// Ask, with a payload (RFC 8132).
    Fetch,
    /// Remove.
    Delete,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What is to be done.
    pub method: Method,
    /// The path, such as `thermostat` or `thermostat/ingest`, and a query if `?` follows; percent-encoded, as in a URI.
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
    /// How long it holds, if the server says it: with 5.03, when to ask again. In whole seconds.
    pub max_age: Option<Duration>,
    /// With 4.13, the longest payload that is taken, in bytes, if the server says it.
    pub size1: Option<usize>,
    /// With 2.01, where what was made is to be found, if the server says it: a path and perhaps a query, percent-encoded as in a URI.
    pub location: Option<String>,
}

impl Response {
    /// The outcome of a call that it stands for.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        outcome_of(self.code)
    }

    fn new(head: &Packet, payload: Vec<u8>) -> Self {
        let number = |option| head.get_first_option(option).and_then(|value| number_of(value));
        Self {
            code: code(head),
            payload,
            content_format: number(CoapOption::ContentFormat).and_then(|format| u16::try_from(format).ok()),
            max_age: number(CoapOption::MaxAge).map(|seconds| Duration::from_secs(seconds.into())),
            size1: number(CoapOption::Size1).map(|bytes| bytes as usize),
            location: location(head),
        }
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    exchanges: Exchanges,
    /// How long a request may take with all its blocks and retransmissions.
    patience: Duration,
    /// What the server last gave us to give back.
    echo: Option<Vec<u8>>,
}

impl Client {
    /// A client of the server at this address, with a socket of its own.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn connect(to: SocketAddr, patience: Duration) -> Result<Self, ClientError> {
        Ok(Self::over(Channel::open(to, None).await?, patience))
    }

    /// A client of the server that answers coaps at this address. The session is opened by the first request, within its patience,
    /// and closed when the client is dropped; should the server end it, the next request opens another.
    ///
    /// # Errors
    /// When no socket can be had.
    pub async fn connect_secure(
        to: SocketAddr,
        credentials: Arc<Credentials>,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        Ok(Self::over(Channel::open(to, Some(credentials)).await?, patience))
    }

    fn over(channel: Channel, patience: Duration) -> Self {
        Self { exchanges: Exchanges::over(channel), patience, echo: None }
    }

    /// Sends a request and waits for the whole response.
    ///
    /// # Errors
    /// When there is none. A response that refuses is a response.
    pub async fn request(&mut self, request: &Request<'_>) -> Result<Response, ClientError> {
        self.send(&PreparedRequest::new(request)?).await
    }

    /// As [`request`](Self::request), with one that was made ready before.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn send(&mut self, request: &PreparedRequest) -> Result<Response, ClientError> {
        let until = Instant::now() + self.patience;
        let first = match request.whole() {
            Some(_) => self.ask(request, &[], request.payload(), until).await?,
            None => self.upload(request, until).await?,
        };
        self.download(request, first, until).await
    }

    /// Sends a message of a request and receives its answer; once more if the server asks for an Echo.
    async fn ask(
        &mut self,
        request: &PreparedRequest,
        options: &[(CoapOption, Vec<u8>)],
        payload: &[u8],
        until: Instant,
    ) -> Result<Packet, ClientError> {
        let answer = self.ask_once(request, options, payload, until).await?;
        if self.is_asked(&answer) { self.ask_once(request, options, payload, until).await } else { Ok(answer) }
    }

    async fn ask_once(
        &mut self,
        request: &PreparedRequest,
        options: &[(CoapOption, Vec<u8>)],
        payload: &[u8],
        until: Instant,
    ) -> Result<Packet, ClientError> {
        let datagram = match (&self.echo, request.whole()) {
            // As it was made ready: there is nothing to add.
            (None, Some(datagram)) if options.is_empty() => Cow::Borrowed(datagram),
            (echo, _) => {
                let echo = echo.iter().map(|value| (CoapOption::from(ECHO), value.clone()));
                let options: Vec<_> = options.iter().cloned().chain(echo).collect();
                Cow::Owned(request.part(&options, payload)?)
            }
        };
        self.exchanges.exchange(&datagram, until).await
    }

    /// Keeps the Echo of an answer, and tells whether the request has to be sent again with it. An answer that is none of a
    /// refusal may have one too, for the next request.
    fn is_asked(&mut self, answer: &Packet) -> bool {
        let echo = answer.get_first_option(CoapOption::from(ECHO)).filter(|value| ECHO_BYTES.contains(&value.len()));
        let Some(echo) = echo else { return false };
        self.echo = Some(echo.clone());
        code(answer) == UNAUTHORIZED
    }

    /// Messages sent as requests so far: ids are used again after 65,536, though a server may remember each for some minutes.
    pub fn messages(&self) -> u32 {
        self.exchanges.begun()
    }

    /// Sends the payload in blocks; gives the first message of the response.
    async fn upload(&mut self, request: &PreparedRequest, until: Instant) -> Result<Packet, ClientError> {
        let payload = request.payload();
        let mut exponent = Block::EXPONENT_MAX;
        let mut sent = 0;
        loop {
            let left = &payload[sent..];
            let piece = &left[..left.len().min(Block::bytes_of(exponent))];
            let more = piece.len() < left.len();
            let block = Block::at(sent, more, exponent);
            let block = block.ok_or(ClientError::TooLong { bytes: payload.len() })?;
            let mut options = vec![(CoapOption::Block1, block.encode())];
            if sent == 0 {
                let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                options.push((CoapOption::Size1, shortest(size)));
            }
            let response = self.ask(request, &options, piece, until).await?;
            // Anything but "go on" is the response; before the last block, a refusal.
            if code(&response) != CONTINUE {
                return Ok(response);
            }
            if !more {
                return Err(ClientError::Blocks);
            }
            sent += piece.len();
            // A server may ask for smaller blocks from here on (RFC 7959, 2.3).
            let asked = Block::of(&response, CoapOption::Block1)?;
            exponent = asked.map_or(exponent, |asked| asked.exponent.min(exponent));
        }
    }

    /// Fetches what the first message of a response left out.
    async fn download(
        &mut self,
        request: &PreparedRequest,
        mut first: Packet,
        until: Instant,
    ) -> Result<Response, ClientError> {
        let mut payload = std::mem::take(&mut first.payload);
        let mut block = Block::of(&first, CoapOption::Block2)?;
        if block.is_some_and(|block| block.number != 0) {
            return Err(ClientError::Blocks);
        }
        while let Some(last) = block.filter(|block| block.more) {
            let next = Block::at(payload.len(), false, last.exponent).filter(|_| last.end() == payload.len());
            let next = next.filter(|_| payload.len() <= RESPONSE_BYTES_MAX).ok_or(ClientError::Blocks)?;
            let mut response = self.ask(request, &[(CoapOption::Block2, next.encode())], &[], until).await?;
            if code(&response) != code(&first) {
                // The server cannot go on, and says why.
                let payload = std::mem::take(&mut response.payload);
                return Ok(Response::new(&response, payload));
            }
            block = Block::of(&response, CoapOption::Block2)?;
            let follows = block.is_some_and(|block| block.offset() == payload.len());
            let same = response.get_option(CoapOption::ETag) == first.get_option(CoapOption::ETag);
            if !follows || !same {
                return Err(ClientError::Blocks);
            }
            payload.extend_from_slice(&response.payload);
        }
        Ok(Response::new(&first, payload))
    }
}

/// What Location-Path and Location-Query say (RFC 7252, section 5.10.7); nothing where they are no text.
fn location(head: &Packet) -> Option<String> {
    let parts = |option| {
        let values = head.get_option(option).into_iter().flatten();
        values.map(|value| String::from_utf8(value.clone()).ok()).collect::<Option<Vec<_>>>()
    };
    let (path, query) = (parts(CoapOption::LocationPath)?, parts(CoapOption::LocationQuery)?);
    let query = if query.is_empty() { String::new() } else { format!("?{}", uri::query(&query)) };
    (!path.is_empty() || !query.is_empty()).then(|| format!("/{}{query}", uri::path(&path)))
}

fn code(packet: &Packet) -> (u8, u8) {
    let code = u8::from(packet.header.code);
    (code >> 5, code & 0x1F)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(path: &[&[u8]], query: &[&[u8]]) -> Option<String> {
        let mut head = Packet::new();
        for value in path {
            head.add_option(CoapOption::LocationPath, value.to_vec());
        }
        for value in query {
            head.add_option(CoapOption::LocationQuery, value.to_vec());
        }
        Response::new(&head, Vec::new()).location
    }

    #[test]
    fn a_location_is_a_path_and_perhaps_a_query() {
        assert_eq!(located(&[b"porch", b".calls", b"0a"], &[]).as_deref(), Some("/porch/.calls/0a"));
        assert_eq!(located(&[b"a/b", "ä".as_bytes()], &[b"x=1&2", b"y"]).as_deref(), Some("/a%2Fb/%C3%A4?x=1%262&y"));
        assert_eq!(located(&[], &[b"x"]).as_deref(), Some("/?x"));
        assert_eq!(located(&[], &[]), None);
        assert_eq!(located(&[b"\xff"], &[]), None);
    }
}
