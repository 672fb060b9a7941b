//! What the agent waits for while it sleeps: an eventfd, shared with the processes of the sandbox.
#![allow(unsafe_code, reason = "eventfd and poll have no safe wrapper in the standard library")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) struct Event(pub(crate) OwnedFd);

impl Event {
    pub(crate) fn new() -> Self {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        assert!(fd >= 0, "eventfd: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Sleeps until it is written to, or has been since the last time; false when it was not within `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let mut event = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout_ms = timeout.as_millis().try_into().unwrap();
        // SAFETY: one record, ours.
        let ready = unsafe { libc::poll(&raw mut event, 1, timeout_ms) };
        let mut count = 0_u64;
        // SAFETY: eight bytes, ours; the descriptor does not block.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
        ready == 1
    }
}
