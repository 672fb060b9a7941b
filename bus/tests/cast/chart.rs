//! Where the parts of a segment lie, reckoned from the drawing in `bus/src/layout.rs` and the geometry alone, so that a test can
//! read and write what the crate keeps to itself.

#![allow(dead_code, reason = "a test target uses its own part of it")]

use sandbar_bus::Geometry;
use sandbar_bus::layout::{MAILBOX_CAPACITY, PAGE_BYTES};

pub(crate) const HEADER_BYTES: usize = PAGE_BYTES;
pub(crate) const SLOT_BYTES: usize = 64;
pub(crate) const QUEUE_BYTES: usize = 192;
pub(crate) const MESSAGE_BYTES: usize = 128;
const FUNCTION_BYTES: usize = 128;
const TARGET_BYTES: usize = 192;

/// Offsets in bytes from the start of the segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chart {
    pub(crate) geometry: Geometry,
    pub(crate) functions: usize,
    pub(crate) slots: usize,
    pub(crate) queues: usize,
    pub(crate) cells: usize,
    pub(crate) messages: usize,
    /// Where the payload buffers begin: all below is control.
    pub(crate) payloads: usize,
}

impl Chart {
    pub(crate) fn of(geometry: Geometry) -> Self {
        let functions = HEADER_BYTES;
        let slots = functions + geometry.functions * FUNCTION_BYTES + geometry.targets * TARGET_BYTES;
        let queues = slots + geometry.slots * SLOT_BYTES;
        let cells = queues + geometry.queues() * QUEUE_BYTES;
        let out = geometry.messages().next_power_of_two();
        let cells_len = 8 * (geometry.functions * geometry.queue_capacity + out + geometry.slots * MAILBOX_CAPACITY);
        let messages = (cells + cells_len).next_multiple_of(MESSAGE_BYTES);
        let payloads = (messages + geometry.messages() * MESSAGE_BYTES).next_multiple_of(PAGE_BYTES);
        Self { geometry, functions, slots, queues, cells, messages, payloads }
    }

    /// First cell and number of cells of a queue: functions first, then the one out, then the mailboxes.
    pub(crate) fn cells_of(&self, queue: usize) -> (usize, usize) {
        let Geometry { functions, queue_capacity, .. } = self.geometry;
        let out = self.geometry.messages().next_power_of_two();
        let capacity = |queue: usize| match queue.cmp(&functions) {
            std::cmp::Ordering::Less => queue_capacity,
            std::cmp::Ordering::Equal => out,
            std::cmp::Ordering::Greater => MAILBOX_CAPACITY,
        };
        let first: usize = (0..queue).map(capacity).sum();
        (self.cells + 8 * first, capacity(queue))
    }

    pub(crate) fn message(&self, index: usize) -> usize {
        self.messages + index * MESSAGE_BYTES
    }
}

/// A message's state word.
pub(crate) fn state_word(kind: u64, queue: usize, actor: u64, generation: u32) -> u64 {
    kind << 60 | (queue as u64 & 0x3FFF) << 46 | (actor & 0x3FFF) << 32 | u64::from(generation)
}

/// What a cell says: its lap, and a message's generation and index.
pub(crate) fn cell_word(lap: u32, generation: u32, index: usize) -> u64 {
    u64::from(lap) << 32 | u64::from(generation & 0xFFFF) << 16 | (index as u64 + 1) & 0xFFFF
}
