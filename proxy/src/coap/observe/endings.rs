//! How observations end, and what their observers hear of it.
//!
//! | why | what the observer is sent |
//! |---|---|
//! | it asks for that (Observe: 1), or uses the token for something else | the answer to that |
//! | it rejects a notification | nothing |
//! | it acknowledges none, or its session has ended | nothing |
//! | the function is gone, or the accepted call is known no more; or it may not call it any more | 4.04, 4.03 |
//! | the output has another format than before, or than it takes | 4.06 |
//! | the accepted call that it observes has ended | its answer (`accepted`) |
//! | the door closes | 5.03 |

use std::time::Instant;

use coap_lite::{MessageType, ResponseType};
use sandbar_runtime::outputs::Watched;

use super::{Below, Observers};
use crate::coap::datagram::{Endpoint, Transmit};
use crate::coap::exchange::Exchanges;
use crate::coap::message::Token;
use crate::coap::response::Response;
use crate::coap::visitor::Visitor;

impl Observers {
    /// The peer uses this token for something else, or for nothing any more.
    pub(in crate::coap) fn cancel(&mut self, peer: &Endpoint, token: &Token, below: &mut Below<'_>) {
        if let Some((number, at)) = self.find(peer, token, below) {
            self.counters.observers_cancelled.add();
            self.detach(number, at, below.exchanges);
        }
    }

    /// The peer has acknowledged a message that may be a notification. True if it is one that was waited for.
    pub(in crate::coap) fn acknowledged(&mut self, peer: &Endpoint, id: u16, below: &Below<'_>, now: Instant) -> bool {
        let Some(number) = below.exchanges.number(peer) else { return false };
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return false };
        let waited_for = subscriber.acknowledged(id, &self.config, now);
        self.plan(number, now);
        waited_for
    }

    /// The peer rejects a message that may be a notification. True if it is one.
    pub(in crate::coap) fn rejected(&mut self, peer: &Endpoint, id: u16, below: &mut Below<'_>, now: Instant) -> bool {
        let Some(number) = below.exchanges.number(peer) else { return false };
        let Some(at) = self.subscribers.get(&number).and_then(|subscriber| subscriber.by_message(id)) else {
            return false;
        };
        self.counters.observers_rejected.add();
        self.detach(number, at, below.exchanges);
        self.plan(number, now);
        true
    }

    /// The peer will not speak again.
    pub(in crate::coap) fn forget(&mut self, peer: &Endpoint, below: &mut Below<'_>) {
        let Some(number) = below.exchanges.number(peer) else { return };
        let ended = self.detach_all(number, below.exchanges);
        self.counters.observers_gone.add_many(ended);
    }

    /// The peer acknowledges nothing.
    pub(super) fn give_up(&mut self, number: u32, exchanges: &mut Exchanges) {
        let ended = self.detach_all(number, exchanges);
        self.counters.observers_unreachable.add_many(ended);
    }

    /// Ends all observations that may not go on, with what `judge` has to say of them; of an application, or all.
    pub(in crate::coap) fn reconsider(
        &mut self,
        application: Option<&str>,
        judge: impl Fn(&Visitor, &Watched) -> Result<(), Response>,
        below: &mut Below<'_>,
        now: Instant,
    ) -> Vec<Transmit> {
        let mut ended = Vec::new();
        for (number, subscriber) in &self.subscribers {
            // The last first, so that places stay what they are.
            for (at, observation) in subscriber.observations.iter().enumerate().rev() {
                let Some(watched) = self.topics.watched(observation.topic) else { continue };
                let concerns = application.is_none_or(|application| watched.application == application);
                if concerns && let Err(refusal) = judge(&subscriber.visitor, watched) {
                    ended.push((*number, at, refusal));
                }
            }
        }
        self.counters.observers_ended.add_many(ended.len() as u64);
        let end = |(number, at, refusal)| self.end_with(number, at, &refusal, below.exchanges, now);
        ended.into_iter().filter_map(end).collect()
    }

    /// Ends all observations, and says so once.
    pub(in crate::coap) fn close(&mut self, below: &mut Below<'_>) -> Vec<Transmit> {
        let mut out = Vec::new();
        let closing = Response { max_age_s: Some(1), ..Response::error(ResponseType::ServiceUnavailable, "closing") };
        let numbers: Vec<u32> = self.subscribers.keys().copied().collect();
        for number in numbers {
            let tokens = self.subscribers.get(&number).map(|subscriber| subscriber.tokens()).unwrap_or_default();
            for token in tokens {
                let to = below.exchanges.endpoint(number).zip(below.exchanges.draw_message_id(number));
                out.extend(to.map(|(to, id)| {
                    let bytes = closing.encode(MessageType::NonConfirmable, id, &token);
                    Transmit { to, bytes }
                }));
            }
            let ended = self.detach_all(number, below.exchanges);
            self.counters.observers_ended.add_many(ended);
        }
        out
    }

    /// Ends an observation with an error, or with what there is to tell last, which is sent until it is acknowledged.
    pub(super) fn end_with(
        &mut self,
        number: u32,
        at: usize,
        refusal: &Response,
        exchanges: &mut Exchanges,
        now: Instant,
    ) -> Option<Transmit> {
        let token = self.subscribers.get(&number)?.observations.get(at)?.token;
        let last = exchanges.say(number, refusal, &token, now);
        self.detach(number, at, exchanges);
        last
    }

    fn detach_all(&mut self, number: u32, exchanges: &mut Exchanges) -> u64 {
        let mut ended = 0;
        while let Some(subscriber) = self.subscribers.get(&number) {
            let last = subscriber.observations.len().saturating_sub(1);
            self.detach(number, last, exchanges);
            ended += 1;
        }
        ended
    }

    /// Takes an observation out, and its subscriber if that was all.
    pub(super) fn detach(&mut self, number: u32, at: usize, exchanges: &mut Exchanges) {
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        let removed = subscriber.remove(at);
        self.count -= 1;
        if subscriber.observations.is_empty() {
            if let Some(turn_at) = subscriber.turn_at {
                self.turns.remove(&(turn_at, number));
            }
            self.subscribers.remove(&number);
            exchanges.unpin(number);
            if self.subscribers.is_empty() {
                self.subscribers.shrink_to_fit();
            }
        }
        if let Some((moved, before)) = self.topics.leave(removed.topic, removed.place)
            && let Some(subscriber) = self.subscribers.get_mut(&moved)
        {
            subscriber.moved(removed.topic, before, removed.place);
        }
    }
}
