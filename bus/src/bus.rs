//! Sending, taking and waiting: what the host agent, the supervisor and the instances do with a segment.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use crate::clock::now_ns;
use crate::futex;
use crate::layout::{CLASSES, Layout};
use crate::message::{Actor, Envelope, Kind, MessageHeader, State, Stay};
use crate::queue::{Entry, Full};
use crate::segment::{Function, Segment, SegmentError};
use crate::slot::{InstanceSlot, Phase};

/// Where the result of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// To the agent, for the caller outside who waits for it.
    Caller,
    /// To the agent, for the application's log: nobody waits.
    Log,
    /// To an instance that waits for it: its slot, and which of the slot's instances.
    Instance {
        /// The slot.
        slot: usize,
        /// Which of the slot's instances.
        generation: u32,
    },
}

impl Address {
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Log => 0,
            Self::Caller => 1 << 60,
            Self::Instance { slot, generation } => 2 << 60 | (slot as u64 & 0xFFFF) << 32 | u64::from(generation),
        }
    }

    pub(crate) fn unpack(word: u64) -> Self {
        match word >> 60 {
            1 => Self::Caller,
            2 => Self::Instance { slot: (word >> 32 & 0xFFFF) as usize, generation: (word & 0xFFFF_FFFF) as u32 },
            _ => Self::Log,
        }
    }
}

/// What a message is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The queue of a function.
    Function(usize),
    /// The queue to the agent.
    Out,
    /// The mailbox of an instance that waits for a reply.
    Mailbox(usize),
}

/// An application bus, as one of its processes holds it.
#[derive(Debug)]
pub struct Bus {
    pub(crate) segment: Segment,
    /// Written to when a message goes out to the agent.
    out_event: OwnedFd,
}

/// A message being written. Dropped, it is free again.
#[derive(Debug)]
pub struct Draft<'a> {
    bus: &'a Bus,
    stay: Stay,
    actor: Actor,
}

/// A message that was taken, and belongs to the taker until it is sent on or dropped.
#[derive(Debug)]
pub struct Taken<'a> {
    bus: &'a Bus,
    stay: Stay,
    actor: Actor,
}

impl Bus {
    /// Joins a segment with the descriptor that wakes the agent.
    #[must_use]
    pub fn new(segment: Segment, out_event: OwnedFd) -> Self {
        Self { segment, out_event }
    }

    /// Maps the segment behind `fd` from inside its sandbox.
    ///
    /// # Errors
    /// As [`Segment::attach`].
    pub fn attach(fd: BorrowedFd<'_>, out_event: OwnedFd) -> Result<Self, SegmentError> {
        Ok(Self::new(Segment::attach(fd)?, out_event))
    }

    /// The segment's layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        self.segment.layout()
    }

    /// The application's name.
    #[must_use]
    pub fn application(&self) -> String {
        self.segment.application()
    }

    /// What the catalogue says of a function.
    #[must_use]
    pub fn function(&self, index: usize) -> Option<Function> {
        self.segment.function(index)
    }

    /// Index of the function of this name.
    #[must_use]
    pub fn function_index(&self, name: &str) -> Option<usize> {
        self.segment.function_index(name)
    }

    /// All instance slots.
    #[must_use]
    pub fn slots(&self) -> &[InstanceSlot] {
        self.segment.slots()
    }

    pub(crate) fn header_of(&self, message: usize) -> &MessageHeader {
        &self.segment.messages()[message]
    }

    pub(crate) fn index_of(&self, destination: Destination) -> Option<usize> {
        let geometry = self.layout().geometry;
        match destination {
            Destination::Function(index) => (index < geometry.functions).then_some(index),
            Destination::Out => Some(geometry.functions),
            Destination::Mailbox(slot) => (slot < geometry.slots).then_some(geometry.functions + 1 + slot),
        }
    }

    /// A free message with room for `len` bytes; `None` when there is none, which is an overload.
    #[must_use]
    pub fn draft(&self, actor: Actor, len: usize) -> Option<Draft<'_>> {
        if len > self.layout().geometry.payload_bytes_max {
            return None;
        }
        let classes = (0..CLASSES).filter(|class| len <= self.layout().class_bytes(*class));
        let stay = classes.into_iter().find_map(|class| self.claim(actor, class))?;
        self.header_of(stay.index).len.store(u32::try_from(len).ok()?, Ordering::Relaxed);
        Some(Draft { bus: self, stay, actor })
    }

    /// Claims a free message of a class: one compare-and-swap of its state.
    fn claim(&self, actor: Actor, class: usize) -> Option<Stay> {
        let messages = self.layout().messages_of(class);
        let count = messages.len();
        let hint = &self.segment.header().hints[class];
        let start = hint.load(Ordering::Relaxed) as usize;
        for step in 0..count {
            let index = messages.start + start.wrapping_add(step) % count;
            let header = self.header_of(index);
            let Some(free) = header.state().filter(|state| state.kind == Kind::Free) else { continue };
            let generation = free.generation.wrapping_add(1);
            if header.swap_state(free, State { kind: Kind::Draft, queue: 0, actor, generation }) {
                let next = u32::try_from(start.wrapping_add(step + 1) % count).unwrap_or(0);
                hint.store(next, Ordering::Relaxed);
                return Some(Stay { index, generation });
            }
        }
        None
    }

    /// Puts a message that its sender owns into a queue, under a new envelope, and wakes who is to take it. When the queue is
    /// full the message is its sender's as before.
    ///
    /// The state is set before the envelope is written: a sweep that finds a message on its way, but in no queue, need not know
    /// how much of the envelope is the new one, as both have the same call and the same way back.
    fn post(&self, stay: Stay, actor: Actor, from: Kind, to: Destination, envelope: &Envelope) -> Result<(), Full> {
        let queue_index = self.index_of(to).ok_or(Full)?;
        let kind = if from == Kind::Draft { Kind::Sending } else { Kind::Forwarding };
        let header = self.header_of(stay.index);
        let was = header.read();
        let state = State { kind, queue: queue_index, actor, generation: stay.generation };
        header.set_state(state);
        header.write(envelope);
        let queue = self.segment.queue(queue_index);
        let entry = Entry::new(stay.index, stay.generation);
        let pushed = queue.push(entry).or_else(|Full| {
            self.clear_stale(queue_index);
            queue.push(entry)
        });
        if pushed.is_err() {
            header.write(&was);
            header.set_state(State { kind: from, queue: 0, ..state });
            return Err(Full);
        }
        self.wake(to);
        Ok(())
    }

    /// Clears entries at the head whose message was taken by one who did not live to clear them.
    fn clear_stale(&self, queue_index: usize) {
        let queue = self.segment.queue(queue_index);
        while let Some(front) = queue.front() {
            if self.fresh(front.entry, queue_index).is_some() {
                return;
            }
            queue.clear(front);
        }
    }

    /// The state of the message an entry names, if the entry is not stale.
    pub(crate) fn fresh(&self, entry: Entry, queue_index: usize) -> Option<State> {
        let state = self.segment.messages().get(entry.index)?.state()?;
        let same = Entry::new(entry.index, state.generation) == entry;
        (same && state.is_bound_for(queue_index)).then_some(state)
    }

    /// Takes the oldest message of a queue, if there is one.
    #[must_use]
    pub fn take(&self, actor: Actor, from: Destination) -> Option<Taken<'_>> {
        let queue_index = self.index_of(from)?;
        let queue = self.segment.queue(queue_index);
        // Bounded for the agent's sake: honest takers pass each entry once.
        for _ in 0..self.layout().geometry.messages() + 1024 {
            let front = queue.front()?;
            let state = self.fresh(front.entry, queue_index);
            let taken = state.and_then(|state| {
                let generation = state.generation.wrapping_add(1);
                let serving = State { kind: Kind::Serving, queue: 0, actor, generation };
                let index = front.entry.index;
                self.header_of(index).swap_state(state, serving).then_some(Stay { index, generation })
            });
            queue.clear(front);
            if let Some(stay) = taken {
                return Some(Taken { bus: self, stay, actor });
            }
        }
        None
    }

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

    /// Wakes exactly one who can take what was just sent: an instance that waits, or else the worker, that makes one.
    ///
    /// The message was published before; the fence orders that before the look at the waiters, as the fence in
    /// [`wait_for_call`](Self::wait_for_call) orders the announcement before the look at the queue. One of the two sees the
    /// other.
    pub(crate) fn wake(&self, to: Destination) {
        fence(Ordering::SeqCst);
        match to {
            Destination::Function(function) => match self.segment.queue(function).waiters().choose() {
                Some(slot) => self.wake_instance(slot),
                None => self.wake_worker(function),
            },
            Destination::Out => self.wake_agent(),
            Destination::Mailbox(slot) => self.wake_instance(slot),
        }
    }

    fn wake_instance(&self, slot: usize) {
        if let Some(slot) = self.slots().get(slot) {
            ring(&slot.wake);
        }
    }

    /// Wakes the worker of a function, that it looks at its instances again.
    pub fn wake_worker(&self, function: usize) {
        ring(&self.segment.function_entry(function).worker);
    }

    /// Wakes everyone who may have been about to be woken by a process that is dead. Whoever has nothing to do sleeps again.
    pub(crate) fn wake_all(&self) {
        for slot in self.slots() {
            if slot.state().is_some_and(|state| matches!(state.phase, Phase::Ready | Phase::Running)) {
                ring(&slot.wake);
            }
        }
        for function in 0..self.layout().geometry.functions {
            self.wake_worker(function);
        }
        self.wake_agent();
    }

    fn wake_agent(&self) {
        let one = 1u64.to_ne_bytes();
        // A failure can only mean that the counter is at its limit, and then the agent is awake.
        let _awake = write_event(&self.out_event, &one);
    }

    /// The word a worker sleeps on: read it before looking at the work, then [`futex::wait`] on it.
    #[must_use]
    pub fn worker_word(&self, function: usize) -> &AtomicU32 {
        &self.segment.function_entry(function).worker
    }

    /// Waits for a message to the instance's function and takes it.
    #[must_use]
    pub fn wait_for_call(&self, slot_index: usize, function: usize) -> Taken<'_> {
        let actor = Actor::instance(slot_index);
        let waiters = self.segment.queue(function).waiters();
        let slot = &self.slots()[slot_index];
        loop {
            let seen = slot.wake.load(Ordering::Acquire);
            waiters.announce(slot_index);
            // Only now: until it can be chosen, the worker counts on it as one that is on its way.
            slot.ready();
            fence(Ordering::SeqCst);
            if let Some(taken) = self.take(actor, Destination::Function(function)) {
                let chosen = !waiters.withdraw(slot_index);
                if chosen && self.waiting(function) > 0 {
                    // Chosen for another message than the one it has: somebody else must be.
                    self.wake(Destination::Function(function));
                }
                return taken;
            }
            futex::wait(&slot.wake, seen, None);
            if waiters.withdraw(slot_index) {
                continue;
            }
            if let Some(taken) = self.take(actor, Destination::Function(function)) {
                return taken;
            }
        }
    }

    /// Waits for a reply to this instance, of this generation of its slot, until the deadline.
    #[must_use]
    pub fn wait_for_reply(&self, slot_index: usize, generation: u32, deadline_ns: u64) -> Option<Taken<'_>> {
        let here = Address::Instance { slot: slot_index, generation };
        let actor = Actor::instance(slot_index);
        let slot = &self.slots()[slot_index];
        loop {
            let seen = slot.wake.load(Ordering::Acquire);
            fence(Ordering::SeqCst);
            while let Some(taken) = self.take(actor, Destination::Mailbox(slot_index)) {
                if taken.envelope().reply_to == here {
                    return Some(taken);
                }
            }
            let left = deadline_ns.checked_sub(now_ns()).filter(|left| *left > 0)?;
            futex::wait(&slot.wake, seen, Some(Duration::from_nanos(left)));
        }
    }

    /// Reserves a free slot for a new instance of a function: its index and generation.
    #[must_use]
    pub fn reserve_slot(&self, function: usize) -> Option<(usize, u32)> {
        let mut slots = self.slots().iter().enumerate();
        slots.find_map(|(index, slot)| Some((index, slot.reserve(function)?)))
    }

    /// Says that the supervisor is about to sleep until somebody wakes it.
    pub fn supervisor_sleeps(&self, asleep: bool) {
        self.segment.header().supervisor_asleep.store(u32::from(asleep), Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the supervisor must be woken for what was just sent; true for one of those who ask.
    #[must_use]
    pub fn supervisor_must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        let asleep = &self.segment.header().supervisor_asleep;
        asleep.load(Ordering::SeqCst) != 0 && asleep.swap(0, Ordering::SeqCst) != 0
    }
}

/// Changes the word, so that who is about to sleep on it does not, and wakes who does.
fn ring(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    futex::wake_one(word);
}

#[allow(unsafe_code, reason = "a write to a descriptor, from memory of ours")]
fn write_event(fd: &OwnedFd, bytes: &[u8; 8]) -> io::Result<()> {
    // SAFETY: the bytes are ours and as long as said.
    let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(bus: &'a Bus, stay: Stay, actor: Actor) -> Self {
        Self { bus, stay, actor }
    }

    /// Payload bytes asked for.
    #[must_use]
    pub fn len(&self) -> usize {
        let (_, capacity) = self.bus.segment.buffer(self.stay.index);
        (self.bus.header_of(self.stay.index).len.load(Ordering::Relaxed) as usize).min(capacity)
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the payload, from its start; what is longer than was asked for is cut off.
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub fn write(&mut self, bytes: &[u8]) {
        let (start, _) = self.bus.segment.buffer(self.stay.index);
        let len = bytes.len().min(self.len());
        // SAFETY: the message is ours, its buffer at least `len` long, and `bytes` lies outside of it or the caller could not
        // hold it as a slice while we write.
        unsafe { std::ptr::copy(bytes.as_ptr(), start.as_ptr(), len) };
    }

    /// Sends the message.
    ///
    /// # Errors
    /// When the queue is full: the draft comes back.
    pub fn send(self, to: Destination, envelope: &Envelope) -> Result<(), Self> {
        match self.bus.post(self.stay, self.actor, Kind::Draft, to, envelope) {
            Ok(()) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(Full) => Err(self),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        self.bus.free(self.stay);
    }
}

impl<'a> Taken<'a> {
    pub(crate) fn new(bus: &'a Bus, stay: Stay, actor: Actor) -> Self {
        Self { bus, stay, actor }
    }

    /// What the message says of itself.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        self.bus.header_of(self.stay.index).read()
    }

    fn payload(&self) -> (std::ptr::NonNull<u8>, usize) {
        let (start, capacity) = self.bus.segment.buffer(self.stay.index);
        let len = self.bus.header_of(self.stay.index).len.load(Ordering::Relaxed) as usize;
        (start, len.min(capacity))
    }

    /// The payload, where it lies. For processes of the sandbox: its other processes are trusted not to write to a message
    /// that is not theirs. The agent uses [`copy`](Self::copy).
    #[must_use]
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub fn bytes(&self) -> &[u8] {
        let (start, len) = self.payload();
        // SAFETY: within the buffer; the message is ours, and by the bus's rules only its owner writes to it.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    /// A copy of the payload, as it was at one moment or another while it was made.
    #[must_use]
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub fn copy(&self) -> Vec<u8> {
        let (start, len) = self.payload();
        let mut copy: Vec<u8> = Vec::with_capacity(len);
        // SAFETY: the source lies within the mapping, which cannot shrink; the target has room for `len` bytes. A hostile
        // process may write meanwhile: the memory model does not define what is then read, the processor does, and no
        // value is impossible for a byte.
        unsafe { std::ptr::copy_nonoverlapping(start.as_ptr(), copy.as_mut_ptr(), len) };
        // SAFETY: these bytes were just written.
        unsafe { copy.set_len(len) };
        copy
    }

    /// Sends `draft` as the result of this message and ends its serving. Should this process die on the way, the
    /// supervisor can tell whether the result was sent.
    ///
    /// # Errors
    /// When the queue is full: both come back.
    pub fn answer_with(self, draft: Draft<'a>, to: Destination, envelope: &Envelope) -> Result<(), (Self, Draft<'a>)> {
        let header = self.bus.header_of(self.stay.index);
        header.result.store(draft.stay.pack(), Ordering::Release);
        match draft.send(to, envelope) {
            Ok(()) => Ok(()),
            Err(draft) => {
                // The draft may become another's message, which must not be taken for the result.
                header.result.store(0, Ordering::Release);
                Err((self, draft))
            }
        }
    }

    /// Sends this very message on, under a new envelope; its payload stays where it is.
    ///
    /// # Errors
    /// When the queue is full: the message comes back.
    pub fn forward(self, to: Destination, envelope: &Envelope) -> Result<(), Self> {
        match self.bus.post(self.stay, self.actor, Kind::Serving, to, envelope) {
            Ok(()) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(Full) => Err(self),
        }
    }

    /// Replaces the payload, in place, by one that must fit the buffer (what does not is cut off).
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub fn replace(&mut self, bytes: &[u8]) {
        let (start, capacity) = self.bus.segment.buffer(self.stay.index);
        let len = bytes.len().min(capacity);
        // SAFETY: the message is ours and its buffer is at least `len` long.
        unsafe { std::ptr::copy(bytes.as_ptr(), start.as_ptr(), len) };
        self.bus.header_of(self.stay.index).len.store(u32::try_from(len).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.bus.free(self.stay);
    }
}

impl Bus {
    /// The owner gives a message back.
    pub(crate) fn free(&self, stay: Stay) {
        let Stay { index, generation } = stay;
        self.header_of(index).set_state(State { kind: Kind::Free, queue: 0, actor: Actor::AGENT, generation });
    }
}
