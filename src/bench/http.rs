//! Calls over HTTP/1.1: one connection, one request at a time, written and read as it is.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tally::End;
use super::target::Url;

/// Headers of a response, at most.
const HEADERS_MAX: usize = 64;
/// Bytes of a response that is taken in, at most.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 16 << 10;

/// One connection of a load.
#[derive(Debug)]
pub(crate) struct HttpLane {
    to: SocketAddr,
    /// Until it is needed, and after it broke.
    stream: Option<TcpStream>,
    input: Vec<u8>,
}

/// The request that all lanes send.
pub(crate) fn request(url: &Url, payload: &[u8]) -> Vec<u8> {
    let Url { authority, path } = url;
    let length = payload.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    request.extend_from_slice(payload);
    request
}

impl HttpLane {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, stream: None, input: Vec::with_capacity(READ_BYTES) }
    }

    /// Makes one call. A connection in the middle of an answer that was not waited for is not used again: drop the lane's
    /// connection with [`reset`](Self::reset).
    pub(crate) async fn call(&mut self, request: &[u8]) -> End {
        match self.exchange(request).await {
            Ok(end) => end,
            Err(error) => {
                self.reset();
                End::of(&error)
            }
        }
    }

    /// Closes the connection; the next call opens another.
    pub(crate) fn reset(&mut self) {
        self.stream = None;
        self.input.clear();
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<End> {
        let mut stream = match self.stream.take().filter(is_open) {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        self.input.clear();
        stream.write_all(request).await?;
        loop {
            if let Some(response) = parse(&self.input, false)? {
                if response.keeps_open {
                    self.stream = Some(stream);
                }
                return Ok(response.end());
            }
            if self.input.len() > RESPONSE_BYTES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.input.reserve(READ_BYTES);
            if stream.read_buf(&mut self.input).await? == 0 {
                let response = parse(&self.input, true)?;
                return Ok(response.ok_or(io::ErrorKind::UnexpectedEof)?.end());
            }
        }
    }
}

/// Whether the server has neither closed an idle connection nor said anything unasked: such a connection carries no more calls.
/// Costs no system call as long as nothing has happened on it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A response that has come whole.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: u16,
    keeps_open: bool,
}

impl Response {
    fn end(&self) -> End {
        match self.status {
            200..300 => End::Done,
            503 => End::Refused,
            status => End::Error(format!("status {status}")),
        }
    }
}

/// What has come, if that is the whole response. One that gives no length is whole when the connection has `ended`. `Err` if it is none.
fn parse(input: &[u8], ended: bool) -> io::Result<Option<Response>> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let body_at = match head.parse(input) {
        Ok(httparse::Status::Complete(at)) => at,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(&error.to_string())),
    };
    let status = head.code.ok_or_else(|| invalid("no status"))?;
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let says = |word: &str| {
        value("connection").is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    // HTTP/1.0 closes unless it says otherwise, 1.1 keeps open unless it says otherwise.
    let keeps_open = !ended && if head.version == Some(0) { says("keep-alive") } else { !says("close") };
    let body = &input[body_at..];
    let whole = match (value("content-length"), value("transfer-encoding")) {
        (Some(length), _) => body.len() >= length.trim().parse::<usize>().map_err(|_| invalid("a wrong length"))?,
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => chunks_end(body)?,
        (None, _) if status == 204 || status == 304 => true,
        (None, _) => ended,
    };
    Ok(whole.then_some(Response { status, keeps_open }))
}

/// Whether the last chunk has come.
fn chunks_end(mut body: &[u8]) -> io::Result<bool> {
    loop {
        match httparse::parse_chunk_size(body) {
            Ok(httparse::Status::Complete((at, 0))) => return Ok(body[at..].ends_with(b"\r\n")),
            Ok(httparse::Status::Complete((at, size))) => {
                let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size)?.checked_add(2));
                match end.and_then(|end| body.get(end..)) {
                    Some(rest) => body = rest,
                    None => return Ok(false),
                }
            }
            Ok(httparse::Status::Partial) => return Ok(false),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_when_its_length_is_there() {
        for whole in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ] {
            for cut in 0..whole.len() {
                let text = String::from_utf8_lossy(whole);
                assert_eq!(parse(&whole[..cut], false).unwrap(), None, "{cut} of {text}");
                assert_eq!(parse(&whole[..cut], true).unwrap(), None, "{cut} of {text}");
            }
            assert!(parse(whole, false).unwrap().is_some());
        }
    }

    #[test]
    fn a_response_without_a_length_lasts_until_the_connection_ends() {
        let response = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert_eq!(parse(response, false).unwrap(), None);
        assert_eq!(parse(response, true).unwrap(), Some(Response { status: 200, keeps_open: false }));
    }

    #[test]
    fn a_connection_is_used_again_when_the_version_and_the_header_say_so() {
        let keeps_open = |version: &str, header: &str| {
            let text = format!("HTTP/{version} 200 OK\r\n{header}content-length: 0\r\n\r\n");
            parse(text.as_bytes(), false).unwrap().unwrap().keeps_open
        };
        assert!(keeps_open("1.1", "") && keeps_open("1.0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps_open("1.0", "") && !keeps_open("1.1", "connection: foo, Close\r\n"));
    }

    /// The first connection is closed by the server between two calls; the second says that it closes, in the words of HTTP/1.0.
    #[tokio::test]
    async fn a_connection_that_the_server_closed_costs_no_call() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut lane = HttpLane::new(listener.local_addr().unwrap());
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let serve = async {
            let mut closed = Some(closed);
            for version in ["1.1", "1.0", "1.0"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_exact(&mut [0; 5]).await.unwrap();
                let response = format!("HTTP/{version} 200 OK\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(response.as_bytes()).await.unwrap();
                drop(stream);
                if let Some(closed) = closed.take() {
                    closed.send(()).unwrap();
                }
            }
        };
        let calls = async {
            let first = lane.call(b"hello").await;
            is_closed.await.unwrap();
            // The reactor has to hear of it.
            lane.stream.as_ref().unwrap().readable().await.unwrap();
            [first, lane.call(b"hello").await, lane.call(b"hello").await]
        };
        assert_eq!(tokio::join!(calls, serve).0, [End::Done, End::Done, End::Done]);
    }

    #[test]
    fn the_status_says_how_it_ended() {
        let end = |status| Response { status, keeps_open: true }.end();
        assert_eq!((end(200), end(202), end(503)), (End::Done, End::Done, End::Refused));
        assert_eq!(end(404), End::Error("status 404".to_owned()));
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        for wrong in [&b"SSH-2.0-OpenSSH\r\n"[..], b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"] {
            assert!(parse(wrong, false).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
