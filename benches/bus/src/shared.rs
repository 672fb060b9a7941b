//! Memory that the processes of a measurement share: words to sleep on, numbers, and bytes.
//!
//! ```text
//! ┌─────────────────┬─────────────────┬──────────────────────────────┐
//! │ lines           │ numbers (u64)   │ bytes, from a page's start   │
//! └─────────────────┴─────────────────┴──────────────────────────────┘
//! ```
//!
//! It is there in full from the start: no measurement of a floor meets a page fault.
#![allow(unsafe_code, reason = "shared memory is mapped, and its bytes are raw")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sandbar_bus::futex;
use sandbar_bus::layout::PAGE_BYTES;

/// A cache line of its own, with a word to sleep on and a count.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) word: AtomicU32,
    pub(crate) count: AtomicU64,
}

/// A mapping that a forked process shares with its parent.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    base: NonNull<u8>,
    lines: usize,
    numbers: usize,
    bytes_at: usize,
    len: usize,
}

impl SharedMemory {
    pub(crate) fn new(lines: usize, numbers: usize, bytes: usize) -> Self {
        let bytes_at = (lines * size_of::<Line>() + numbers * size_of::<u64>()).next_multiple_of(PAGE_BYTES);
        let len = bytes_at + bytes.next_multiple_of(PAGE_BYTES);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let base = NonNull::new(base.cast()).unwrap();
        Self { base, lines, numbers, bytes_at, len }
    }

    pub(crate) fn lines(&self) -> &[Line] {
        // SAFETY: the mapping begins with the lines; they are atomics, and zeros are valid.
        unsafe { std::slice::from_raw_parts(self.base.cast().as_ptr(), self.lines) }
    }

    pub(crate) fn numbers(&self) -> &[AtomicU64] {
        // SAFETY: the numbers follow the lines within the mapping.
        let start = unsafe { self.base.add(self.lines * size_of::<Line>()) };
        // SAFETY: as above; they are aligned, as lines are, and atomics.
        unsafe { std::slice::from_raw_parts(start.cast().as_ptr(), self.numbers) }
    }

    fn bytes(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= self.len - self.bytes_at);
        // SAFETY: just seen to lie within the mapping.
        unsafe { self.base.add(self.bytes_at + at) }.as_ptr()
    }

    /// Copies a payload in.
    pub(crate) fn write(&self, at: usize, payload: &[u8]) {
        let to = self.bytes(at, payload.len());
        // SAFETY: both are as long as the payload; the processes of a measurement write in turns.
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), to, payload.len()) };
        // Somebody else reads it: a copy that repeats another is made all the same.
        std::hint::black_box(to);
    }

    /// A payload, where it lies. Whoever holds it has its turn: nobody writes meanwhile.
    pub(crate) fn read(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: within the mapping; by the turns of the measurement nobody writes.
        unsafe { std::slice::from_raw_parts(self.bytes(at, len), len) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Line {
    /// Moves the word on and wakes who sleeps on it.
    pub(crate) fn pass(&self) {
        self.word.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.word);
    }

    /// Sleeps until the word is no longer `turn`.
    pub(crate) fn wait_past(&self, turn: u32) {
        while self.word.load(Ordering::SeqCst) == turn {
            futex::wait(&self.word, turn, None);
        }
    }

    /// Sleeps until `all` processes have come here.
    pub(crate) fn meet(&self, all: u32) {
        let before = self.word.fetch_add(1, Ordering::SeqCst);
        for _ in 0..all {
            futex::wake(&self.word);
        }
        let mut here = before + 1;
        while here < all {
            futex::wait(&self.word, here, None);
            here = self.word.load(Ordering::SeqCst);
        }
    }
}

/// Looks at one byte of each page of a payload, as a reader does that needs a little of it.
pub(crate) fn touch(payload: &[u8]) -> u64 {
    let sum = payload.iter().step_by(PAGE_BYTES).map(|byte| u64::from(*byte)).sum();
    std::hint::black_box(sum)
}

/// Puts the time of sending where the receiver finds it: at the start of the payload.
pub(crate) fn stamp(payload: &mut [u8], sent_ns: u64) {
    payload[..8].copy_from_slice(&sent_ns.to_ne_bytes());
}

/// When a payload was sent.
pub(crate) fn stamp_of(payload: &[u8]) -> u64 {
    u64::from_ne_bytes(payload[..8].try_into().unwrap())
}
