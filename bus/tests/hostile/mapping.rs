//! The segment as a hostile process has it: one run of words.
#![allow(unsafe_code, reason = "a mapping of its own, and system calls that a hostile process makes")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Mapping {
    words: NonNull<AtomicU64>,
    len: usize,
}

impl Mapping {
    pub(crate) fn of(segment: &File) -> Self {
        let len = usize::try_from(segment.metadata().unwrap().len()).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, segment.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Self { words: NonNull::new(at.cast()).unwrap(), len }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped for as long as `self`, aligned to a page, and never shrinks; others write to it as atomics do.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len / 8) }
    }

    pub(crate) fn read(&self, at: usize) -> u64 {
        self.words()[at / 8].load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, at: usize, word: u64) {
        self.words()[at / 8].store(word, Ordering::Relaxed);
    }

    /// Takes the memory of this part away: it reads as zeros from then on. Whether the system did it.
    pub(crate) fn remove(&self, from: usize, len: usize) -> bool {
        assert!(from + len <= self.len);
        let address = self.words().as_ptr().wrapping_byte_add(from);
        // SAFETY: pages of a mapping of ours, which stays; nobody holds a reference that is not to atomics.
        unsafe { libc::madvise(address.cast_mut().cast(), len, libc::MADV_REMOVE) == 0 }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and no reference outlives `self`.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.len) };
    }
}

/// The same by the descriptor.
pub(crate) fn punch(segment: &File, from: usize, len: usize) -> bool {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory of ours is involved.
    unsafe { libc::fallocate(segment.as_raw_fd(), mode, from.try_into().unwrap(), len.try_into().unwrap()) == 0 }
}

/// Seals the segment further; whether that was possible.
pub(crate) fn seal(segment: &File, seals: i32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(segment.as_raw_fd(), libc::F_ADD_SEALS, seals) == 0 }
}
