//! The DTLS layer (RFC 6347, with keys that both sides have: RFC 4279): from datagrams to messages of known identities, and back.
//!
//! ```text
//!   datagram ─┬─ first message ─┬─ no good cookie ─▶ a request to verify the address; nothing is kept
//!             │                 └─ cookie ─ room? ─▶ handshake ── keys agreed on ──▶ session
//!             ├─ of a handshake ───────────────────────▲                               │
//!             └─ of a session ──────────────────────────────────────────────────▶ message for the layers above
//!   message for a session ─▶ datagram
//!   time ─ tick ─▶ flights that were not answered, again; handshakes that took too long, idle sessions and old ones end
//! ```
//!
//! A session is an endpoint of its own for the layers above ([`Endpoint::session`]): message ids, tokens and blocks of one
//! session are nobody else's (RFC 7252, section 9.1.1). Its number is never used again.
//!
//! Invariants:
//! 1. Nothing is kept of an address before a cookie has shown that its owner receives what is sent there, and what is sent
//!    to it before is no longer than what it sent.
//! 2. Handshakes and sessions are bounded: in all, for each address, for each identity, in time. A handshake costs whoever
//!    does not take part in it nothing but its computation.
//! 3. A session is ended by its own client, by time, by want of room or by a change of its keys; nothing that is not
//!    protected by its keys changes it. A new handshake from its address takes its place only when it is complete
//!    (RFC 6347, section 4.2.8).
//! 4. Nothing here waits, sends or reads a clock.
//!
//! A handshake itself can be disturbed by who can send from its client's address, as in DTLS of this version at large: the
//! client tries again.
//!
//! There are no certificates, no other cipher suites, no resumption, no renegotiation and no connection ids (RFC 9146):
//! whose address changes has to make a new handshake.

mod association;
mod config;
mod cookie;
mod handshakes;
mod hello;
mod sessions;

use std::sync::Arc;
use std::time::Instant;

pub use self::config::DtlsConfig;

use self::association::{Association, Terms};
use self::cookie::Cookies;
use self::handshakes::{Handshake, Handshakes};
use self::hello::{Alert, Hello};
use self::sessions::{Over, Sessions};
use super::clockwork::Timed;
use super::counters::CoapCounters;
use super::datagram::{Endpoint, SessionNumber, Transmit};
use crate::dtls::{Broken, Yield};
use crate::keys::{Identity, Keys};

/// Sessions and handshakes looked after in one go: the lock is not held for longer. The rest is still due then.
const TICKED_AT_ONCE_MAX: usize = 64;
/// What is left between the numbers of records that were sent in a handshake and that of the alert which ends it.
const ALERT_SEQUENCE_AHEAD: u64 = 0x100;

/// Why the layer cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DtlsError {
    /// The library refuses its configuration.
    #[error("the DTLS library cannot be set up: {0}")]
    Library(String),
    /// There is no randomness to be had.
    #[error("the system gave no random bytes")]
    Random,
}

/// What a datagram led to.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// To be sent as they are.
    pub(super) transmits: Vec<Transmit>,
    /// Messages, and whose they are.
    pub(super) messages: Vec<(Endpoint, Arc<Identity>, Vec<u8>)>,
    /// Sessions that have ended.
    pub(super) ended: Vec<Endpoint>,
}

/// The layer's whole state.
#[derive(Debug)]
pub(super) struct Dtls {
    pub(super) limits: DtlsConfig,
    counters: Arc<CoapCounters>,
    terms: Terms,
    cookies: Cookies,
    handshakes: Handshakes,
    sessions: Sessions,
    /// Sessions that have ended and were not told of yet.
    ended: Vec<Endpoint>,
}

impl Dtls {
    pub(super) fn new(
        limits: DtlsConfig,
        counters: Arc<CoapCounters>,
        keys: Arc<Keys>,
        now: Instant,
    ) -> Result<Self, DtlsError> {
        let terms = Terms::new(&limits, keys).map_err(|error| DtlsError::Library(error.to_string()))?;
        let cookies = Cookies::new(now).map_err(|_| DtlsError::Random)?;
        let (handshakes, sessions) = (Handshakes::default(), Sessions::default());
        Ok(Self { limits, counters, terms, cookies, handshakes, sessions, ended: Vec::new() })
    }

    /// Takes in a datagram.
    pub(super) fn receive(&mut self, from: &Endpoint, datagram: &[u8], now: Instant) -> Arrival {
        let mut arrival = Arrival::default();
        let Some(record) = hello::first_record(datagram) else {
            self.counters.records_dropped.add();
            return arrival;
        };
        if hello::begins_handshake(&record, datagram) {
            match hello::read(&record, datagram) {
                Some(hello) => self.hello(from, &hello, datagram, now, &mut arrival),
                None => self.counters.records_dropped.add(),
            }
            return arrival;
        }
        // Whose a protected record is cannot be seen. While both are there, what belongs to handshakes is the new one's.
        let of_handshake = record.epoch == 0 || record.content_type == hello::HANDSHAKE;
        let session = self.sessions.with(from);
        match session.filter(|_| !of_handshake || self.handshakes.get(from).is_none()) {
            Some(session) => self.for_session(session, datagram, now, &mut arrival),
            None => self.for_handshake(from, datagram, now, &mut arrival),
        }
        arrival
    }

    /// Protects a message for a session; nothing if there is no such session any more.
    pub(super) fn seal(&mut self, transmit: &Transmit) -> Vec<Transmit> {
        let Some(number) = transmit.to.session else {
            return Vec::new();
        };
        let Some(session) = self.sessions.get_mut(number) else {
            return Vec::new();
        };
        let client = session.client;
        match session.association.seal(&transmit.bytes) {
            Ok(datagrams) => to(client, datagrams).collect(),
            Err(broken) => {
                self.break_session(number, &broken);
                Vec::new()
            }
        }
    }

    /// The sessions that have ended since this was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<Endpoint> {
        std::mem::take(&mut self.ended)
    }

    /// Goes on with other keys. Sessions of identities that are gone, or have another key, end; grants count from now on.
    pub(super) fn replace_keys(&mut self, keys: Arc<Keys>, out: &mut Vec<Transmit>) {
        for number in self.sessions.numbers() {
            let Some(session) = self.sessions.get_mut(number) else { continue };
            match still_good(&keys, &session.identity) {
                Some(identity) => session.identity = identity,
                None => self.close(number, out),
            }
        }
        self.terms.resolver.replace(keys);
    }

    /// Ends all sessions.
    pub(super) fn close_all(&mut self, out: &mut Vec<Transmit>) {
        for number in self.sessions.numbers() {
            self.close(number, out);
        }
    }

    /// A client's first message.
    fn hello(&mut self, from: &Endpoint, hello: &Hello<'_>, datagram: &[u8], now: Instant, arrival: &mut Arrival) {
        if !hello.suits {
            self.counters.handshakes_refused.add();
            arrival.transmits.extend(to(*from, [hello::alert(Alert::HandshakeFailure, hello.sequence)]));
            return;
        }
        let Ok(verified) = self.cookies.verify(from, hello, now) else {
            self.counters.handshakes_refused.add();
            return;
        };
        match (verified, hello.message_sequence) {
            (false, 0) => {
                let Ok(cookie) = self.cookies.make(from, hello, now) else { return };
                self.counters.cookies_sent.add();
                arrival.transmits.extend(to(*from, [hello::verify_request(hello, &cookie)]));
            }
            (true, 1) => self.verified(from, hello, datagram, now, arrival),
            // A cookie that is too old, or none that was ours. The client begins anew.
            _ => self.counters.records_dropped.add(),
        }
    }

    /// A first message of a client whose address is verified.
    fn verified(&mut self, from: &Endpoint, hello: &Hello<'_>, datagram: &[u8], now: Instant, arrival: &mut Arrival) {
        if self.handshakes.get(from).is_some_and(|handshake| handshake.random == hello.random) {
            self.for_handshake(from, datagram, now, arrival);
            return;
        }
        if self.sessions.came_of(from, &hello.random) {
            self.counters.records_dropped.add();
            return;
        }
        // Its client has given up an unfinished one.
        if self.handshakes.remove(from).is_some() {
            self.counters.handshakes_failed.add();
        }
        let room = self.handshakes.make_room(from, &self.limits, now);
        let Ok(gave_way) = room else {
            self.counters.handshakes_refused.add();
            return;
        };
        self.counters.handshakes_failed.add_many(gave_way);
        if !self.sessions.fits(&self.limits, now) {
            self.counters.handshakes_refused.add();
            return;
        }
        self.counters.handshakes_begun.add();
        match Association::begin(&self.terms, hello, datagram, now) {
            Ok((association, begun)) => {
                arrival.transmits.extend(to(*from, begun.datagrams));
                let mut handshake =
                    Handshake { association, random: hello.random, claimed: None, begun: now, due: now };
                handshake.due = self.next_look(&handshake, begun.due, now);
                self.handshakes.insert(*from, None, handshake);
            }
            Err(broken) => self.failed(from, &broken),
        }
    }

    fn for_handshake(&mut self, from: &Endpoint, datagram: &[u8], now: Instant, arrival: &mut Arrival) {
        let Some((number, mut handshake)) = self.handshakes.remove(from) else {
            self.counters.records_dropped.add();
            return;
        };
        let (yielded, claimed) = match handshake.association.receive(&self.terms, datagram, now) {
            Ok(yielded) => yielded,
            Err(broken) => {
                self.failed(from, &broken);
                let sequence = handshake.association.sequence_ahead(ALERT_SEQUENCE_AHEAD);
                arrival.transmits.extend(to(*from, [hello::alert(Alert::DecryptError, sequence)]));
                return;
            }
        };
        handshake.claimed = claimed.or(handshake.claimed);
        if yielded.connected {
            self.establish(from, handshake, yielded, now, arrival);
            return;
        }
        arrival.transmits.extend(to(*from, yielded.datagrams));
        handshake.due = self.next_look(&handshake, yielded.due, now);
        self.handshakes.insert(*from, Some(number), handshake);
    }

    /// A handshake is complete: the client has proven who it is.
    fn establish(
        &mut self,
        client: &Endpoint,
        mut handshake: Handshake,
        yielded: Yield,
        now: Instant,
        arrival: &mut Arrival,
    ) {
        let keys = self.terms.resolver.keys();
        let identity = handshake.claimed.as_ref().and_then(|claimed| still_good(&keys, claimed));
        let Some(identity) = identity else {
            self.failed(client, &Broken::because("its key was taken away meanwhile"));
            return;
        };
        if let Some(replaced) = self.sessions.with(client) {
            self.end(replaced);
        }
        match self.sessions.to_go(identity.name(), &self.limits, now) {
            Ok(None) => {}
            Ok(Some(number)) => self.close(number, &mut arrival.transmits),
            Err(()) => {
                self.counters.handshakes_refused.add();
                arrival.transmits.extend(to(*client, handshake.association.close()));
                return;
            }
        }
        self.counters.handshakes_done.add();
        tracing::debug!(peer = %client.remote, identity = identity.name(), "session open");
        let Handshake { association, random, .. } = handshake;
        let number = self.sessions.insert(*client, association, Arc::clone(&identity), random, &self.limits, now);
        arrival.transmits.extend(to(*client, yielded.datagrams));
        let endpoint = Endpoint { session: Some(number), ..*client };
        arrival.messages.extend(yielded.messages.into_iter().map(|bytes| (endpoint, Arc::clone(&identity), bytes)));
    }

    fn for_session(&mut self, number: SessionNumber, datagram: &[u8], now: Instant, arrival: &mut Arrival) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let (client, endpoint) = (session.client, Endpoint { session: Some(number), ..session.client });
        match session.association.receive(&self.terms, datagram, now) {
            Ok((yielded, _)) => {
                if yielded.messages.is_empty() && yielded.datagrams.is_empty() && !yielded.closed {
                    // Forged, repeated or damaged: the library tells no more than that nothing came of it.
                    self.counters.records_dropped.add();
                    return;
                }
                session.used = now;
                let identity = Arc::clone(&session.identity);
                let messages = yielded.messages.into_iter().map(|bytes| (endpoint, Arc::clone(&identity), bytes));
                arrival.messages.extend(messages);
                arrival.transmits.extend(to(client, yielded.datagrams));
                if yielded.closed {
                    self.end(number);
                }
            }
            Err(broken) => self.break_session(number, &broken),
        }
    }

    /// Ends a session and tells its client.
    fn close(&mut self, number: SessionNumber, out: &mut Vec<Transmit>) {
        if let Some(mut session) = self.sessions.remove(number) {
            self.counters.sessions_ended.add();
            self.ended.push(Endpoint { session: Some(number), ..session.client });
            out.extend(to(session.client, session.association.close()));
        }
    }

    /// Ends a session without a word.
    fn end(&mut self, number: SessionNumber) {
        if let Some(session) = self.sessions.remove(number) {
            self.counters.sessions_ended.add();
            self.ended.push(Endpoint { session: Some(number), ..session.client });
        }
    }

    fn break_session(&mut self, number: SessionNumber, broken: &Broken) {
        tracing::debug!(reason = %broken, "a session ended");
        self.end(number);
    }

    fn failed(&self, client: &Endpoint, broken: &Broken) {
        self.counters.handshakes_failed.add();
        tracing::debug!(peer = %client.remote, reason = %broken, "a handshake failed");
    }

    fn too_old(&self, handshake: &Handshake, now: Instant) -> bool {
        now.saturating_duration_since(handshake.begun) >= self.limits.handshake_time_max
    }

    fn next_look(&self, handshake: &Handshake, due: Option<Instant>, now: Instant) -> Instant {
        let last = handshake.begun + self.limits.handshake_time_max;
        // What is due already has been done.
        due.filter(|due| *due > now).map_or(last, |due| due.min(last))
    }
}

impl Timed for Dtls {
    fn next_deadline(&self) -> Option<Instant> {
        [self.handshakes.next_due(), self.sessions.next_due()].into_iter().flatten().min()
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        for _ in 0..TICKED_AT_ONCE_MAX {
            let Some(client) = self.handshakes.due_by(now) else { break };
            let Some((number, mut handshake)) = self.handshakes.remove(&client) else { break };
            match handshake.association.tick(now) {
                Ok(yielded) if !self.too_old(&handshake, now) => {
                    out.extend(to(client, yielded.datagrams));
                    handshake.due = self.next_look(&handshake, yielded.due, now);
                    self.handshakes.insert(client, Some(number), handshake);
                }
                Ok(_) => self.failed(&client, &Broken::because("it took too long")),
                Err(broken) => self.failed(&client, &broken),
            }
        }
        for _ in 0..TICKED_AT_ONCE_MAX {
            let Some((number, over)) = self.sessions.over_by(&self.limits, now) else { break };
            match over {
                Over::Idle => self.counters.sessions_expired.add(),
                Over::Old => self.counters.sessions_outlived.add(),
            }
            self.close(number, out);
        }
    }
}

/// The identity as it is now, if its key is still the one that was used.
fn still_good(keys: &Keys, used: &Identity) -> Option<Arc<Identity>> {
    keys.get(used.name().as_bytes()).filter(|now| now.key() == used.key()).map(Arc::clone)
}

fn to(client: Endpoint, datagrams: impl IntoIterator<Item = Vec<u8>>) -> impl Iterator<Item = Transmit> {
    datagrams.into_iter().map(move |bytes| Transmit { to: client, bytes: bytes.into() })
}

#[cfg(test)]
mod tests;
