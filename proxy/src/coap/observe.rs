//! Observing (RFC 7641): who has asked for a function's outputs is sent each new one, as far as the way there takes it; who has asked for the
//! answer to an accepted call is sent that.
//!
//! ```text
//!   GET, Observe: 0 ─▶ register ─▶ the newest output, with Observe                 topics: what is observed, its newest output
//!   new output ─▶ published ─▶ the topic's newest; a turn for each of its observers      │
//!   a turn ─▶ pump ─┬─ a confirmable notification is not acknowledged ─▶ wait              ▼
//!                   ├─ the last was sent less than a round trip ago ─▶ wait         subscribers: by peer, its observations
//!                   └─ else ─▶ the newest state of the next observation that has not been sent it
//!   ACK ─▶ the round trip is measured; a turn      RST ─▶ that observation ends      no ACK ─▶ all of the peer's end
//! ```
//!
//! The first notification to a peer is confirmable, so that the round trip is known; then one in [`CoapConfig::observe_confirm_every`], and
//! the next after [`CoapConfig::observe_confirm_after`]. Between two to a peer lies a round trip at least (section 4.5.1); what comes
//! faster is superseded: a peer gets the newest state, not every state. A peer that nothing was confirmed by for
//! [`CoapConfig::observe_idle_max`] is sent the state again, confirmable, to see that it is there. An accepted call has one state, that it has not
//! ended; how its observers get its answer is told in `accepted`.
//!
//! Invariants:
//! 1. A peer has one unacknowledged notification at most (NSTART = 1); sent again, it shows the newest state.
//! 2. Of the state of a topic nothing is kept for each observer but which version it was sent. Of an accepted call nothing is kept once its
//!    observers have its answer.
//! 3. A peer that observes is pinned in the exchange layer, as notifications and separate answers share message ids; each subscriber has
//!    an observation at least, each topic an observer at least, and each topic is watched.
//! 4. Work is done in turns of [`TURNS_AT_ONCE`]: an output for a hundred thousand observers holds the lock for no longer than one for a few.
//!
//! It makes no calls: an observation keeps no sandbox awake. Reference: RFC 7641, sections 3 and 4; RFC 8132, section 2 for FETCH.

mod accepted;
mod endings;
mod registration;
mod subscriber;
mod topics;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use coap_lite::MessageType;
use sandbar_runtime::outputs::{Watched, Watcher};

use self::accepted::first_state;
pub(super) use self::registration::Registration;
use self::subscriber::{Due, Outstanding, Subscriber};
pub(super) use self::topics::Representation;
use self::topics::Topics;
use super::blockwise::Key;
use super::blockwise::download::Downloads;
use super::config::CoapConfig;
use super::counters::CoapCounters;
use super::datagram::Transmit;
use super::exchange::Exchanges;
use super::response::{Response, Sequence};

/// Subscribers looked at in one go.
const TURNS_AT_ONCE: usize = 256;

/// All observations of a door.
#[derive(Debug)]
pub(super) struct Observers {
    config: Arc<CoapConfig>,
    counters: Arc<CoapCounters>,
    topics: Topics,
    /// By the number of the peer in the exchange layer.
    subscribers: HashMap<u32, Subscriber>,
    /// When each subscriber has its next turn.
    turns: BTreeSet<(Instant, u32)>,
    /// Observations of all.
    count: usize,
    clock: Clock,
    opened: Instant,
}

/// What observations are sent by: the layers below.
#[derive(Debug)]
pub(super) struct Below<'a> {
    pub(super) exchanges: &'a mut Exchanges,
    pub(super) downloads: &'a mut Downloads,
}

impl Observers {
    pub(super) fn new(
        config: Arc<CoapConfig>,
        counters: Arc<CoapCounters>,
        watcher: Arc<Watcher>,
        opened: Instant,
    ) -> Self {
        let topics = Topics::new(watcher, config.observed_bytes_max);
        let clock = Clock::new(opened);
        let (subscribers, turns) = (HashMap::new(), BTreeSet::new());
        Self { config, counters, topics, subscribers, turns, count: 0, clock, opened }
    }

    /// Whether nothing is held.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.subscribers.is_empty() && self.turns.is_empty() && self.topics.is_empty()
    }

    /// A function has given out something new: the newest of so many.
    pub(super) fn published(&mut self, watched: &Watched, newest: Representation, given: u32) {
        if !self.topics.publish(watched, newest, given) {
            self.counters.outputs_too_large.add();
        }
    }

    /// Does what is due, as far as one go allows, and gives what is to be sent.
    pub(super) fn tick(&mut self, mut below: Below<'_>, now: Instant, out: &mut Vec<Transmit>) {
        for _ in 0..TURNS_AT_ONCE {
            let number = match self.topics.next_turn() {
                Some(number) => number,
                None => match self.turns.first() {
                    Some((due, number)) if *due <= now => *number,
                    _ => break,
                },
            };
            out.extend(self.pump(number, &mut below, now));
        }
    }

    /// When [`Self::tick`] has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.topics.has_turns() {
            return Some(self.opened);
        }
        self.turns.first().map(|(due, _)| *due)
    }

    /// A subscriber's turn: sends it what it may be sent now.
    fn pump(&mut self, number: u32, below: &mut Below<'_>, now: Instant) -> Option<Transmit> {
        let topics = &self.topics;
        let due = self.subscribers.get_mut(&number)?.due(&self.config, |topic| topics.version(topic), now);
        let transmit = match due {
            Due::Nothing => None,
            Due::Repetition => self.repeat(number, below, now),
            Due::Notification { at, confirmable } => self.notify(number, at, confirmable, below, now),
        };
        self.plan(number, now);
        transmit
    }

    /// Sends a notification again that was not acknowledged, in its newest state; or gives the subscriber up.
    fn repeat(&mut self, number: u32, below: &mut Below<'_>, now: Instant) -> Option<Transmit> {
        let subscriber = self.subscribers.get_mut(&number)?;
        let outstanding = subscriber.outstanding.as_mut()?;
        if outstanding.retransmissions >= self.config.retransmissions_max {
            self.give_up(number, below.exchanges);
            return None;
        }
        outstanding.retransmissions += 1;
        outstanding.wait *= 2;
        outstanding.due = now + outstanding.wait;
        self.counters.retransmitted.add();
        let (at, bytes) = (outstanding.observation, Arc::clone(&outstanding.datagram));
        let newest = self.topics.version(subscriber.observations.get(at)?.topic);
        if subscriber.observations.get(at)?.version == newest {
            return below.exchanges.endpoint(number).map(|to| Transmit { to, bytes });
        }
        self.notify(number, at, true, below, now)
    }

    /// Sends the newest state of an observation.
    fn notify(
        &mut self,
        number: u32,
        at: usize,
        confirmable: bool,
        below: &mut Below<'_>,
        now: Instant,
    ) -> Option<Transmit> {
        let to = below.exchanges.endpoint(number)?;
        let subscriber = self.subscribers.get_mut(&number)?;
        let observation = subscriber.observations.get_mut(at)?;
        let topic = self.topics.get(observation.topic)?;
        let key = Key { peer: to, request: observation.request.clone() };
        let whole = match &topic.newest {
            Some(newest) => newest.for_observer(observation.block2()),
            None => first_state(&topic.watched.subject, observation.accept),
        };
        let state = below.downloads.begin(&key, whole, observation.block2(), now);
        let skipped = topic.version.wrapping_sub(observation.version).saturating_sub(1);
        self.counters.notifications_superseded.add_many(skipped.into());
        if let Some(refusal) = observation.refuses(&state, topic.newest.as_ref()) {
            self.counters.observers_ended.add();
            return self.end_with(number, at, &refusal, below.exchanges, now);
        }
        observation.version = topic.version;
        observation.sequence = self.clock.after(observation.sequence, now);
        let response = Response { observe: Some(Sequence::new(observation.sequence)), ..state };
        let id = below.exchanges.draw_message_id(number)?;
        observation.sent(id);
        let kind = if confirmable { MessageType::Confirmable } else { MessageType::NonConfirmable };
        let bytes = response.encode(kind, id, &observation.token);
        self.counters.notifications.add();
        if confirmable {
            self.counters.notifications_confirmable.add();
            let begun = subscriber.outstanding.take();
            let wait = || below.exchanges.first_wait();
            subscriber.outstanding = Some(Outstanding::new(begun, at, id, &bytes, wait, now).into());
        } else {
            subscriber.sent_unconfirmed(now);
        }
        Some(Transmit { to, bytes })
    }

    /// Gives a subscriber its next turn when it has something to do.
    fn plan(&mut self, number: u32, now: Instant) {
        let Some(subscriber) = self.subscribers.get_mut(&number) else { return };
        let topics = &self.topics;
        let due = subscriber.next_turn(&self.config, |topic| topics.version(topic)).max(now);
        if subscriber.turn_at == Some(due) {
            return;
        }
        if let Some(before) = subscriber.turn_at.replace(due) {
            self.turns.remove(&(before, number));
        }
        self.turns.insert((due, number));
    }
}

/// Gives Observe's numbers: each is later than those that were given before, as section 4.4 compares them. They follow the time, so that
/// they need not be remembered beyond an observation: no 256 s hold 2^23 of them.
#[derive(Debug)]
struct Clock {
    opened: Instant,
    /// The number at that time, by the host's clock, so that an agent that is started again goes on from there.
    first: u64,
}

/// Numbers in a second.
const NUMBERS_PER_SECOND: u128 = 8192;
const NUMBER_MAX: u32 = 0xFF_FFFF;

impl Clock {
    fn new(opened: Instant) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { opened, first: numbers(since) }
    }

    fn now(&self, now: Instant) -> u32 {
        let number = self.first.wrapping_add(numbers(now.saturating_duration_since(self.opened)));
        u32::try_from(number & u64::from(NUMBER_MAX)).unwrap_or(0)
    }

    /// The number of now, or the next after `last` if that is later.
    fn after(&self, last: u32, now: Instant) -> u32 {
        let (number, next) = (self.now(now), last.wrapping_add(1) & NUMBER_MAX);
        if number.wrapping_sub(next) & NUMBER_MAX < 1 << 23 { number } else { next }
    }
}

fn numbers(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros() * NUMBERS_PER_SECOND / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "observe/tests.rs"]
mod tests;
