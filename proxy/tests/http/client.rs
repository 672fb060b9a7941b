//! A door on a free port, and connections that say exactly what a test wants said.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sandbar_proxy::Service;
use sandbar_proxy::http::{HttpConfig, HttpDoor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::echo::Echo;

/// Longer than anything here takes, unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A serving door.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) echo: Echo,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Door {
    pub(crate) fn open(config: HttpConfig) -> Self {
        let echo = Echo::default();
        Self::open_to(echo.clone(), echo, config)
    }

    /// A door to a service that has calls made by `echo`.
    pub(crate) fn open_to(service: impl Service, echo: Echo, config: HttpConfig) -> Self {
        let door = HttpDoor::bind(([127, 0, 0, 1], 0).into(), service, config).unwrap();
        let address = door.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(door.serve(async {
            stopped.await.ok();
        }));
        Self { address, echo, stop, serving }
    }

    pub(crate) async fn close(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }

    pub(crate) async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).await.unwrap();
        Connection { stream, read: Vec::new(), heads_only: false }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Response {
        self.connect().await.ask(method, path, "", body).await
    }

    /// Asks until the answer has this status: what makes it so is on its way.
    pub(crate) async fn ask_until(&self, status: u16, method: &str, path: &str, body: &[u8]) -> Response {
        let start = Instant::now();
        loop {
            let response = self.ask(method, path, body).await;
            if response.status == status {
                return response;
            }
            assert!(start.elapsed() < PATIENCE, "{response:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until so many calls have been begun.
    pub(crate) async fn runs(&self, calls: u64) {
        let start = Instant::now();
        while self.echo.runs() < calls {
            assert!(start.elapsed() < PATIENCE, "{} of {calls}", self.echo.runs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A connection, and what was read from it beyond the last response.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    /// Whether no body follows a head, whatever its length: HEAD was asked.
    heads_only: bool,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Connection {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request; `headers` are whole lines.
    pub(crate) async fn send_request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
        // In one piece: the kernel would hold a small second one back.
        self.send(&[head.as_bytes(), body].concat()).await;
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        self.heads_only = method == "HEAD";
        self.send_request(method, path, headers, body).await;
        self.receive().await
    }

    pub(crate) async fn receive(&mut self) -> Response {
        tokio::time::timeout(PATIENCE, self.receive_response()).await.expect("a response")
    }

    async fn receive_response(&mut self) -> Response {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(self.read_more().await, 0, "the connection ended");
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        let length =
            if self.heads_only { 0 } else { response.header("content-length").unwrap_or("0").parse().unwrap() };
        while self.read.len() < length {
            assert_ne!(self.read_more().await, 0, "the connection ended");
        }
        response.body = self.read.drain(..length).collect();
        response
    }

    async fn read_more(&mut self) -> usize {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0)
    }

    /// The door ends the connection without another byte.
    pub(crate) async fn ends(&mut self) {
        let read = tokio::time::timeout(PATIENCE, self.read_more()).await;
        assert_eq!(read.expect("the end"), 0);
    }
}
