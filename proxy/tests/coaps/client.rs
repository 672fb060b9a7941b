//! A secure door on a free port, and clients that speak DTLS over sockets of their own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use dimpl::{Config, Dtls, Output, PskResolver};
use sandbar_proxy::coap::{CoapConfig, CoapCounters, CoapDoor, DtlsConfig, Security};
use sandbar_proxy::keys::Keys;
use sandbar_proxy::{ServedApplication, Service};
use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{Answer, Origin, Outcome, Request};
use tokio::sync::{oneshot, watch};

/// Longer than anything here takes, unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

const KEY: &str = "0123456789abcdef";

/// Answers a call of `echo` with its payload, reversed.
#[derive(Clone, Debug)]
struct Reverse;

impl Service for Reverse {
    fn find(&self, _: Origin, _: &str, _: Option<&str>) -> Result<(), Box<Answer>> {
        Ok(())
    }

    fn observable(&self, _: &str, _: Option<&str>) -> bool {
        true
    }

    async fn call(&self, request: Request) -> Answer {
        let payload: Vec<u8> = request.payload.iter().rev().copied().collect();
        Answer { payload: payload.into(), ..Answer::refused(Outcome::Done, "") }
    }

    fn payload_bytes_max(&self) -> usize {
        1 << 20
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::default()
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        Vec::new()
    }
}

/// A serving door, in a thread of its own.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<CoapCounters>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<std::thread::JoinHandle<()>>,
    keys: watch::Sender<Arc<Keys>>,
}

impl Door {
    pub(crate) fn open(limits: DtlsConfig) -> Self {
        let keys = watch::Sender::new(Arc::new(all_keys()));
        let security = Security { limits, keys: keys.subscribe() };
        let (opened, door) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let any = "127.0.0.1:0".parse().unwrap();
                let door = CoapDoor::bind_secure(any, Reverse, CoapConfig::default(), security).unwrap();
                opened.send((door.local_addr(), door.counters())).unwrap();
                door.serve(async { stopped.await.unwrap_or(()) }).await;
            });
        });
        let (address, counters) = door.recv_timeout(PATIENCE).unwrap();
        Self { address, counters, stop: Some(stop), serving: Some(serving), keys }
    }

    /// Takes all keys away, so that all sessions end, and gives them again.
    pub(crate) fn end_all_sessions(&self) {
        self.keys.send_replace(Arc::default());
        let start = Instant::now();
        while self.sessions() > 0 {
            assert!(start.elapsed() < PATIENCE, "sessions stay");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.keys.send_replace(Arc::new(all_keys()));
    }

    /// Sessions that are open.
    pub(crate) fn sessions(&self) -> u64 {
        self.counters.handshakes_done.get() - self.counters.sessions_ended.get()
    }
}

/// Identities `client-0` to `client-63`.
fn all_keys() -> Keys {
    let entry = |number| format!("[identities.client-{number}]\nkey = \"{KEY}\"\ngrants = [\"echo\"]\n");
    Keys::parse(&(0..64).map(entry).collect::<String>()).unwrap()
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(serving) = self.serving.take() {
            assert!(serving.join().is_ok() || std::thread::panicking());
        }
    }
}

struct Secret;

impl PskResolver for Secret {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(KEY.as_bytes().to_vec())
    }
}

/// To make one takes the library longer than a handshake.
static CONFIGS: LazyLock<Vec<Arc<Config>>> = LazyLock::new(|| {
    let config = |number| {
        let identity = format!("client-{number}").into_bytes();
        Arc::new(Config::builder().with_psk_client(identity, Arc::new(Secret)).build().unwrap())
    };
    (0..64).map(config).collect()
});

/// A client with a session.
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    dtls: Dtls,
    heard: Vec<Vec<u8>>,
    connected: bool,
    pub(crate) closed: bool,
    sent: u16,
    /// What it sent last.
    pub(crate) last: Vec<u8>,
}

impl Client {
    /// One of the identities, without a session yet.
    pub(crate) fn new(door: SocketAddr, number: usize) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(door).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let now = Instant::now();
        let mut dtls = Dtls::new_12_psk(Arc::clone(&CONFIGS[number % CONFIGS.len()]), now);
        dtls.set_active(true);
        dtls.handle_timeout(now).unwrap();
        let (heard, last) = (Vec::new(), Vec::new());
        Self { socket, dtls, heard, connected: false, closed: false, sent: 0, last }
    }

    pub(crate) fn connected(door: SocketAddr, number: usize) -> Self {
        let mut client = Self::new(door, number);
        client.until(|client| client.connected);
        client
    }

    /// A call that is answered.
    pub(crate) fn call(&mut self, payload: &[u8]) -> Packet {
        let id = self.post(payload);
        self.answer(id)
    }

    /// Sends a call, and gives its message id.
    pub(crate) fn post(&mut self, payload: &[u8]) -> u16 {
        self.sent += 1;
        let mut packet = Packet::new();
        packet.header.set_type(MessageType::Confirmable);
        packet.header.code = MessageClass::Request(RequestType::Post);
        packet.header.message_id = self.sent;
        packet.set_token(self.sent.to_be_bytes().to_vec());
        packet.add_option(CoapOption::UriPath, b"echo".to_vec());
        packet.payload = payload.to_vec();
        self.dtls.send_application_data(&packet.to_bytes().unwrap()).unwrap();
        self.drain();
        self.sent
    }

    /// The answer to a call.
    pub(crate) fn answer(&mut self, id: u16) -> Packet {
        self.until(|client| !client.heard.is_empty());
        let answer = Packet::from_bytes(&self.heard.remove(0)).unwrap();
        assert_eq!(answer.header.message_id, id);
        answer
    }

    pub(crate) fn goodbye(mut self) {
        self.dtls.close().unwrap();
        self.drain();
    }

    /// Receives and sends until something is so.
    pub(crate) fn until(&mut self, mut so: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            self.dtls.handle_timeout(Instant::now()).unwrap();
            self.drain();
            if so(self) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain");
            if let Ok(length) = self.socket.recv(&mut buffer) {
                self.dtls.handle_packet(&buffer[..length]).unwrap();
            }
        }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => {
                    self.socket.send(datagram).unwrap();
                    self.last = datagram.to_vec();
                }
                Output::ApplicationData(message) => self.heard.push(message.to_vec()),
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.closed = true,
                Output::Timeout(_) => return,
                Output::BufferTooSmall { .. } | Output::PeerCert(_) | Output::KeyingMaterial(..) | _ => {}
            }
        }
    }
}
