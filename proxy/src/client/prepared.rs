//! A request as it is put into messages. What is the same in each of them is made once.

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use percent_encoding::percent_decode_str;

use super::block::{Block, shortest};
use super::{ClientError, Method, Request};

/// Longest value of Uri-Path and Uri-Query, in bytes (RFC 7252, section 5.10).
const SEGMENT_BYTES_MAX: usize = 255;

/// A token's length in every request; its value is written when the request is sent.
pub(super) const TOKEN_BYTES: usize = 4;

/// A request that can be sent any number of times.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    /// All but the payload, and what the exchange puts in: id and token.
    head: Packet,
    payload: Vec<u8>,
    /// The whole of it, if one message takes it.
    datagram: Option<Vec<u8>>,
}

impl PreparedRequest {
    /// Makes a confirmable request ready.
    ///
    /// # Errors
    /// When the path or the query is none, or they do not fit a message.
    pub fn new(request: &Request<'_>) -> Result<Self, ClientError> {
        let head = head(request)?;
        Self::of(head, request.payload.to_vec())
    }

    /// The same, to be sent once, without an acknowledgement.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn not_confirmable(mut self) -> Result<Self, ClientError> {
        self.head.header.set_type(MessageType::NonConfirmable);
        Self::of(self.head, self.payload)
    }

    fn of(head: Packet, payload: Vec<u8>) -> Result<Self, ClientError> {
        let is_one = payload.len() <= Block::bytes_of(Block::EXPONENT_MAX);
        let datagram = if is_one { Some(encode(&head, &[], &payload)?) } else { None };
        Ok(Self { head, payload, datagram })
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The one message of a payload that needs no blocks.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.datagram.as_deref()
    }

    /// A message of a request in blocks. Its other options are those of the request itself, or it would be another request.
    pub(super) fn part(&self, options: &[(CoapOption, Vec<u8>)], payload: &[u8]) -> Result<Vec<u8>, ClientError> {
        encode(&self.head, options, payload)
    }
}

fn encode(head: &Packet, options: &[(CoapOption, Vec<u8>)], payload: &[u8]) -> Result<Vec<u8>, ClientError> {
    let mut packet = head.clone();
    for (option, value) in options {
        packet.add_option(*option, value.clone());
    }
    packet.payload = payload.to_vec();
    packet.to_bytes().map_err(ClientError::Encode)
}

fn head(request: &Request<'_>) -> Result<Packet, ClientError> {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Confirmable);
    packet.header.code = MessageClass::Request(match request.method {
        Method::Get => RequestType::Get,
        Method::Post => RequestType::Post,
        Method::Put => RequestType::Put,
        Method::Fetch => RequestType::Fetch,
        Method::Delete => RequestType::Delete,
    });
    packet.set_token(vec![0; TOKEN_BYTES]);
    for (option, value) in uri_options(request.path)? {
        packet.add_option(option, value.into_bytes());
    }
    if let Some(content_format) = request.content_format {
        packet.add_option(CoapOption::ContentFormat, shortest(content_format.into()));
    }
    Ok(packet)
}

/// The path and query of a `coap` URI, as options (RFC 7252, section 6.4). Each value is decoded by itself: what an escape stands for
/// separates nothing.
fn uri_options(path: &str) -> Result<Vec<(CoapOption, String)>, ClientError> {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let path = path.strip_prefix('/').unwrap_or(path);
    // A path of nothing, or of one slash, has no segments.
    let segments = path.split('/').filter(|_| !path.is_empty()).map(|text| (CoapOption::UriPath, text));
    let arguments = query.into_iter().flat_map(|query| query.split('&')).map(|text| (CoapOption::UriQuery, text));
    segments.chain(arguments).map(|(option, text)| Ok((option, decode(text)?))).collect()
}

fn decode(text: &str) -> Result<String, ClientError> {
    let wrong = |why| ClientError::Uri { part: text.to_owned(), why };
    if text.contains('#') {
        return Err(wrong("a fragment is never sent"));
    }
    let mut after = text.split('%').skip(1).map(str::as_bytes);
    let is_escape = |rest: &[u8]| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit);
    if !after.all(is_escape) {
        return Err(wrong("two hexadecimal digits follow a percent sign"));
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| wrong("it is no UTF-8"))?;
    if decoded.len() > SEGMENT_BYTES_MAX {
        return Err(wrong("it is longer than 255 bytes"));
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: &str) -> (Vec<String>, Vec<String>) {
        let all = uri_options(path).unwrap();
        let of = |wanted| all.iter().filter(|(option, _)| *option == wanted).map(|(_, value)| value.clone()).collect();
        (of(CoapOption::UriPath), of(CoapOption::UriQuery))
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_path_and_a_query_are_split_and_then_decoded() {
        for (path, segments, arguments) in [
            ("", &[][..], &[][..]),
            ("/", &[], &[]),
            ("a/b", &["a", "b"], &[]),
            ("/a/b/", &["a", "b", ""], &[]),
            ("/a%2Fb/%C3%A4?x=1%262&y=%3f", &["a/b", "ä"], &["x=1&2", "y=?"]),
            ("/?a?b/c", &[], &["a?b/c"]),
            ("/a+b?", &["a+b"], &[""]),
        ] {
            assert_eq!(options(path), (strings(segments), strings(arguments)), "{path:?}");
        }
        assert_eq!(options(&format!("/{}", "%61".repeat(255))).0, ["a".repeat(255)]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in ["a%2", "a%zz", "%", "a?b=%+1", "%FF", "a#b", "a?b#c", &"a".repeat(256)] {
            assert!(matches!(uri_options(wrong), Err(ClientError::Uri { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_has_its_kind_and_room_for_the_token() {
        let request = Request { method: Method::Post, path: "a", payload: b"x", content_format: None };
        let confirmable = PreparedRequest::new(&request).unwrap();
        assert_eq!(confirmable.whole().unwrap()[..8], [0x44, 2, 0, 0, 0, 0, 0, 0]);
        let not = confirmable.not_confirmable().unwrap();
        assert_eq!(not.whole().unwrap()[..2], [0x54, 2]);
        let in_blocks = Request { payload: &[0; 1025], ..request };
        assert_eq!(PreparedRequest::new(&in_blocks).unwrap().whole(), None);
    }
}
