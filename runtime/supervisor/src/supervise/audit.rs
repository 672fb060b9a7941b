//! Instances can write what they like to the segment: that they wait, that they are done, that they have all the time in the world, or that
//! their slot is free. Now and then the supervisor compares what is written there with what the kernel says, and with its own clock.
//!
//! | what a slot says | what is so | what is done |
//! |---|---|---|
//! | free | something runs as its user | it is killed |
//! | being forked, for long | – | what runs as its user is killed; nobody: it is freed |
//! | waits, runs or is done | nobody runs as its user | it is buried as one that died |
//! | runs | for longer than any function may | it is killed, as at its deadline |
//! | done, for long | it runs on | it is killed |
//! | waits, and so do messages, for long | it does not take them | all that say so are killed |
//!
//! So are the words of the segment that never change, and the event that wakes the agent, which nobody should fill: on damage, the sandbox
//! is ended and made again.
//!
//! An honest instance never meets any of this. One that lies lives no longer than [`PATIENCE`] or the application's longest time-out, or
//! until a message has waited [`STALL_MAX`], or, if it gives its slot away, until the next call that is served there has ended; meanwhile it
//! uses what its application may use.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sandbar_bus::clock::now_ns;
use sandbar_bus::slot::{Phase, SlotState};
use sandbar_bus::{Bus, Ready};

use super::Supervisor;
use crate::identity::{has_processes, instance_id, kill_user};

/// How often the supervisor compares, while it does not sleep for good.
const EVERY: Duration = Duration::from_millis(400);
/// How long a slot may say what is not so: longer than any honest instance takes between two of its words, on a busy machine.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long a fork may take.
const FORK_MAX: Duration = Duration::from_secs(10);
/// How long messages may wait for instances that say they wait for messages.
const STALL_MAX: Duration = Duration::from_secs(2);

/// After so long, no more instances of a function stand ready than the least, and as many as calls were served meanwhile: so a pool that has
/// grown with its calls is small again two windows after they are over.
const WINDOW: Duration = Duration::from_secs(3);

/// How much longer than its time-out an instance may seem to run, by the supervisor's clock.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

/// What the supervisor remembers from one comparison to the next.
#[derive(Debug)]
pub(super) struct Audit {
    /// By slot: what it said when it was first seen to say so.
    seen: Vec<Seen>,
    /// By function: since when messages and instances both wait.
    stalled_since: Vec<Option<Instant>>,
    again_at: Instant,
    /// By function: how many instances have ended that had served, and how many had when the window began.
    pub(super) served: Vec<u64>,
    served_before: Vec<u64>,
    window_from: Instant,
    /// What the segment said of itself before any code of the application ran.
    constants: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    state: Option<SlotState>,
    since: Instant,
}

impl Audit {
    pub(super) fn new(bus: &Bus, functions: usize) -> Self {
        let now = Instant::now();
        Self {
            constants: bus.constants(),
            seen: vec![Seen { state: None, since: now }; bus.slots().len()],
            stalled_since: vec![None; functions],
            again_at: now + EVERY,
            served: vec![0; functions],
            served_before: vec![0; functions],
            window_from: now,
        }
    }
}

impl Supervisor {
    /// Compares, if it is time; false if it is not.
    pub(super) fn audit(&mut self) -> bool {
        let now = Instant::now();
        if now < self.audit.again_at {
            return false;
        }
        self.audit.again_at = now + EVERY;
        for slot in 0..self.bus.slots().len() {
            self.audit_slot(slot, now);
        }
        let window = now.saturating_duration_since(self.audit.window_from);
        for function in 0..self.functions.len() {
            self.audit_queue(function, now);
            let served = self.audit.served[function] - self.audit.served_before[function];
            // Where it has slept meanwhile, the window says nothing.
            self.trim(function, (window >= WINDOW && window < WINDOW * 2).then_some(served));
        }
        if window >= WINDOW {
            self.audit.window_from = now;
            self.audit.served_before.clone_from(&self.audit.served);
        }
        true
    }

    /// What somebody inside has done, on purpose, to what all processes of the sandbox share: no call may be answered after that.
    pub(super) fn damage(&self) -> Option<&'static str> {
        if self.bus.constants() != self.audit.constants {
            return Some("somebody has overwritten the message memory");
        }
        // The agent never reads the event; filled, it makes who answers wait for ever.
        let mut event = [PollFd::new(self.outlets.out_event.as_fd(), PollFlags::POLLOUT)];
        let filled = poll(&mut event, PollTimeout::ZERO) == Ok(0);
        filled.then_some("somebody has filled the event that wakes the agent")
    }

    fn audit_slot(&mut self, slot: usize, now: Instant) {
        let state = self.bus.slots()[slot].state();
        let seen = &mut self.audit.seen[slot];
        if seen.state != state {
            *seen = Seen { state, since: now };
        }
        let age = now.saturating_duration_since(seen.since);
        if age < PATIENCE || self.is_dying(slot) {
            return;
        }
        let user = instance_id(slot);
        match state.map(|state| state.phase) {
            Some(Phase::Free) => {
                kill_user(user);
            }
            Some(Phase::Forking) if age < FORK_MAX => {}
            Some(Phase::Running) if age > self.longest_of(state) => {
                let ms = self.bus.slots()[slot].ran_for_ms(now_ns());
                if kill_user(user) {
                    self.overdue.entry(slot).or_insert(ms);
                } else {
                    self.instance_vanished(slot);
                }
            }
            Some(Phase::Ready | Phase::Running) if self.has_its_process(slot) => {}
            Some(Phase::Forking | Phase::Ready | Phase::Running | Phase::Done) | None => {
                let lies = !matches!(state.map(|state| state.phase), Some(Phase::Ready | Phase::Running));
                let somebody = if lies { kill_user(user) } else { has_processes(user) };
                if !somebody {
                    self.instance_vanished(slot);
                }
            }
        }
    }

    /// How long an instance may seem to run: as long as one of its function, or of any if its slot names none that there is.
    fn longest_of(&self, state: Option<SlotState>) -> Duration {
        let own = state.and_then(|state| self.functions.get(state.function)).map(|function| function.timeout);
        own.unwrap_or(self.timeout_max) + TIMEOUT_SLACK
    }

    /// Whether the process that the slot names is there. It need not be the slot's.
    fn has_its_process(&self, slot: usize) -> bool {
        let pid = self.bus.slots()[slot].pid.load(Ordering::Acquire);
        i32::try_from(pid).is_ok_and(|pid| pid > 1 && kill(Pid::from_raw(pid), None).is_ok())
    }

    /// Ends instances that were made for a burst, or for more calls than there are now, and have nothing to do. `served` is how many were
    /// served in the window, if that is over.
    fn trim(&mut self, function: usize, served: Option<u64>) {
        let idle = self.bus.idle_instances(function);
        let mut surplus = idle.saturating_sub(ready_most(self.ready[function], served));
        for slot in (0..self.bus.slots().len()).rev() {
            if surplus == 0 {
                return;
            }
            surplus -= usize::from(self.dismiss(function, slot));
        }
    }

    /// When to look again for instances that are to be ended, while nothing else keeps the supervisor awake.
    pub(super) fn trim_timeout(&self) -> Option<Duration> {
        let more = |(function, ready): (usize, &Ready)| self.bus.idle_instances(function) > ready.least;
        self.ready.iter().enumerate().any(more).then_some(EVERY)
    }

    fn audit_queue(&mut self, function: usize, now: Instant) {
        let both_wait = self.bus.waiting(function) > 0 && self.bus.idle_instances(function) > 0;
        let since = &mut self.audit.stalled_since[function];
        if !both_wait {
            *since = None;
            return;
        }
        if now.saturating_duration_since(*since.get_or_insert(now)) < STALL_MAX {
            return;
        }
        *since = None;
        for (slot, state) in self.bus.slots().iter().enumerate().map(|(slot, it)| (slot, it.state())) {
            if state.is_some_and(|state| state.phase == Phase::Ready && state.function == function) {
                kill_user(instance_id(slot));
            } else {
                self.bus.withdraw(function, slot);
            }
        }
        self.bus.worker_bell(function).ring();
    }
}

/// How many instances may stand ready: as many as calls that came of late, within the function's bounds.
fn ready_most(ready: Ready, served: Option<u64>) -> usize {
    let served = served.map_or(usize::MAX, |served| usize::try_from(served).unwrap_or(usize::MAX));
    ready.least.saturating_add(served).min(ready.most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_as_large_as_calls_came_of_late() {
        let ready = Ready { least: 1, most: 8 };
        assert_eq!([None, Some(100), Some(3), Some(0)].map(|served| ready_most(ready, served)), [8, 8, 4, 1]);
        assert_eq!(ready_most(Ready::exactly(4), Some(0)), 4);
        assert_eq!(ready_most(Ready::exactly(0), None), 0);
    }
}
