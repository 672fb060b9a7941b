//! What is kept of accepted calls, and how often they are tried.

use std::time::Duration;

/// What is kept of accepted calls. Numbers and bytes are those of one application, unless they say otherwise.
#[derive(Clone, Debug)]
pub struct AcceptedLimits {
    /// Calls that have not ended.
    pub waiting_max: usize,
    /// Bytes of their payloads.
    pub waiting_bytes_max: usize,
    /// Calls that have not ended, of all applications.
    pub waiting_of_all_max: usize,
    /// Bytes of their payloads, of all applications.
    pub waiting_bytes_of_all_max: usize,
    /// Calls under way at one time.
    pub under_way_max: usize,
    /// Calls under way at one time, of all applications.
    pub under_way_of_all_max: usize,
    /// How often a call is made that fails or is not answered in time, in all.
    pub attempts_max: u32,
    /// The pause before the second attempt; four times as long before each that follows.
    pub pause: Duration,
    /// How long the answer to a call is kept.
    pub keep: Duration,
    /// How long a call is kept that was given up, with its payload.
    pub keep_dead: Duration,
    /// Answers that are kept, and, for themselves, calls that were given up.
    pub kept_max: usize,
    /// Bytes of both, each for themselves. The newest is kept in any case.
    pub kept_bytes_max: usize,
}

impl Default for AcceptedLimits {
    fn default() -> Self {
        Self {
            waiting_max: 1000,
            waiting_bytes_max: 64 << 20,
            waiting_of_all_max: 10_000,
            waiting_bytes_of_all_max: 256 << 20,
            under_way_max: 8,
            under_way_of_all_max: 64,
            attempts_max: 3,
            pause: Duration::from_secs(1),
            keep: Duration::from_secs(3600),
            keep_dead: Duration::from_secs(7 * 24 * 3600),
            kept_max: 1000,
            kept_bytes_max: 32 << 20,
        }
    }
}
