//! An instance slot: what the sandbox knows of one instance.
//!
//! ```text
//!          worker: CAS            instance            instance             instance
//!   ┌──────┐ reserve  ┌─────────┐  ready   ┌───────┐   serve   ┌─────────┐  finish  ┌──────┐
//!   │ Free │ ───────▶ │ Forking │ ───────▶ │ Ready │ ────────▶ │ Running │ ───────▶ │ Done │
//!   └──────┘          └─────────┘          └───────┘           └─────────┘          └──────┘
//!      ▲                   │                   │                    │                  │
//!      └───────────────────┴───────────────────┴────────────────────┴──────────────────┘
//!                        supervisor: release, once the process is dead and swept
//!                        (one that was Done but had forked: back to Running first, disbelieve)
//! ```
//!
//! The generation grows with each release, so that a reply to an instance that is gone is not taken for one to its
//! successor in the slot.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::bell::Bell;
use crate::layout::FUNCTIONS_MAX;

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No instance.
    Free = 0,
    /// A worker has reserved the slot and is making the process.
    Forking = 1,
    /// The instance waits for its call.
    Ready = 2,
    /// The instance serves its call.
    Running = 3,
    /// The instance has handed its result over and is about to exit.
    Done = 4,
}

/// The slot's state word, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Where the instance is in its life.
    pub phase: Phase,
    /// The function it is of.
    pub function: usize,
    /// Which of the slot's instances it is.
    pub generation: u32,
}

impl SlotState {
    fn pack(self) -> u64 {
        (self.phase as u64) << 56 | (self.function as u64 & 0xFF) << 32 | u64::from(self.generation)
    }

    fn unpack(word: u64) -> Option<Self> {
        let phase = match word >> 56 {
            0 => Phase::Free,
            1 => Phase::Forking,
            2 => Phase::Ready,
            3 => Phase::Running,
            4 => Phase::Done,
            _ => return None,
        };
        let function = (word >> 32 & 0xFF) as usize;
        (function < FUNCTIONS_MAX).then_some(Self { phase, function, generation: (word & 0xFFFF_FFFF) as u32 })
    }
}

/// A slot in the segment.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct InstanceSlot {
    state: AtomicU64,
    /// Until when the instance may run, in nanoseconds of `CLOCK_MONOTONIC`.
    deadline_ns: AtomicU64,
    /// When it took its call, likewise.
    began_ns: AtomicU64,
    /// What the instance sleeps on.
    pub(crate) bell: Bell,
    /// The process id in the sandbox; written by the kernel as the process is made.
    pub pid: AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<InstanceSlot>() == 64);
    assert!(offset_of!(InstanceSlot, state) == 0);
    assert!(offset_of!(InstanceSlot, bell) == 24);
    assert!(offset_of!(InstanceSlot, pid) == 28);
};

impl InstanceSlot {
    /// The state word, read once; `None` if somebody scribbled.
    pub fn state(&self) -> Option<SlotState> {
        SlotState::unpack(self.state.load(Ordering::Acquire))
    }

    /// Reserves a free slot for an instance of this function. Only one of several that try succeeds.
    pub(crate) fn reserve(&self, function: usize) -> Option<u32> {
        let free = self.state().filter(|state| state.phase == Phase::Free)?;
        let forking = SlotState { phase: Phase::Forking, function, ..free };
        let swapped = self.state.compare_exchange(free.pack(), forking.pack(), Ordering::AcqRel, Ordering::Relaxed);
        swapped.is_ok().then_some(free.generation)
    }

    fn store(&self, phase: Phase) {
        if let Some(state) = self.state() {
            self.state.store(SlotState { phase, ..state }.pack(), Ordering::Release);
        }
    }

    /// The instance says that it waits for its call.
    pub fn ready(&self) {
        self.store(Phase::Ready);
    }

    /// The instance says that it has its call, and until when it may run.
    pub fn serve(&self, now_ns: u64, deadline_ns: u64) {
        self.began_ns.store(now_ns, Ordering::Relaxed);
        self.deadline_ns.store(deadline_ns, Ordering::Relaxed);
        self.store(Phase::Running);
    }

    /// The instance says that nothing is left for it to do.
    pub fn finish(&self) {
        self.store(Phase::Done);
    }

    /// The supervisor has seen that the instance did not end as it said: by a signal, or with processes that it had forked, each of which
    /// could say that it was done. The sweep is then to look at everything.
    pub fn disbelieve(&self) {
        self.store(Phase::Running);
    }

    /// Until when the instance may run, while it does.
    pub fn deadline_ns(&self) -> Option<u64> {
        let running = self.state().is_some_and(|state| state.phase == Phase::Running);
        running.then(|| self.deadline_ns.load(Ordering::Relaxed))
    }

    /// How long ago the instance took its call, in milliseconds.
    pub fn ran_for_ms(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.began_ns.load(Ordering::Relaxed)) / 1_000_000
    }

    /// The supervisor gives the slot back, whatever state its dead instance left.
    pub fn release(&self) {
        let generation = (self.state.load(Ordering::Acquire) & 0xFFFF_FFFF) as u32;
        self.pid.store(0, Ordering::Relaxed);
        let free = SlotState { phase: Phase::Free, function: 0, generation: generation.wrapping_add(1) };
        self.state.store(free.pack(), Ordering::Release);
    }
}
