//! A peer that observes, and when it may be sent what.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap_lite::ResponseType;

use super::topics::Representation;
use crate::coap::block::Block;
use crate::coap::config::CoapConfig;
use crate::coap::message::Token;
use crate::coap::response::Response;
use crate::coap::visitor::Visitor;

/// Message ids remembered of an observation's notifications, for a reset that comes late.
const IDS: usize = 2;

/// A peer that observes. There may be a hundred thousand.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// Who it is; whether it may still observe is asked again when an application, or the keys, change.
    pub(super) visitor: Visitor,
    pub(super) observations: Vec<Observation>,
    /// The notification that it has to acknowledge.
    pub(super) outstanding: Option<Box<Outstanding>>,
    /// Smoothed; `None` until something was acknowledged.
    round_trip: Option<Duration>,
    /// When it may be sent the next notification.
    free_at: Instant,
    /// Notifications since it was last heard of.
    unconfirmed: u32,
    heard_at: Instant,
    /// Which observation is looked at first.
    turn: usize,
    /// Its place in the order of turns.
    pub(super) turn_at: Option<Instant>,
}

/// One thing that it observes.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) token: Token,
    pub(super) topic: u32,
    /// Its place among the topic's observers.
    pub(super) place: u32,
    /// Which of the topic's states it was sent last.
    pub(super) version: u32,
    /// The last Observe number.
    pub(super) sequence: u32,
    /// The format of what it was sent; it stays the same (RFC 7641, section 4.2). `None`: it was sent no output yet.
    format: Option<Option<u16>>,
    pub(super) accept: Option<u16>,
    /// The exponent of the block size that it asked for.
    exponent: Option<u8>,
    ids: [Option<u16>; IDS],
    /// Its request without Observe, as the key of blocks that are asked for later.
    pub(super) request: Box<[u8]>,
}

/// A confirmable notification.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// Which observation it is of.
    pub(super) observation: usize,
    id: u16,
    pub(super) datagram: Arc<[u8]>,
    /// When it, or the first that it stands for, was sent.
    since: Instant,
    pub(super) retransmissions: u32,
    pub(super) wait: Duration,
    /// When it is sent again.
    pub(super) due: Instant,
}

/// What a subscriber's turn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// What was sent is to be sent again, or given up.
    Repetition,
    /// The state of the observation at this place.
    Notification {
        at: usize,
        confirmable: bool,
    },
}

impl Outstanding {
    /// One that is sent now, in place of one that was not acknowledged, whose place in the retransmissions it takes (RFC 7641, section
    /// 4.5.2), or with a wait of its own.
    pub(super) fn new(
        begun: Option<Box<Self>>,
        observation: usize,
        id: u16,
        datagram: &Arc<[u8]>,
        wait: impl FnOnce() -> Duration,
        now: Instant,
    ) -> Self {
        let datagram = Arc::clone(datagram);
        match begun {
            Some(begun) => Self { id, datagram, ..*begun },
            None => {
                let wait = wait();
                Self { observation, id, datagram, since: now, retransmissions: 0, wait, due: now + wait }
            }
        }
    }
}

impl Subscriber {
    pub(super) fn new(visitor: Visitor, now: Instant) -> Self {
        Self {
            visitor,
            observations: Vec::with_capacity(1),
            outstanding: None,
            round_trip: None,
            free_at: now,
            unconfirmed: 0,
            heard_at: now,
            turn: 0,
            turn_at: None,
        }
    }

    /// What it may be sent now.
    pub(super) fn due(&mut self, config: &CoapConfig, version: impl Fn(u32) -> u32, now: Instant) -> Due {
        if let Some(outstanding) = &self.outstanding {
            return if outstanding.due <= now { Due::Repetition } else { Due::Nothing };
        }
        if now < self.free_at || self.observations.is_empty() {
            return Due::Nothing;
        }
        let count = self.observations.len();
        let mut in_turn = (self.turn..self.turn + count).map(|at| at % count);
        let silent = now.saturating_duration_since(self.heard_at);
        let stale = |at: &usize| self.observations[*at].is_behind(&version);
        let at = in_turn.find(stale).or((silent >= config.observe_idle_max).then_some(self.turn % count));
        let Some(at) = at else { return Due::Nothing };
        self.turn = (at + 1) % count;
        let confirmable = self.round_trip.is_none()
            || self.unconfirmed + 1 >= config.observe_confirm_every
            || silent >= config.observe_confirm_after;
        Due::Notification { at, confirmable }
    }

    /// When there is something to do again.
    pub(super) fn next_turn(&self, config: &CoapConfig, version: impl Fn(u32) -> u32) -> Instant {
        if let Some(outstanding) = &self.outstanding {
            return outstanding.due;
        }
        let is_behind = self.observations.iter().any(|observation| observation.is_behind(&version));
        if is_behind { self.free_at } else { self.heard_at + config.observe_idle_max }
    }

    /// A notification went out that nobody acknowledges.
    pub(super) fn sent_unconfirmed(&mut self, now: Instant) {
        self.unconfirmed += 1;
        self.free_at = now + self.round_trip.unwrap_or_default();
    }

    /// The peer has acknowledged a message. True if it is the one that was waited for.
    pub(super) fn acknowledged(&mut self, id: u16, config: &CoapConfig, now: Instant) -> bool {
        let Some(outstanding) = self.outstanding.take_if(|outstanding| outstanding.id == id) else { return false };
        // Since it was first sent, if it was sent again: rather too long than too short.
        let took = now.saturating_duration_since(outstanding.since).max(config.observe_interval_min);
        self.round_trip = Some(self.round_trip.map_or(took, |smoothed| (smoothed * 7 + took) / 8));
        (self.free_at, self.heard_at, self.unconfirmed) = (now, now, 0);
        true
    }

    /// It has asked for something: it is there, and is whoever asked.
    pub(super) fn present(&mut self, visitor: &Visitor, now: Instant) {
        self.visitor = visitor.clone();
        self.heard_at = now;
    }

    /// An observation is asked for anew, with the same token.
    pub(super) fn renew(&mut self, at: usize, anew: &mut Observation) {
        let Some(before) = self.observations.get_mut(at) else { return };
        (anew.topic, anew.place) = (before.topic, before.place);
        (anew.sequence, anew.ids) = (before.sequence, before.ids);
        std::mem::swap(before, anew);
    }

    /// One of its observations has another place in its topic.
    pub(super) fn moved(&mut self, topic: u32, before: u32, place: u32) {
        let moved = self.observations.iter_mut().find(|known| known.topic == topic && known.place == before);
        if let Some(observation) = moved {
            observation.place = place;
        }
    }

    pub(super) fn tokens(&self) -> Vec<Token> {
        self.observations.iter().map(|observation| observation.token).collect()
    }

    pub(super) fn by_token(&self, token: &Token) -> Option<usize> {
        self.observations.iter().position(|observation| observation.token == *token)
    }

    pub(super) fn by_topic(&self, topic: u32) -> Option<usize> {
        self.observations.iter().position(|observation| observation.topic == topic)
    }

    pub(super) fn by_message(&self, id: u16) -> Option<usize> {
        self.observations.iter().position(|observation| observation.ids.contains(&Some(id)))
    }

    /// Takes an observation out.
    pub(super) fn remove(&mut self, at: usize) -> Observation {
        // The order is that of turns, and nothing more; what is outstanding refers to a place.
        let removed = self.observations.remove(at);
        self.outstanding = self.outstanding.take().and_then(|mut outstanding| {
            if outstanding.observation == at {
                return None;
            }
            outstanding.observation -= usize::from(outstanding.observation > at);
            Some(outstanding)
        });
        removed
    }
}

impl Observation {
    /// One that is in the state it has just been answered with.
    pub(super) fn new(token: Token, request: Box<[u8]>, accept: Option<u16>, block2: Option<Block>) -> Self {
        Self {
            token,
            topic: 0,
            place: 0,
            version: 0,
            sequence: 0,
            format: None,
            accept,
            exponent: block2.map(|block| block.exponent),
            ids: [None; IDS],
            request,
        }
    }

    fn is_behind(&self, version: impl Fn(u32) -> u32) -> bool {
        version(self.topic) != self.version
    }

    /// The block that it is to be sent first.
    pub(super) fn block2(&self) -> Option<Block> {
        self.exponent.map(|exponent| Block { number: 0, more: false, exponent })
    }

    /// A message of this id was sent.
    pub(super) fn sent(&mut self, id: u16) {
        self.ids.rotate_right(1);
        self.ids[0] = Some(id);
    }

    /// Why it cannot be sent this state of what it observes, if it cannot: it asked for another format, or was sent another
    /// before; or the state is an error.
    pub(super) fn refuses(&mut self, state: &Response, newest: Option<&Representation>) -> Option<Response> {
        if state.class() != 2 {
            return Some(state.clone());
        }
        let format = newest?.content_format();
        let other = self.accept.is_some_and(|accept| format.is_some_and(|format| format != accept));
        if other || self.format.is_some_and(|before| before != format) {
            let text = "what is observed has another content format now";
            return Some(Response::error(ResponseType::NotAcceptable, text));
        }
        self.format = Some(format);
        None
    }
}
