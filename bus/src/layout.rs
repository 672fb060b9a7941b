//! Where everything lies in the segment.
//!
//! ```text
//! 0        ┌──────────────────────────────┐
//!          │ Header             (1 page)  │ geometry, flags, hints
//!          ├──────────────────────────────┤
//!          │ FunctionEntry × functions    │ the catalogue: names, time-outs, successors
//!          ├──────────────────────────────┤
//!          │ InstanceSlot × slots         │ one for each instance that can exist at a time
//!          ├──────────────────────────────┤
//!          │ QueueIndices × queues        │ head, tail and waiters of each queue
//!          ├──────────────────────────────┤
//!          │ cells (u64) of each queue    │ functions … │ out │ mailboxes …
//!          ├──────────────────────────────┤
//!          │ MessageHeader × messages     │ state word, call, reply address …
//!          ├──────────────────────────────┤
//!          │ payload buffers              │ class 0 │ class 1 │ class 2 │ class 3
//!          └──────────────────────────────┘  (each buffer starts on a page where it is a page or more)
//! ```
//!
//! A [`Layout`] follows from a [`Geometry`] alone. The host agent computes it from its own configuration and
//! never from what it reads in the segment; processes of the sandbox, which cannot harm more than their own
//! application, take the geometry from the header.

use crate::message::MessageHeader;
use crate::queue::QueueIndices;
use crate::segment::FunctionEntry;
use crate::slot::InstanceSlot;

/// Size of a page, the unit in which memory is given back to the system.
pub const PAGE_BYTES: usize = 4096;
/// Number of size classes of payload buffers.
pub const CLASSES: usize = 4;
/// Functions an application may have at most.
pub const FUNCTIONS_MAX: usize = 64;
/// Instances a sandbox may have at a time, at most: the width of a queue's set of waiters.
pub const SLOTS_MAX: usize = 256;
/// Successors a function may have at most.
pub const NEXT_MAX: usize = 8;
/// Messages a segment may have at most: an index must fit the 16 bits it has in a queue's cell.
pub const MESSAGES_MAX: usize = 0xFFFE;
/// Replies that may wait for one instance.
pub const MAILBOX_CAPACITY: usize = 4;
/// Payload bytes of the classes below the largest.
const CLASS_BYTES: [usize; CLASSES - 1] = [1 << 10, 16 << 10, 256 << 10];

/// What a segment has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Functions of the application, 1 to [`FUNCTIONS_MAX`].
    pub functions: usize,
    /// Instances that may exist at a time, 1 to [`SLOTS_MAX`].
    pub slots: usize,
    /// Messages that may wait for one function; a power of two.
    pub queue_capacity: usize,
    /// The largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// Message buffers in each size class, smallest first.
    pub messages: [usize; CLASSES],
}

/// Why a geometry cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeometryError(&'static str);

impl std::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the segment cannot be laid out: {}", self.0)
    }
}

impl std::error::Error for GeometryError {}

/// The offsets, in bytes from the start of the segment, of everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the layout was computed from.
    pub geometry: Geometry,
    pub(crate) functions: usize,
    pub(crate) slots: usize,
    pub(crate) queues: usize,
    pub(crate) cells: usize,
    pub(crate) messages: usize,
    pub(crate) buffers: [usize; CLASSES],
    pub(crate) class_bytes: [usize; CLASSES],
    /// Length of the whole segment, in bytes.
    pub len: usize,
}

impl Layout {
    /// Lays a segment out.
    ///
    /// # Errors
    /// When a number is outside of its range, or the whole would not fit an address.
    pub fn new(geometry: Geometry) -> Result<Self, GeometryError> {
        geometry.check()?;
        let mut class_bytes = [0; CLASSES];
        class_bytes[..CLASSES - 1].copy_from_slice(&CLASS_BYTES);
        class_bytes[CLASSES - 1] = round_up(geometry.payload_bytes_max.max(CLASS_BYTES[CLASSES - 2]), PAGE_BYTES);

        let functions = PAGE_BYTES;
        let slots = functions + geometry.functions * size_of::<FunctionEntry>();
        let queues = slots + geometry.slots * size_of::<InstanceSlot>();
        let cells = queues + geometry.queues() * size_of::<QueueIndices>();
        let cells_len = geometry.cells() * size_of::<u64>();
        let messages = round_up(cells + cells_len, align_of::<MessageHeader>());
        let mut end = messages + geometry.messages() * size_of::<MessageHeader>();
        let mut buffers = [0; CLASSES];
        for class in 0..CLASSES {
            end = round_up(end, PAGE_BYTES);
            buffers[class] = end;
            end = class_bytes[class]
                .checked_mul(geometry.messages[class])
                .and_then(|bytes| bytes.checked_add(end))
                .filter(|end| *end <= isize::MAX as usize)
                .ok_or(GeometryError("the buffers do not fit an address space"))?;
        }
        let len = round_up(end, PAGE_BYTES);
        Ok(Self { geometry, functions, slots, queues, cells, messages, buffers, class_bytes, len })
    }

    /// Index of the first cell of a queue, and how many it has.
    pub(crate) fn cells_of(&self, queue: usize) -> (usize, usize) {
        let Geometry { functions, queue_capacity, .. } = self.geometry;
        if queue < functions {
            (queue * queue_capacity, queue_capacity)
        } else if queue == functions {
            (functions * queue_capacity, self.geometry.out_capacity())
        } else {
            let mailboxes = functions * queue_capacity + self.geometry.out_capacity();
            (mailboxes + (queue - functions - 1) * MAILBOX_CAPACITY, MAILBOX_CAPACITY)
        }
    }

    /// The size class of a message, and its place within the class.
    pub(crate) fn class_of(&self, message: usize) -> (usize, usize) {
        let mut place = message;
        for (class, count) in self.geometry.messages.iter().enumerate() {
            if place < *count {
                return (class, place);
            }
            place -= count;
        }
        unreachable!("a message's index is checked against the geometry before it is used")
    }

    /// Offset and length of a message's payload buffer, in bytes.
    pub(crate) fn buffer_of(&self, message: usize) -> (usize, usize) {
        let (class, place) = self.class_of(message);
        (self.buffers[class] + place * self.class_bytes[class], self.class_bytes[class])
    }

    /// Messages of a class: the range of their indices.
    pub(crate) fn messages_of(&self, class: usize) -> std::ops::Range<usize> {
        let first = self.geometry.messages[..class].iter().sum();
        first..first + self.geometry.messages[class]
    }

    /// Payload bytes that a message of this class holds.
    #[must_use]
    pub fn class_bytes(&self, class: usize) -> usize {
        self.class_bytes[class]
    }
}

impl Geometry {
    /// A geometry for so many functions and instances with payloads up to `payload_bytes_max`; the rest as is usual on
    /// an edge host. Untouched buffers cost no memory.
    #[must_use]
    pub fn usual(functions: usize, slots: usize, payload_bytes_max: usize) -> Self {
        Self { functions, slots, queue_capacity: 256, payload_bytes_max, messages: [512, 128, 32, 16] }
    }

    /// Messages in all.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.messages.iter().sum()
    }

    /// Queues in all: one for each function, the one out, one mailbox for each instance slot.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.functions + 1 + self.slots
    }

    /// The out queue has a cell for every message there is, so that an answer always finds room.
    fn out_capacity(&self) -> usize {
        self.messages().next_power_of_two()
    }

    fn cells(&self) -> usize {
        self.functions * self.queue_capacity + self.out_capacity() + self.slots * MAILBOX_CAPACITY
    }

    fn check(&self) -> Result<(), GeometryError> {
        let within = |n: usize, max: usize| (1..=max).contains(&n);
        if !within(self.functions, FUNCTIONS_MAX) {
            return Err(GeometryError("1 to 64 functions"));
        }
        if !within(self.slots, SLOTS_MAX) {
            return Err(GeometryError("1 to 256 instance slots"));
        }
        if !self.queue_capacity.is_power_of_two() || !within(self.queue_capacity, 1 << 16) {
            return Err(GeometryError("a queue's capacity is a power of two up to 65536"));
        }
        if !within(self.payload_bytes_max, 1 << 30) {
            return Err(GeometryError("payloads of 1 byte to 1 GiB"));
        }
        let total = self.messages.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        if !total.is_some_and(|total| within(total, MESSAGES_MAX)) || self.messages[CLASSES - 1] == 0 {
            return Err(GeometryError("1 to 65534 messages, at least one of them of the largest class"));
        }
        Ok(())
    }
}

fn round_up(n: usize, to: usize) -> usize {
    n.div_ceil(to) * to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        let layout = Layout::new(Geometry::usual(5, 64, 16 << 20)).unwrap();
        assert!(layout.functions >= size_of::<crate::segment::Header>());
        for at in [layout.functions, layout.slots, layout.queues, layout.messages] {
            assert_eq!(at % 64, 0);
        }
        assert!(layout.cells + layout.geometry.cells() * 8 <= layout.messages);
        for class in 1..CLASSES {
            let end = layout.buffers[class - 1] + layout.class_bytes[class - 1] * layout.geometry.messages[class - 1];
            assert!(end <= layout.buffers[class]);
            assert_eq!(layout.buffers[class] % PAGE_BYTES, 0);
        }
        let last = layout.geometry.messages() - 1;
        let (offset, len) = layout.buffer_of(last);
        assert_eq!(offset + len, layout.len);
    }

    #[test]
    fn every_queue_has_cells_of_its_own() {
        let layout = Layout::new(Geometry::usual(3, 7, 1 << 20)).unwrap();
        let mut next = 0;
        for queue in 0..layout.geometry.queues() {
            let (first, count) = layout.cells_of(queue);
            assert_eq!(first, next);
            assert!(count.is_power_of_two());
            next = first + count;
        }
        assert_eq!(next, layout.geometry.cells());
    }

    #[test]
    fn impossible_geometries_are_refused() {
        let usual = Geometry::usual(1, 1, 1);
        for bad in [
            Geometry { functions: 0, ..usual },
            Geometry { functions: 65, ..usual },
            Geometry { slots: 257, ..usual },
            Geometry { queue_capacity: 3, ..usual },
            Geometry { payload_bytes_max: 0, ..usual },
            Geometry { messages: [usize::MAX, 1, 1, 1], ..usual },
            Geometry { messages: [1, 1, 1, 0], ..usual },
        ] {
            assert!(Layout::new(bad).is_err(), "{bad:?}");
        }
    }
}
