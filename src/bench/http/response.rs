//! A response of HTTP/1.1 as it comes: where it ends, and whether the connection goes on (RFC 9112, sections 6 and 9).

use std::io;

use httparse::Status;

use super::End;

/// Headers of a response or a trailer, at most.
const HEADERS_MAX: usize = 64;
/// A head, a chunk's first line or a trailer is no longer, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A response that is coming. Of its body nothing is kept.
#[derive(Debug, Default)]
pub(super) enum Incoming {
    #[default]
    Head,
    Body(Response, Left),
}

/// A response that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) keeps_open: bool,
}

/// What is still to come of a body.
#[derive(Debug)]
pub(super) enum Left {
    Bytes(u64),
    Chunks(Chunks),
    /// All that comes before the connection ends.
    UntilClosed,
}

/// What comes next of a body in chunks.
#[derive(Debug)]
pub(super) enum Chunks {
    Size,
    /// So many bytes, with the line's end after them.
    Data(u64),
    Trailer,
}

impl Response {
    pub(super) fn end(self) -> End {
        match self.status {
            200..300 => End::Done,
            503 => End::Refused,
            status => End::Error(format!("status {status}")),
        }
    }
}

impl Incoming {
    /// Takes what has come out of `input`; the response, once it is whole.
    ///
    /// # Errors
    /// When it is no response.
    pub(super) fn take(&mut self, input: &mut Vec<u8>) -> io::Result<Option<Response>> {
        loop {
            match self {
                Self::Head => match head(input)? {
                    None => return Ok(None),
                    // That the server is at work on it, or similar, is no answer yet.
                    Some((Response { status: 100..=199, .. }, Left::Bytes(_))) => {}
                    Some((response, left)) => *self = Self::Body(response, left),
                },
                Self::Body(response, left) => {
                    let whole = left.take(input)?;
                    // What is said beyond the answer was not asked for.
                    let keeps_open = response.keeps_open && input.is_empty();
                    return Ok(whole.then_some(Response { keeps_open, ..*response }));
                }
            }
        }
    }

    /// The response, if it is one that ends with the connection.
    ///
    /// # Errors
    /// When more had to come.
    pub(super) fn ended(self, nothing_came: bool) -> io::Result<Response> {
        let how = match self {
            Self::Body(response, Left::UntilClosed) => return Ok(Response { keeps_open: false, ..response }),
            Self::Head if nothing_came => "connection closed before the answer",
            Self::Head | Self::Body(..) => "connection closed within the answer",
        };
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, how))
    }
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP/1.1 response: {}", what.to_string()))
}

/// Nothing yet, unless so much has come that it can be nothing any more.
fn not_yet<T>(input: &[u8]) -> io::Result<Option<T>> {
    if input.len() > HEAD_BYTES_MAX { Err(invalid("a head or line without an end")) } else { Ok(None) }
}

/// A head, and what body follows.
fn head(input: &mut Vec<u8>) -> io::Result<Option<(Response, Left)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Status::Complete(end) = head.parse(input).map_err(invalid)? else { return not_yet(input) };
    let status = head.code.ok_or_else(|| invalid("no status"))?;
    let named = |name: &'static str| {
        let headers = head.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        headers.filter_map(|header| std::str::from_utf8(header.value).ok())
    };
    let words = |name| named(name).flat_map(|value| value.split(',')).map(str::trim);
    let says = |word: &str| words("connection").any(|said| said.eq_ignore_ascii_case(word));
    // HTTP/1.0 closes unless it says otherwise, 1.1 keeps open unless it says otherwise.
    let keeps_open = if head.version == Some(0) { says("keep-alive") } else { !says("close") };
    let left = match (status, words("transfer-encoding").next_back(), named("content-length").next()) {
        // After this one the connection speaks another protocol.
        (101, ..) => Left::UntilClosed,
        (100..200 | 204 | 304, ..) => Left::Bytes(0),
        (_, Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Left::Chunks(Chunks::Size),
        (_, Some(_), _) | (_, None, None) => Left::UntilClosed,
        (_, None, Some(length)) => Left::Bytes(length.trim().parse().map_err(|_| invalid("a wrong length"))?),
    };
    input.drain(..end);
    Ok(Some((Response { status, keeps_open }, left)))
}

impl Left {
    /// Takes what has come of it; whether that was the rest.
    fn take(&mut self, input: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Bytes(left) => Ok(skip(left, input)),
            Self::Chunks(chunks) => chunks.take(input),
            Self::UntilClosed => {
                input.clear();
                Ok(false)
            }
        }
    }
}

impl Chunks {
    fn take(&mut self, input: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(input).map_err(|_| invalid("a wrong chunk"))? {
                    Status::Partial => return not_yet(input).map(|_: Option<()>| false),
                    Status::Complete((end, size)) => {
                        input.drain(..end);
                        *self = if size == 0 { Self::Trailer } else { Self::Data(size.saturating_add(2)) };
                    }
                },
                Self::Data(left) => {
                    if !skip(left, input) {
                        return Ok(false);
                    }
                    *self = Self::Size;
                }
                Self::Trailer => {
                    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
                    let Status::Complete((end, _)) = httparse::parse_headers(input, &mut headers).map_err(invalid)?
                    else {
                        return not_yet(input).map(|_: Option<()>| false);
                    };
                    input.drain(..end);
                    return Ok(true);
                }
            }
        }
    }
}

/// Takes up to `left` bytes from the input; whether no more are left.
fn skip(left: &mut u64, input: &mut Vec<u8>) -> bool {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    input.drain(..here);
    *left -= here as u64;
    *left == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a response that comes in two pieces; what is not whole yet, when the connection then ends.
    fn in_pieces(response: &[u8], at: usize) -> io::Result<Option<Response>> {
        let mut incoming = Incoming::default();
        let mut input = response[..at].to_vec();
        if let Some(response) = incoming.take(&mut input)? {
            return Ok(Some(response));
        }
        input.extend_from_slice(&response[at..]);
        incoming.take(&mut input)
    }

    fn whole(response: &[u8]) -> io::Result<Option<Response>> {
        in_pieces(response, 0)
    }

    const WHOLE: [&[u8]; 8] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\ncontent-length: 1\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nsum: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    ];

    #[test]
    fn a_response_is_whole_when_all_of_it_is_there_however_it_came() {
        for response in WHOLE {
            let text = String::from_utf8_lossy(response);
            let expected = whole(response).unwrap().unwrap();
            for cut in 0..response.len() {
                assert_eq!(in_pieces(response, cut).unwrap(), Some(expected), "in pieces, {cut} of {text}");
                let mut incoming = Incoming::default();
                assert_eq!(incoming.take(&mut response[..cut].to_vec()).unwrap(), None, "{cut} of {text}");
                assert!(incoming.ended(cut == 0).is_err(), "{cut} of {text}");
            }
        }
    }

    #[test]
    fn what_comes_before_the_answer_is_not_the_answer() {
        assert_eq!(WHOLE[6..].iter().map(|it| whole(it).unwrap().unwrap().status).collect::<Vec<_>>(), [200, 404]);
        let switched = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nanything";
        let mut incoming = Incoming::default();
        assert_eq!(incoming.take(&mut switched.to_vec()).unwrap(), None);
        assert_eq!(incoming.ended(false).unwrap().end(), End::Error("status 101".to_owned()));
    }

    #[test]
    fn a_response_without_a_length_lasts_until_the_connection_ends() {
        let mut incoming = Incoming::default();
        let mut input = b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec();
        assert_eq!(incoming.take(&mut input).unwrap(), None);
        assert!(input.is_empty(), "nothing of a body is kept");
        assert_eq!(incoming.ended(false).unwrap(), Response { status: 200, keeps_open: false });
        let kind = |nothing| End::of(&Incoming::default().ended(nothing).unwrap_err());
        assert_eq!(kind(true), End::Error("connection closed before the answer".to_owned()));
        assert_eq!(kind(false), End::Error("connection closed within the answer".to_owned()));
    }

    #[test]
    fn a_connection_is_used_again_when_version_header_and_silence_say_so() {
        let keeps_open = |version: &str, header: &str, more: &str| {
            let text = format!("HTTP/{version} 200 OK\r\n{header}content-length: 0\r\n\r\n{more}");
            whole(text.as_bytes()).unwrap().unwrap().keeps_open
        };
        assert!(keeps_open("1.1", "", "") && keeps_open("1.0", "Connection: Keep-Alive\r\n", ""));
        assert!(!keeps_open("1.0", "", "") && !keeps_open("1.1", "connection: foo, Close\r\n", ""));
        assert!(!keeps_open("1.1", "connection: foo\r\nconnection: close\r\n", ""));
        assert!(!keeps_open("1.1", "", "more"), "the next answer would begin with it");
    }

    #[test]
    fn the_status_says_how_it_ended() {
        let end = |status| Response { status, keeps_open: true }.end();
        assert_eq!((end(200), end(202), end(503)), (End::Done, End::Done, End::Refused));
        assert_eq!(end(404), End::Error("status 404".to_owned()));
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; HEAD_BYTES_MAX]].concat();
        for wrong in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            &endless,
        ] {
            assert!(whole(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
