//! What the agent has in mind of accepted calls: which there are, how far each is, and which is begun next. No payloads, and no waiting: it is
//! told the time.
//!
//! Each transition of the drawing in [`super`] is a function here: [`reserve`](Index::reserve) and [`enter`](Index::enter), [`begin`](Index::begin),
//! [`again`](Index::again), [`end`](Index::end), [`replay`](Index::replay), [`forget`](Index::forget).
//!
//! Invariants:
//! 1. Counts and bytes of an application are those of its calls, and those of all are their sum; what is reserved counts as waiting.
//! 2. An application that has no calls here takes no room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::record::Entry;
use super::{AcceptedCall, AcceptedLimits, AcceptedState};
use crate::call::{CallId, Ticket};

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    limits: AcceptedLimits,
    calls: HashMap<CallId, Known>,
    shares: HashMap<String, Share>,
    /// Of all applications.
    unended: Amount,
    under_way: usize,
    /// Calls that were ever begun.
    turns: u64,
}

/// A call.
#[derive(Debug)]
struct Known {
    secret: u64,
    application: String,
    function: Option<String>,
    state: State,
    attempts: u32,
    /// Of its payload until it is done, then of the answer.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not before then.
    Waiting(Instant),
    UnderWay,
    /// Since then, in milliseconds since 1970.
    Done(u64),
    Dead(u64),
}

/// What an application has here.
#[derive(Debug, Default)]
struct Share {
    waiting: BTreeSet<(Instant, CallId)>,
    under_way: usize,
    /// When a call of it was begun last, by the number of calls begun then.
    turn: u64,
    /// Waiting and under way, and what is reserved.
    unended: Amount,
    done: Kept,
    dead: Kept,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    calls: usize,
    bytes: usize,
}

/// Calls that have ended.
#[derive(Debug, Default)]
struct Kept {
    /// Their bytes, by when they ended.
    by_age: BTreeMap<(u64, CallId), usize>,
    bytes: usize,
}

/// Why no more calls are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The application's number.
    #[error("the application has {0} calls waiting, as many as it may")]
    Calls(usize),
    /// Its bytes.
    #[error("the calls of the application that wait have as many bytes as they may")]
    Bytes,
    /// All applications'.
    #[error("the host has as many calls waiting as it may")]
    OfAll,
}

/// A call that is known no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub(super) ticket: Ticket,
    pub(super) application: String,
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: usize) {
        self.calls -= 1;
        self.bytes -= bytes;
    }
}

impl Index {
    pub(super) fn new(limits: AcceptedLimits) -> Self {
        let (calls, shares) = (HashMap::new(), HashMap::new());
        Self { limits, calls, shares, unended: Amount::default(), under_way: 0, turns: 0 }
    }

    /// Takes up what earlier agents left, the first accepted first; what has not ended is waiting.
    pub(super) fn load(&mut self, entries: Vec<Entry>, now: Instant) {
        // In their order, whatever ids earlier agents gave them.
        for (entry, from) in entries.into_iter().zip((0..).map(|place| now + Duration::from_nanos(place))) {
            let Entry { ticket, application, function, attempts, ended, bytes } = entry;
            let state = match ended {
                None => State::Waiting(from),
                Some((ended_ms, false)) => State::Done(ended_ms),
                Some((ended_ms, true)) => State::Dead(ended_ms),
            };
            if ended.is_none() {
                self.reserved(&application, bytes);
            }
            let known = Known { secret: ticket.secret, application, function, state, attempts, bytes };
            self.put(ticket.call, known);
        }
    }

    /// Takes up room for a call that is about to be stored; to be followed by [`Self::enter`] or [`Self::release`].
    pub(super) fn reserve(&mut self, application: &str, bytes: usize) -> Result<(), NoRoom> {
        let limits = &self.limits;
        let share = self.shares.get(application).map(|share| share.unended).unwrap_or_default();
        if share.calls >= limits.waiting_max {
            return Err(NoRoom::Calls(limits.waiting_max));
        }
        if share.bytes + bytes > limits.waiting_bytes_max {
            return Err(NoRoom::Bytes);
        }
        let all = self.unended;
        if all.calls >= limits.waiting_of_all_max || all.bytes + bytes > limits.waiting_bytes_of_all_max {
            return Err(NoRoom::OfAll);
        }
        self.reserved(application, bytes);
        Ok(())
    }

    fn reserved(&mut self, application: &str, bytes: usize) {
        self.shares.entry(application.to_owned()).or_default().unended.add(bytes);
        self.unended.add(bytes);
    }

    /// Gives reserved room back: nothing was stored.
    pub(super) fn release(&mut self, application: &str, bytes: usize) {
        self.unended.take(bytes);
        if let Some(share) = self.shares.get_mut(application) {
            share.unended.take(bytes);
        }
        self.tidy(application);
    }

    /// A call for which there is room reserved is stored: it waits.
    pub(super) fn enter(
        &mut self,
        ticket: Ticket,
        application: &str,
        function: Option<&str>,
        bytes: usize,
        now: Instant,
    ) {
        let (application, function) = (application.to_owned(), function.map(str::to_owned));
        let state = State::Waiting(now);
        self.put(ticket.call, Known { secret: ticket.secret, application, function, state, attempts: 0, bytes });
    }

    /// Begins the calls that may begin now: the first of the application that has not had its turn for longest, again and again.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<CallId> {
        let mut begun = Vec::new();
        while self.under_way < self.limits.under_way_of_all_max {
            let under_way_max = self.limits.under_way_max;
            let may_begin = |share: &&mut Share| {
                share.under_way < under_way_max && share.waiting.first().is_some_and(|(from, _)| *from <= now)
            };
            let Some(share) = self.shares.values_mut().filter(may_begin).min_by_key(|share| share.turn) else { break };
            let Some((_, call)) = share.waiting.pop_first() else { break };
            self.turns += 1;
            share.turn = self.turns;
            share.under_way += 1;
            self.under_way += 1;
            if let Some(known) = self.calls.get_mut(&call) {
                known.state = State::UnderWay;
            }
            begun.push(call);
        }
        begun
    }

    /// When [`Self::begin`] has something to begin that it does not begin before, unless a call ends: `None`: nothing.
    pub(super) fn next_begin(&self) -> Option<Instant> {
        if self.under_way >= self.limits.under_way_of_all_max {
            return None;
        }
        let free = self.shares.values().filter(|share| share.under_way < self.limits.under_way_max);
        free.filter_map(|share| share.waiting.first().map(|(from, _)| *from)).min()
    }

    /// Attempts of a call that is under way, this one counted; `None` if it was forgotten meanwhile.
    pub(super) fn attempt(&self, call: CallId) -> Option<u32> {
        self.calls.get(&call).map(|known| known.attempts + 1)
    }

    pub(super) fn is_under_way(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|known| known.state == State::UnderWay)
    }

    /// Whose a call is.
    pub(super) fn owner(&self, call: CallId) -> Option<(Ticket, &str)> {
        self.calls.get(&call).map(|known| (Ticket { call, secret: known.secret }, known.application.as_str()))
    }

    /// A call that is under way has to be made again, not before then.
    pub(super) fn again(&mut self, call: CallId, attempts: u32, from: Instant) {
        self.change(call, |known| {
            known.attempts = attempts;
            known.state = State::Waiting(from);
        });
    }

    /// A call that is under way has ended: `Some` with the bytes of the answer, or it was given up.
    pub(super) fn end(&mut self, call: CallId, attempts: u32, answer_bytes: Option<usize>, ended_ms: u64) {
        self.change(call, |known| {
            known.attempts = attempts;
            known.bytes = answer_bytes.unwrap_or(known.bytes);
            known.state = if answer_bytes.is_some() { State::Done(ended_ms) } else { State::Dead(ended_ms) };
        });
    }

    /// A call that was given up waits again, in the room that was reserved for it.
    pub(super) fn replay(&mut self, call: CallId, now: Instant) {
        let Some(known) = self.take(call) else { return };
        self.put(call, Known { attempts: 0, state: State::Waiting(now), ..known });
    }

    /// Knows a call no more.
    pub(super) fn forget(&mut self, call: CallId) -> Option<Forgotten> {
        let known = self.take(call)?;
        self.tidy(&known.application);
        Some(Forgotten { ticket: Ticket { call, secret: known.secret }, application: known.application })
    }

    /// Forgets all calls of an application.
    pub(super) fn forget_application(&mut self, application: &str) -> Vec<Forgotten> {
        let of = |(call, known): (&CallId, &Known)| (known.application == application).then_some(*call);
        let calls: Vec<CallId> = self.calls.iter().filter_map(of).collect();
        calls.into_iter().filter_map(|call| self.forget(call)).collect()
    }

    /// Forgets what has been kept for long enough, and of each application the oldest of what is too much.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Forgotten> {
        let limits = &self.limits;
        let over = |share: &Share| {
            let done = share.done.over(limits.keep, limits, now_ms);
            done.into_iter().chain(share.dead.over(limits.keep_dead, limits, now_ms)).collect::<Vec<_>>()
        };
        let over: Vec<CallId> = self.shares.values().flat_map(over).collect();
        over.into_iter().filter_map(|call| self.forget(call)).collect()
    }

    /// Whether anything is kept that [`Self::expire`] will forget one day.
    pub(super) fn keeps(&self) -> bool {
        self.shares.values().any(|share| !share.done.by_age.is_empty() || !share.dead.by_age.is_empty())
    }

    /// What is known of a call of this application.
    pub(super) fn find(&self, application: &str, ticket: Ticket) -> Option<(AcceptedCall, AcceptedState)> {
        let known = self.calls.get(&ticket.call)?;
        if known.application != application || known.secret != ticket.secret {
            return None;
        }
        let state = match known.state {
            State::Waiting(_) => AcceptedState::Waiting,
            State::UnderWay => AcceptedState::UnderWay,
            State::Done(_) => AcceptedState::Done,
            State::Dead(_) => AcceptedState::Dead,
        };
        let ended = matches!(state, AcceptedState::Done | AcceptedState::Dead);
        Some((AcceptedCall { function: known.function.clone(), ended }, state))
    }

    /// Bytes of a call.
    pub(super) fn bytes(&self, call: CallId) -> usize {
        self.calls.get(&call).map_or(0, |known| known.bytes)
    }

    fn change(&mut self, call: CallId, change: impl FnOnce(&mut Known)) {
        let Some(mut known) = self.take(call) else { return };
        change(&mut known);
        if matches!(known.state, State::Waiting(_) | State::UnderWay) {
            self.reserved(&known.application, known.bytes);
        }
        let application = known.application.clone();
        self.put(call, known);
        self.tidy(&application);
    }

    /// Enters a call; where it has not ended, room for it has been reserved.
    fn put(&mut self, call: CallId, known: Known) {
        let share = self.shares.entry(known.application.clone()).or_default();
        match known.state {
            State::Waiting(from) => {
                share.waiting.insert((from, call));
            }
            State::UnderWay => {
                share.under_way += 1;
                self.under_way += 1;
            }
            State::Done(ended_ms) => share.done.put(ended_ms, call, known.bytes),
            State::Dead(ended_ms) => share.dead.put(ended_ms, call, known.bytes),
        }
        self.calls.insert(call, known);
    }

    /// Takes a call out, with all that it counts for.
    fn take(&mut self, call: CallId) -> Option<Known> {
        let known = self.calls.remove(&call)?;
        let share = self.shares.get_mut(&known.application)?;
        match known.state {
            State::Waiting(from) => {
                share.waiting.remove(&(from, call));
            }
            State::UnderWay => {
                share.under_way -= 1;
                self.under_way -= 1;
            }
            State::Done(ended_ms) => share.done.take(ended_ms, call, known.bytes),
            State::Dead(ended_ms) => share.dead.take(ended_ms, call, known.bytes),
        }
        if matches!(known.state, State::Waiting(_) | State::UnderWay) {
            share.unended.take(known.bytes);
            self.unended.take(known.bytes);
        }
        Some(known)
    }

    fn tidy(&mut self, application: &str) {
        let empty = |share: &Share| {
            let kept = share.done.by_age.len() + share.dead.by_age.len();
            kept + share.unended.calls == 0
        };
        if self.shares.get(application).is_some_and(empty) {
            self.shares.remove(application);
        }
    }

    /// Whether nothing is known, and nothing counted.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let counts = (self.unended, self.under_way) == (Amount::default(), 0);
        self.calls.is_empty() && self.shares.is_empty() && counts
    }
}

impl Kept {
    fn put(&mut self, ended_ms: u64, call: CallId, bytes: usize) {
        self.by_age.insert((ended_ms, call), bytes);
        self.bytes += bytes;
    }

    fn take(&mut self, ended_ms: u64, call: CallId, bytes: usize) {
        self.by_age.remove(&(ended_ms, call));
        self.bytes -= bytes;
    }

    /// Those that are not to be kept any longer: too old, or the oldest of too many or of too many bytes, but never the newest for that.
    fn over(&self, keep: Duration, limits: &AcceptedLimits, now_ms: u64) -> Vec<CallId> {
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let (mut calls, mut bytes) = (self.by_age.len(), self.bytes);
        let over = self.by_age.iter().take_while(|((ended_ms, _), of_call)| {
            let old = now_ms.saturating_sub(*ended_ms) >= keep_ms;
            let too_much = calls > 1 && (calls > limits.kept_max || bytes > limits.kept_bytes_max);
            calls -= 1;
            bytes -= **of_call;
            old || too_much
        });
        over.map(|((_, call), _)| *call).collect()
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
