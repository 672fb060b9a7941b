//! A message in somebody's hands: one that is being written, or one that was taken.

use std::ops::Range;

use crate::atomic::Ordering;
use crate::bus::{Bus, Destination, Refused};
use crate::envelope::{Envelope, Verdict};
use crate::message::{Actor, Kind, Scribbled, Stay};

/// A message being written. Dropped, it is free again.
#[derive(Debug)]
pub struct Draft<'a> {
    bus: &'a Bus,
    pub(crate) hold: Hold,
}

/// A message that was taken, and belongs to the taker until it is sent on or dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    bus: &'a Bus,
    hold: Hold,
}

/// A message in somebody's hands: which stay of it, whose, and as what: a draft, something being served, or whatever a dead owner
/// left it as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) stay: Stay,
    pub(crate) actor: Actor,
    pub(crate) kind: Kind,
}

/// What a message that is handed on carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'p> {
    /// What it came with. No byte moves.
    Unchanged,
    /// A part of what it came with, in bytes from its start; what is beyond the end is cut off. No byte moves.
    Part(Range<usize>),
    /// Other bytes, which must fit the buffer: what does not is cut off.
    Instead(&'p [u8]),
}

impl<'a> Draft<'a> {
    pub(crate) fn new(bus: &'a Bus, stay: Stay, actor: Actor, kind: Kind) -> Self {
        Self { bus, hold: Hold { stay, actor, kind } }
    }

    /// A message that was just claimed, with these properties, and a payload of `len` bytes to be written.
    #[allow(unsafe_code, reason = "message buffers are raw memory")]
    pub(crate) fn begin(bus: &'a Bus, stay: Stay, actor: Actor, properties: &[u8], len: usize) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(0);
        let header = bus.header_of(stay.index);
        let (buffer, capacity) = bus.segment.buffer(stay.index);
        let before = properties.len().min(capacity);
        header.properties.store(narrow(before), Ordering::Relaxed);
        header.start.store(narrow(before), Ordering::Relaxed);
        header.len.store(narrow(len), Ordering::Relaxed);
        // SAFETY: the message is ours, its buffer at least that long, and nobody holds a slice of it.
        unsafe { std::ptr::copy(properties.as_ptr(), buffer.as_ptr(), before) };
        Self::new(bus, stay, actor, Kind::Draft)
    }

    /// Payload bytes asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bus.payload_of(self.hold.stay).1
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the payload, from its start; what is longer than was asked for is cut off.
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub fn write(&mut self, bytes: &[u8]) {
        let (start, len) = self.bus.payload_of(self.hold.stay);
        let len = bytes.len().min(len);
        // SAFETY: the message is ours, its buffer at least `len` long, and `bytes` lies outside of it or the caller could not
        // hold it as a slice while we write.
        unsafe { std::ptr::copy(bytes.as_ptr(), start.as_ptr(), len) };
    }

    /// Sends the message.
    ///
    /// # Errors
    /// When the queue is full: the draft comes back.
    pub fn send(self, to: Destination, envelope: &Envelope) -> Result<(), Self> {
        match self.bus.post(self.hold, Payload::Unchanged, to, envelope) {
            Ok(()) | Err(Refused::Over) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(Refused::Full) => Err(self),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let Hold { stay, actor, kind } = self.hold;
        self.bus.segment.pool().free(stay, actor, kind);
    }
}

impl<'a> Taken<'a> {
    pub(crate) fn new(bus: &'a Bus, stay: Stay, actor: Actor, kind: Kind) -> Self {
        Self { bus, hold: Hold { stay, actor, kind } }
    }

    /// What the message says of itself. One with a verdict that does not exist says that nothing came of it.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        let header = self.bus.header_of(self.hold.stay.index);
        header.read().unwrap_or_else(|Scribbled| header.read_as(Some(Verdict::Failed)))
    }

    /// The payload, where it lies. For processes of the sandbox: its other processes are trusted not to write to a message
    /// that is not theirs. The agent copies instead: [`crate::agent`].
    #[must_use]
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub fn bytes(&self) -> &[u8] {
        let (start, len) = self.bus.payload_of(self.hold.stay);
        // SAFETY: within the buffer; the message is ours, and by the bus's rules only its owner writes to it.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// What its sender has said of it: its [properties](crate::properties), where they lie; as for [`bytes`](Self::bytes).
    #[must_use]
    #[allow(unsafe_code, reason = "message buffers are raw memory")]
    pub fn properties(&self) -> &[u8] {
        let (buffer, capacity) = self.bus.segment.buffer(self.hold.stay.index);
        let len = self.bus.header_of(self.hold.stay.index).properties.load(Ordering::Relaxed) as usize;
        // SAFETY: within the buffer; as for the payload.
        unsafe { std::slice::from_raw_parts(buffer.as_ptr(), len.min(capacity)) }
    }

    /// Which part of the payload these bytes are, if they lie in it.
    #[must_use]
    pub fn part(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let payload = self.bytes().as_ptr_range();
        let given = bytes.as_ptr_range();
        let within = payload.start <= given.start && given.end <= payload.end && !bytes.is_empty();
        let start = given.start.addr().wrapping_sub(payload.start.addr());
        within.then(|| start..start + bytes.len())
    }

    /// Sends `draft` as the result of this message and ends its serving. Should this process die on the way, the
    /// supervisor can tell whether the result was sent.
    ///
    /// # Errors
    /// When the queue is full: both come back.
    pub fn answer_with(self, draft: Draft<'a>, to: Destination, envelope: &Envelope) -> Result<(), (Self, Draft<'a>)> {
        let header = self.bus.header_of(self.hold.stay.index);
        let Hold { stay, actor, kind } = self.hold;
        if !header.is_held(stay, actor, kind) {
            // A twin has answered: the message may be anybody's by now.
            return Ok(());
        }
        header.result.store(draft.hold.stay.pack(), Ordering::Release);
        match draft.send(to, envelope) {
            Ok(()) => Ok(()),
            Err(draft) => {
                // The draft may become another's message, which must not be taken for the result.
                header.result.store(0, Ordering::Release);
                Err((self, draft))
            }
        }
    }

    /// Sends this very message on, under a new envelope.
    ///
    /// # Errors
    /// When the queue is full: the message comes back.
    pub fn forward(self, payload: Payload<'_>, to: Destination, envelope: &Envelope) -> Result<(), Self> {
        match self.bus.post(self.hold, payload, to, envelope) {
            Ok(()) | Err(Refused::Over) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(Refused::Full) => Err(self),
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Hold { stay, actor, kind } = self.hold;
        self.bus.segment.pool().free(stay, actor, kind);
    }
}
