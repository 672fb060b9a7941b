//! The message layer: what a datagram is, and the rules of the format that the codec leaves out.
//!
//! ```text
//!   datagram ─ read ─┬─ Ignored          too short, another version, malformed and not confirmable
//!                    ├─ Malformed(id)    malformed and confirmable: rejected by a Reset
//!                    ├─ Ping(id)         empty and confirmable: answered by a Reset
//!                    ├─ Acknowledgement(id), Reset(id)   of a message of ours
//!                    └─ Request          for the exchange layer
//! ```
//!
//! Reference: RFC 7252, sections 3 and 4.2 to 4.3.

use std::fmt;

use coap_lite::{MessageType, Packet};

/// What a datagram is.
#[derive(Debug)]
pub(super) enum Received {
    /// A request.
    Request(Message),
    /// Empty and confirmable: asks for a Reset as a sign of life.
    Ping(u16),
    /// The peer has our message of this id.
    Acknowledgement(u16),
    /// The peer wants nothing of our message of this id.
    Reset(u16),
    /// Confirmable and not to be understood: to be rejected by a Reset.
    Malformed(u16, FormatError),
    /// Nothing that asks for a reaction.
    Ignored(FormatError),
}

/// Which rule of the format a datagram breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    /// Less than a header.
    #[error("shorter than a header")]
    TooShort,
    /// Another version of the protocol.
    #[error("not version 1")]
    Version,
    /// A token length above 8 is reserved.
    #[error("reserved token length")]
    TokenLength,
    /// The token or an option reaches beyond the datagram.
    #[error("cut short")]
    Truncated,
    /// An option delta of 15 outside the payload marker, or a number above 65,535.
    #[error("bad option number")]
    OptionNumber,
    /// An option length of 15.
    #[error("reserved option length")]
    OptionLength,
    /// More options than are looked at.
    #[error("too many options")]
    OptionCount,
    /// A payload marker with nothing behind it.
    #[error("payload marker without payload")]
    EmptyPayload,
    /// Code 0.00 with anything behind the header.
    #[error("an empty message that is not empty")]
    NotEmpty,
    /// A code that no request has, where no response is waited for.
    #[error("neither a request nor empty")]
    Code,
    /// A type that its code cannot have.
    #[error("message type and code do not go together")]
    Type,
    /// The codec refused what passed the checks here.
    #[error("refused by the codec")]
    Codec,
}

/// A request.
#[derive(Debug)]
pub(super) struct Message {
    /// Whether the peer waits for an acknowledgement.
    pub(super) confirmable: bool,
    /// The message's id, the peer's choice.
    pub(super) id: u16,
    /// The request's token, given back in its answer.
    pub(super) token: Token,
    /// The method: a code of class 0.
    pub(super) method: u8,
    /// Options and payload.
    pub(super) packet: Packet,
}

/// A token: up to eight bytes, in place, for there may be a million.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Token {
    bytes: [u8; 8],
    length: u8,
}

impl Token {
    /// The first eight bytes at most.
    pub(super) fn new(token: &[u8]) -> Self {
        let mut bytes = [0; 8];
        let mut length = 0;
        for (into, from) in bytes.iter_mut().zip(token) {
            *into = *from;
            length += 1;
        }
        Self { bytes, length }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

/// Reads a datagram.
pub(super) fn read(datagram: &[u8], options_max: usize) -> Received {
    let &[first, code, high, low, ..] = datagram else {
        return Received::Ignored(FormatError::TooShort);
    };
    if first >> 6 != 1 {
        return Received::Ignored(FormatError::Version);
    }
    let id = u16::from_be_bytes([high, low]);
    let kind = first >> 4 & 0b11;
    let confirmable = kind == 0;
    let rejected = |error| {
        if confirmable { Received::Malformed(id, error) } else { Received::Ignored(error) }
    };
    if let Err(error) = check(datagram, options_max) {
        return rejected(error);
    }
    match (kind, code) {
        (0, 0) => Received::Ping(id),
        (2, code) if code == 0 || code >> 5 != 0 => Received::Acknowledgement(id),
        (3, 0) => Received::Reset(id),
        (1, 0) | (2 | 3, _) => Received::Ignored(FormatError::Type),
        (_, code) if code >> 5 != 0 => rejected(FormatError::Code),
        (_, method) => match Packet::from_bytes(datagram) {
            Err(_) => rejected(FormatError::Codec),
            Ok(packet) => {
                Received::Request(Message { confirmable, id, token: Token::new(packet.get_token()), method, packet })
            }
        },
    }
}

/// Walks over a datagram of at least a header without keeping anything, so that the codec allocates nothing for a
/// malformed one, and finds what the codec lets pass.
fn check(datagram: &[u8], options_max: usize) -> Result<(), FormatError> {
    let token_length = usize::from(datagram[0] & 0x0f);
    if token_length > 8 {
        return Err(FormatError::TokenLength);
    }
    if datagram[1] == 0 {
        return if datagram.len() == 4 { Ok(()) } else { Err(FormatError::NotEmpty) };
    }
    let mut rest = datagram.get(4 + token_length..).ok_or(FormatError::Truncated)?;
    let mut number = 0_u32;
    let mut count = 0;
    while let Some((&head, after)) = rest.split_first() {
        if head == 0xff {
            return if after.is_empty() { Err(FormatError::EmptyPayload) } else { Ok(()) };
        }
        let (delta, after) = extended(head >> 4, after, FormatError::OptionNumber)?;
        let (length, after) = extended(head & 0x0f, after, FormatError::OptionLength)?;
        number += delta;
        if number > u32::from(u16::MAX) {
            return Err(FormatError::OptionNumber);
        }
        count += 1;
        if count > options_max {
            return Err(FormatError::OptionCount);
        }
        rest = after.get(length as usize..).ok_or(FormatError::Truncated)?;
    }
    Ok(())
}

/// An option's delta or length: in the nibble itself, or in one or two bytes behind it.
fn extended(nibble: u8, rest: &[u8], reserved: FormatError) -> Result<(u32, &[u8]), FormatError> {
    match (nibble, rest) {
        (15, _) => Err(reserved),
        (14, [high, low, rest @ ..]) => Ok((u32::from(u16::from_be_bytes([*high, *low])) + 269, rest)),
        (13, [low, rest @ ..]) => Ok((u32::from(*low) + 13, rest)),
        (13 | 14, _) => Err(FormatError::Truncated),
        (value, rest) => Ok((u32::from(value), rest)),
    }
}

/// An empty message of ours: an acknowledgement, or a Reset.
pub(super) fn empty(kind: MessageType, id: u16) -> [u8; 4] {
    let kind = match kind {
        MessageType::Confirmable => 0,
        MessageType::NonConfirmable => 1,
        MessageType::Acknowledgement => 2,
        MessageType::Reset => 3,
    };
    let [high, low] = id.to_be_bytes();
    [0x40 | kind << 4, 0, high, low]
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
