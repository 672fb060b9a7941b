//! Clients of the same library, and a layer that they speak to without a network.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use dimpl::{Config, Output, PskResolver};

use crate::coap::counters::CoapCounters;
use crate::coap::datagram::{Endpoint, SessionNumber, Transmit};
use crate::coap::dtls::{Arrival, Dtls, DtlsConfig};
use crate::keys::{Identity, Keys};

const KEY: &[u8] = b"0123456789abcdef";

/// Rounds of datagrams to and fro until a handshake is over, one way or the other; one takes four.
const ROUNDS_MAX: usize = 20;
/// What a client's library may give in one go.
const OUTPUTS_MAX: usize = 100;

/// Two identities with the same key: `sensor` and `other`.
pub(super) fn keys() -> Keys {
    let text = "[identities.sensor]\nkey = \"0123456789abcdef\"\ngrants = [\"test\"]\n\
                [identities.other]\nkey = \"0123456789abcdef\"\ngrants = [\"*\"]\n";
    Keys::parse(text).unwrap()
}

struct Secret(Vec<u8>);

impl PskResolver for Secret {
    fn resolve(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }
}

/// Configurations by identity and key: to make one takes the library longer than a handshake.
static CONFIGS: LazyLock<Mutex<Configs>> = LazyLock::new(Mutex::default);

type Configs = HashMap<(String, Vec<u8>), Arc<Config>>;

fn config(identity: &str, key: &[u8]) -> Arc<Config> {
    let mut configs = CONFIGS.lock().unwrap();
    let make = || {
        let secret = Arc::new(Secret(key.to_vec()));
        Arc::new(Config::builder().with_psk_client(identity.as_bytes().to_vec(), secret).build().unwrap())
    };
    Arc::clone(configs.entry((identity.to_owned(), key.to_vec())).or_insert_with(make))
}

/// A client.
pub(super) struct Client {
    pub(super) endpoint: Endpoint,
    dtls: dimpl::Dtls,
    now: Instant,
    sent: Vec<Vec<u8>>,
    heard: Vec<Vec<u8>>,
    connected: bool,
    closed: bool,
    refused: Option<String>,
}

impl Client {
    pub(super) fn new(port: u16, identity: &str) -> Self {
        Self::at([127, 0, 0, 1], port, identity)
    }

    pub(super) fn at(address: [u8; 4], port: u16, identity: &str) -> Self {
        Self::of(address, port, identity, KEY)
    }

    pub(super) fn with_key(port: u16, identity: &str, key: &[u8]) -> Self {
        Self::of([127, 0, 0, 1], port, identity, key)
    }

    fn of(address: [u8; 4], port: u16, identity: &str, key: &[u8]) -> Self {
        let now = Instant::now();
        let mut dtls = dimpl::Dtls::new_12_psk(config(identity, key), now);
        dtls.set_active(true);
        dtls.handle_timeout(now).unwrap();
        let endpoint = Endpoint { remote: (address, port).into(), local: None, session: None };
        let (sent, heard) = (Vec::new(), Vec::new());
        let mut client = Self { endpoint, dtls, now, sent, heard, connected: false, closed: false, refused: None };
        client.drain();
        client
    }

    /// What it has sent since it was asked last.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn heard(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.heard)
    }

    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    pub(super) fn connected(&self) -> bool {
        self.connected
    }

    pub(super) fn receive(&mut self, datagram: &[u8]) {
        match self.dtls.handle_packet(datagram) {
            Ok(()) => self.drain(),
            Err(error) => self.refused = Some(error.to_string()),
        }
    }

    pub(super) fn say(&mut self, message: &[u8]) {
        self.dtls.send_application_data(message).unwrap();
        self.drain();
    }

    pub(super) fn close(&mut self) {
        self.dtls.close().unwrap();
        self.drain();
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.dtls.handle_timeout(self.now).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 4096];
        for _ in 0..OUTPUTS_MAX {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(datagram) => self.sent.push(datagram.to_vec()),
                Output::ApplicationData(message) => self.heard.push(message.to_vec()),
                Output::Connected => self.connected = true,
                Output::CloseNotify => self.closed = true,
                Output::Timeout(_) => return,
                Output::BufferTooSmall { .. } | Output::PeerCert(_) | Output::KeyingMaterial(..) | _ => {}
            }
        }
        panic!("the client's library comes to no end");
    }
}

/// The layer, and its clock.
pub(super) struct Under {
    pub(super) dtls: Dtls,
    pub(super) counters: Arc<CoapCounters>,
    pub(super) now: Instant,
}

impl Under {
    pub(super) fn new(limits: DtlsConfig) -> Self {
        let (counters, now) = (Arc::new(CoapCounters::default()), Instant::now());
        let dtls = Dtls::new(limits, Arc::clone(&counters), Arc::new(keys()), now).unwrap();
        Self { dtls, counters, now }
    }

    /// Carries datagrams to and fro until nobody says anything; gives the session, if the client has one then.
    pub(super) fn settle(&mut self, client: &mut Client) -> Option<SessionNumber> {
        for _ in 0..ROUNDS_MAX {
            let sent = client.sent();
            if sent.is_empty() {
                let session = self.dtls.sessions.with(&client.endpoint);
                return session.filter(|_| client.connected() && !client.closed());
            }
            for datagram in sent {
                self.carry(client, &datagram);
            }
        }
        panic!("the two answer each other without end");
    }

    pub(super) fn connect(&mut self, client: &mut Client) -> Option<SessionNumber> {
        self.settle(client)
    }

    /// The client's first message, with the cookie that it was given.
    pub(super) fn hello_with_cookie(&mut self, client: &mut Client) -> Vec<u8> {
        for datagram in client.sent() {
            self.carry(client, &datagram);
        }
        client.sent().remove(0)
    }

    fn carry(&mut self, client: &mut Client, datagram: &[u8]) -> Arrival {
        let arrival = self.dtls.receive(&client.endpoint, datagram, self.now);
        let endpoint = client.endpoint;
        for transmit in arrival.transmits.iter().filter(|transmit| transmit.to == endpoint) {
            client.receive(&transmit.bytes);
        }
        arrival
    }

    /// What the layers above hear when the client says this.
    pub(super) fn heard(&mut self, client: &mut Client, message: &[u8]) -> Vec<(Endpoint, Arc<Identity>, Vec<u8>)> {
        client.say(message);
        let sent = client.sent();
        sent.iter().flat_map(|datagram| self.carry(client, datagram).messages).collect()
    }

    /// The same, with the session's number and the identity's name.
    pub(super) fn says(&mut self, client: &mut Client, message: &[u8]) -> Vec<(SessionNumber, String, Vec<u8>)> {
        let heard = self.heard(client, message).into_iter();
        heard.map(|(from, identity, bytes)| (from.session.unwrap(), identity.name().to_owned(), bytes)).collect()
    }

    pub(super) fn answer(&mut self, client: &mut Client, session: SessionNumber, message: &[u8]) {
        let to = Endpoint { session: Some(session), ..client.endpoint };
        for transmit in self.dtls.seal(&Transmit { to, bytes: message.into() }) {
            assert_eq!(transmit.to, client.endpoint);
            client.receive(&transmit.bytes);
        }
    }
}
