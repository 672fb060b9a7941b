//! NATS, a peer: a request and its reply through a server, by the client that its makers give Rust programs.
//!
//! Each slice has a server of its own, on the processor of the side that answers, and ended with it. Without the program `nats-server` this
//! way is left out, and told.

use std::ffi::{CString, OsStr};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use nix::unistd::execv;
use tokio::runtime::{Builder, Runtime};

use crate::pinning::Placement;
use crate::process::Process;
use crate::round_trip::{Answerer, Caller, Transport};
use crate::shared::{stamp_of, touch};

/// What a server takes, unless it is told otherwise.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 20;
const SUBJECT: &str = "bench";
const KNOWN: &str = "bench.known";
/// From the start of a server until it listens.
const START_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are root's, and not on everyone's path.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("nats-server")).find(|program| program.is_file())
}

/// Whether there is a server to measure. Tells once if there is none.
#[allow(clippy::print_stderr, reason = "standard output is for figures")]
pub(crate) fn is_installed() -> bool {
    static TOLD: Once = Once::new();
    let installed = program().is_some();
    if !installed {
        TOLD.call_once(|| eprintln!("SKIPPED: NATS: nats-server is not installed: apt-get install nats-server"));
    }
    installed
}

/// A server, and where it listens.
#[derive(Debug)]
pub(crate) struct Nats {
    address: SocketAddr,
    _server: Process,
}

impl Nats {
    pub(crate) fn new(placement: Placement) -> Self {
        // Nobody listens there just now.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let program = program().unwrap();
        let port = address.port().to_string();
        let arguments = [program.as_os_str(), "-a".as_ref(), "127.0.0.1".as_ref(), "-p".as_ref(), port.as_ref()]
            .into_iter()
            .chain(["-l", "/dev/null"].map(OsStr::new))
            .map(|argument| CString::new(argument.as_bytes()).unwrap());
        let arguments: Vec<CString> = arguments.collect();
        let mut server = Process::start("nats-server", placement.processor(1), || {
            execv(&arguments[0], &arguments).unwrap();
        });
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            server.must_live();
            assert!(Instant::now() < until, "nats-server does not listen at {address}");
            std::thread::sleep(LOOK_AGAIN);
        }
        Self { address, _server: server }
    }

    /// A runtime of this process's own, and a connection.
    fn connect(&self) -> (Runtime, Client) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async_nats::connect(self.address.to_string())).unwrap();
        (runtime, client)
    }
}

struct Asking(Runtime, Client);

impl Asking {
    fn request(&self, payload: &[u8]) -> Result<Message, async_nats::client::RequestError> {
        self.0.block_on(self.1.request(SUBJECT, Bytes::copy_from_slice(payload)))
    }
}

impl Caller for Asking {
    fn round_trip(&mut self, payload: &[u8]) {
        touch(&self.request(payload).unwrap().payload);
    }
}

struct Answering {
    runtime: Runtime,
    client: Client,
    requests: Subscriber,
    /// What was received and not yet answered.
    request: Option<Message>,
}

impl Answerer for Answering {
    fn receive(&mut self) -> u64 {
        let request = self.runtime.block_on(self.requests.next()).expect("a request, as the server lives");
        let stamp = stamp_of(&request.payload);
        self.request = Some(request);
        stamp
    }

    fn answer(&mut self, payload: &[u8]) {
        let request = self.request.take().expect("a request was received");
        touch(&request.payload);
        let reply = request.reply.expect("a request says where its reply goes");
        self.runtime.block_on(async {
            self.client.publish(reply, Bytes::copy_from_slice(payload)).await.unwrap();
            self.client.flush().await.unwrap();
        });
    }
}

impl Transport for Nats {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        let (runtime, client) = self.connect();
        asking(&mut Asking(runtime, client));
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        let (runtime, client) = self.connect();
        let requests = runtime.block_on(async {
            let requests = client.subscribe(SUBJECT).await.unwrap();
            // What is heard on a later subscription says that the server knows of the earlier one.
            let mut known = client.subscribe(KNOWN).await.unwrap();
            client.publish(KNOWN, Bytes::new()).await.unwrap();
            known.next().await.expect("the server lives");
            requests
        });
        serving(&mut Answering { runtime, client, requests, request: None });
    }
}
