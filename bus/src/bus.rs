//! Sending and taking: what the processes of a sandbox do with their segment. The host agent's side is [`crate::agent`].

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::atomic::Ordering;
use crate::catalogue::Function;
use crate::envelope::Envelope;
use crate::hold::{Draft, Hold, Payload, Taken};
use crate::layout::Layout;
use crate::message::{Actor, Kind, MessageHeader, State, Stay};
use crate::queue::{Entry, Full};
use crate::segment::{Segment, SegmentError};
use crate::slot::InstanceSlot;

/// How often, and after what pause, one looks whether its twin has handed a message on: a tenth of a second, and the twin is dead.
const TWIN_LOOKS: usize = 1000;
const TWIN_PAUSE: Duration = Duration::from_micros(100);

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
    /// Written to when a message goes out to the agent, if the agent waits.
    pub(crate) out_event: OwnedFd,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room in the queue, or no such queue.
    Full,
    /// The message is no longer the sender's: it has forked, and its twin has sent it.
    Over,
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

    /// As [`Segment::constants`](crate::Segment::constants).
    #[must_use]
    pub fn constants(&self) -> Vec<u64> {
        self.segment.constants()
    }

    /// All instance slots.
    #[must_use]
    pub fn slots(&self) -> &[InstanceSlot] {
        self.segment.slots()
    }

    /// Index, among the functions of other applications that this one may call, of the one with this path.
    #[must_use]
    pub fn target_index(&self, path: &str) -> Option<usize> {
        self.segment.target_index(path)
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

    /// A free message with room for `len` bytes, to be sent to `to`; `None` when there is none, which is an overload.
    #[must_use]
    pub fn draft(&self, actor: Actor, to: Destination, len: usize) -> Option<Draft<'_>> {
        self.draft_with(actor, to, &[], len)
    }

    /// As [`draft`](Self::draft), with encoded [properties](crate::properties).
    #[must_use]
    pub fn draft_with(&self, actor: Actor, to: Destination, properties: &[u8], len: usize) -> Option<Draft<'_>> {
        let stay = self.segment.pool().claim(actor, self.party_of(to), properties.len() + len).ok()??;
        Some(Draft::begin(self, stay, actor, properties, len))
    }

    /// Whose messages those are that go there: each function has some of its own, and so have the answers.
    pub(crate) fn party_of(&self, to: Destination) -> usize {
        match to {
            Destination::Function(index) => index,
            Destination::Out | Destination::Mailbox(_) => self.layout().geometry.functions,
        }
    }

    /// Puts a message that its sender holds into a queue, under a new envelope, and wakes who is to take it. When the queue is full
    /// the message is its sender's as before, save for its payload.
    ///
    /// The state is changed before anything else: of two that came of a fork, only one changes it, and writes. And a sweep that
    /// finds a message on its way, but in no queue, need not know how much of the envelope is the new one, as both have the same
    /// call and the same way back.
    pub(crate) fn post(
        &self,
        hold: Hold,
        payload: Payload<'_>,
        to: Destination,
        envelope: &Envelope,
    ) -> Result<(), Refused> {
        let queue_index = self.index_of(to).ok_or(Refused::Full)?;
        let Hold { stay, actor, kind: held } = hold;
        let new = matches!(held, Kind::Draft | Kind::Sending);
        let kind = if new { Kind::Sending } else { Kind::Forwarding };
        let header = self.header_of(stay.index);
        // What a draft said before is nobody's.
        let was = (!new).then(|| header.read_as(None));
        let on_its_way = |state| State { kind, queue: queue_index, ..state };
        let Some(from) = header.change(stay, actor, held, on_its_way) else {
            self.wait_for_twin(stay, actor);
            return Err(Refused::Over);
        };
        self.set_payload(stay, payload);
        header.write(envelope);
        let queue = self.segment.queue(queue_index);
        let entry = Entry::new(stay.index, stay.generation);
        let pushed = queue.push(entry).or_else(|Full| {
            self.clear_stale(queue_index);
            queue.push(entry)
        });
        if pushed.is_err() {
            if let Some(was) = was {
                header.write(&was);
            }
            // Nobody else changes what is in no queue.
            let _returned = header.change(stay, actor, kind, |_| from);
            return Err(Refused::Full);
        }
        self.wake(to);
        Ok(())
    }

    /// Waits until the message that a twin was the first to hand on is in its queue, if that twin lives: whoever comes second ends then,
    /// and the twin may end with it.
    fn wait_for_twin(&self, stay: Stay, actor: Actor) {
        for _ in 0..TWIN_LOOKS {
            let Some(state) = self.header_of(stay.index).state() else { return };
            let on_its_way =
                state.kind == Kind::Forwarding && state.generation == stay.generation && state.actor == actor;
            if !on_its_way || self.is_queued(stay.index, state) {
                return;
            }
            std::thread::sleep(TWIN_PAUSE);
        }
    }

    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    fn set_payload(&self, stay: Stay, payload: Payload<'_>) {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(0);
        let header = self.header_of(stay.index);
        match payload {
            Payload::Unchanged => {}
            Payload::Part(part) => {
                let (_, len) = self.payload_of(stay);
                let end = part.end.min(len);
                let start = part.start.min(end);
                header.start.fetch_add(narrow(start), Ordering::Relaxed);
                header.len.store(narrow(end - start), Ordering::Relaxed);
            }
            Payload::Instead(bytes) => {
                let (start, capacity) = self.segment.buffer(stay.index);
                let len = bytes.len().min(capacity);
                // SAFETY: the message is the caller's and its buffer is at least `len` long.
                unsafe { std::ptr::copy(bytes.as_ptr(), start.as_ptr(), len) };
                header.properties.store(0, Ordering::Relaxed);
                header.start.store(0, Ordering::Relaxed);
                header.len.store(narrow(len), Ordering::Relaxed);
            }
        }
    }

    /// Clears entries at the head whose message was taken by one who did not live to clear them.
    pub(crate) fn clear_stale(&self, queue_index: usize) {
        let queue = self.segment.queue(queue_index);
        for _ in 0..self.turns_max() {
            let Some(front) = queue.front() else { return };
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
        for _ in 0..self.turns_max() {
            let front = queue.front()?;
            let state = self.fresh(front.entry, queue_index);
            let taken = state.and_then(|state| self.take_fresh(front.entry.index, state, actor));
            queue.clear(front);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// The compare-and-swap that makes a message in a queue its taker's. Only one of several that try succeeds.
    pub(crate) fn take_fresh(&self, index: usize, state: State, actor: Actor) -> Option<Taken<'_>> {
        let generation = state.generation.wrapping_add(1);
        let serving = State { kind: Kind::Serving, queue: 0, actor, generation };
        let taken = self.header_of(index).swap_state(state, serving);
        taken.then(|| Taken::new(self, Stay { index, generation }, actor, Kind::Serving))
    }

    /// Entries of a queue that one who takes may pass over: honest takers pass each entry once.
    pub(crate) fn turns_max(&self) -> usize {
        self.layout().geometry.messages() + 1024
    }

    /// Makes present in this process what an instance of a function touches when it takes a call of a small payload and hands on what
    /// comes of it: the tables, and the first messages of its function, of those that come next, and of the answers.
    pub fn populate(&self, function: usize, next: &[usize]) {
        let layout = self.layout();
        self.segment.populate(0..layout.messages);
        for party in [function, layout.geometry.functions].into_iter().chain(next.iter().copied()) {
            let first = layout.assured_of(0, party).start;
            let header = layout.messages + first * size_of::<MessageHeader>();
            self.segment.populate(header..header + 1);
            let (buffer, _) = layout.buffer_of(first);
            self.segment.populate(buffer..buffer + 1);
        }
    }

    /// Reserves a free slot for a new instance of a function: its index and generation.
    #[must_use]
    pub fn reserve_slot(&self, function: usize) -> Option<(usize, u32)> {
        let mut slots = self.slots().iter().enumerate();
        slots.find_map(|(index, slot)| Some((index, slot.reserve(function)?)))
    }
}

impl Bus {
    /// Where a message's payload starts and how many bytes it has, both within its buffer whatever its header says.
    #[allow(unsafe_code, reason = "payload buffers are raw memory")]
    pub(crate) fn payload_of(&self, stay: Stay) -> (std::ptr::NonNull<u8>, usize) {
        let (buffer, capacity) = self.segment.buffer(stay.index);
        let header = self.header_of(stay.index);
        let start = (header.start.load(Ordering::Relaxed) as usize).min(capacity);
        let len = (header.len.load(Ordering::Relaxed) as usize).min(capacity - start);
        // SAFETY: the buffer is `capacity` bytes long, and `start` is at most that.
        (unsafe { buffer.add(start) }, len)
    }
}
