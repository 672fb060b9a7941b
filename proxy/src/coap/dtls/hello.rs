//! What a datagram says before any state is made for its sender: its first record, and a client's first message whole.
//!
//! The records we write here ourselves, a request to verify the address and an alert, are answers to those who have no
//! state yet, or had it.
//!
//! Reference: RFC 6347, sections 4.1 to 4.2.2; RFC 5246, section 7.4.1.2.

/// A record's header: content type, version, epoch, sequence number, length.
const RECORD_HEADER_BYTES: usize = 13;
/// A handshake message's header: type, length, sequence number, fragment.
const MESSAGE_HEADER_BYTES: usize = 12;
/// Where in a datagram the sequence number of its first handshake message stands.
const MESSAGE_SEQUENCE: std::ops::Range<usize> = RECORD_HEADER_BYTES + 4..RECORD_HEADER_BYTES + 6;

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HELLO_VERIFY_REQUEST: u8 = 3;
const DTLS_1_0: [u8; 2] = [0xfe, 0xff];
const DTLS_1_2: [u8; 2] = [0xfe, 0xfd];
/// `TLS_PSK_WITH_AES_128_CCM_8`, the one that every CoAP client with keys has (RFC 7252, section 9.1.3.1).
const PSK_AES128_CCM_8: [u8; 2] = [0xc0, 0xa8];
const EXTENDED_MASTER_SECRET: [u8; 2] = [0, 23];

/// Bytes of a cookie.
pub(super) const COOKIE_BYTES: usize = COOKIE_LENGTH as usize;
const COOKIE_LENGTH: u8 = 32;

/// Fatal alerts that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    /// The client offers nothing that we have.
    HandshakeFailure = 40,
    /// The key was another, or the identity is not known: which of both is not told.
    DecryptError = 51,
}

/// The first record of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) content_type: u8,
    /// 0 until keys are agreed on.
    pub(super) epoch: u16,
    /// 48 bits.
    pub(super) sequence: u64,
    /// With its header, in bytes.
    pub(super) length: usize,
}

/// Reads the header of a datagram's first record; `None` if that is no record of DTLS, or is cut short.
pub(super) fn first_record(datagram: &[u8]) -> Option<Record> {
    let header: &[u8; RECORD_HEADER_BYTES] = datagram.first_chunk()?;
    let [content_type, major, _, e1, e0, s5, s4, s3, s2, s1, s0, l1, l0] = *header;
    let length = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([l1, l0]));
    let known = (20..=23).contains(&content_type) && major == 0xfe && datagram.len() >= length;
    known.then_some(Record {
        content_type,
        epoch: u16::from_be_bytes([e1, e0]),
        sequence: u64::from_be_bytes([0, 0, s5, s4, s3, s2, s1, s0]),
        length,
    })
}

/// Whether a datagram begins with a client's first message, or a part of one.
pub(super) fn begins_handshake(record: &Record, datagram: &[u8]) -> bool {
    record.epoch == 0
        && record.content_type == HANDSHAKE
        && datagram.get(RECORD_HEADER_BYTES).is_some_and(|kind| *kind == CLIENT_HELLO)
}

/// A client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello<'a> {
    /// Of its record.
    pub(super) sequence: u64,
    /// Of the message: 0 at first, 1 when the address is verified.
    pub(super) message_sequence: u16,
    pub(super) random: [u8; 32],
    pub(super) cookie: &'a [u8],
    /// All of its body but the cookie.
    pub(super) parameters: [&'a [u8]; 2],
    /// Whether it offers what we have: version 1.2, the cipher suite, no compression, and keys that are bound to the
    /// handshake (RFC 7627).
    pub(super) suits: bool,
}

/// Reads a client's first message. It has to lie in one record: a server that keeps no state cannot put fragments
/// together.
pub(super) fn read<'a>(record: &Record, datagram: &'a [u8]) -> Option<Hello<'a>> {
    let message = datagram.get(RECORD_HEADER_BYTES..record.length)?;
    let (header, body) = message.split_first_chunk::<MESSAGE_HEADER_BYTES>()?;
    let [kind, l2, l1, l0, m1, m0, o2, o1, o0, f2, f1, f0] = *header;
    let length = u32::from_be_bytes([0, l2, l1, l0]);
    let (offset, fragment) = ([o2, o1, o0], u32::from_be_bytes([0, f2, f1, f0]));
    let whole = kind == CLIENT_HELLO && offset == [0; 3] && fragment == length && body.len() == length as usize;
    if !whole {
        return None;
    }
    let mut rest = Bytes(body);
    let version = rest.take(2)?;
    let random = *rest.take(32)?.first_chunk()?;
    rest.short_vector()?;
    let before = body.get(..body.len() - rest.0.len())?;
    let cookie = rest.short_vector()?;
    let after = rest.0;
    let suites = rest.long_vector()?;
    let compressions = rest.short_vector()?;
    let extensions = if rest.0.is_empty() { &[] } else { rest.long_vector()? };
    let suits = version == DTLS_1_2
        && suites.chunks_exact(2).any(|suite| suite == PSK_AES128_CCM_8)
        && compressions.contains(&0)
        && has_extension(extensions, EXTENDED_MASTER_SECRET)?;
    let message_sequence = u16::from_be_bytes([m1, m0]);
    Some(Hello { sequence: record.sequence, message_sequence, random, cookie, parameters: [before, after], suits })
}

fn has_extension(extensions: &[u8], wanted: [u8; 2]) -> Option<bool> {
    let mut rest = Bytes(extensions);
    let mut found = false;
    while !rest.0.is_empty() {
        found |= rest.take(2)? == wanted;
        rest.long_vector()?;
    }
    Some(found)
}

/// Bytes that are taken from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A vector whose length is one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(length.into())
    }

    /// A vector whose length is two bytes.
    fn long_vector(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(2)?.first_chunk()?;
        self.take(u16::from_be_bytes(length).into())
    }
}

/// A copy of a datagram whose first handshake message is numbered 0.
pub(super) fn numbered_zero(datagram: &[u8]) -> Vec<u8> {
    let mut copy = datagram.to_vec();
    if let Some(sequence) = copy.get_mut(MESSAGE_SEQUENCE) {
        sequence.fill(0);
    }
    copy
}

/// Adds to the sequence numbers of a datagram's records of epoch 0. Nothing protects those.
pub(super) fn renumber(mut datagram: &mut [u8], add: u64) {
    while let Some(record) = first_record(datagram) {
        if record.epoch == 0
            && let Some(field) = datagram.get_mut(5..11)
        {
            field.copy_from_slice(&(record.sequence + add).to_be_bytes()[2..]);
        }
        datagram = datagram.get_mut(record.length..).unwrap_or_default();
    }
}

/// Asks a client to repeat its first message with this cookie: if it can, it receives what is sent to its address.
pub(super) fn verify_request(hello: &Hello<'_>, cookie: &[u8; COOKIE_BYTES]) -> Vec<u8> {
    const BODY_BYTES: u8 = 3 + COOKIE_LENGTH;
    let mut body = Vec::with_capacity(BODY_BYTES.into());
    // This version whatever is spoken later (RFC 6347, section 4.2.1).
    body.extend_from_slice(&DTLS_1_0);
    body.push(COOKIE_LENGTH);
    body.extend_from_slice(cookie);
    let length = [0, 0, BODY_BYTES];
    let mut message = vec![HELLO_VERIFY_REQUEST];
    message.extend_from_slice(&length);
    message.extend_from_slice(&[0, 0, 0, 0, 0]);
    message.extend_from_slice(&length);
    message.extend_from_slice(&body);
    record(HANDSHAKE, DTLS_1_0, hello.sequence, &message)
}

/// An alert, fatal and unprotected. A client that has keys already pays no attention to it.
pub(super) fn alert(alert: Alert, sequence: u64) -> Vec<u8> {
    record(ALERT, DTLS_1_2, sequence, &[2, alert as u8])
}

/// A record of epoch 0 with up to 65,535 bytes.
fn record(content_type: u8, version: [u8; 2], sequence: u64, fragment: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fragment.len()).unwrap_or(u16::MAX);
    let mut record = vec![content_type];
    record.extend_from_slice(&version);
    record.extend_from_slice(&[0, 0]);
    record.extend_from_slice(&sequence.to_be_bytes()[2..]);
    record.extend_from_slice(&length.to_be_bytes());
    record.extend_from_slice(fragment);
    record
}
