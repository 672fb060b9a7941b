//! Descriptors that asynchronous code waits for.
#![allow(unsafe_code, reason = "the one place that registers descriptors")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for something to read. It must be one that does not block.
///
/// # Errors
/// When the reactor cannot take it.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor for as long as it lives, and it lives in the `AsyncFd` until that has
    // taken it off the reactor.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(watched?)
}
