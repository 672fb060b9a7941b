//! A message: its header in the segment, and the one word that says who owns it.
//!
//! # The state word
//!
//! ```text
//!  63    60 59        46 45        32 31                     0
//! ┌────────┬────────────┬────────────┬────────────────────────┐
//! │  kind  │   queue    │   actor    │      generation        │
//! └────────┴────────────┴────────────┴────────────────────────┘
//!
//!              Pool::claim: CAS, generation + 1
//!   ┌──────┐ ────────────────────────────────▶ ┌──────────┐
//!   │ Free │                                   │ Draft(a) │
//!   └──────┘ ◀──────────────────────────────── └──────────┘
//!      ▲            Draft::drop                  │       ▲
//!      │                             Draft::send │       │ (the queue was full)
//!      │ Taken::drop                             ▼       │
//!   ┌────────────┐ Bus::take: CAS, generation + 1 ┌──────────────┐
//!   │ Serving(b) │ ◀───────────────────────────── │ Sending(a,q) │
//!   └────────────┘                                └──────────────┘
//!     │   ▲   ▲    Bus::take: CAS, generation + 1 ┌─────────────────┐
//!     │   │   └────────────────────────────────── │ Forwarding(b,q) │
//!     │   └────────────────────────────────────── └─────────────────┘
//!     │             (the queue was full)                  ▲
//!     └───────────────────────────────────────────────────┘
//!       Taken::forward; Bus::answer_error, also by the supervisor's Bus::sweep in the name of a dead b
//! ```
//!
//! Every transition is one compare-and-swap. One out of `Draft`, `Serving` or an unqueued `Sending`/`Forwarding` is made by the
//! owner alone, or by the supervisor once the owner is dead; one that several may try (`claim`, `take`) is the commit point of its
//! operation. A message in `Sending` or `Forwarding` is *accepted* from the moment a cell of the queue
//! names its index and generation; before that it still belongs to its sender.
//!
//! The generation makes each stay in a queue distinct, so that a cell left behind by a taker that was killed is known
//! to be stale, for good.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::envelope::{Address, Envelope, Verdict};

/// Who may own a message: an instance, by its slot, or one of the two that are not instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor(u16);

impl Actor {
    /// The host agent.
    pub const AGENT: Self = Self(0x3FFF);
    /// The supervisor, PID 1 of the sandbox.
    pub const SUPERVISOR: Self = Self(0x3FFE);

    /// The instance in this slot.
    #[must_use]
    pub fn instance(slot: usize) -> Self {
        debug_assert!(slot < crate::layout::SLOTS_MAX);
        Self(u16::try_from(slot & 0xFF).unwrap_or(0))
    }
}

/// What a message is being used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Free = 0,
    Draft = 1,
    Sending = 2,
    Forwarding = 3,
    Serving = 4,
}

/// The state word, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) kind: Kind,
    pub(crate) queue: usize,
    pub(crate) actor: Actor,
    pub(crate) generation: u32,
}

impl State {
    pub(crate) fn pack(self) -> u64 {
        (self.kind as u64) << 60
            | (self.queue as u64 & 0x3FFF) << 46
            | u64::from(self.actor.0 & 0x3FFF) << 32
            | u64::from(self.generation)
    }

    /// `None` for a kind that does not exist: somebody scribbled.
    pub(crate) fn unpack(word: u64) -> Option<Self> {
        let kind = match word >> 60 {
            0 => Kind::Free,
            1 => Kind::Draft,
            2 => Kind::Sending,
            3 => Kind::Forwarding,
            4 => Kind::Serving,
            _ => return None,
        };
        let queue = (word >> 46 & 0x3FFF) as usize;
        let actor = Actor((word >> 32 & 0x3FFF) as u16);
        Some(Self { kind, queue, actor, generation: (word & 0xFFFF_FFFF) as u32 })
    }

    fn is_held(self, stay: Stay, actor: Actor, kind: Kind) -> bool {
        self.kind == kind && self.actor == actor && self.generation == stay.generation
    }

    /// Whether the message is on its way to this queue, or in it.
    pub(crate) fn is_bound_for(self, queue: usize) -> bool {
        matches!(self.kind, Kind::Sending | Kind::Forwarding) && self.queue == queue
    }
}

/// Names one stay of a message with one owner: its index and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stay {
    pub(crate) index: usize,
    pub(crate) generation: u32,
}

impl Stay {
    /// Never 0, so that 0 can stand for "none".
    pub(crate) fn pack(self) -> u64 {
        (self.index as u64 + 1) << 32 | u64::from(self.generation)
    }

    pub(crate) fn unpack(word: u64) -> Option<Self> {
        let index = (word >> 32).checked_sub(1)?;
        Some(Self { index: usize::try_from(index).ok()?, generation: (word & 0xFFFF_FFFF) as u32 })
    }
}

/// A message's header. Every field but the state is written by the owner before it sends, and stays while the message is
/// in a queue.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct MessageHeader {
    pub(crate) state: AtomicU64,
    /// The call this message belongs to.
    pub(crate) call: AtomicU64,
    /// When the call must be over, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) deadline_ns: AtomicU64,
    /// When the message was sent, likewise.
    pub(crate) sent_ns: AtomicU64,
    /// Where the result goes: a packed [`Address`].
    pub(crate) reply_to: AtomicU64,
    /// While the message is served: the packed [`Stay`] of the message its result is handed over in, or 0.
    pub(crate) result: AtomicU64,
    /// Payload bytes.
    pub(crate) len: AtomicU32,
    /// Where in the buffer the payload starts, in bytes: not 0 when a part of a message is handed on.
    pub(crate) start: AtomicU32,
    /// CoAP Content-Format of the payload; [`NO_FORMAT`] for none.
    pub(crate) content_format: AtomicU32,
    /// What the message says: a [`Verdict`] code, 0 for a request.
    pub(crate) verdict: AtomicU32,
    /// The function that the message is for or, if it is an answer, that gave it.
    pub(crate) function: AtomicU32,
    /// Bit 0: the call is traced.
    pub(crate) flags: AtomicU32,
    /// Functions the call has passed through by `next` or by calls.
    pub(crate) hops: AtomicU32,
    /// Bytes of its [properties](crate::properties), at the start of the buffer, before the payload.
    pub(crate) properties: AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<MessageHeader>() == 128);
    assert!(offset_of!(MessageHeader, state) == 0);
    assert!(offset_of!(MessageHeader, reply_to) == 32);
    assert!(offset_of!(MessageHeader, len) == 48);
    assert!(offset_of!(MessageHeader, verdict) == 60);
    assert!(offset_of!(MessageHeader, hops) == 72);
    assert!(offset_of!(MessageHeader, properties) == 76);
};

/// A word that no honest process wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scribbled;

/// Stands for "no content format" in a header.
pub(crate) const NO_FORMAT: u32 = u32::MAX;
pub(crate) const FLAG_TRACED: u32 = 1;

impl MessageHeader {
    /// The state word, read once.
    pub(crate) fn state(&self) -> Option<State> {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    /// A change by the owner, of a message that it holds as `kind`: the state that was left, or `None` if the owner's hold is
    /// over. That is never so for an honest owner, but a function may have forked, and both answer: the second does nothing.
    pub(crate) fn change(
        &self,
        stay: Stay,
        actor: Actor,
        kind: Kind,
        to: impl FnOnce(State) -> State,
    ) -> Option<State> {
        let from = self.state().filter(|state| state.is_held(stay, actor, kind))?;
        self.swap_state(from, to(from)).then_some(from)
    }

    /// Whether its owner still holds it, as `kind`.
    pub(crate) fn is_held(&self, stay: Stay, actor: Actor, kind: Kind) -> bool {
        self.state().is_some_and(|state| state.is_held(stay, actor, kind))
    }

    /// The one compare-and-swap.
    pub(crate) fn swap_state(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl MessageHeader {
    pub(crate) fn write(&self, envelope: &Envelope) {
        let relaxed = Ordering::Relaxed;
        self.call.store(envelope.call, relaxed);
        self.deadline_ns.store(envelope.deadline_ns, relaxed);
        self.sent_ns.store(envelope.sent_ns, relaxed);
        self.reply_to.store(envelope.reply_to.pack(), relaxed);
        self.result.store(0, relaxed);
        self.content_format.store(envelope.content_format.map_or(NO_FORMAT, u32::from), relaxed);
        self.verdict.store(envelope.verdict.map_or(0, |verdict| verdict as u32), relaxed);
        self.function.store(u32::try_from(envelope.function).unwrap_or(u32::MAX), relaxed);
        self.flags.store(if envelope.traced { FLAG_TRACED } else { 0 }, relaxed);
        self.hops.store(envelope.hops, relaxed);
    }

    /// Reads each field once. Values are as the sender wrote them: an allegation, for the host agent.
    ///
    /// # Errors
    /// When there is no such verdict.
    pub(crate) fn read(&self) -> Result<Envelope, Scribbled> {
        match self.verdict.load(Ordering::Relaxed) {
            0 => Ok(self.read_as(None)),
            code => Ok(self.read_as(Some(Verdict::from_code(code).ok_or(Scribbled)?))),
        }
    }

    /// Reads each field once but the verdict, which is given.
    pub(crate) fn read_as(&self, verdict: Option<Verdict>) -> Envelope {
        let relaxed = Ordering::Relaxed;
        Envelope {
            call: self.call.load(relaxed),
            deadline_ns: self.deadline_ns.load(relaxed),
            sent_ns: self.sent_ns.load(relaxed),
            reply_to: Address::unpack(self.reply_to.load(relaxed)),
            content_format: u16::try_from(self.content_format.load(relaxed)).ok(),
            verdict,
            function: self.function.load(relaxed) as usize,
            traced: self.flags.load(relaxed) & FLAG_TRACED != 0,
            hops: self.hops.load(relaxed),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_state_word_keeps_every_field() {
        for kind in [Kind::Free, Kind::Draft, Kind::Sending, Kind::Forwarding, Kind::Serving] {
            for actor in [Actor::instance(0), Actor::instance(255), Actor::AGENT, Actor::SUPERVISOR] {
                let state = State { kind, queue: 0x1234, actor, generation: 0xDEAD_BEEF };
                assert_eq!(State::unpack(state.pack()), Some(state));
            }
        }
        assert_eq!(State::unpack(u64::MAX), None);
    }

    #[test]
    fn a_stay_is_never_taken_for_none() {
        let stay = Stay { index: 0, generation: 0 };
        assert_ne!(stay.pack(), 0);
        assert_eq!(Stay::unpack(stay.pack()), Some(stay));
        assert_eq!(Stay::unpack(0), None);
    }
}
