//! The exchange layer: every request runs once and is answered, whatever the network loses or repeats.
//!
//! ```text
//!   request ─ recall ─┬─ New ─ vacancy ─┬─ begin ──── the call runs ──── finish ─▶ answer
//!                     │                 └─ answer_at_once ───────────────────────▶ answer
//!                     ├─ Repeated ─▶ the same answer again, or nothing
//!                     └─ Occupied: its message id belongs to a running call
//!   time ─ tick ─▶ acknowledgements of slow calls, retransmissions; forgets what is over
//! ```
//!
//! Invariants:
//! 1. A running exchange is never forgotten: it leaves its place by [`Exchanges::finish`] alone, and room for its
//!    answer is reserved from the start.
//! 2. What does not fit is refused before anything runs; nothing is forgotten before its time to make room. What a
//!    session that has ended leaves is nobody's ([`Exchanges::forget`]).
//! 3. Nothing here waits, sends or reads a clock: the caller passes the time and sends what is returned.
//!
//! It does not limit how fast we send to a peer beyond one answer per request (RFC 7252, section 4.7, binds clients).
//!
//! Reference: RFC 7252, sections 4.2 to 4.5 and 5.2.

mod ended;
mod peer;
mod pinned;
mod room;
mod separate;
mod timing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap_lite::MessageType;

use self::peer::{EXCHANGE_BYTES, Exchange, PEER_BYTES, Peers, Running, State};
use self::timing::Timing;
use super::config::CoapConfig;
use super::counters::CoapCounters;
use super::datagram::{Endpoint, Transmit};
use super::message::{Message, empty};
use super::random::Random;
use super::response::Response;

pub(super) use self::peer::ExchangeId;
pub(super) use self::room::{Need, NoRoom};

/// Room reserved for the answer of a running call: a block of 1,024 bytes and all options around it.
const ANSWER_BYTES_MAX: usize = 1152;

/// Exchanges forgotten in one go: the lock is not held for longer, and no request waits for longer. The rest is still due then.
const EXPIRED_AT_ONCE_MAX: usize = 128;

/// Exchanges forgotten with each that is noted: more than come, so that those whose time is over do not pile up when the door is never idle.
const EXPIRED_PER_EXCHANGE: usize = 2;

/// What is known of a request when it arrives.
#[derive(Debug)]
pub(super) enum Recall {
    /// Nothing.
    New,
    /// It was here before; what to send again, if anything.
    Repeated(Option<Transmit>),
    /// Another request with its message id is still running.
    Occupied,
}

/// All exchanges of a door.
#[derive(Debug)]
pub(super) struct Exchanges {
    config: Arc<CoapConfig>,
    counters: Arc<CoapCounters>,
    peers: Peers,
    timing: Timing,
    random: Random,
    serial: u32,
    /// Exchanges remembered, of all peers.
    count: usize,
    /// Memory of all peers, in bytes.
    bytes: usize,
    calls: usize,
    payload_bytes: usize,
    confirmations: usize,
}

impl Exchanges {
    pub(super) fn new(config: Arc<CoapConfig>, counters: Arc<CoapCounters>, now: Instant) -> Self {
        Self {
            config,
            counters,
            peers: Peers::default(),
            timing: Timing::new(now),
            random: Random::default(),
            serial: 0,
            count: 0,
            bytes: 0,
            calls: 0,
            payload_bytes: 0,
            confirmations: 0,
        }
    }

    /// Whether nothing is remembered, counted or due.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        let held = self.count + self.bytes + self.calls + self.payload_bytes + self.confirmations + self.peers.len();
        held == 0 && self.next_deadline().is_none()
    }

    /// Calls running now.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Looks a request up.
    pub(super) fn recall(&self, from: &Endpoint, message: &Message) -> Recall {
        let known = self
            .peers
            .number(from)
            .and_then(|number| self.peers.get(number))
            .and_then(|peer| peer.exchanges.get(&message.id));
        let Some(exchange) = known else {
            return Recall::New;
        };
        if exchange.token != message.token {
            let running = exchange.state.running().is_some();
            return if running { Recall::Occupied } else { Recall::New };
        }
        let again: Option<Arc<[u8]>> = match &exchange.state {
            State::Running(_) => None,
            State::Acknowledged(_) | State::Concluded => Some(empty(MessageType::Acknowledgement, message.id).into()),
            State::Answered(datagram) => Some(Arc::clone(datagram)),
        };
        // A repeated non-confirmable request is ignored (RFC 7252, section 4.5).
        let again = again.filter(|_| message.confirmable && exchange.confirmable);
        Recall::Repeated(again.map(|bytes| Transmit { to: *from, bytes }))
    }

    /// Notes a request whose call begins now. [`Self::vacancy`] has to have said that it fits.
    pub(super) fn begin(
        &mut self,
        from: &Endpoint,
        message: &Message,
        payload_bytes: usize,
        now: Instant,
    ) -> ExchangeId {
        let running = State::Running(Running { payload_bytes });
        let id = self.insert(from, message, running, now);
        self.charge(id.peer, now);
        self.calls += 1;
        self.payload_bytes += payload_bytes;
        if let Some(peer) = self.peers.get_mut(id.peer) {
            peer.calls += 1;
        }
        if message.confirmable {
            let due = now + self.config.acknowledge_after;
            self.timing.acknowledge(due, id);
        }
        id
    }

    /// Counts an answer that took some work as a call to its peer's rate. It has to have been remembered.
    pub(super) fn charge_peer(&mut self, from: &Endpoint, now: Instant) {
        if let Some(number) = self.peers.number(from) {
            self.charge(number, now);
        }
    }

    /// Answers a request for which nothing runs, and remembers the answer. [`Self::vacancy`] has to have said that
    /// it fits.
    pub(super) fn answer_at_once(
        &mut self,
        from: &Endpoint,
        message: &Message,
        response: Option<&Response>,
        now: Instant,
    ) -> Option<Transmit> {
        let transmit = self.answer_once(from, message, response);
        let state = match &transmit {
            Some(transmit) if message.confirmable => State::Answered(Arc::clone(&transmit.bytes)),
            _ => State::Concluded,
        };
        self.insert(from, message, state, now);
        transmit
    }

    /// Answers a request without remembering it: if it is repeated it will be judged anew. For refusals that depend
    /// on the request alone.
    pub(super) fn answer_once(
        &mut self,
        from: &Endpoint,
        message: &Message,
        response: Option<&Response>,
    ) -> Option<Transmit> {
        let (kind, id) = if message.confirmable {
            (MessageType::Acknowledgement, message.id)
        } else {
            let number = self.peers.number(from);
            let peer = number.and_then(|number| self.peers.get_mut(number));
            let id = match peer {
                Some(peer) => peer.draw_message_id(),
                None => self.random.message_id(),
            };
            (MessageType::NonConfirmable, id)
        };
        let bytes = match response {
            Some(response) => response.encode(kind, id, &message.token),
            None if message.confirmable => empty(kind, id).into(),
            None => return None,
        };
        Some(Transmit { to: *from, bytes })
    }

    /// Ends a running exchange: its answer is `response`, or nothing if the peer wants to hear nothing.
    pub(super) fn finish(&mut self, id: ExchangeId, response: Option<&Response>, now: Instant) -> Option<Transmit> {
        let can_confirm = self.confirmations < self.config.confirmations_max;
        let peer = self.peers.get_mut(id.peer)?;
        let exchange = peer.exchanges.get_mut(&id.message_id).filter(|exchange| exchange.serial == id.serial)?;
        let running = exchange.state.running()?;
        let separate = matches!(exchange.state, State::Acknowledged(_));
        let kind = match (exchange.confirmable, separate) {
            (false, _) => MessageType::NonConfirmable,
            (true, false) => MessageType::Acknowledgement,
            (true, true) if can_confirm => MessageType::Confirmable,
            (true, true) => MessageType::NonConfirmable,
        };
        let piggybacked = kind == MessageType::Acknowledgement;
        let message_id = if piggybacked {
            id.message_id
        } else {
            let id = peer.next_message_id;
            peer.next_message_id = id.wrapping_add(1);
            id
        };
        let bytes: Option<Arc<[u8]>> = match response {
            Some(response) => Some(response.encode(kind, message_id, &exchange.token)),
            None => piggybacked.then(|| empty(kind, message_id).into()),
        };
        let before = exchange.state.bytes();
        exchange.state = match &bytes {
            Some(bytes) if piggybacked => State::Answered(Arc::clone(bytes)),
            _ => State::Concluded,
        };
        let after = exchange.state.bytes();
        peer.calls -= 1;
        peer.bytes = peer.bytes - before + after;
        self.bytes = self.bytes - before + after;
        self.calls -= 1;
        self.payload_bytes -= running.payload_bytes;
        let to = peer.endpoint;
        self.drop_acknowledgements();
        let transmit = Transmit { to, bytes: bytes? };
        if kind == MessageType::Confirmable {
            self.expect_acknowledgement(id.peer, message_id, &transmit.bytes, now);
        }
        Some(transmit)
    }

    /// Does what is due, and gives what is to be sent.
    pub(super) fn tick(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        while let Some(id) = self.timing.next_acknowledgement(now) {
            out.extend(self.acknowledge(id));
        }
        self.drop_acknowledgements();
        while let Some(resend) = self.timing.next_resend(now) {
            out.extend(self.retransmit(resend, now));
        }
        self.forget_expired(now, EXPIRED_AT_ONCE_MAX);
    }

    /// When [`Self::tick`] has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.timing.next_deadline()
    }

    /// Forgets that the oldest requests were to be acknowledged, as far as they have been answered.
    fn drop_acknowledgements(&mut self) {
        let peers = &self.peers;
        self.timing.drop_acknowledgements(|id| {
            let exchange = peers.get(id.peer).and_then(|peer| peer.exchanges.get(&id.message_id));
            exchange.is_some_and(|exchange| exchange.serial == id.serial && matches!(exchange.state, State::Running(_)))
        });
    }

    fn insert(&mut self, from: &Endpoint, message: &Message, state: State, now: Instant) -> ExchangeId {
        let number = self.number_of(from);
        self.serial = self.serial.wrapping_add(1);
        let id = ExchangeId { peer: number, message_id: message.id, serial: self.serial };
        let exchange = Exchange { serial: id.serial, token: message.token, confirmable: message.confirmable, state };
        let bytes = EXCHANGE_BYTES + exchange.state.bytes();
        if let Some(peer) = self.peers.get_mut(number) {
            let replaced = peer.exchanges.insert(message.id, exchange);
            let freed = replaced.as_ref().map_or(0, |old| EXCHANGE_BYTES + old.state.bytes());
            peer.bytes = peer.bytes + bytes - freed;
            self.bytes = self.bytes + bytes - freed;
            self.count += usize::from(replaced.is_none());
        }
        self.timing.expire(now + self.lifetime(message.confirmable), message.confirmable, id);
        // The peer of this one has something to be remembered for by now.
        self.forget_expired(now, EXPIRED_PER_EXCHANGE);
        id
    }

    fn lifetime(&self, confirmable: bool) -> Duration {
        if confirmable { self.config.confirmable_lifetime } else { self.config.non_confirmable_lifetime }
    }

    /// Forgets exchanges whose time is over, so many at most.
    fn forget_expired(&mut self, now: Instant, at_most: usize) {
        for _ in 0..at_most {
            let Some((id, confirmable)) = self.timing.next_expired(now) else {
                return;
            };
            let Some(peer) = self.peers.get_mut(id.peer) else {
                continue;
            };
            let Some(exchange) = peer.exchanges.get(&id.message_id) else {
                continue;
            };
            if exchange.serial != id.serial {
                continue;
            }
            if exchange.state.running().is_some() {
                let due = now + self.lifetime(confirmable);
                self.timing.expire(due, confirmable, id);
                continue;
            }
            let bytes = EXCHANGE_BYTES + exchange.state.bytes();
            peer.forget(id.message_id);
            peer.bytes -= bytes;
            self.bytes -= bytes;
            self.count -= 1;
            self.counters.exchanges_expired.add();
            self.release(id.peer);
        }
    }

    fn release(&mut self, number: u32) {
        if self.peers.release(number) {
            self.bytes -= PEER_BYTES;
        }
    }
}

#[cfg(test)]
#[path = "exchange/tests.rs"]
mod tests;
