//! The client of the crate itself, against libcoap's server, on each TLS library that it is built with here.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sandbar_proxy::client::{Client, ClientError, Method, Request, SessionError};

use crate::client::PATIENCE;
use crate::our_client::{credentials, pattern};

const KEY: &str = "fedcba9876543210";
/// How long a handshake that comes to nothing is waited for.
const HANDSHAKE: Duration = Duration::from_secs(4);
/// Another program may take a port between our look and libcoap's.
const ATTEMPTS: usize = 5;

/// libcoap's server, with one key for everybody.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Two ports that follow each other, as the server takes the one after the one that it is told for coaps.
fn free_ports() -> (u16, SocketAddr) {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let Some(next) = first.port().checked_add(1) else { continue };
        if UdpSocket::bind(("127.0.0.1", next)).is_ok() {
            return (first.port(), (first.ip(), next).into());
        }
    }
}

impl Server {
    /// Starts one, and waits until it answers a client that has its key.
    async fn start(program: &PathBuf) -> Self {
        for _ in 0..ATTEMPTS {
            let (port, address) = free_ports();
            let mut command = Command::new(program);
            command.args(["-A", "127.0.0.1", "-p", &port.to_string(), "-k", KEY, "-d", "10"]);
            let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut server = Self { process, address };
            while server.process.try_wait().unwrap().is_none() {
                let mut client = server.client(KEY, Duration::from_secs(2)).await;
                if client.request(&request(Method::Get, "", b"")).await.is_ok() {
                    return server;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("{} does not start", program.display());
    }

    async fn client(&self, key: &str, patience: Duration) -> Client {
        Client::connect_secure(self.address, credentials("sensor", key), patience).await.unwrap()
    }
}

fn request<'a>(method: Method, path: &'a str, payload: &'a [u8]) -> Request<'a> {
    Request { method, path, payload, content_format: None }
}

/// The servers that are here; a test without any says that it is skipped.
#[allow(clippy::print_stderr, reason = "who runs the tests is to know")]
fn servers() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    let find = |name: &&str| std::env::split_paths(&path).map(|at| at.join(name)).find(|program| program.is_file());
    let found: Vec<PathBuf> = ["coap-server-openssl", "coap-server-gnutls"]
        .iter()
        .filter_map(|name| {
            let program = find(name);
            if program.is_none() {
                eprintln!("SKIPPED: there is no {name} (Debian: libcoap3-bin)");
            }
            program
        })
        .collect();
    found
}

#[tokio::test]
async fn what_is_put_there_block_by_block_is_there_to_get() {
    for program in servers() {
        let server = Server::start(&program).await;
        let mut client = server.client(KEY, PATIENCE).await;
        for len in [10, 1024, 20_000] {
            let payload = pattern(len);
            let put = client.request(&request(Method::Put, "example_data", &payload)).await.unwrap();
            assert_eq!(put.code.0, 2, "{program:?}, {len} bytes: {put:?}");
            let got = client.request(&request(Method::Get, "example_data", b"")).await.unwrap();
            assert_eq!((got.code, got.payload == payload), ((2, 5), true), "{program:?}, {len} bytes");
        }
        assert_eq!(client.request(&request(Method::Get, "nothing", b"")).await.unwrap().code, (4, 4));
    }
}

/// On GnuTLS the server says that it refuses; on OpenSSL it passes over what it cannot read.
#[tokio::test]
async fn with_another_key_there_is_no_session() {
    for program in servers() {
        let server = Server::start(&program).await;
        let mut client = server.client("another key of it", HANDSHAKE).await;
        let error = client.request(&request(Method::Get, "", b"")).await.unwrap_err();
        let ClientError::Session { source, .. } = &error else { panic!("{program:?}: {error:?}") };
        let (SessionError::Refused { identity } | SessionError::Unfinished { identity }) = source else {
            panic!("{program:?}: {error:?}");
        };
        assert_eq!(identity, "sensor");
    }
}
