//! How an observation begins, and what it is answered with.

use std::time::Instant;

use sandbar_runtime::outputs::{Subject, Watched};

use super::accepted::first_state;
use super::subscriber::{Observation, Subscriber};
use super::topics::Representation;
use super::{Below, Observers};
use crate::coap::block::Block;
use crate::coap::blockwise::Key;
use crate::coap::call::not_ended;
use crate::coap::datagram::Endpoint;
use crate::coap::message::Token;
use crate::coap::response::{Response, Sequence};
use crate::coap::visitor::Visitor;

/// The longest key of a request that is kept for an observation's later blocks, in bytes: names of an application and a function, and more.
const REQUEST_BYTES_MAX: usize = 512;

/// A request to observe, or to observe no more.
#[derive(Debug)]
pub(in crate::coap) struct Registration<'a> {
    pub(in crate::coap) key: Key,
    pub(in crate::coap) token: Token,
    pub(in crate::coap) watched: Watched,
    pub(in crate::coap) visitor: &'a Visitor,
    pub(in crate::coap) accept: Option<u16>,
    pub(in crate::coap) block2: Option<Block>,
}

impl Observers {
    /// Begins an observation, or begins it anew; gives the answer. It has no Observe option if there is no room (RFC 7641, section 4.1).
    pub(in crate::coap) fn register(
        &mut self,
        asked: Registration<'_>,
        mut below: Below<'_>,
        now: Instant,
    ) -> Response {
        let known = self.find(&asked.key.peer, &asked.token, &below);
        let topic = self.topics.number(&asked.watched);
        let renewed = known.filter(|(number, at)| topic == self.topic_of(*number, *at));
        if let (Some((number, at)), None) = (known, renewed) {
            self.counters.observers_cancelled.add();
            self.detach(number, at, below.exchanges);
        }
        if renewed.is_none() && !self.has_room(&asked, &below) {
            self.counters.observers_refused.add();
            return self.state(&asked, &mut below, now);
        }
        let mut begun = Observation::new(asked.token, asked.key.request.clone(), asked.accept, asked.block2);
        let state = self.observed_state(&asked, &mut below, now);
        if let Some(refusal) = begun.refuses(&state, self.newest(&asked.watched)) {
            if let Some((number, at)) = renewed {
                self.counters.observers_ended.add();
                self.detach(number, at, below.exchanges);
            }
            return refusal;
        }
        let number = below.exchanges.pin(&asked.key.peer);
        let subscriber = self.subscribers.entry(number).or_insert_with(|| Subscriber::new(asked.visitor.clone(), now));
        subscriber.present(asked.visitor, now);
        match renewed {
            Some((_, at)) => {
                self.counters.observers_renewed.add();
                subscriber.renew(at, &mut begun);
            }
            None => {
                self.counters.observers_registered.add();
                self.count += 1;
                (begun.topic, begun.place) = self.topics.join(asked.watched, number);
                subscriber.observations.push(begun);
            }
        }
        let at = renewed.map_or(subscriber.observations.len() - 1, |(_, at)| at);
        let observation = &mut subscriber.observations[at];
        observation.version = self.topics.version(observation.topic);
        observation.sequence = self.clock.after(observation.sequence, now);
        let observe = Some(Sequence::new(observation.sequence));
        self.plan(number, now);
        Response { observe, ..state }
    }

    /// What is observed as it is now, for one that does not observe it.
    pub(in crate::coap) fn state(&self, asked: &Registration<'_>, below: &mut Below<'_>, now: Instant) -> Response {
        let state = self.observed_state(asked, below, now);
        match asked.watched.subject {
            Subject::Entry | Subject::Function(_) => state,
            // Nobody will tell him; he is to ask again.
            Subject::Call(_) => Response { max_age_s: not_ended(None).max_age_s, ..state },
        }
    }

    /// The same, for one that will be told of what follows.
    fn observed_state(&self, asked: &Registration<'_>, below: &mut Below<'_>, now: Instant) -> Response {
        let whole = match self.newest(&asked.watched) {
            Some(newest) => newest.for_observer(asked.block2),
            None => first_state(&asked.watched.subject, asked.accept),
        };
        below.downloads.begin(&asked.key, whole, asked.block2, now)
    }

    /// The answer to a registration has gone out as a message of its own: the peer may reject it.
    pub(in crate::coap) fn answered(&mut self, to: &Endpoint, token: &Token, id: u16, below: &Below<'_>) {
        let Some((number, at)) = self.find(to, token, below) else { return };
        let subscriber = self.subscribers.get_mut(&number);
        if let Some(observation) = subscriber.and_then(|subscriber| subscriber.observations.get_mut(at)) {
            observation.sent(id);
        }
    }

    /// The observation of this peer with this token.
    pub(super) fn find(&self, peer: &Endpoint, token: &Token, below: &Below<'_>) -> Option<(u32, usize)> {
        // Asked for each request: most hosts have no observers.
        let number = if self.count == 0 { None } else { below.exchanges.number(peer) }?;
        let at = self.subscribers.get(&number)?.by_token(token)?;
        Some((number, at))
    }

    fn newest(&self, watched: &Watched) -> Option<&Representation> {
        self.topics.number(watched).and_then(|topic| self.topics.get(topic))?.newest.as_ref()
    }

    fn topic_of(&self, number: u32, at: usize) -> Option<u32> {
        Some(self.subscribers.get(&number)?.observations.get(at)?.topic)
    }

    fn has_room(&self, asked: &Registration<'_>, below: &Below<'_>) -> bool {
        let of_peer = below.exchanges.number(&asked.key.peer).and_then(|number| self.subscribers.get(&number));
        self.count < self.config.observers_max
            && of_peer.map_or(0, |peer| peer.observations.len()) < self.config.observers_per_peer_max
            && asked.key.request.len() <= REQUEST_BYTES_MAX
    }
}
