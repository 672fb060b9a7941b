//! Recovery: what the supervisor does on the bus when an instance is dead.
//!
//! Everything follows from the state words of the messages that name the dead instance as their owner:
//!
//! | found | was | so |
//! |---|---|---|
//! | `Serving`, a request whose result was not sent | the call it died in | the caller gets an error, in that very message |
//! | `Serving`, otherwise | a request whose result is sent, or a reply it had read | free |
//! | `Forwarding`, not in its queue | a request it was about to hand on or to answer, in place | as the first |
//! | `Draft`, or `Sending` and not in its queue | a message it was writing | free |
//! | `Sending` or `Forwarding`, in its queue | accepted | left alone |
//!
//! A sweep may itself be cut off after any instruction and run again: until the error it sends is in its queue, the message is
//! still found under the dead owner's name, as one that is being answered in place.

use crate::atomic::Ordering;
use crate::bus::{Bus, Destination};
use crate::clock::now_ns;
use crate::envelope::{Address, Envelope, Verdict};
use crate::hold::{Draft, Payload, Taken};
use crate::layout::{CLASSES, PAGE_BYTES};
use crate::message::{Actor, Kind, State, Stay};
use crate::queue::Entry;
use crate::slot::Phase;

impl Bus {
    /// Cleans up after the instance of a slot, whose process is dead, and gives the slot back. The caller of the call it died
    /// in, if it did, gets `verdict` and `diagnostic`. Returns whether there was such a call.
    pub fn sweep(&self, slot: usize, verdict: Verdict, diagnostic: &str) -> bool {
        // One that was done had nothing left in its hands, nor anybody left to wake.
        let cut_off = self.slots()[slot].state().is_none_or(|state| state.phase != Phase::Done);
        let an_earlier_sweep_was_cut_off = self.begin_sweep();
        if an_earlier_sweep_was_cut_off {
            self.sweep_messages(Actor::SUPERVISOR, verdict, diagnostic);
        }
        let died_in_a_call = cut_off && self.sweep_messages(Actor::instance(slot), verdict, diagnostic);
        for function in 0..self.layout().geometry.functions {
            self.segment.queue(function).waiters().forget(slot);
        }
        while let Some(reply) = self.take(Actor::SUPERVISOR, Destination::Mailbox(slot)) {
            drop(reply);
        }
        if cut_off || an_earlier_sweep_was_cut_off {
            for queue in 0..self.layout().geometry.queues() {
                self.segment.queue(queue).catch_up();
                self.clear_stale(queue);
            }
            self.wake_again();
        }
        self.slots()[slot].release();
        self.end_sweep();
        died_in_a_call
    }

    /// Says that the supervisor takes messages into its own hands; true if it had said so before, and not that it was done.
    fn begin_sweep(&self) -> bool {
        self.segment.header().sweeping.swap(1, Ordering::AcqRel) != 0
    }

    fn end_sweep(&self) {
        self.segment.header().sweeping.store(0, Ordering::Release);
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
            // Dropped without an answer, it is free.
            let taken = Taken::new(self, Stay { index, generation: state.generation }, actor, state.kind);
            let on_its_way = state.kind == Kind::Forwarding;
            let request = taken.envelope().verdict.is_none();
            if on_its_way || request && !self.result_was_sent(index, actor) {
                cut_off = true;
                self.answer_error(taken, verdict, diagnostic);
            }
        }
        for (index, state) in owned(&[Kind::Draft, Kind::Sending]) {
            if state.kind == Kind::Draft || !self.is_queued(index, state) {
                drop(Draft::new(self, Stay { index, generation: state.generation }, actor, state.kind));
            }
        }
        cut_off
    }

    /// Whether a message that a dead owner was sending, as its state was read, has been accepted. It may be taken, and its cell
    /// emptied, while we look for it: then its state is no longer what was read, as the state changes before the cell does.
    pub(crate) fn is_queued(&self, index: usize, state: State) -> bool {
        let known = state.queue < self.layout().geometry.queues();
        let queued = known && self.segment.queue(state.queue).contains(Entry::new(index, state.generation));
        queued || self.header_of(index).state() != Some(state)
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
    pub fn answer_error(&self, request: Taken<'_>, verdict: Verdict, diagnostic: &str) {
        let was = request.envelope();
        let envelope = Envelope { verdict: Some(verdict), content_format: None, sent_ns: now_ns(), ..was };
        let to = self.way_back(was.reply_to);
        if let Some(to) = to {
            // A mailbox that is full belongs to an instance that no longer waits; the out queue has room for every
            // message there is.
            drop(request.forward(Payload::Instead(diagnostic.as_bytes()), to, &envelope));
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

    /// Gives the memory of free payload buffers back to the system, page by page.
    pub fn give_memory_back(&self) {
        if self.begin_sweep() {
            self.sweep_messages(Actor::SUPERVISOR, Verdict::Failed, "");
        }
        let pool = self.segment.pool();
        for class in 0..CLASSES {
            let messages = self.layout().messages_of(class);
            let of_a_page = PAGE_BYTES.div_ceil(self.layout().class_bytes(class));
            for first in messages.clone().step_by(of_a_page) {
                let page = first..(first + of_a_page).min(messages.end);
                // Messages of generation 0 were never used, and hold no memory.
                let used = |index: usize| self.header_of(index).state().is_some_and(|state| state.generation != 0);
                if !page.clone().any(used) {
                    continue;
                }
                let owned: Vec<Stay> =
                    page.clone().map_while(|index| pool.claim_at(index, Actor::SUPERVISOR)).collect();
                if owned.len() == page.len() {
                    self.segment.drop_buffers(page);
                }
                for stay in owned {
                    pool.free(stay, Actor::SUPERVISOR, Kind::Draft);
                }
            }
        }
        self.end_sweep();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::{AgentSide, Catalogue, Function, Geometry, Layout, Segment};

    fn event() -> OwnedFd {
        std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap().into()
    }

    /// The bus, as a process of the sandbox and as the agent hold it.
    fn bus() -> (Bus, AgentSide) {
        let function = Function {
            name: "f".to_owned(),
            timeout_ns: 1,
            next: Vec::new(),
            ready: crate::Ready::exactly(1),
            content_format: None,
        };
        let geometry = Geometry {
            assured: [0; CLASSES],
            common: [4, 0, 0, 1],
            queue_capacity: 2,
            ..Geometry::usual(1, 4, 1 << 10)
        };
        let catalogue = Catalogue { functions: vec![function], ..Catalogue::default() };
        let (segment, fd) = Segment::create(Layout::new(geometry).unwrap(), &catalogue).unwrap();
        (Bus::attach(fd.as_fd(), event()).unwrap(), AgentSide::new(segment, event()))
    }

    fn envelope(call: u64) -> Envelope {
        Envelope {
            call,
            deadline_ns: u64::MAX,
            sent_ns: 0,
            reply_to: Address::Caller,
            content_format: None,
            verdict: None,
            function: 0,
            traced: false,
            hops: 0,
        }
    }

    /// A request that the instance in slot 1 has taken; its index and generation.
    fn serving((bus, agent): &(Bus, AgentSide), call: u64) -> Stay {
        agent.post(b"", &envelope(call)).unwrap();
        std::mem::forget(bus.take(Actor::instance(1), Destination::Function(0)).unwrap());
        let found = bus.segment.messages().iter().enumerate().find_map(|(index, header)| {
            let state = header.state()?;
            (state.kind == Kind::Serving).then_some(Stay { index, generation: state.generation })
        });
        found.unwrap()
    }

    fn set(header: &crate::message::MessageHeader, state: State) {
        header.state.store(state.pack(), Ordering::Relaxed);
    }

    fn answers(agent: &AgentSide) -> Vec<(u64, Option<Verdict>)> {
        let taken = std::iter::from_fn(|| agent.take().unwrap());
        taken.map(|received| (received.envelope.call, received.envelope.verdict)).collect()
    }

    fn all_free(bus: &Bus) -> bool {
        bus.segment.messages().iter().all(|header| header.state().unwrap().kind == Kind::Free)
    }

    /// The answer that an instance was writing in place when it died, at each step of the way to the queue.
    #[test]
    fn an_answer_cut_off_on_its_way_becomes_an_error() {
        for envelope_was_written in [false, true] {
            let both = bus();
            let Stay { index, generation } = serving(&both, 5);
            let (bus, agent) = both;
            let header = bus.header_of(index);
            let out = bus.layout().geometry.functions;
            set(header, State { kind: Kind::Forwarding, queue: out, actor: Actor::instance(1), generation });
            if envelope_was_written {
                header.write(&Envelope { verdict: Some(Verdict::Failed), ..envelope(5) });
            }
            assert!(bus.sweep(1, Verdict::Crashed, "died"));
            assert_eq!(answers(&agent), [(5, Some(Verdict::Crashed))]);
            assert!(all_free(&bus));
        }
    }

    #[test]
    fn a_result_on_its_way_but_in_no_queue_was_not_sent() {
        let both = bus();
        let request = serving(&both, 6);
        let (bus, agent) = both;
        let draft = bus.draft(Actor::instance(1), Destination::Out, 0).unwrap();
        std::mem::forget(draft);
        let (index, state) = bus
            .segment
            .messages()
            .iter()
            .enumerate()
            .find_map(|(index, header)| Some((index, header.state().filter(|state| state.kind == Kind::Draft)?)))
            .unwrap();
        let result = Stay { index, generation: state.generation };
        bus.header_of(request.index).result.store(result.pack(), Ordering::Release);
        set(bus.header_of(index), State { kind: Kind::Sending, queue: 1, ..state });
        assert!(bus.sweep(1, Verdict::Crashed, "died"));
        assert_eq!(answers(&agent), [(6, Some(Verdict::Crashed))]);
        assert!(all_free(&bus));
    }

    #[test]
    fn a_message_that_is_taken_during_the_sweep_is_its_takers() {
        let (bus, agent) = bus();
        let draft = bus.draft(Actor::instance(1), Destination::Function(0), 0).unwrap();
        let index = draft.hold.stay.index;
        draft.send(Destination::Function(0), &envelope(8)).unwrap();
        let as_the_sweep_read_it = bus.header_of(index).state().unwrap();
        let taken = bus.take(Actor::instance(2), Destination::Function(0)).unwrap();
        assert!(bus.is_queued(index, as_the_sweep_read_it));
        drop(taken);
        assert!(bus.is_queued(index, as_the_sweep_read_it));
        assert!(agent.take().unwrap().is_none());
    }

    /// The sender died between the push and the move of the tail: the message is accepted, and nobody else knows of it.
    #[test]
    fn a_message_that_its_dead_sender_told_nobody_of_wakes_who_waits() {
        let (bus, _agent) = bus();
        let draft = bus.draft(Actor::instance(1), Destination::Function(0), 0).unwrap();
        draft.send(Destination::Function(0), &envelope(9)).unwrap();
        bus.segment.queue(0).lag();
        assert_eq!(bus.waiting(0), 0);
        bus.segment.queue(0).waiters().announce(2);
        bus.sweep(1, Verdict::Crashed, "died");
        assert_eq!(bus.waiting(0), 1);
        assert!(!bus.is_waiting_for_call(2, 0), "it sleeps on beside a message");
    }

    #[test]
    fn a_result_that_found_its_queue_full_is_not_taken_for_another_message() {
        let both = bus();
        let request = serving(&both, 7);
        let (bus, agent) = both;
        for call in [100, 101] {
            agent.post(b"", &envelope(call)).unwrap();
        }
        let taken = Taken::new(&bus, request, Actor::instance(1), Kind::Serving);
        let draft = bus.draft(Actor::instance(1), Destination::Function(0), 0).unwrap();
        let (taken, draft) = taken.answer_with(draft, Destination::Function(0), &envelope(7)).unwrap_err();
        drop(draft);
        std::mem::forget(taken);
        // What was the draft is another's message by now.
        std::mem::forget(bus.draft(Actor::instance(2), Destination::Out, 0).unwrap());
        assert!(bus.sweep(1, Verdict::Crashed, "died"));
        assert_eq!(answers(&agent), [(7, Some(Verdict::Crashed))]);
    }
}
