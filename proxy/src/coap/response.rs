//! A response as the layers above the message layer see it: a code, the few options we send, a payload.

use std::sync::Arc;

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, MessageType, Packet, ResponseType};

use super::block::{Block, shortest};
use super::message::Token;
use super::verify::Cookie;
use crate::uri::Location;

/// The number of the Echo option (RFC 9175), which the codec has no name for.
const ECHO: u16 = 252;

/// A response before it has a message id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Response {
    pub(super) code: ResponseType,
    pub(super) content_format: Option<u16>,
    /// How long caches may give this response to others, in seconds; the protocol's default is 60.
    pub(super) max_age_s: Option<u32>,
    /// Names the state that the payload shows: 1 to 8 bytes.
    pub(super) etag: Option<Box<[u8]>>,
    /// Where to find what was made.
    pub(super) location: Option<Box<Location>>,
    /// What the peer has to give back to be served.
    pub(super) echo: Option<Box<Cookie>>,
    /// Numbers the states of what is observed, 24 bits; with it, the peer observes (RFC 7641).
    pub(super) observe: Option<Sequence>,
    pub(super) block1: Option<Block>,
    pub(super) block2: Option<Block>,
    /// The largest request payload that is taken, in bytes.
    pub(super) size1: Option<u32>,
    /// The size of the whole response payload, in bytes.
    pub(super) size2: Option<u32>,
    pub(super) payload: Bytes,
}

/// The value of an Observe option that is sent: 24 bits, kept in as many, for a response is moved about a lot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence([u8; 3]);

impl Sequence {
    /// The lower 24 bits.
    pub(super) fn new(number: u32) -> Self {
        let [_, high, middle, low] = number.to_be_bytes();
        Self([high, middle, low])
    }

    fn number(self) -> u32 {
        let [high, middle, low] = self.0;
        u32::from_be_bytes([0, high, middle, low])
    }
}

/// Why a request is answered before anything runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) response: Box<Response>,
    /// Whether the request is to be ignored instead, if it was not confirmable: it asked for something by an
    /// option that is not understood (RFC 7252, section 5.4.1).
    pub(super) silent_if_not_confirmable: bool,
}

impl From<Response> for Refusal {
    fn from(response: Response) -> Self {
        Self { response: Box::new(response), silent_if_not_confirmable: false }
    }
}

impl Response {
    /// A response without options or payload.
    pub(super) fn new(code: ResponseType) -> Self {
        Self {
            code,
            content_format: None,
            max_age_s: None,
            etag: None,
            location: None,
            echo: None,
            observe: None,
            block1: None,
            block2: None,
            size1: None,
            size2: None,
            payload: Bytes::new(),
        }
    }

    /// An error: its diagnostic as payload, and not for caches.
    pub(super) fn error(code: ResponseType, diagnostic: impl Into<String>) -> Self {
        Self { max_age_s: Some(0), payload: Bytes::from(diagnostic.into()), ..Self::new(code) }
    }

    /// The class of the code: 2, 4 or 5.
    pub(super) fn class(&self) -> u8 {
        u8::from(MessageClass::Response(self.code)) >> 5
    }

    /// The whole datagram.
    pub(super) fn encode(&self, kind: MessageType, id: u16, token: &Token) -> Arc<[u8]> {
        let mut packet = Packet::new();
        packet.header.set_type(kind);
        packet.header.code = MessageClass::Response(self.code);
        packet.header.message_id = id;
        packet.set_token(token.as_slice().to_vec());
        if let Some(etag) = &self.etag {
            packet.add_option(CoapOption::ETag, etag.to_vec());
        }
        if let Some(Location { path, query }) = self.location.as_deref() {
            path.iter().for_each(|segment| packet.add_option(CoapOption::LocationPath, segment.clone()));
            query.iter().for_each(|part| packet.add_option(CoapOption::LocationQuery, part.clone()));
        }
        if let Some(echo) = &self.echo {
            packet.add_option(CoapOption::from(ECHO), echo.to_vec());
        }
        let numbers = [
            (CoapOption::Observe, self.observe.map(Sequence::number)),
            (CoapOption::ContentFormat, self.content_format.map(u32::from)),
            (CoapOption::MaxAge, self.max_age_s),
            (CoapOption::Size1, self.size1),
            (CoapOption::Size2, self.size2),
        ];
        for (option, value) in numbers {
            if let Some(value) = value {
                packet.add_option(option, shortest(value));
            }
        }
        let blocks = [(CoapOption::Block1, self.block1), (CoapOption::Block2, self.block2)];
        for (option, block) in blocks {
            if let Some(block) = block {
                packet.add_option(option, block.encode());
            }
        }
        packet.payload = self.payload.to_vec();
        match packet.to_bytes_unlimited() {
            Ok(datagram) => datagram.into(),
            Err(error) => {
                // The codec refuses only what no response here holds; the peer still gets an answer.
                tracing::error!(%error, "a response could not be encoded");
                bare(kind, id, token)
            }
        }
    }
}

/// An internal server error without options, put together by hand.
fn bare(kind: MessageType, id: u16, token: &Token) -> Arc<[u8]> {
    let [first, _, high, low] = super::message::empty(kind, id);
    let token = token.as_slice();
    let token_length = u8::try_from(token.len()).unwrap_or(0);
    let code = MessageClass::Response(ResponseType::InternalServerError);
    let mut datagram = vec![first | token_length, code.into(), high, low];
    datagram.extend_from_slice(token);
    datagram.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_written() {
        let response = Response {
            content_format: Some(110),
            etag: Some(Box::from([7; 8])),
            location: Location::read("/made/1?x=2").map(Box::new),
            echo: Some(Box::new([9; 12])),
            observe: Some(Sequence::new(0x0001_0203)),
            block1: Some(Block::decode(&[0x06]).unwrap()),
            block2: Some(Block::decode(&[0x0e]).unwrap()),
            size1: Some(70_000),
            size2: Some(2000),
            payload: Bytes::from_static(b"body"),
            ..Response::error(ResponseType::ServiceUnavailable, "")
        };
        let token = Token::new(b"abc");
        let datagram = response.encode(MessageType::Acknowledgement, 0x1234, &token);
        let packet = Packet::from_bytes(&datagram).unwrap();
        assert_eq!(packet.header.get_type(), MessageType::Acknowledgement);
        assert_eq!(packet.header.message_id, 0x1234);
        assert_eq!(packet.get_token(), b"abc");
        let value = |option| packet.get_first_option(option).unwrap().clone();
        assert_eq!(value(CoapOption::ContentFormat), [110]);
        assert_eq!(value(CoapOption::MaxAge), [0_u8; 0]);
        assert_eq!(value(CoapOption::ETag), [7; 8]);
        let path: Vec<_> = packet.get_option(CoapOption::LocationPath).unwrap().iter().cloned().collect();
        assert_eq!(path, [b"made".to_vec(), b"1".to_vec()]);
        assert_eq!(value(CoapOption::LocationQuery), *b"x=2");
        assert_eq!(value(CoapOption::from(252)), [9; 12]);
        assert_eq!(value(CoapOption::Observe), [1, 2, 3]);
        assert_eq!(value(CoapOption::Block1), [0x06]);
        assert_eq!(value(CoapOption::Block2), [0x0e]);
        assert_eq!(value(CoapOption::Size1), [1, 17, 112]);
        assert_eq!(value(CoapOption::Size2), [7, 208]);
        assert_eq!(packet.payload, b"body");
    }

    #[test]
    fn the_bare_answer_is_well_formed() {
        let datagram = bare(MessageType::NonConfirmable, 9, &Token::new(b"xy"));
        let packet = Packet::from_bytes(&datagram).unwrap();
        assert_eq!(packet.header.get_code(), "5.00");
        assert_eq!(packet.get_token(), b"xy");
    }
}
