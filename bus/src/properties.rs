//! What a request says of itself beside its payload, and an answer beside its: what the protocols of front doors have in common, in CoAP's
//! terms. They travel before the payload, in its buffer; one that says nothing out of the ordinary has none, and costs nothing.
//!
//! ```text
//!   property = kind (1 byte), length (2 bytes, little endian), value
//! ```
//!
//! Requests and answers have kinds of their own: a function that hands its event on as the answer hands on what was said of the request,
//! which is nothing to whoever reads the answer.

use std::fmt;

/// Bytes of all properties of a message, at most.
pub const PROPERTIES_BYTES_MAX: usize = 2048;

const METHOD: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 3;
const ACCEPT: u8 = 4;
const CODE: u8 = 65;
const MAX_AGE: u8 = 66;
const ETAG: u8 = 67;
const LOCATION: u8 = 68;

/// The method of a request (RFC 7252, 5.8; RFC 8132), with its code in CoAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Method {
    /// Reads.
    Get = 1,
    /// Lets something be done: what every call is that does not say another.
    #[default]
    Post = 2,
    /// Puts something in place.
    Put = 3,
    /// Removes something.
    Delete = 4,
    /// Reads, and says in its payload what.
    Fetch = 5,
    /// Changes a part.
    Patch = 6,
    /// Changes a part, and may be repeated without harm.
    Ipatch = 7,
}

impl Method {
    /// All there are.
    pub const ALL: [Self; 7] = [Self::Get, Self::Post, Self::Put, Self::Delete, Self::Fetch, Self::Patch, Self::Ipatch];

    /// By its code in CoAP.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|method| *method as u8 == code)
    }

    /// By its name, in capitals.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Its name, as HTTP writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Fetch => "FETCH",
            Self::Patch => "PATCH",
            Self::Ipatch => "IPATCH",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A response code of CoAP (RFC 7252, 12.1.2) that a function may answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u8);

impl Code {
    /// By class and detail: `Code::new(2, 1)` is 2.01. `None` if it is no code that a function may give: those of transfers and of proxies are
    /// the front doors' own.
    #[must_use]
    pub fn new(class: u8, detail: u8) -> Option<Self> {
        let known = match class {
            2 => (1..=5).contains(&detail),
            4 => matches!(detail, 0..=6 | 9 | 12 | 13 | 15 | 22 | 29),
            5 => (0..=4).contains(&detail),
            _ => false,
        };
        known.then_some(Self(class << 5 | detail))
    }

    /// By the byte that it is in a message.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::new(byte >> 5, byte & 0x1F)
    }

    /// As it is written: `2.01`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (class, detail) = text.split_once('.').filter(|(class, detail)| class.len() == 1 && detail.len() == 2)?;
        Self::new(class.parse().ok()?, detail.parse().ok()?)
    }

    /// The byte that it is in a message.
    #[must_use]
    pub fn byte(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 >> 5, self.0 & 0x1F)
    }
}

/// What a request says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestProperties {
    /// What is to be done.
    pub method: Method,
    /// What follows the function in the path: segments with slashes between, percent-encoded as in a URI. Empty for none.
    pub path: String,
    /// The query: its parts with `&` between, likewise.
    pub query: String,
    /// The format that the answer should have (CoAP Content-Formats registry).
    pub accept: Option<u16>,
}

/// What an answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerProperties {
    /// Its code, if it is not the usual one of its method.
    pub code: Option<Code>,
    /// For how many seconds others may be given it.
    pub max_age_s: Option<u32>,
    /// Names this state of what was asked for: 1 to 8 bytes.
    pub etag: Option<Vec<u8>>,
    /// Where to find what was made: path and query, percent-encoded.
    pub location: Option<String>,
}

/// Too much is said of a message: the bytes there would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "path, query and what else is said of a message have {} bytes, {PROPERTIES_BYTES_MAX} at most",
            self.0
        )
    }
}

impl std::error::Error for TooLong {}

impl RequestProperties {
    /// As they travel.
    ///
    /// # Errors
    /// When they are longer than [`PROPERTIES_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut encoder = Encoder::default();
        if self.method != Method::Post {
            encoder.add(METHOD, &[self.method as u8]);
        }
        encoder.add_text(PATH, &self.path);
        encoder.add_text(QUERY, &self.query);
        if let Some(accept) = self.accept {
            encoder.add(ACCEPT, &accept.to_le_bytes());
        }
        encoder.finish()
    }

    /// Reads them. What is not well-formed, or not known, is passed over.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut read = Self::default();
        for (kind, value) in properties(bytes) {
            match (kind, value) {
                (METHOD, &[code]) => read.method = Method::from_code(code).unwrap_or_default(),
                (PATH, path) => read.path = String::from_utf8_lossy(path).into_owned(),
                (QUERY, query) => read.query = String::from_utf8_lossy(query).into_owned(),
                (ACCEPT, &[low, high]) => read.accept = Some(u16::from_le_bytes([low, high])),
                _ => {}
            }
        }
        read
    }
}

impl AnswerProperties {
    /// As they travel.
    ///
    /// # Errors
    /// When they are longer than [`PROPERTIES_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, TooLong> {
        let mut encoder = Encoder::default();
        if let Some(code) = self.code {
            encoder.add(CODE, &[code.byte()]);
        }
        if let Some(seconds) = self.max_age_s {
            encoder.add(MAX_AGE, &seconds.to_le_bytes());
        }
        if let Some(etag) = &self.etag {
            encoder.add(ETAG, etag);
        }
        encoder.add_text(LOCATION, self.location.as_deref().unwrap_or_default());
        encoder.finish()
    }

    /// Reads them. What is not well-formed, or not known, is passed over: it comes from a function, which may say what it likes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut read = Self::default();
        for (kind, value) in properties(bytes) {
            match (kind, value) {
                (CODE, &[byte]) => read.code = Code::from_byte(byte),
                (MAX_AGE, &[a, b, c, d]) => read.max_age_s = Some(u32::from_le_bytes([a, b, c, d])),
                (ETAG, etag) if (1..=8).contains(&etag.len()) => read.etag = Some(etag.to_vec()),
                (LOCATION, location) => read.location = String::from_utf8(location.to_vec()).ok(),
                _ => {}
            }
        }
        read
    }
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn add(&mut self, kind: u8, value: &[u8]) {
        // A value that is too long for its length makes the whole too long, whatever is written here.
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.push(kind);
        self.0.extend_from_slice(&len.to_le_bytes());
        self.0.extend_from_slice(value);
    }

    fn add_text(&mut self, kind: u8, text: &str) {
        if !text.is_empty() {
            self.add(kind, text.as_bytes());
        }
    }

    fn finish(self) -> Result<Vec<u8>, TooLong> {
        if self.0.len() > PROPERTIES_BYTES_MAX { Err(TooLong(self.0.len())) } else { Ok(self.0) }
    }
}

/// The properties in these bytes, up to the first that is not whole.
fn properties(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[kind, low, high], rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        bytes = rest;
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_usual_takes_no_room() {
        assert_eq!(RequestProperties::default().encode(), Ok(Vec::new()));
        assert_eq!(AnswerProperties::default().encode(), Ok(Vec::new()));
        assert_eq!(RequestProperties::decode(&[]), RequestProperties::default());
    }

    #[test]
    fn too_much_is_refused() {
        let long = |len: usize| RequestProperties { path: "x".repeat(len), ..RequestProperties::default() };
        assert!(long(PROPERTIES_BYTES_MAX - 3).encode().is_ok());
        assert_eq!(long(PROPERTIES_BYTES_MAX - 2).encode(), Err(TooLong(PROPERTIES_BYTES_MAX + 1)));
        assert!(long(100_000).encode().is_err());
    }

    #[test]
    fn codes_are_those_of_functions() {
        for (text, byte) in [("2.01", 0x41), ("2.05", 0x45), ("4.04", 0x84), ("4.22", 0x96), ("5.00", 0xA0)] {
            let code = Code::from_text(text).unwrap();
            assert_eq!((code.byte(), code.to_string().as_str()), (byte, text));
            assert_eq!(Code::from_byte(byte), Some(code));
        }
        for none in ["2.31", "4.08", "5.05", "1.00", "2.1", "2.001", "x", "6.00", "2,01", "2.0x"] {
            assert_eq!(Code::from_text(none), None, "{none}");
        }
    }

    #[test]
    fn a_request_says_nothing_of_an_answer() {
        let request = RequestProperties {
            method: Method::Fetch,
            path: "a/b".to_owned(),
            query: "c=d".to_owned(),
            accept: Some(50),
        };
        let bytes = request.encode().unwrap();
        assert_eq!(RequestProperties::decode(&bytes), request);
        assert_eq!(AnswerProperties::decode(&bytes), AnswerProperties::default());
    }

    proptest! {
        #[test]
        fn answers_come_through(
            code in proptest::option::of(0u8..=255),
            max_age_s in proptest::option::of(any::<u32>()),
            etag in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..=8)),
            location in proptest::option::of("[a-z/?&=%]{1,100}"),
        ) {
            let answer = AnswerProperties { code: code.and_then(Code::from_byte), max_age_s, etag, location };
            prop_assert_eq!(AnswerProperties::decode(&answer.encode().unwrap()), answer);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _request = RequestProperties::decode(&bytes);
            let _answer = AnswerProperties::decode(&bytes);
        }
    }
}
