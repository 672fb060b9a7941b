//! The layers put together: what becomes of a message, decided without waiting, sending or reading a clock.
//!
//! One [`Layers`] is the whole state of a socket. The door locks it for the time of one of these functions, never
//! while something runs.

mod group;
mod observing;

use std::sync::Arc;
use std::time::Instant;

use sandbar_runtime::Method;
use sandbar_runtime::outputs::Watcher;

use super::block::Block;
use super::blockwise::Key;
use super::blockwise::download::Downloads;
use super::blockwise::upload::{Progress, Refused, Uploads};
use super::call::{Inquiry, Work, overloaded, too_large};
use super::clockwork::Timed;
use super::config::CoapConfig;
use super::counters::CoapCounters;
use super::datagram::{Endpoint, Transmit};
use super::exchange::{ExchangeId, Exchanges, Need, NoRoom, Recall};
use super::group::Groups;
use super::message::Message;
use super::observe::Observers;
use super::option::{self, Unwanted};
use super::response::{Refusal, Response};
use super::verify::Verifier;
use bytes::Bytes;
use coap_lite::ResponseType;

/// What a message leads to.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Nothing.
    Silence,
    /// A datagram to send.
    Send(Transmit),
    /// Something to run, and how to go on when it has ended.
    Run(Work, Box<Pending>),
}

impl From<Option<Transmit>> for Reaction {
    fn from(transmit: Option<Transmit>) -> Self {
        transmit.map_or(Self::Silence, Self::Send)
    }
}

/// A call that runs, and all its answer depends on.
#[derive(Debug)]
pub(super) struct Pending {
    exchange: ExchangeId,
    key: Key,
    pub(super) method: Method,
    /// The only content format the peer takes.
    pub(super) accept: Option<u16>,
    /// The states of the answer that the peer has already, by their ETags.
    pub(super) held: Box<[Box<[u8]>]>,
    unwanted: Unwanted,
    /// The last block of the request, to be named in the answer.
    block1: Option<Block>,
    /// The block of the answer that is asked for.
    pub(super) block2: Option<Block>,
}

/// The state of a door.
#[derive(Debug)]
pub(super) struct Layers {
    config: Arc<CoapConfig>,
    counters: Arc<CoapCounters>,
    exchanges: Exchanges,
    verifier: Verifier,
    uploads: Uploads,
    downloads: Downloads,
    groups: Groups,
    observers: Observers,
    payload_bytes_max: usize,
    transfers_dropped: u64,
}

/// A request on its way through the layers.
struct Arrival<'a> {
    from: &'a Endpoint,
    message: &'a Message,
    unwanted: Unwanted,
    now: Instant,
}

impl Layers {
    pub(super) fn new(
        config: Arc<CoapConfig>,
        counters: Arc<CoapCounters>,
        payload_bytes_max: usize,
        watcher: Arc<Watcher>,
        now: Instant,
    ) -> Self {
        let verifier = Verifier::new(config.verify, config.verified_lifetime, config.verified_max, now);
        Self {
            verifier,
            exchanges: Exchanges::new(Arc::clone(&config), Arc::clone(&counters), now),
            uploads: Uploads::new(config.uploads.clone(), payload_bytes_max),
            downloads: Downloads::new(config.downloads.clone()),
            groups: Groups::new(config.groups.clone()),
            observers: Observers::new(Arc::clone(&config), Arc::clone(&counters), watcher, now),
            config,
            counters,
            payload_bytes_max,
            transfers_dropped: 0,
        }
    }

    /// Whether nothing is held of anybody.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        let transfers = self.uploads.is_empty() && self.downloads.is_empty();
        self.exchanges.is_empty() && transfers && self.groups.is_empty() && self.observers.is_empty()
    }

    /// Calls running now.
    pub(super) fn calls(&self) -> usize {
        self.exchanges.calls()
    }

    /// A message of ours has arrived.
    pub(super) fn confirmed(&mut self, from: &Endpoint, message_id: u16, now: Instant) {
        if !self.exchanges.confirmed(from, message_id) {
            let (observers, below) = self.observing();
            observers.acknowledged(from, message_id, &below, now);
        }
    }

    /// A request has arrived. `inquiry` is what can be said about it without any state.
    pub(super) fn request(
        &mut self,
        from: &Endpoint,
        message: Message,
        inquiry: Result<Inquiry, Refusal>,
        now: Instant,
    ) -> Reaction {
        self.counters.requests.add();
        match self.exchanges.recall(from, &message) {
            Recall::Repeated(again) => {
                self.counters.repeated.add();
                return again.into();
            }
            Recall::Occupied => {
                let unwanted = Unwanted::default();
                let text = "this message id belongs to a running call";
                let arrival = Arrival { from, message: &message, unwanted, now };
                return self.overloaded(&arrival, text);
            }
            Recall::New => {}
        }
        let trusted = self.trusts(from, &message, now);
        match inquiry {
            Ok(inquiry) if trusted || inquiry.options.unwanted.is_all() => self.admit(from, message, inquiry, now),
            Ok(_) => self.challenge(from, &message, now),
            Err(mut refusal) => {
                if !trusted {
                    // Its code alone is never much longer than the request.
                    refusal.response.payload = Bytes::new();
                }
                self.counters.refused.add();
                if refusal.response.code == ResponseType::Forbidden {
                    self.counters.forbidden.add();
                }
                let silent = refusal.silent_if_not_confirmable && !message.confirmable;
                let unwanted = option::unwanted(&message.packet);
                let response = Some(&*refusal.response).filter(|response| !unwanted.covers(response));
                if silent {
                    return Reaction::Silence;
                }
                self.exchanges.answer_once(from, &message, response).into()
            }
        }
    }

    fn trusts(&mut self, from: &Endpoint, message: &Message, now: Instant) -> bool {
        if self.verifier.trusts(from, now) {
            return true;
        }
        let shown = option::echo(&message.packet).is_some_and(|cookie| self.verifier.verify(from, cookie, now));
        if shown {
            self.counters.verified.add();
        }
        shown
    }

    /// 4.01 with an Echo option, and nothing kept: for a request whose peer might be somebody else.
    fn challenge(&mut self, from: &Endpoint, message: &Message, now: Instant) -> Reaction {
        self.counters.challenged.add();
        let echo = Some(Box::new(self.verifier.cookie(from, now)));
        let response = Response { echo, ..Response::error(ResponseType::Unauthorized, "") };
        self.exchanges.answer_once(from, message, Some(&response)).into()
    }

    /// A call has ended: its response, cut to what a datagram holds.
    pub(super) fn answered(&mut self, pending: Pending, response: Response, now: Instant) -> Option<Transmit> {
        let Pending { exchange, key, unwanted, block1, block2, .. } = pending;
        if unwanted.covers(&response) {
            return self.exchanges.finish(exchange, None, now);
        }
        let mut response = self.downloads.begin(&key, response, block2, now);
        response.block1 = block1;
        self.exchanges.finish(exchange, Some(&response), now)
    }

    /// A session has ended: nobody will ask for what is kept of it.
    pub(super) fn ended(&mut self, session: &Endpoint) {
        let (observers, mut below) = self.observing();
        observers.forget(session, &mut below);
        self.exchanges.forget(session);
        self.uploads.forget(session);
        self.downloads.forget(session);
    }

    /// A new request that nothing speaks against: refuses it for want of room, or takes its payload in.
    fn admit(&mut self, from: &Endpoint, mut message: Message, inquiry: Inquiry, now: Instant) -> Reaction {
        let options = &inquiry.options;
        let (block1, block2) = (options.block1, options.block2);
        let key = Key { peer: *from, request: option::cache_key(message.method, &message.packet) };
        let payload = Bytes::from(std::mem::take(&mut message.packet.payload));
        let arrival = Arrival { from, message: &message, unwanted: options.unwanted, now };
        if let Some(block) = block2.filter(|block| block.number > 0) {
            let response = self.downloads.go_on(&key, block, now);
            return self.exchanges.answer_once(from, &message, Some(&response)).into();
        }
        if let Some(asked) = inquiry.asked(&payload) {
            return self.observe(&arrival, key, asked, &inquiry);
        }
        let (observers, mut below) = self.observing();
        observers.cancel(from, &message.token, &mut below);
        let need = match block1 {
            Some(block) if block.more => Need::Answer,
            Some(block) => Need::Call { payload_bytes: self.uploads.whole_bytes(&key, &block, &payload) },
            None => Need::Call { payload_bytes: payload.len() },
        };
        if let Err(no_room) = self.exchanges.vacancy(from, &message, need, now) {
            return self.no_room(&arrival, no_room);
        }
        let whole = match block1 {
            None if payload.len() > self.payload_bytes_max => {
                return self.refuse(&arrival, too_large(self.payload_bytes_max));
            }
            None => payload,
            Some(block) => match self.upload(&arrival, &key, block, options.size1, &payload) {
                Ok(whole) => whole,
                Err(reaction) => return *reaction,
            },
        };
        let exchange = self.exchanges.begin(from, &message, whole.len(), now);
        self.counters.calls.add();
        let pending = Pending {
            exchange,
            key,
            method: inquiry.method,
            accept: options.accept,
            held: options.held.as_slice().into(),
            unwanted: options.unwanted,
            block1,
            block2,
        };
        Reaction::Run(inquiry.work(whole), Box::new(pending))
    }

    /// Takes a block of a payload in. Gives the payload if that made it whole, and what to do otherwise.
    fn upload(
        &mut self,
        arrival: &Arrival<'_>,
        key: &Key,
        block: Block,
        size1: Option<u32>,
        bytes: &[u8],
    ) -> Result<Bytes, Box<Reaction>> {
        match self.uploads.take(key, block, size1, bytes, arrival.now) {
            Ok(Progress::Whole(payload)) => Ok(payload),
            Ok(Progress::Next) => {
                let response = Response { block1: Some(block), ..Response::new(ResponseType::Continue) };
                Err(self.answer(arrival, &response).into())
            }
            Err(Refused::Because(response)) => {
                let response = Response { block1: Some(block), ..*response };
                Err(self.refuse(arrival, response).into())
            }
            Err(Refused::NoRoom) => Err(self.overloaded(arrival, "too many payloads on their way in").into()),
        }
    }

    fn refuse(&mut self, arrival: &Arrival<'_>, response: Response) -> Reaction {
        self.counters.refused.add();
        self.answer(arrival, &response)
    }

    fn no_room(&mut self, arrival: &Arrival<'_>, no_room: NoRoom) -> Reaction {
        let NoRoom::Rate { wait } = no_room else {
            return self.overloaded(arrival, &no_room.to_string());
        };
        self.counters.rate_limited.add();
        let response = Response {
            code: ResponseType::TooManyRequests,
            ..overloaded(Some(wait), &no_room.to_string(), &self.config)
        };
        self.turn_away(arrival, &response)
    }

    /// 5.03.
    fn overloaded(&mut self, arrival: &Arrival<'_>, text: &str) -> Reaction {
        self.counters.overloaded.add();
        let response = overloaded(None, text, &self.config);
        self.turn_away(arrival, &response)
    }

    /// Refuses for now. Remembered where there is room, so that a request that was refused does not run after all when
    /// the network repeats it.
    fn turn_away(&mut self, arrival: &Arrival<'_>, response: &Response) -> Reaction {
        let Arrival { from, message, now, .. } = *arrival;
        let occupied = !matches!(self.exchanges.recall(from, message), Recall::New);
        if occupied || self.exchanges.vacancy(from, message, Need::Answer, now).is_err() {
            let wanted = Some(response).filter(|response| !arrival.unwanted.covers(response));
            return self.exchanges.answer_once(from, message, wanted).into();
        }
        self.answer(arrival, response)
    }

    /// Answers a request for which nothing runs, and remembers that.
    fn answer(&mut self, arrival: &Arrival<'_>, response: &Response) -> Reaction {
        let Arrival { from, message, unwanted, now } = *arrival;
        let response = Some(response).filter(|response| !unwanted.covers(response));
        self.exchanges.answer_at_once(from, message, response, now).into()
    }
}

impl Timed for Layers {
    fn tick(&mut self, now: Instant, out: &mut Vec<Transmit>) {
        self.exchanges.tick(now, out);
        while let Some(answer) = self.groups.next_due(now) {
            self.counters.group_answers.add_many(u64::from(answer.is_some()));
            out.extend(answer);
        }
        let (observers, below) = self.observing();
        observers.tick(below, now, out);
        self.uploads.expire(now);
        self.downloads.expire(now);
        let dropped = self.uploads.dropped() + self.downloads.dropped();
        for _ in self.transfers_dropped..dropped {
            self.counters.transfers_expired.add();
        }
        self.transfers_dropped = dropped;
    }

    fn next_deadline(&self) -> Option<Instant> {
        let transfers = [self.uploads.next_deadline(), self.downloads.next_deadline()];
        let others = [self.exchanges.next_deadline(), self.groups.next_deadline(), self.observers.next_deadline()];
        transfers.into_iter().chain(others).flatten().min()
    }
}

#[cfg(test)]
#[path = "layers/tests.rs"]
mod tests;
