//! One HTTP/1.1 exchange on a connection of its own.

use std::io::{self, Read, Write};

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Status line and headers.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request and reads the answer to its end.
pub(crate) fn exchange(
    connection: impl Read + Write,
    method: &str,
    path: &str,
    content_type: Option<&str>,
    body: &[u8],
) -> Response {
    let headers: Vec<_> = content_type.map(|content_type| ("content-type", content_type)).into_iter().collect();
    let answer = ask(connection, method, path, &headers, body);
    answer.unwrap_or_else(|error| panic!("no answer to {method} {path}: {error}"))
}

/// Likewise, with any headers; an error if there comes no answer, or not the whole of it.
pub(crate) fn ask(
    mut connection: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: sandbar\r\nconnection: close\r\n");
    head.push_str(&format!("content-length: {}\r\n", body.len()));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    connection.write_all(head.as_bytes())?;
    // A server that has seen enough answers and closes before it has read all.
    let _refused = connection.write_all(body);
    let mut bytes = Vec::new();
    let _reset = connection.read_to_end(&mut bytes);
    parse(&bytes).ok_or_else(|| {
        let text = format!("what came is no answer: {:?}", String::from_utf8_lossy(&bytes));
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    })
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let response = Response { status, head, body: bytes[end + 4..].to_vec() };
    let length = response.header("content-length").and_then(|length| length.parse::<usize>().ok());
    (length.is_none_or(|length| length == response.body.len())).then_some(response)
}
