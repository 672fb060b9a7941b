//! The clock of deadlines and traces: `CLOCK_MONOTONIC`, the same in every process of a host.
#![allow(unsafe_code, reason = "std's Instant does not give its nanoseconds")]

/// Nanoseconds now.
#[must_use]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that the kernel fills. The call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
