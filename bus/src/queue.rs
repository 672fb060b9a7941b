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

    /// Whether an entry for this very stay is in the queue.
    pub(crate) fn contains(&self, entry: Entry) -> bool {
        self.cells.iter().any(|cell| split(cell.load(Ordering::Acquire)).1 == entry.pack())
    }

    /// Entries in the queue, stale ones included; a hint. Never too few while nobody pushes: who was killed behind its commit has
    /// left the tail one position behind, and no more, as the next who pushes moves it on first.
    pub(crate) fn len(&self) -> usize {
        let head = self.indices.head.0.load(Ordering::Relaxed);
        let mut tail = self.indices.tail.0.load(Ordering::Acquire);
        let (cell, lap) = self.cell(tail);
        let (cell_lap, value) = split(cell.load(Ordering::Acquire));
        if cell_lap == lap && value != EMPTY {
            tail = tail.wrapping_add(1);
        }
        usize::try_from(tail.saturating_sub(head)).unwrap_or(usize::MAX).min(self.cells.len())
    }

    /// The slots that wait for this queue.
    pub(crate) fn waiters(&self) -> &'a Waiters {
        &self.indices.waiters
    }
}

/// Helps a lagging index one position on.
fn advance(index: &Index, from: u64) {
    // A failure means that another has helped already.
    let _already = index.0.compare_exchange(from, from.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed);
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn cells(capacity: usize) -> Vec<AtomicU64> {
        (0..capacity).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn behaves_as_a_bounded_deque_over_many_laps() {
        let (indices, cells) = (QueueIndices::default(), cells(8));
        let queue = Queue::new(&indices, &cells);
        let mut model = VecDeque::new();
        let mut random = 7u32;
        for n in 0..10_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random >> 31 == 0 {
                let entry = Entry::new((n % 100) as usize, n);
                let pushed = queue.push(entry);
                assert_eq!(pushed.is_err(), model.len() == 8);
                if pushed.is_ok() {
                    model.push_back(entry);
                }
            } else {
                let front = queue.front();
                assert_eq!(front.map(|front| front.entry), model.pop_front());
                if let Some(front) = front {
                    queue.clear(front);
                }
            }
            assert_eq!(queue.len(), model.len());
        }
    }

    #[test]
    fn lagging_indices_are_helped_along() {
        let (indices, cells) = (QueueIndices::default(), cells(4));
        let queue = Queue::new(&indices, &cells);
        for n in 0..3 {
            queue.push(Entry::new(n, 0)).unwrap();
        }
        // As if the pusher had been killed between its commit and the move of the tail.
        indices.tail.0.store(2, Ordering::Relaxed);
        assert_eq!(queue.len(), 3);
        queue.push(Entry::new(3, 0)).unwrap();
        assert_eq!(queue.push(Entry::new(4, 0)), Err(Full));
        let front = queue.front().unwrap();
        queue.clear(front);
        // As if the one who cleared had been killed before the head moved.
        indices.head.0.store(0, Ordering::Relaxed);
        assert_eq!(queue.front().unwrap().entry.index, 1);
    }

    #[test]
    fn garbage_in_the_cells_ends_every_loop() {
        let (indices, cells) = (QueueIndices::default(), cells(4));
        let queue = Queue::new(&indices, &cells);
        for garbage in [u64::MAX, 1 << 32, 5 << 32 | 3, 0xFFFF] {
            for cell in &cells {
                cell.store(garbage, Ordering::Relaxed);
            }
            for index in [0, 3, 1 << 40, u64::MAX] {
                indices.head.0.store(index, Ordering::Relaxed);
                indices.tail.0.store(index, Ordering::Relaxed);
                let _full_or_not = queue.push(Entry::new(1, 1));
                if let Some(front) = queue.front() {
                    queue.clear(front);
                }
            }
        }
    }
}
