//! The host agent's side of an application bus, which trusts nothing it reads there.
//!
//! Everybody in the sandbox can write anything anywhere in the segment, at any time. So here
//!
//! 1. offsets follow from the agent's own layout, never from what the segment says;
//! 2. each field is read once, into a value of the agent's own, and checked before it is used;
//! 3. payloads are copied out before anybody looks at them: what is handed on does not change any more;
//! 4. every loop is bounded, and the agent never sleeps on a word of the segment;
//! 5. which application a message comes from is known from the segment it lies in, and nothing else.
//!
//! What no honest process can have written is [`Corrupt`]: the sandbox is ended and made again. What one can have written but is
//! wrong (an answer to a call that is none, an empty queue that should not be) harms the application's own calls, which
//! end by their deadline.

use std::os::fd::OwnedFd;

use crate::atomic::{Ordering, fence};
use crate::bus::{Bus, Destination};
use crate::envelope::{Address, Envelope};
use crate::hold::Draft;
use crate::layout::{Geometry, Layout};
use crate::message::{Actor, MessageHeader, Stay};
use crate::properties::PROPERTIES_BYTES_MAX;
use crate::segment::Segment;
use crate::slot::Phase;

/// An application bus, as the host agent holds it.
#[derive(Debug)]
pub struct AgentSide {
    bus: Bus,
}

/// The segment says what no honest process can have written; what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl std::fmt::Display for Corrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the application's message memory makes no sense: {}", self.0)
    }
}

impl std::error::Error for Corrupt {}

/// Why a message was not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// All buffers that such a message may have are taken.
    NoBuffer,
    /// The queue it was for is full.
    QueueFull,
    /// See [`Corrupt`].
    Corrupt(Corrupt),
}

/// A message that came out of the sandbox: a copy, the agent's own.
#[derive(Debug)]
pub struct Received {
    /// What it says of itself: an allegation. Without a verdict it is a request to another application.
    pub envelope: Envelope,
    /// What was said of it, encoded: no longer than [`PROPERTIES_BYTES_MAX`].
    pub properties: Vec<u8>,
    /// Its payload, no longer than the layout allows.
    pub payload: Vec<u8>,
}

impl AgentSide {
    /// Holds a segment that the agent has just made, with the event that it waits for.
    #[must_use]
    pub fn new(segment: Segment, out_event: OwnedFd) -> Self {
        Self { bus: Bus::new(segment, out_event) }
    }

    /// The segment's layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.bus.layout()
    }

    /// Hands a request to a function.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn post(&self, payload: &[u8], envelope: &Envelope) -> Result<(), PostError> {
        self.post_with(&[], payload, envelope)
    }

    /// As [`post`](Self::post), with encoded [properties](crate::properties).
    ///
    /// # Errors
    /// Likewise.
    pub fn post_with(&self, properties: &[u8], payload: &[u8], envelope: &Envelope) -> Result<(), PostError> {
        self.send(properties, payload, Destination::Function(envelope.function), envelope)
    }

    /// Hands a reply to the instance that waits for it, if it still does.
    ///
    /// # Errors
    /// When there is no room for it. The address is as it came out of the sandbox: one that leads nowhere costs nothing.
    pub fn reply(&self, payload: &[u8], envelope: &Envelope) -> Result<(), PostError> {
        let Address::Instance { slot, generation } = envelope.reply_to else { return Ok(()) };
        let waits = |state: crate::slot::SlotState| state.generation == generation && state.phase == Phase::Running;
        let waiting = self.bus.slots().get(slot).and_then(crate::slot::InstanceSlot::state).is_some_and(waits);
        if waiting { self.send(&[], payload, Destination::Mailbox(slot), envelope) } else { Ok(()) }
    }

    fn send(&self, properties: &[u8], payload: &[u8], to: Destination, envelope: &Envelope) -> Result<(), PostError> {
        let party = self.bus.party_of(to);
        let claimed = self.bus.segment.pool().claim(Actor::AGENT, party, properties.len() + payload.len());
        let stay = claimed.map_err(|_| PostError::Corrupt(Corrupt("a message is in a state that does not exist")))?;
        let stay = stay.ok_or(PostError::NoBuffer)?;
        let mut draft = Draft::begin(&self.bus, stay, Actor::AGENT, properties, payload.len());
        draft.write(payload);
        draft.send(to, envelope).map_err(|_draft| PostError::QueueFull)
    }

    /// The oldest message that has come out, if there is one.
    ///
    /// # Errors
    /// See [`Corrupt`].
    pub fn take(&self) -> Result<Option<Received>, Corrupt> {
        let queue_index = self.bus.layout().geometry.functions;
        let queue = self.bus.segment.queue(queue_index);
        for _ in 0..self.bus.turns_max() {
            let Some(front) = queue.front() else { return Ok(None) };
            let header = self.bus.segment.messages().get(front.entry.index);
            let header = header.ok_or(Corrupt("an entry of the queue out names a message that does not exist"))?;
            let state = header.state().ok_or(Corrupt("a message is in a state that does not exist"))?;
            let fresh = front.entry.is_of(state.generation) && state.is_bound_for(queue_index);
            if !fresh {
                // The agent alone takes from this queue, so that nothing in it can be stale.
                return Err(Corrupt("an entry of the queue out names a message that was not sent there"));
            }
            let taken = self.bus.take_fresh(front.entry.index, state, Actor::AGENT);
            queue.clear(front);
            if taken.is_some() {
                // Copied, then free by the drop of `taken`.
                let stay = Stay { index: front.entry.index, generation: state.generation.wrapping_add(1) };
                return self.receive(header, stay).map(Some);
            }
        }
        Err(Corrupt("the queue out has no end"))
    }

    fn receive(&self, header: &MessageHeader, stay: Stay) -> Result<Received, Corrupt> {
        let envelope = header.read().map_err(|_| Corrupt("a message has a verdict that does not exist"))?;
        let properties_len = header.properties.load(Ordering::Relaxed) as usize;
        if properties_len > PROPERTIES_BYTES_MAX {
            return Err(Corrupt("a message has more properties than a message may"));
        }
        let len = header.len.load(Ordering::Relaxed) as usize;
        if len > self.layout().geometry.payload_bytes_max {
            return Err(Corrupt("a payload reaches beyond its buffer"));
        }
        let start = header.start.load(Ordering::Relaxed) as usize;
        Ok(Received {
            envelope,
            properties: self.copy(stay, 0, properties_len)?,
            payload: self.copy(stay, start, len)?,
        })
    }

    /// A part of a message's buffer.
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    fn copy(&self, stay: Stay, start: usize, len: usize) -> Result<Vec<u8>, Corrupt> {
        let (buffer, capacity) = self.bus.segment.buffer(stay.index);
        if start.checked_add(len).is_none_or(|end| end > capacity) {
            return Err(Corrupt("a payload reaches beyond its buffer"));
        }
        let mut copy: Vec<u8> = Vec::with_capacity(len);
        // SAFETY: `start` is within the buffer, as was just checked.
        let from = unsafe { buffer.add(start) };
        // SAFETY: the source lies within the mapping, which cannot shrink; the target has room for `len` bytes. A hostile
        // process may write meanwhile: the memory model does not define what is then read, the processor does, and no
        // value is impossible for a byte.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), copy.as_mut_ptr(), len) };
        // SAFETY: these bytes were just written.
        unsafe { copy.set_len(len) };
        Ok(copy)
    }

    /// Messages that wait for functions, as the segment says: no more than its queues hold.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let Geometry { functions, queue_capacity, .. } = self.layout().geometry;
        (0..functions).map(|function| self.bus.waiting(function).min(queue_capacity)).sum()
    }

    /// Says that the agent is about to wait for its event, or has been woken. To be followed by one more [`take`](Self::take).
    pub fn sleeps(&self, asleep: bool) {
        self.bus.segment.header().sleepers.agent.store(u32::from(asleep), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the supervisor must be woken for what was just sent; true for one of those who ask.
    #[must_use]
    pub fn supervisor_must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        let asleep = &self.bus.segment.header().sleepers.supervisor;
        asleep.load(Ordering::SeqCst) != 0 && asleep.swap(0, Ordering::SeqCst) != 0
    }

    /// Whether nothing is under way, as far as the segment tells.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.bus.is_idle()
    }
}
