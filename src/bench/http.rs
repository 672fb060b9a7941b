//! Calls over HTTP/1.1: one connection, one request at a time, written and read as it is.

mod response;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::response::{Incoming, Response};
use super::tally::End;
use crate::url::Url;

const READ_BYTES: usize = 16 << 10;

/// One connection of a load.
#[derive(Debug)]
pub(crate) struct HttpLane {
    to: SocketAddr,
    request: Rc<[u8]>,
    /// How long a call is waited for.
    timeout: Duration,
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
    pub(crate) fn new(to: SocketAddr, request: Rc<[u8]>, timeout: Duration) -> Self {
        Self { to, request, timeout, stream: None, input: Vec::with_capacity(READ_BYTES) }
    }

    /// Makes one call. A connection in the middle of an answer that is not waited for any longer is not used again.
    pub(crate) async fn call(&mut self) -> End {
        match tokio::time::timeout(self.timeout, self.exchange()).await {
            Ok(Ok(response)) => response.end(),
            Ok(Err(error)) => End::of(&error),
            Err(_) => End::Lost,
        }
    }

    async fn exchange(&mut self) -> io::Result<Response> {
        let mut stream = match self.stream.take().filter(is_open) {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        self.input.clear();
        let response = talk(&mut stream, &self.request, &mut self.input).await?;
        self.stream = Some(stream).filter(|_| response.keeps_open);
        Ok(response)
    }
}

/// Writes a request and reads its response. Both at once: a server may answer while a long request is still being written, and may
/// read no more of it before its answer is taken.
async fn talk(stream: &mut TcpStream, request: &[u8], input: &mut Vec<u8>) -> io::Result<Response> {
    let (mut reader, mut writer) = stream.split();
    let (mut unsent, mut incoming) = (request, Incoming::default());
    let mut written = Ok(());
    let mut nothing_came = true;
    loop {
        input.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            wrote = writer.write(unsent), if !unsent.is_empty() && written.is_ok() => {
                match wrote {
                    Ok(bytes) => unsent = &unsent[bytes..],
                    // It may have refused the request before it closed.
                    Err(error) => written = Err(error),
                }
                continue;
            }
            read = reader.read_buf(input) => read,
        };
        if matches!(read, Ok(0) | Err(_)) {
            if nothing_came {
                written?;
            }
            read?;
            return incoming.ended(nothing_came);
        }
        nothing_came = false;
        if let Some(response) = incoming.take(input)? {
            let keeps_open = response.keeps_open && unsent.is_empty();
            return Ok(Response { keeps_open, ..response });
        }
    }
}

/// Whether the server has neither closed an idle connection nor said anything unasked: such a connection carries no more calls.
/// Costs no system call as long as nothing has happened on it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn server() -> (TcpListener, impl Fn(&[u8]) -> HttpLane) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        (listener, move |request| HttpLane::new(to, Rc::from(request), Duration::from_secs(30)))
    }

    /// The first connection is closed by the server between two calls; the second says that it closes, in the words of HTTP/1.0.
    #[tokio::test]
    async fn a_connection_that_the_server_closed_costs_no_call() {
        let (listener, lane) = server().await;
        let mut lane = lane(b"hello");
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
            let first = lane.call().await;
            is_closed.await.unwrap();
            // The reactor has to hear of it.
            lane.stream.as_ref().unwrap().readable().await.unwrap();
            [first, lane.call().await, lane.call().await]
        };
        assert_eq!(tokio::join!(calls, serve).0, [End::Done, End::Done, End::Done]);
    }

    /// Neither side could go on if the request had to be written whole before anything is read.
    #[tokio::test]
    async fn a_server_that_answers_as_it_reads_is_listened_to_meanwhile() {
        const BYTES: usize = 32 << 20;
        let (listener, lane) = server().await;
        let mut lane = lane(&vec![b'x'; BYTES]);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut buffer = vec![0; 64 << 10];
            let mut echoed = 0;
            while echoed < BYTES {
                let read = stream.read(&mut buffer).await.unwrap();
                stream.write_all(&buffer[..read]).await.unwrap();
                echoed += read;
            }
        };
        assert_eq!(tokio::join!(lane.call(), serve).0, End::Done);
        assert!(lane.stream.is_some() && lane.input.capacity() < 1 << 20, "{} bytes kept", lane.input.capacity());
    }

    #[tokio::test]
    async fn a_refusal_amid_the_request_counts_and_so_does_a_connection_that_ends() {
        let (listener, lane) = server().await;
        let (mut long, mut short) = (lane(&vec![b'x'; 32 << 20]), lane(b"hello"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 5]).await.unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            // Kept open until the lane has seen it: what a server that closes at once has said may be lost on the way.
            let (mut next, _) = listener.accept().await.unwrap();
            drop(stream);
            next.read_exact(&mut [0; 5]).await.unwrap();
            drop(next);
            let (mut next, _) = listener.accept().await.unwrap();
            next.read_exact(&mut [0; 5]).await.unwrap();
            next.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab").await.unwrap();
        };
        let calls = async { [long.call().await, short.call().await, short.call().await] };
        let expected = ["status 413", "connection closed before the answer", "connection closed within the answer"];
        assert_eq!(tokio::join!(calls, serve).0, expected.map(|kind| End::Error(kind.to_owned())));
    }
}
