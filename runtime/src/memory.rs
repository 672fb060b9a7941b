//! Memory of the agent's own that is free, given back to the system.
#![allow(unsafe_code, reason = "malloc_trim(3) has no wrapper")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Giving back takes milliseconds where there is much: not more often than this.
const EVERY: Duration = Duration::from_secs(5);

/// Gives free memory back, unless that was done just now. To be called when much has become free: what belonged to a sandbox lies between
/// what belongs to others, and the C library keeps it.
pub(crate) fn give_back() {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let Ok(mut last) = LAST.try_lock() else { return };
    if last.is_some_and(|last| last.elapsed() < EVERY) {
        return;
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    *last = Some(Instant::now());
}
