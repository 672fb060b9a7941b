//! Where everything lies in the segment.
//!
//! ```text
//!   offset            what                             each       how many
//! ┌─────────────────┬────────────────────────────────┬──────────┬─────────────────────────────────────┐
//! │ 0               │ Header                         │ 1 page   │ 1                                   │
//! │ 4096            │ FunctionEntry  (the catalogue) │    128 B │ functions                           │
//! │ + functions     │ TargetEntry    (the catalogue) │    192 B │ targets                             │
//! │ + targets       │ InstanceSlot                   │     64 B │ slots                               │
//! │ + slots         │ QueueIndices                   │    192 B │ functions │ out │ a mailbox a slot  │
//! │ + queues        │ cells                          │      8 B │ capacity × functions │ out │ 4 × slots │
//! │ + cells, to 128 │ MessageHeader                  │    128 B │ messages                            │
//! │ next page       │ payload buffers, class 0       │    1 KiB │ assured × (functions + 1) + common  │
//! │ next page       │ payload buffers, class 1       │   16 KiB │ likewise                            │
//! │ next page       │ payload buffers, class 2       │  256 KiB │ likewise                            │
//! │ next page       │ payload buffers, class 3       │ 2 KiB +  │ likewise                            │
//! │                 │                                │  largest │                                     │
//! └─────────────────┴────────────────────────────────┴──────────┴─────────────────────────────────────┘
//! ```
//!
//! Message `m` has header `m` and one buffer for life. Within a class the messages of each *party* come first, then those that all
//! share:
//!
//! ```text
//!   class c:  │ function 0 │ function 1 │ … │ answers │ common │
//!               assured[c]   assured[c]       assured[c]  common[c]
//! ```
//!
//! A party is a function, for messages bound for its queue, or the answers, bound for the agent or for a mailbox. So a flood
//! to one function uses up its own messages and the common ones, and never those that keep the others going. Nothing is counted,
//! and so no count can be wrong after a kill.
//!
//! A [`Layout`] follows from a [`Geometry`] alone. The host agent computes it from its own configuration and
//! never from what it reads in the segment; processes of the sandbox, which cannot harm more than their own
//! application, take the geometry from the header.

use std::ops::Range;

use crate::catalogue::{FunctionEntry, TargetEntry};
use crate::message::MessageHeader;
use crate::properties::PROPERTIES_BYTES_MAX;
use crate::queue::QueueIndices;
use crate::slot::InstanceSlot;

/// Size of a page, the unit in which memory is given back to the system.
pub const PAGE_BYTES: usize = 4096;
/// Number of size classes of payload buffers.
pub const CLASSES: usize = 4;
/// Functions an application may have at most.
pub const FUNCTIONS_MAX: usize = 128;
/// Functions of other applications that an application may call, at most.
pub const TARGETS_MAX: usize = 64;
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
    /// Functions of other applications that it may call, up to [`TARGETS_MAX`].
    pub targets: usize,
    /// Instances that may exist at a time, 1 to [`SLOTS_MAX`].
    pub slots: usize,
    /// Messages that may wait for one function; a power of two.
    pub queue_capacity: usize,
    /// The largest payload, in bytes.
    pub payload_bytes_max: usize,
    /// Messages of each size class, smallest first, that each party has to itself.
    pub assured: [usize; CLASSES],
    /// Messages of each size class that all parties share.
    pub common: [usize; CLASSES],
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
    pub(crate) targets: usize,
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
        let largest = geometry.payload_bytes_max.max(CLASS_BYTES[CLASSES - 2]) + PROPERTIES_BYTES_MAX;
        class_bytes[CLASSES - 1] = round_up(largest, PAGE_BYTES);

        let functions = PAGE_BYTES;
        let targets = functions + geometry.functions * size_of::<FunctionEntry>();
        let slots = targets + geometry.targets * size_of::<TargetEntry>();
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
                .checked_mul(geometry.messages_in(class))
                .and_then(|bytes| bytes.checked_add(end))
                .filter(|end| *end <= isize::MAX as usize)
                .ok_or(GeometryError("the buffers do not fit an address space"))?;
        }
        let len = round_up(end, PAGE_BYTES);
        Ok(Self { geometry, functions, targets, slots, queues, cells, messages, buffers, class_bytes, len })
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
        for class in 0..CLASSES {
            let count = self.geometry.messages_in(class);
            if place < count {
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
    pub(crate) fn messages_of(&self, class: usize) -> Range<usize> {
        let first = (0..class).map(|class| self.geometry.messages_in(class)).sum();
        first..first + self.geometry.messages_in(class)
    }

    /// Messages of a class that a party has to itself.
    pub(crate) fn assured_of(&self, class: usize, party: usize) -> Range<usize> {
        let count = self.geometry.assured[class];
        let first = self.messages_of(class).start + party.min(self.geometry.functions) * count;
        first..first + count
    }

    /// Messages of a class that all parties share.
    pub(crate) fn common_of(&self, class: usize) -> Range<usize> {
        let end = self.messages_of(class).end;
        end - self.geometry.common[class]..end
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
        Self {
            functions,
            targets: 0,
            slots,
            queue_capacity: 256,
            payload_bytes_max,
            assured: [16, 4, 2, 1],
            common: [256, 64, 16, 8],
        }
    }

    /// The same with queues of another capacity, and as many small messages as fill one of them.
    #[must_use]
    pub fn with_queues(mut self, capacity: usize) -> Self {
        self.queue_capacity = capacity;
        self.common[0] = self.common[0].max(capacity);
        self
    }

    /// Messages of a class; saturates, for [`check`](Self::check) to refuse.
    fn messages_in(&self, class: usize) -> usize {
        self.assured[class].saturating_mul(self.parties()).saturating_add(self.common[class])
    }

    /// Messages in all.
    #[must_use]
    pub fn messages(&self) -> usize {
        (0..CLASSES).fold(0, |sum, class| sum.saturating_add(self.messages_in(class)))
    }

    /// Parties that have messages of their own: each function, and the answers.
    pub(crate) fn parties(&self) -> usize {
        self.functions + 1
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
            return Err(GeometryError("1 to 128 functions"));
        }
        if self.targets > TARGETS_MAX {
            return Err(GeometryError("up to 64 functions of other applications"));
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
        if !within(self.messages(), MESSAGES_MAX) || self.messages_in(CLASSES - 1) == 0 {
            return Err(GeometryError("1 to 65534 messages, at least one of them of the largest class"));
        }
        Ok(())
    }
}

fn round_up(n: usize, to: usize) -> usize {
    n.div_ceil(to) * to
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        let layout = Layout::new(Geometry { targets: 3, ..Geometry::usual(5, 64, 16 << 20) }).unwrap();
        assert!(layout.functions >= size_of::<crate::segment::Header>());
        for at in [layout.functions, layout.slots, layout.queues, layout.messages] {
            assert_eq!(at % 64, 0);
        }
        assert!(layout.cells + layout.geometry.cells() * 8 <= layout.messages);
        for class in 1..CLASSES {
            let end =
                layout.buffers[class - 1] + layout.class_bytes[class - 1] * layout.geometry.messages_in(class - 1);
            assert!(end <= layout.buffers[class]);
            assert_eq!(layout.buffers[class] % PAGE_BYTES, 0);
        }
        let last = layout.geometry.messages() - 1;
        let (offset, len) = layout.buffer_of(last);
        assert_eq!(offset + len, layout.len);
    }

    /// The drawing above, in numbers.
    #[test]
    fn offsets_are_as_drawn() {
        let layout = Layout::new(Geometry { targets: 3, ..Geometry::usual(5, 64, 16 << 20) }).unwrap();
        assert_eq!(layout.functions, 4096);
        assert_eq!(layout.targets, 4096 + 5 * 128);
        assert_eq!(layout.slots, layout.targets + 3 * 192);
        assert_eq!(layout.queues, layout.slots + 64 * 64);
        assert_eq!(layout.cells, layout.queues + (5 + 1 + 64) * 192);
        assert_eq!(layout.messages, (layout.cells + 8 * (5 * 256 + 512 + 64 * 4)).next_multiple_of(128));
        assert_eq!(layout.geometry.messages(), (16 * 6 + 256) + (4 * 6 + 64) + (2 * 6 + 16) + (6 + 8));
        assert_eq!(layout.buffers[0], (layout.messages + layout.geometry.messages() * 128).next_multiple_of(4096));
        assert_eq!(layout.buffers[1], (layout.buffers[0] + (16 * 6 + 256) * 1024).next_multiple_of(4096));
        assert_eq!(layout.buffers[2], layout.buffers[1] + (4 * 6 + 64) * (16 << 10));
        assert_eq!(layout.buffers[3], layout.buffers[2] + (2 * 6 + 16) * (256 << 10));
        assert_eq!(layout.len, layout.buffers[3] + (6 + 8) * ((16 << 20) + 4096));
    }

    #[test]
    fn each_message_belongs_to_one_party_or_to_all() {
        let layout = Layout::new(Geometry::usual(3, 7, 1 << 20)).unwrap();
        for class in 0..CLASSES {
            let mut next = layout.messages_of(class).start;
            for party in 0..layout.geometry.parties() {
                assert_eq!(layout.assured_of(class, party).start, next);
                next = layout.assured_of(class, party).end;
            }
            assert_eq!(layout.common_of(class), next..layout.messages_of(class).end);
        }
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
            Geometry { functions: 129, ..usual },
            Geometry { slots: 257, ..usual },
            Geometry { queue_capacity: 3, ..usual },
            Geometry { payload_bytes_max: 0, ..usual },
            Geometry { targets: 65, ..usual },
            Geometry { common: [usize::MAX, 1, 1, 1], ..usual },
            Geometry { assured: [1, 1, usize::MAX, 1], ..usual },
            Geometry { assured: [1, 1, 1, 0], common: [1, 1, 1, 0], ..usual },
        ] {
            assert!(Layout::new(bad).is_err(), "{bad:?}");
        }
    }
}
