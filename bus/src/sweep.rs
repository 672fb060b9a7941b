//! Recovery: what the supervisor does on the bus when an instance is dead.
//!
//! Everything follows from the state words of the messages that name the dead instance as their owner:
//!
//! | found | was | so |
//! |---|---|---|
//! | `Serving`, a request whose result was not sent | the call it died in | the caller gets an error, in that very message |
//! | `Serving`, otherwise | a request whose result is sent, or a reply it had read | free |
//! | `Forwarding`, not in its queue | a request it was about to hand on unchanged | as the first |
//! | `Draft`, or `Sending` and not in its queue | a message it was writing | free |
//! | `Sending` or `Forwarding`, in its queue | accepted | left alone |
//!
//! A sweep may itself be cut off after any instruction and run again: the error it sends belongs to the supervisor until it
//! is in its queue, and messages of the supervisor are swept like those of the dead.

use std::sync::atomic::Ordering;

use crate::bus::{Address, Bus, Destination, Draft, Taken};
use crate::clock::now_ns;
use crate::message::{Actor, Envelope, Kind, State, Stay, Verdict};
use crate::queue::Entry;
use crate::slot::Phase;

impl Bus {
    /// Cleans up after the instance of a slot, whose process is dead, and gives the slot back. The caller of the call it died
    /// in, if it did, gets `verdict` and `diagnostic`. Returns whether there was such a call.
    pub fn sweep(&self, slot: usize, verdict: Verdict, diagnostic: &str) -> bool {
        let state = self.slots()[slot].state();
        let mut cut_off = false;
        if state.is_none_or(|state| state.phase != Phase::Done) {
            cut_off = self.sweep_messages(Actor::instance(slot), verdict, diagnostic);
            self.sweep_messages(Actor::SUPERVISOR, verdict, diagnostic);
        }
        for function in 0..self.layout().geometry.functions {
            let chosen = !self.segment.queue(function).waiters().withdraw(slot);
            let was_waiting = state.is_some_and(|state| state.function == function && state.phase == Phase::Ready);
            if chosen && was_waiting && self.waiting(function) > 0 {
                // Somebody chose it to take a message, and it did not live to.
                self.wake(Destination::Function(function));
            }
        }
        while let Some(reply) = self.take(Actor::SUPERVISOR, Destination::Mailbox(slot)) {
            drop(reply);
        }
        self.slots()[slot].release();
        cut_off
    }

    fn sweep_messages(&self, actor: Actor, verdict: Verdict, diagnostic: &str) -> bool {
        let owned = |kinds: &'static [Kind]| {
            self.segment.messages().iter().enumerate().filter_map(move |(index, header)| {
                let state = header.state()?;
                (state.actor == actor && kinds.contains(&state.kind)).then_some((index, state))
            })
        };
        let mut cut_off = false;
        // The requests first: whether a result was sent is seen from the drafts that go next.
        for (index, state) in owned(&[Kind::Serving, Kind::Forwarding]) {
            if state.kind == Kind::Forwarding && self.is_queued(index, state) {
                continue;
            }
            let taken = Taken::new(self, Stay { index, generation: state.generation }, actor);
            let request = taken.envelope().verdict.is_none();
            if request && !self.result_was_sent(index, actor) {
                cut_off = true;
                self.answer_error(taken, verdict, diagnostic);
            }
        }
        for (index, state) in owned(&[Kind::Draft, Kind::Sending]) {
            if state.kind == Kind::Draft || !self.is_queued(index, state) {
                drop(Draft::new(self, Stay { index, generation: state.generation }, actor));
            }
        }
        cut_off
    }

    fn is_queued(&self, index: usize, state: State) -> bool {
        let known = state.queue < self.layout().geometry.queues();
        known && self.segment.queue(state.queue).contains(Entry::new(index, state.generation))
    }

    /// Whether the message in which the result of this request was to be handed over has left its sender.
    fn result_was_sent(&self, request: usize, actor: Actor) -> bool {
        let result = self.header_of(request).result.load(Ordering::Acquire);
        let Some(stay) = Stay::unpack(result) else { return false };
        let Some(header) = self.segment.messages().get(stay.index) else { return false };
        let Some(state) = header.state() else { return false };
        if state.generation != stay.generation || state.actor != actor {
            return true;
        }
        match state.kind {
            Kind::Sending => self.is_queued(stay.index, state),
            Kind::Draft | Kind::Free => false,
            Kind::Forwarding | Kind::Serving => true,
        }
    }

    /// Turns a request into the error its caller gets, in place.
    pub fn answer_error(&self, mut request: Taken<'_>, verdict: Verdict, diagnostic: &str) {
        let was = request.envelope();
        request.replace(diagnostic.as_bytes());
        let envelope = Envelope { verdict: Some(verdict), content_format: None, sent_ns: now_ns(), ..was };
        let to = self.way_back(was.reply_to);
        if let Some(to) = to {
            // A mailbox that is full belongs to an instance that no longer waits; the out queue has room for every
            // message there is.
            drop(request.forward(to, &envelope));
        }
    }

    /// Where a reply goes; `None` when the instance that waited for it is gone.
    #[must_use]
    pub fn way_back(&self, reply_to: Address) -> Option<Destination> {
        match reply_to {
            Address::Caller | Address::Log => Some(Destination::Out),
            Address::Instance { slot, generation } => {
                let state = self.slots().get(slot)?.state()?;
                (state.generation == generation).then_some(Destination::Mailbox(slot))
            }
        }
    }

    /// Whether nothing is under way: no instance serves a call and no message waits for a function.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let quiet = |phase| matches!(phase, Phase::Free | Phase::Ready);
        let functions = 0..self.layout().geometry.functions;
        self.slots().iter().all(|slot| slot.state().is_some_and(|state| quiet(state.phase)))
            && functions.into_iter().all(|function| self.waiting(function) == 0)
    }

    /// Gives the memory of free payload buffers back to the system, but for those of the smallest class.
    pub fn give_memory_back(&self) {
        let small = self.layout().messages_of(0).end;
        for (index, header) in self.segment.messages().iter().enumerate().skip(small) {
            let Some(free) = header.state().filter(|state| state.kind == Kind::Free) else { continue };
            let generation = free.generation.wrapping_add(1);
            let owned = State { kind: Kind::Draft, queue: 0, actor: Actor::SUPERVISOR, generation };
            // A message of generation 0 was never used, and holds no memory.
            if free.generation != 0 && header.swap_state(free, owned) {
                self.segment.drop_buffer(index);
                self.free(Stay { index, generation });
            }
        }
    }
}
