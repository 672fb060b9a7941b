//! Whether a sandbox has fallen silent: calls of a function go in and end by the agent's clock, and nothing ever comes out of them.
//!
//! An honest sandbox answers each call, however late: its supervisor ends what runs for too long and says so. One whose message memory was
//! overwritten in the right places may look sound and answer nothing for ever; it is made again.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Calls of one function of which nothing came out, until the sandbox is taken to be silent.
const SILENT_CALLS: usize = 3;
/// Calls whose end by the clock is remembered, for what may still come out of them.
const REMEMBERED_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// By function: how many calls in a row ended by the clock alone, and when the first of them did.
    unheard: BTreeMap<usize, (usize, Instant)>,
    /// The last of those calls, with their functions.
    recent: VecDeque<(u64, usize)>,
}

impl Silence {
    /// A call ended by the clock. True if its function has been silent for longer than `patience`.
    pub(super) fn timed_out(&mut self, call: u64, function: usize, now: Instant, patience: Duration) -> bool {
        if self.recent.len() == REMEMBERED_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((call, function));
        let (count, since) = self.unheard.entry(function).or_insert((0, now));
        *count += 1;
        *count >= SILENT_CALLS && now.saturating_duration_since(*since) > patience
    }

    /// Something came out of a call in time.
    pub(super) fn heard_in_time(&mut self, function: usize) {
        self.unheard.remove(&function);
    }

    /// Something came out of a call that was over.
    pub(super) fn heard_late(&mut self, call: u64) {
        if let Some((_, function)) = self.recent.iter().rev().find(|(late, _)| *late == call) {
            self.unheard.remove(function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_function_is_silent_when_several_calls_in_a_row_came_to_nothing() {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(!silence.timed_out(1, 0, at(0), PATIENCE));
        assert!(!silence.timed_out(2, 0, at(5), PATIENCE));
        assert!(!silence.timed_out(3, 0, at(9), PATIENCE), "the answers may still come");
        assert!(!silence.timed_out(4, 1, at(20), PATIENCE), "another function's");
        assert!(silence.timed_out(5, 0, at(20), PATIENCE));
    }

    #[test]
    fn whatever_comes_out_of_a_call_ends_the_silence() {
        let (mut silence, begin) = (Silence::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        for round in 0..5 {
            assert!(!silence.timed_out(round, 0, at(20 * round), PATIENCE));
            assert!(!silence.timed_out(100 + round, 0, at(20 * round + 1), PATIENCE));
            if round % 2 == 0 { silence.heard_late(round) } else { silence.heard_in_time(0) }
        }
        for call in 0..10 * REMEMBERED_MAX as u64 {
            silence.timed_out(call, 0, at(200), PATIENCE);
        }
        assert_eq!(silence.recent.len(), REMEMBERED_MAX);
    }
}
