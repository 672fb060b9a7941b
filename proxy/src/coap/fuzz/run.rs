//! A door without a socket, to which anything may happen; what leaves it is looked at, and whatever runs twice or stays is found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coap_lite::{MessageClass, Packet, ResponseType};
use sandbar_runtime::outputs::{Output, Outputs, Watched};
use sandbar_runtime::{Answer, AnswerProperties, Origin, Outcome, Request};

use crate::coap::blockwise::download::Tagger;
use crate::coap::call::inquire;
use crate::coap::clockwork::Timed;
use crate::coap::config::{CoapConfig, TransferLimits};
use crate::coap::counters::CoapCounters;
use crate::coap::datagram::{Endpoint, Transmit};
use crate::coap::layers::{Layers, Pending, Reaction};
use crate::coap::message::{Received, Token, read};
use crate::coap::observe::Representation;
use crate::coap::response::Response;
use crate::coap::verify::CoapVerify;
use crate::coap::visitor::Visitor;
use crate::service::{ServedApplication, Service};

const PAYLOAD_BYTES_MAX: usize = 4096;
/// The longest datagram that leaves: a block and its options, or an echoed token and a diagnostic.
const DATAGRAM_BYTES_MAX: usize = 1152;

/// One application, `a`.
#[derive(Clone, Debug)]
struct One;

impl Service for One {
    fn find(&self, _: Origin, application: &str, _: Option<&str>) -> Result<(), Box<Answer>> {
        let refused = || Box::new(Answer::refused(Outcome::NotFound, "no such application"));
        (application == "a").then_some(()).ok_or_else(refused)
    }

    async fn call(&self, _: Request) -> Answer {
        Answer::refused(Outcome::Failed, "nothing runs here")
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::default()
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        Vec::new()
    }
}

/// A door without a socket, and what is known of what it should do.
pub(super) struct Run {
    layers: Layers,
    config: Arc<CoapConfig>,
    now: Instant,
    pending: Vec<Pending>,
    tagger: Tagger,
    /// Messages of ours that a peer may answer: to whom, and their ids.
    pub(super) ours: Vec<(u16, u16)>,
    /// By peer and message id: the token that came last, and when its request ran.
    ran: HashMap<(u16, u16), (Token, Option<Instant>)>,
}

/// Limits so tight that all are met.
fn tight(verify: CoapVerify) -> CoapConfig {
    let transfers = TransferLimits {
        transfers_max: 4,
        transfers_per_peer_max: 2,
        bytes_max: 12_000,
        bytes_per_peer_max: 6000,
        ..TransferLimits::default()
    };
    CoapConfig {
        verify,
        verified_max: 2,
        calls_in_flight_max: 8,
        calls_in_flight_per_peer_max: 4,
        rate_per_peer: 20,
        rate_burst: 8,
        payload_bytes_in_flight_max: 8000,
        peers_max: 3,
        exchanges_max: 24,
        exchanges_per_peer_max: 12,
        exchange_bytes_max: 24 * 1024,
        confirmations_max: 4,
        observers_max: 2,
        observers_per_peer_max: 2,
        observed_bytes_max: 8000,
        observe_confirm_every: 3,
        uploads: transfers.clone(),
        downloads: transfers,
        ..CoapConfig::default()
    }
}

impl Run {
    pub(super) fn new(verify: CoapVerify, counters: &Arc<CoapCounters>) -> Self {
        let (config, now) = (Arc::new(tight(verify)), Instant::now());
        let layers = {
            let watcher = Arc::new(Arc::<Outputs>::default().watcher());
            Layers::new(Arc::clone(&config), Arc::clone(counters), PAYLOAD_BYTES_MAX, watcher, now)
        };
        Self {
            layers,
            config,
            now,
            pending: Vec::new(),
            tagger: Tagger::default(),
            ours: Vec::new(),
            ran: HashMap::new(),
        }
    }

    pub(super) fn datagram(&mut self, port: u16, bytes: &[u8]) {
        let from = Endpoint { remote: std::net::SocketAddr::from(([10, 0, 0, 1], port)), local: None, session: None };
        match read(bytes, self.config.options_max) {
            Received::Request(message) => {
                let (id, token) = (message.id, message.token);
                let last = self.ran.entry((port, id)).or_insert((token, None));
                if last.0 != token {
                    *last = (token, None);
                }
                let inquiry = inquire(&One, &self.config, &message, &Visitor::Stranger(from.remote.ip()));
                match self.layers.request(&from, message, inquiry, self.now) {
                    Reaction::Silence => {}
                    Reaction::Send(transmit) => look_at(&transmit),
                    Reaction::Run(_, pending) => {
                        let before = last.1.replace(self.now);
                        let again = before.is_some_and(|ran| self.now - ran < self.config.non_confirmable_lifetime);
                        assert!(!again, "message {id:04x} of {port} ran twice");
                        self.pending.push(*pending);
                    }
                }
            }
            Received::Acknowledgement(id) => self.layers.confirmed(&from, id, self.now),
            Received::Reset(id) => {
                self.layers.rejected(&from, id, self.now);
            }
            Received::Ping(_) | Received::Malformed(..) | Received::Ignored(_) => {}
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut out = Vec::new();
        self.layers.tick(self.now, &mut out);
        out.iter().for_each(look_at);
        let answerable = |transmit: &&Transmit| transmit.bytes[0] >> 4 & 0b11 < 2;
        let ids = |sent: &Transmit| (sent.to.remote.port(), u16::from_be_bytes([sent.bytes[2], sent.bytes[3]]));
        self.ours.extend(out.iter().filter(answerable).map(ids));
        let due = self.layers.next_deadline();
        assert!(due.is_none_or(|due| due > self.now), "there is always something to do");
    }

    pub(super) fn end_call(&mut self, which: usize, payload_bytes: usize) {
        if self.pending.is_empty() {
            return;
        }
        let pending = self.pending.swap_remove(which % self.pending.len());
        let payload = Bytes::from(vec![7; payload_bytes]);
        let response = Response { payload, ..Response::new(ResponseType::Changed) };
        self.layers.answered(pending, response, self.now).iter().for_each(look_at);
    }

    /// A function gives something out.
    pub(super) fn publish(&mut self, function: Option<&str>, payload_bytes: usize, content_format: Option<u16>) {
        let watched = Watched { application: "a".to_owned(), function: function.map(str::to_owned) };
        let payload = Bytes::from(vec![7; payload_bytes]);
        let output = Output { payload, content_format, properties: AnswerProperties::default() };
        self.layers.published(&watched, Representation::new(output, &self.tagger), 1);
    }

    /// The application is replaced by one without some functions, or the door closes.
    pub(super) fn reconsider(&mut self, gone: Option<&str>) {
        let gone = gone.map(str::to_owned);
        let refusal = || Response::error(ResponseType::NotFound, "gone");
        let judge = |_: &Visitor, watched: &Watched| {
            if watched.function == gone { Err(refusal()) } else { Ok(()) }
        };
        self.layers.reconsider(Some("a"), judge, self.now).iter().for_each(look_at);
    }

    /// Everything ends, and nothing is left.
    pub(super) fn end(mut self) {
        while !self.pending.is_empty() {
            self.end_call(0, 10);
        }
        // Who observes is asked for a sign of life after a day, and not heard.
        for _ in 0..8 {
            self.pass(Duration::from_secs(100));
        }
        self.pass(Duration::from_secs(24 * 3600));
        for _ in 0..8 {
            self.pass(Duration::from_secs(100));
        }
        assert!(self.layers.is_empty(), "{:?}", self.layers);
    }
}

/// What leaves is a message of ours, and no longer than a datagram should be.
fn look_at(transmit: &Transmit) {
    assert!(transmit.bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", transmit.bytes.len());
    let packet = Packet::from_bytes(&transmit.bytes).unwrap();
    assert!(matches!(packet.header.code, MessageClass::Response(_) | MessageClass::Empty), "{packet:?}");
}
