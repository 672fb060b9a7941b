//! Sleeping on a word of shared memory, and waking who sleeps there.
#![allow(unsafe_code, reason = "the futex system call has no safe wrapper")]

use std::time::Duration;

use crate::atomic::AtomicU32;

/// Sleeps while the word is `seen`, until woken, interrupted by a signal, or for `timeout` at most. May return at any
/// time: the caller looks again.
pub fn wait(word: &AtomicU32, seen: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is alive as long as its borrow, the timespec (or null) as long as this function. The kernel only
    // compares the word. Every reason to return early is alike to the caller.
    unsafe { libc::syscall(libc::SYS_futex, address(word), libc::FUTEX_WAIT, seen, timeout) };
}

/// Wakes all who sleep there.
pub fn wake(word: &AtomicU32) {
    // SAFETY: the word is alive as long as its borrow; waking reads no memory of ours.
    unsafe { libc::syscall(libc::SYS_futex, address(word), libc::FUTEX_WAKE, i32::MAX) };
}

#[cfg(not(loom))]
fn address(word: &AtomicU32) -> *mut u32 {
    word.as_ptr()
}

/// In a model nobody sleeps: it looks at the words instead.
#[cfg(loom)]
fn address(_word: &AtomicU32) -> *mut u32 {
    std::ptr::null_mut()
}
