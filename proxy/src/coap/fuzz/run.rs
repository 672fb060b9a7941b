//! A door without a socket, to which anything may happen; what leaves it is looked at, and whatever runs twice or stays is found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coap_lite::{CoapOption, MessageClass, Packet, ResponseType};
use sandbar_runtime::outputs::{Output, Outputs, Subject, Watched};
use sandbar_runtime::{AcceptedCall, Answer, AnswerProperties, CallId, Method, Origin, Outcome, Request, Ticket};

use crate::coap::blockwise::download::Tagger;
use crate::coap::call::{inquire, respond};
use crate::coap::clockwork::Timed;
use crate::coap::config::{CoapConfig, GroupConfig, TransferLimits};
use crate::coap::counters::CoapCounters;
use crate::coap::datagram::{Endpoint, Transmit};
use crate::coap::group::receive::Question;
use crate::coap::layers::{Layers, Pending, Reaction};
use crate::coap::message::{Message, Received, Token, read};
use crate::coap::observe::Representation;
use crate::coap::response::Response;
use crate::coap::verify::CoapVerify;
use crate::coap::visitor::Visitor;
use crate::service::{ServedApplication, ServedFunction, Service};

const PAYLOAD_BYTES_MAX: usize = 4096;
/// The longest datagram that leaves: a block and its options, or an echoed token and a diagnostic.
const DATAGRAM_BYTES_MAX: usize = 1152;

/// The accepted calls that there may be.
pub(super) const TICKETS: [Ticket; 2] = [Ticket { call: CallId(1), secret: 0 }, Ticket { call: CallId(2), secret: 0 }];

/// How far an accepted call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    Waiting,
    Ended,
    Forgotten,
}

/// One application, `a`. Its function `g` cannot be observed; calls of it that are accepted can.
#[derive(Clone, Debug)]
struct One {
    accepted: [Accepted; TICKETS.len()],
}

impl Service for One {
    fn find(&self, _: Origin, application: &str, _: Option<&str>) -> Result<(), Box<Answer>> {
        let refused = || Box::new(Answer::refused(Outcome::NotFound, "no such application"));
        (application == "a").then_some(()).ok_or_else(refused)
    }

    fn observable(&self, _: &str, function: Option<&str>) -> bool {
        function != Some("g")
    }

    async fn call(&self, _: Request) -> Answer {
        Answer::refused(Outcome::Failed, "nothing runs here")
    }

    fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        let at = TICKETS.iter().position(|known| application == "a" && *known == ticket)?;
        let (state, function) = (self.accepted[at], Some("g".to_owned()));
        (state != Accepted::Forgotten).then_some(AcceptedCall { function, ended: state == Accepted::Ended })
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::default()
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        let function =
            |name: &str| ServedFunction { name: name.to_owned(), observable: self.observable("a", Some(name)) };
        let functions = vec![function("f"), function("g")];
        vec![ServedApplication { name: "a".to_owned(), observable: true, functions }]
    }
}

/// A door without a socket, and what is known of what it should do.
pub(super) struct Run {
    host: One,
    layers: Layers,
    config: Arc<CoapConfig>,
    now: Instant,
    pending: Vec<Pending>,
    tagger: Tagger,
    /// Messages of ours that a peer may answer: to whom, and their ids.
    ours: Vec<(u16, u16)>,
    /// By peer and message id: the token that came last, and when its request ran, or was admitted that came by a group.
    ran: HashMap<(u16, u16), (Token, Option<Instant>)>,
    /// Requests that came by a group and were admitted.
    admitted: u64,
    /// What the door counts, and what [`told`] was when it was opened.
    counters: Arc<CoapCounters>,
    told_before: u64,
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
        groups: GroupConfig { pending_max: 3, pending_per_address_max: 2, ..GroupConfig::default() },
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
            host: One { accepted: [Accepted::Waiting; TICKETS.len()] },
            layers,
            config,
            now,
            pending: Vec::new(),
            tagger: Tagger::default(),
            ours: Vec::new(),
            ran: HashMap::new(),
            admitted: 0,
            counters: Arc::clone(counters),
            told_before: told(counters),
        }
    }

    pub(super) fn datagram(&mut self, port: u16, bytes: &[u8]) {
        let from = peer(port);
        match read(bytes, self.config.options_max) {
            Received::Request(message) => {
                let (id, token) = (message.id, message.token);
                self.came(port, &message);
                let inquiry = inquire(&self.host, &self.config, &message, &Visitor::Stranger(from.remote.ip()));
                match self.layers.request(&from, message, inquiry, self.now) {
                    Reaction::Silence => {}
                    Reaction::Send(transmit) => look_at(&transmit),
                    Reaction::Run(_, pending) => {
                        self.runs(port, id, token);
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

    /// A datagram comes by a group. Nothing is sent at once, and no function runs.
    pub(super) fn by_group(&mut self, port: u16, bytes: &[u8]) {
        let from = peer(port);
        let visitor = Visitor::Stranger(from.remote.ip());
        let Some(question) = Question::read(&self.host, &self.config, &visitor, bytes) else { return };
        assert!(!question.message.confirmable, "nobody confirms to a group");
        let (id, token) = (question.message.id, question.message.token);
        self.came(port, &question.message);
        if !self.layers.group_request(&from, &question.message, self.now) {
            return;
        }
        self.runs(port, id, token);
        self.admitted += 1;
        let response = question.response(&self.host, &self.config, &self.tagger);
        let Question { message, inquiry, .. } = question;
        self.layers.group_answered(&from, &message, &inquiry.options, response, self.now);
        assert!(self.untold() <= self.config.groups.pending_max as u64, "more wait than have places");
    }

    /// Requests that came by a group, were admitted, and have yet to be answered.
    fn untold(&self) -> u64 {
        let told = told(&self.counters) - self.told_before;
        self.admitted.checked_sub(told).expect("nothing is answered that was not admitted, or twice")
    }

    /// A request has come: with another token than the last of this message id, it is another.
    fn came(&mut self, port: u16, message: &Message) {
        let last = self.ran.entry((port, message.id)).or_insert((message.token, None));
        if last.0 != message.token {
            *last = (message.token, None);
        }
    }

    /// It runs, or is admitted by a group: for the first time in its life.
    fn runs(&mut self, port: u16, id: u16, token: Token) {
        let before = self.ran.insert((port, id), (token, Some(self.now))).and_then(|(_, ran)| ran);
        let again = before.is_some_and(|ran| self.now - ran < self.config.non_confirmable_lifetime);
        assert!(!again, "message {id:04x} of {port} ran twice");
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

    /// The peer that was sent the last message acknowledges or rejects it.
    pub(super) fn reply_to_last(&mut self, accepts: bool) {
        let (port, id) = self.ours.last().copied().unwrap_or((1, 0));
        let kind = if accepts { 0x60 } else { 0x70 };
        let [high, low] = id.to_be_bytes();
        self.datagram(port, &[kind, 0, high, low]);
    }

    /// A function gives something out.
    pub(super) fn publish(&mut self, function: Option<&str>, payload_bytes: usize, content_format: Option<u16>) {
        let watched = Watched { application: "a".to_owned(), subject: function.map(str::to_owned).into() };
        let payload = Bytes::from(vec![7; payload_bytes]);
        let output = Output { payload, content_format, properties: AnswerProperties::default() };
        self.layers.published(&watched, Representation::new(output, &self.tagger), 1);
    }

    /// An accepted call ends with such an answer; or, if it has ended, is forgotten; or another is accepted in its place.
    pub(super) fn accepted_goes_on(&mut self, which: usize, payload_bytes: usize, content_format: Option<u16>) {
        let at = which % TICKETS.len();
        let outcome = match self.host.accepted[at] {
            Accepted::Waiting => Outcome::Done,
            Accepted::Ended => Outcome::NotFound,
            Accepted::Forgotten => {
                self.host.accepted[at] = Accepted::Waiting;
                return;
            }
        };
        let ended = outcome == Outcome::Done;
        self.host.accepted[at] = if ended { Accepted::Ended } else { Accepted::Forgotten };
        let payload = Bytes::from(vec![7; if ended { payload_bytes } else { 0 }]);
        let properties = AnswerProperties { etag: Some(vec![7]), ..AnswerProperties::default() };
        let answer = Answer { payload, content_format, properties, ..Answer::refused(outcome, "forgotten") };
        let watched = Watched { application: "a".to_owned(), subject: Subject::Call(TICKETS[at]) };
        let config = Arc::clone(&self.config);
        let respond = |accept| respond(answer.clone(), Method::Get, accept, &config);
        let told = self.layers.call_ended(&watched, respond, self.now);
        assert!(told.len() <= config.observers_max && (ended || told.is_empty()), "they were told when it ended");
        for transmit in &told {
            look_at(transmit);
            let packet = Packet::from_bytes(&transmit.bytes).unwrap();
            assert!(packet.get_option(CoapOption::Observe).is_none(), "it is observed no more: {packet:?}");
        }
        assert!(self.layers.call_ended(&watched, respond, self.now).is_empty(), "all have been told");
    }

    /// The application is replaced by one without some functions, or the door closes.
    pub(super) fn reconsider(&mut self, gone: Option<&str>) {
        let gone = Subject::from(gone.map(str::to_owned));
        let refusal = || Response::error(ResponseType::NotFound, "gone");
        let judge = |_: &Visitor, watched: &Watched| {
            if watched.subject == gone { Err(refusal()) } else { Ok(()) }
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
        assert_eq!(self.untold(), 0, "each has its answer");
    }
}

/// Requests that came by groups and were answered, or will not be as there is nothing to tell.
fn told(counters: &CoapCounters) -> u64 {
    counters.group_answers.get() + counters.group_unmatched.get()
}

/// Two peers at each of two addresses.
fn peer(port: u16) -> Endpoint {
    let host = if port < 3 { 1 } else { 2 };
    Endpoint { remote: ([10, 0, 0, host], port).into(), local: None, session: None }
}

/// What leaves is a message of ours, and no longer than a datagram should be.
fn look_at(transmit: &Transmit) {
    assert!(transmit.bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", transmit.bytes.len());
    let packet = Packet::from_bytes(&transmit.bytes).unwrap();
    assert!(matches!(packet.header.code, MessageClass::Response(_) | MessageClass::Empty), "{packet:?}");
}
