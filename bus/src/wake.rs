//! Waiting for messages, and waking who waits.
//!
//! 1. A message to a function wakes exactly one: an instance that waits, or else the worker, that makes one. An answer wakes the
//!    instance whose mailbox it is in, or the agent, if it waits.
//! 2. No wake-up is lost: who sends publishes, then looks who waits; who waits announces itself, then looks for a message. A
//!    fence between the two steps of each makes one see the other ([`crate::bell`] has the model).
//! 3. A sender that is killed between the two steps leaves a message nobody was woken for, or has chosen a waiter it did not ring. The
//!    sweep after it wakes those, and nobody else: [`Bus::wake_again`].
//! 4. An instance that is dismissed while it waits takes no message, and one that has taken a message is not dismissed (`crate::waiters`).

use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::atomic::{Ordering, fence};
use crate::bell::Bell;
use crate::bus::{Bus, Destination};
use crate::clock::now_ns;
use crate::envelope::Address;
use crate::hold::Taken;
use crate::message::Actor;
use crate::slot::Phase;

impl Bus {
    /// Messages that wait for a function; a hint.
    #[must_use]
    pub fn waiting(&self, function: usize) -> usize {
        self.segment.queue(function).len()
    }

    /// Instances that sleep until a message for this function comes; a hint.
    #[must_use]
    pub fn idle_instances(&self, function: usize) -> usize {
        self.segment.queue(function).waiters().count()
    }

    /// Whether this instance sleeps until a message for the function comes, and has not been chosen to take one.
    #[must_use]
    pub fn is_waiting_for_call(&self, slot: usize, function: usize) -> bool {
        self.segment.queue(function).waiters().contains(slot)
    }

    /// Takes a slot off the list of those that wait for messages of this function, whether anybody is there to look for them or not.
    pub fn withdraw(&self, function: usize, slot: usize) {
        self.segment.queue(function).waiters().clear(slot);
    }

    /// Sends an instance away that waits for a call of this function; true if it was still waiting: it holds no message then, and never
    /// will, and may be killed. For the supervisor.
    #[must_use]
    pub fn dismiss(&self, function: usize, slot: usize) -> bool {
        self.segment.queue(function).waiters().dismiss(slot)
    }

    /// What the worker of a function sleeps on.
    #[must_use]
    pub fn worker_bell(&self, function: usize) -> &Bell {
        &self.segment.function_entry(function).worker
    }

    /// How many instances have served and are not gone, while others serve, or are to serve what waits, and an eighth of the slots is free: what
    /// can wait does better to wait.
    #[must_use]
    pub fn lingering_while_serving(&self) -> Option<usize> {
        let count =
            |phase| self.slots().iter().filter(|slot| slot.state().is_some_and(|state| state.phase == phase)).count();
        let mut functions = 0..self.layout().geometry.functions;
        let serving = count(Phase::Running) > 0 || functions.any(|function| self.waiting(function) > 0);
        (serving && count(Phase::Free) * 8 > self.slots().len()).then(|| count(Phase::Done))
    }

    /// How many pages of memory those of one chain that linger may hold together.
    #[must_use]
    pub fn lingering_pages_max(&self) -> u64 {
        self.segment.header().lingering_pages_max.load(Ordering::Relaxed).into()
    }

    /// What instances that have handed on a chain stay asleep on, until that has come to its end; rung by who ends it.
    #[must_use]
    pub fn chain_ended(&self) -> &Bell {
        &self.segment.header().chain_ended
    }

    /// Says whether no instance of a function is to stand ready, until said otherwise. Its worker makes some for messages that wait even so.
    pub fn keep_none_ready(&self, function: usize, none: bool) {
        self.segment.function_entry(function).rests.store(u32::from(none), Ordering::Relaxed);
    }

    /// What was last said of that.
    #[must_use]
    pub fn keeps_none_ready(&self, function: usize) -> bool {
        self.segment.function_entry(function).rests.load(Ordering::Relaxed) != 0
    }

    /// Wakes exactly one who can take what was just published.
    pub(crate) fn wake(&self, to: Destination) {
        fence(Ordering::SeqCst);
        match to {
            Destination::Function(function) => match self.segment.queue(function).waiters().choose() {
                Some(slot) => self.wake_instance(slot),
                None => self.worker_bell(function).ring(),
            },
            Destination::Mailbox(slot) => self.wake_instance(slot),
            // The flag stays until the agent is up: a sender that is stopped between look and write holds nobody up.
            Destination::Out => {
                if self.segment.header().sleepers.agent.load(Ordering::Relaxed) != 0 {
                    self.write_event();
                }
            }
        }
    }

    fn wake_instance(&self, slot: usize) {
        if let Some(slot) = self.slots().get(slot) {
            slot.bell.ring();
        }
    }

    #[allow(unsafe_code, reason = "a write to a descriptor, from memory of ours")]
    fn write_event(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the bytes are ours and as long as said. A failure can only mean that the counter is at its limit, and then
        // the agent has been woken.
        unsafe { libc::write(self.out_event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Wakes whoever a process that is dead was about to wake.
    pub(crate) fn wake_again(&self) {
        let functions = self.layout().geometry.functions;
        for (index, slot) in self.slots().iter().enumerate() {
            let Some(state) = slot.state() else { continue };
            let chosen = state.phase == Phase::Ready
                && state.function < functions
                && !self.is_waiting_for_call(index, state.function);
            let has_mail = state.phase == Phase::Running && self.mail_of(index) > 0;
            if chosen || has_mail {
                slot.bell.ring();
            }
        }
        for function in 0..functions {
            // Each wakes one, who takes one message; as many as there are.
            for _ in 0..self.waiting(function) {
                self.wake(Destination::Function(function));
            }
        }
        self.write_event();
    }

    fn mail_of(&self, slot: usize) -> usize {
        self.index_of(Destination::Mailbox(slot)).map_or(0, |queue| self.segment.queue(queue).len())
    }

    /// Waits for a message to the instance's function and takes it; `None` if the instance is to end instead, as it was
    /// [dismissed](Self::dismiss).
    #[must_use]
    pub fn wait_for_call(&self, slot_index: usize, function: usize) -> Option<Taken<'_>> {
        let actor = Actor::instance(slot_index);
        let from = Destination::Function(function);
        let queue = self.segment.queue(function);
        let slot = &self.slots()[slot_index];
        let spin_ns = self.segment.header().spin_ns.load(Ordering::Relaxed);
        loop {
            if let Some(taken) = self.take(actor, from) {
                return Some(taken);
            }
            let heard = slot.bell.listen();
            queue.waiters().announce(slot_index);
            // Only now: until it can be chosen, the worker counts on it as one that is on its way.
            slot.ready();
            fence(Ordering::SeqCst);
            if queue.front().is_none() {
                slot.bell.sleep(heard, spin_ns, None);
            }
            // Whether it was chosen or not: it looks now, and is neither to be chosen nor dismissed from here on.
            if !queue.waiters().come_off(slot_index) {
                // It may have been chosen before it was to go.
                if queue.front().is_some() {
                    self.wake(from);
                }
                return None;
            }
        }
    }

    /// Waits for a reply to this instance, of this generation of its slot, until the deadline.
    #[must_use]
    pub fn wait_for_reply(&self, slot_index: usize, generation: u32, deadline_ns: u64) -> Option<Taken<'_>> {
        let here = Address::Instance { slot: slot_index, generation };
        let actor = Actor::instance(slot_index);
        let slot = &self.slots()[slot_index];
        let spin_ns = self.segment.header().spin_ns.load(Ordering::Relaxed);
        loop {
            let heard = slot.bell.listen();
            fence(Ordering::SeqCst);
            while let Some(taken) = self.take(actor, Destination::Mailbox(slot_index)) {
                if taken.envelope().reply_to == here {
                    return Some(taken);
                }
            }
            let left = deadline_ns.checked_sub(now_ns()).filter(|left| *left > 0)?;
            slot.bell.sleep(heard, spin_ns.min(left), Some(Duration::from_nanos(left)));
        }
    }

    /// Says that the supervisor is about to sleep until somebody wakes it, or has woken up.
    pub fn supervisor_sleeps(&self, asleep: bool) {
        self.segment.header().sleepers.supervisor.store(u32::from(asleep), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }
}
