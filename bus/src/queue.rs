//! A bounded queue of many producers and many consumers, in which any of them may stop for ever at any instruction.
//!
//! # A cell
//!
//! ```text
//!  63                      32 31          16 15           0
//! ┌──────────────────────────┬──────────────┬──────────────┐
//! │           lap            │  generation  │  index + 1   │   index + 1 = 0: empty
//! └──────────────────────────┴──────────────┴──────────────┘
//!
//!   (lap, empty) ── push: CAS ──▶ (lap, message) ── clear: CAS ──▶ (lap + 1, empty)
//! ```
//!
//! Position `p` of the queue is cell `p % capacity` in lap `p / capacity`.
//!
//! 1. The only commit point of `push` is the CAS of the cell at the tail from empty to the message. `head` and `tail` are hints that
//!    anyone who finds them behind moves on; neither is needed to know whether a push has happened.
//! 2. `tail` moves past a position only when its cell was seen filled in that lap (or already emptied, in the next).
//! 3. `head` moves past a position only when its cell was seen emptied.
//! 4. A message is *taken* by a CAS of its own state word, not of the cell ([`crate::message`]); the cell that still names
//!    it is then stale, and whoever comes next clears it. So a taker that is killed between the two leaves work, not damage.
//! 5. Every loop is bounded, so that a peer that scribbles cannot keep the host agent in it.
//!
//! The shape (a lap in each cell, helping with lagging indices) follows the bounded queue of D. Vyukov as crossbeam's
//! `ArrayQueue` has it; that queue stalls when a producer stops between claiming its index and publishing its cell.
//! Here nothing is claimed before it is published, as in the lock-free array queue of Tsigas and Zhang (SPAA 2001).
//!
//! This module never maps memory: it takes indices and cells by reference.

use crate::atomic::{AtomicU64, Ordering};
use crate::waiters::Waiters;

/// Head, tail and waiters of a queue; each on a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct QueueIndices {
    pub(crate) head: Index,
    pub(crate) tail: Index,
    pub(crate) waiters: Waiters,
}

#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Index(pub(crate) AtomicU64);

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<QueueIndices>() == 192);
    assert!(offset_of!(QueueIndices, tail) == 64);
    assert!(offset_of!(QueueIndices, waiters) == 128);
};

/// What a cell says of a message: its index and the low half of its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) index: usize,
    pub(crate) generation: u16,
}

impl Entry {
    pub(crate) fn new(index: usize, generation: u32) -> Self {
        Self { index, generation: (generation & 0xFFFF) as u16 }
    }

    /// Whether this names that stay of its message.
    pub(crate) fn is_of(self, generation: u32) -> bool {
        u32::from(self.generation) == generation & 0xFFFF
    }

    fn pack(self) -> u32 {
        // The layout keeps indices below 0xFFFF.
        let index = u32::try_from(self.index + 1).unwrap_or(0);
        u32::from(self.generation) << 16 | index & 0xFFFF
    }

    fn unpack(value: u32) -> Option<Self> {
        let index = (value & 0xFFFF).checked_sub(1)? as usize;
        Some(Self { index, generation: (value >> 16) as u16 })
    }
}

/// A view of one queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue<'a> {
    indices: &'a QueueIndices,
    cells: &'a [AtomicU64],
}

/// What was found at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    position: u64,
    word: u64,
    /// The entry there, not yet known to be fresh.
    pub(crate) entry: Entry,
}

/// Why a push did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

const EMPTY: u32 = 0;

fn cell_word(lap: u32, value: u32) -> u64 {
    u64::from(lap) << 32 | u64::from(value)
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, (word & 0xFFFF_FFFF) as u32)
}

impl<'a> Queue<'a> {
    /// `cells` must be a power of two long.
    pub(crate) fn new(indices: &'a QueueIndices, cells: &'a [AtomicU64]) -> Self {
        debug_assert!(cells.len().is_power_of_two());
        Self { indices, cells }
    }

    fn cell(&self, position: u64) -> (&'a AtomicU64, u32) {
        let capacity = self.cells.len() as u64;
        let place = usize::try_from(position & (capacity - 1)).unwrap_or(0);
        let lap = ((position >> capacity.trailing_zeros()) & 0xFFFF_FFFF) as u32;
        (&self.cells[place], lap)
    }

    /// More turns than any honest contention takes.
    fn turns_max(&self) -> usize {
        2 * self.cells.len() + 1024
    }

    /// Appends an entry.
    pub(crate) fn push(&self, entry: Entry) -> Result<(), Full> {
        for _ in 0..self.turns_max() {
            let tail = self.indices.tail.0.load(Ordering::Acquire);
            let (cell, lap) = self.cell(tail);
            let word = cell.load(Ordering::Acquire);
            let (cell_lap, value) = split(word);
            if cell_lap == lap && value == EMPTY {
                let filled = cell_word(lap, entry.pack());
                if cell.compare_exchange(word, filled, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    advance(&self.indices.tail, tail);
                    return Ok(());
                }
            } else if cell_lap == lap || cell_lap == lap.wrapping_add(1) {
                advance(&self.indices.tail, tail);
            } else if self.indices.tail.0.load(Ordering::Acquire) == tail {
                return Err(Full);
            }
        }
        Err(Full)
    }

    /// The entry at the head, if there is one. It stays there until [`clear`](Self::clear).
    pub(crate) fn front(&self) -> Option<Front> {
        for _ in 0..self.turns_max() {
            let head = self.indices.head.0.load(Ordering::Acquire);
            let (cell, lap) = self.cell(head);
            let word = cell.load(Ordering::Acquire);
            let (cell_lap, value) = split(word);
            if cell_lap == lap {
                let entry = Entry::unpack(value)?;
                return Some(Front { position: head, word, entry });
            }
            if cell_lap == lap.wrapping_add(1) {
                advance(&self.indices.head, head);
            } else if self.indices.head.0.load(Ordering::Acquire) == head {
                return None;
            }
        }
        None
    }

    /// Empties the cell that `front` was read from, unless somebody has, and moves the head past it.
    pub(crate) fn clear(&self, front: Front) {
        let (cell, lap) = self.cell(front.position);
        let emptied = cell_word(lap.wrapping_add(1), EMPTY);
        // A failure means that the cell was emptied by another: it can change in no other way.
        let _already = cell.compare_exchange(front.word, emptied, Ordering::AcqRel, Ordering::Relaxed);
        advance(&self.indices.head, front.position);
    }

    /// Moves the tail past an entry whose pusher did not live to do it; until then nobody counts that entry. There is one at most:
    /// who pushes another finds the tail lagging, and helps.
    pub(crate) fn catch_up(&self) {
        let tail = self.indices.tail.0.load(Ordering::Acquire);
        let (cell, lap) = self.cell(tail);
        let (cell_lap, value) = split(cell.load(Ordering::Acquire));
        let filled = cell_lap == lap && value != EMPTY;
        if filled || cell_lap == lap.wrapping_add(1) {
            advance(&self.indices.tail, tail);
        }
    }

    /// Whether an entry for this very stay is in the queue.
    pub(crate) fn contains(&self, entry: Entry) -> bool {
        self.cells.iter().any(|cell| split(cell.load(Ordering::Acquire)).1 == entry.pack())
    }

    /// Entries in the queue, stale ones included; a hint.
    pub(crate) fn len(&self) -> usize {
        let head = self.indices.head.0.load(Ordering::Relaxed);
        let tail = self.indices.tail.0.load(Ordering::Relaxed);
        usize::try_from(tail.saturating_sub(head)).unwrap_or(usize::MAX).min(self.cells.len())
    }

    /// The slots that wait for this queue.
    pub(crate) fn waiters(&self) -> &'a Waiters {
        &self.indices.waiters
    }
}

#[cfg(test)]
impl Queue<'_> {
    /// As if the last pusher had been killed between its commit and the move of the tail.
    pub(crate) fn lag(&self) {
        self.indices.tail.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Helps a lagging index one position on.
fn advance(index: &Index, from: u64) {
    // A failure means that another has helped already.
    let _already = index.0.compare_exchange(from, from.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed);
}

#[cfg(test)]
#[cfg(loom)]
mod model;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
