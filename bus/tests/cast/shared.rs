//! Memory that this process and those it forks share, beside the segment: what the test itself counts.
#![allow(unsafe_code, reason = "an anonymous shared mapping")]

use std::ops::Deref;
use std::ptr::NonNull;

/// A value in memory that is shared with every process forked from here on; zero at first.
#[derive(Debug)]
pub(crate) struct Shared<T>(NonNull<T>);

// SAFETY: the mapping belongs to no thread.
unsafe impl<T: Sync> Send for Shared<T> {}
// SAFETY: only shared references to the value are given out.
unsafe impl<T: Sync> Sync for Shared<T> {}

/// What may lie in such memory: all zeros are a value of it, and it is made of atomics alone.
///
/// # Safety
/// It is so.
pub(crate) unsafe trait Atomics: Sync {}

// SAFETY: an atomic.
unsafe impl Atomics for std::sync::atomic::AtomicU64 {}
// SAFETY: many of what is made of atomics.
unsafe impl<T: Atomics, const N: usize> Atomics for [T; N] {}

impl<T: Atomics> Shared<T> {
    /// All zeros.
    pub(crate) fn new() -> Self {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Self(NonNull::new(at.cast()).unwrap())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped for as long as `self`, aligned to a page, zeros, and atomics alone by the bound of `new`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: our mapping, and no reference outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}
