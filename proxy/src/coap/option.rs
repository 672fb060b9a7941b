//! The options of a request: which are understood, how often and how long they may be, and what they say.
//!
//! An option with an odd number is critical: a request that carries one we do not understand must not run. An option
//! that is repeated where it may not be, or longer than it may be, counts as not understood (RFC 7252, section 5.4).

use coap_lite::{CoapOption, Packet, ResponseType};

use super::block::Block;
use super::response::{Refusal, Response};

/// What a request asks for beside its method and payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestOptions {
    /// The path's segments. `.` and `..` are names here.
    pub(super) path: Vec<String>,
    /// The query's parts.
    pub(super) query: Vec<String>,
    pub(super) content_format: Option<u16>,
    pub(super) accept: Option<u16>,
    /// What is asked for beside the answer.
    pub(super) observe: Option<Observe>,
    /// The block of the request's payload that came along.
    pub(super) block1: Option<Block>,
    /// The block of the response's payload that is asked for.
    pub(super) block2: Option<Block>,
    /// The size of the whole request payload, in bytes, as the peer announced it.
    pub(super) size1: Option<u32>,
    /// The classes of response the peer does not want to hear (RFC 7967).
    pub(super) unwanted: Unwanted,
    /// The states of the response that the peer has already, by their ETags: 1 to 8 bytes each.
    pub(super) held: Vec<Box<[u8]>>,
    /// Whether a precondition is stated that no function can meet.
    pub(super) precondition_fails: bool,
}

/// What a request's Observe option asks for (RFC 7641, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observe {
    /// To be told of each new state.
    Register,
    /// To be told no more.
    Deregister,
}

/// The value of No-Response: a bit for each class of response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unwanted(u8);

impl Unwanted {
    /// Whether no answer at all is wanted.
    pub(super) fn is_all(self) -> bool {
        self.0 & 0b1_1010 == 0b1_1010
    }

    /// Whether a response stays unsent. Never does what asks for more before the request can go on: 2.31, and an Echo.
    pub(super) fn covers(self, response: &Response) -> bool {
        response.code != ResponseType::Continue
            && response.echo.is_none()
            && response.class().checked_sub(1).is_some_and(|bit| self.0 >> bit & 1 == 1)
    }
}

/// How an option that is understood may look.
struct Rule {
    number: u16,
    repeatable: bool,
    /// Shortest and longest value, in bytes.
    length: (usize, usize),
}

const fn once(number: u16, shortest: usize, longest: usize) -> Rule {
    Rule { number, repeatable: false, length: (shortest, longest) }
}

const fn repeatable(number: u16, shortest: usize, longest: usize) -> Rule {
    Rule { repeatable: true, ..once(number, shortest, longest) }
}

const IF_MATCH: u16 = 1;
const ETAG: u16 = 4;
const IF_NONE_MATCH: u16 = 5;
const OBSERVE: u16 = 6;
const URI_PATH: u16 = 11;
const CONTENT_FORMAT: u16 = 12;
const ACCEPT: u16 = 17;
const BLOCK2: u16 = 23;
const BLOCK1: u16 = 27;
const PROXY_URI: u16 = 35;
const PROXY_SCHEME: u16 = 39;
const SIZE1: u16 = 60;
const ECHO: u16 = 252;
const NO_RESPONSE: u16 = 258;

/// What is understood, by number. Lengths as registered: RFC 7252, section 5.10; RFC 7959, section 2.1; RFC 7967; RFC 9175.
/// Uri-Host and Uri-Port are understood and make no difference: this host has one set of applications.
const RULES: &[Rule] = &[
    repeatable(IF_MATCH, 0, 8),
    once(3, 1, 255), // Uri-Host
    once(IF_NONE_MATCH, 0, 0),
    once(OBSERVE, 0, 3),
    once(7, 0, 2), // Uri-Port
    repeatable(URI_PATH, 0, 255),
    once(CONTENT_FORMAT, 0, 2),
    repeatable(15, 0, 255), // Uri-Query
    once(ACCEPT, 0, 2),
    once(BLOCK2, 0, 3),
    once(BLOCK1, 0, 3),
    once(PROXY_URI, 1, 1034),
    once(PROXY_SCHEME, 1, 255),
    once(SIZE1, 0, 4),
    once(ECHO, 1, 40),
    once(NO_RESPONSE, 0, 1),
];

/// Reads the options of a request.
pub(super) fn read(packet: &Packet) -> Result<RequestOptions, Refusal> {
    for (&number, values) in packet.options() {
        if number & 1 == 1 && !understood(number, values.iter().map(Vec::as_slice)) {
            return Err(bad_option(number));
        }
    }
    if value(packet, PROXY_URI).or(value(packet, PROXY_SCHEME)).is_some() {
        let text = "this is no proxy";
        return Err(Response::error(ResponseType::ProxyingNotSupported, text).into());
    }
    let path = texts(packet, CoapOption::UriPath, "the path is not UTF-8")?;
    let query = texts(packet, CoapOption::UriQuery, "the query is not UTF-8")?;
    let precondition_fails = value(packet, IF_NONE_MATCH).is_some()
        || packet.get_option(CoapOption::IfMatch).is_some_and(|tags| tags.iter().all(|tag| !tag.is_empty()));
    Ok(RequestOptions {
        path,
        query,
        content_format: short(packet, CONTENT_FORMAT),
        accept: short(packet, ACCEPT),
        observe: observe(packet),
        block1: block(packet, BLOCK1)?,
        block2: block(packet, BLOCK2)?,
        size1: value(packet, SIZE1).map(number_of),
        unwanted: unwanted(packet),
        held: held(packet),
        precondition_fails,
    })
}

/// The values of an option that is repeated, as text.
fn texts(packet: &Packet, option: CoapOption, otherwise: &str) -> Result<Vec<String>, Refusal> {
    let values = packet.get_option(option).into_iter().flatten();
    let texts = values.map(|value| String::from_utf8(value.clone())).collect::<Result<Vec<_>, _>>();
    texts.map_err(|_| Response::error(ResponseType::BadRequest, otherwise).into())
}

/// The classes of response the peer does not want to hear. To be found in requests that are refused, too.
pub(super) fn unwanted(packet: &Packet) -> Unwanted {
    let bits = value(packet, NO_RESPONSE).and_then(|value| value.first());
    Unwanted(bits.copied().unwrap_or(0))
}

/// Any other value asks for nothing.
fn observe(packet: &Packet) -> Option<Observe> {
    match value(packet, OBSERVE).map(number_of)? {
        0 => Some(Observe::Register),
        1 => Some(Observe::Deregister),
        _ => None,
    }
}

/// What the peer has already. A tag of a wrong length names nothing.
fn held(packet: &Packet) -> Vec<Box<[u8]>> {
    let tags = packet.get_option(CoapOption::ETag).into_iter().flatten();
    tags.filter(|tag| (1..=8).contains(&tag.len())).map(|tag| tag.as_slice().into()).collect()
}

/// What a peer gives back to show that its address is its own.
pub(super) fn echo(packet: &Packet) -> Option<&[u8]> {
    value(packet, ECHO)
}

fn rule(number: u16) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.number == number)
}

fn understood<'a>(number: u16, values: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
    rule(number).is_some_and(|rule| {
        let (shortest, longest) = rule.length;
        let mut values = values;
        (rule.repeatable || values.len() == 1) && values.all(|value| (shortest..=longest).contains(&value.len()))
    })
}

/// 4.02, naming the number; silence if the request was not confirmable.
fn bad_option(number: u16) -> Refusal {
    let text = format!("option {number} is not understood");
    Refusal { response: Response::error(ResponseType::BadOption, text).into(), silent_if_not_confirmable: true }
}

/// The first value of an option, if its length is right. Of a repeated elective option the rest is ignored; of a
/// critical one nothing but a single value gets here.
fn value(packet: &Packet, number: u16) -> Option<&[u8]> {
    let (shortest, longest) = rule(number)?.length;
    packet
        .get_first_option(CoapOption::from(number))
        .map(Vec::as_slice)
        .filter(|value| (shortest..=longest).contains(&value.len()))
}

/// An unsigned integer of up to four bytes.
fn number_of(value: &[u8]) -> u32 {
    value.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// An unsigned integer of up to two bytes.
fn short(packet: &Packet, number: u16) -> Option<u16> {
    value(packet, number).and_then(|value| u16::try_from(number_of(value)).ok())
}

fn block(packet: &Packet, number: u16) -> Result<Option<Block>, Refusal> {
    value(packet, number)
        .map(Block::decode)
        .transpose()
        .map_err(|error| Response::error(ResponseType::BadRequest, error.to_string()).into())
}

/// What makes two requests of a peer parts of one block-wise transfer: the method and every option that belongs to
/// the cache key (RFC 7252, section 5.4.2), the query and Request-Tag (RFC 9175) among them. Left out are the options
/// that differ between the blocks of one transfer, ETags of what the peer has among them: it asks for later blocks without.
pub(super) fn cache_key(method: u8, packet: &Packet) -> Box<[u8]> {
    let mut key = vec![method];
    for (&number, values) in packet.options() {
        let no_cache_key = number & 0b1_1110 == 0b1_1100;
        if no_cache_key || matches!(number, ETAG | OBSERVE | BLOCK1 | BLOCK2 | NO_RESPONSE) {
            continue;
        }
        for value in values {
            key.extend(number.to_be_bytes());
            // A value is shorter than the datagram it came in, and that than 65,536 bytes.
            key.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            key.extend(value);
        }
    }
    key.into()
}

#[cfg(test)]
#[path = "option/tests.rs"]
mod tests;
