//! How many instances a worker keeps ready: as many as calls come while one is made anew.
//!
//! ```text
//!   target = least + ⌈rate × lead⌉ + shortage, up to most
//! ```
//!
//! - *rate*: calls taken per second, an average that forgets by half in [`HALF_LIFE`].
//! - *lead*: from the call that takes an instance until another stands in its place: the last forks' own time, twice, as the new process
//!   takes about as long to get ready as the worker takes to make it, and what passes until the worker gets its turn ([`TURN`]).
//! - *shortage*: calls come in bursts, not evenly. One more each time that a call found nobody, forgotten like the rate.
//!
//! A worker looks when it is rung for, so that a pool is not seen to be too large when no calls come. The supervisor, which counts what was
//! served, ends those that are too many then: within two windows of three seconds.
//!
//! The idea of sizing a pool of ready containers by the arrival rate is as in SAND's successors; here what is made is a process, and
//! costs a tenth of a millisecond, so that a handful is enough for thousands of calls per second.

use sandbar_bus::Ready;

/// By then an average has forgotten half of what it knew.
const HALF_LIFE: f64 = 1.0;
/// Until a worker gets its turn, in seconds: the instance that served has to end first, which it does when nothing else is to be done.
const TURN: f64 = 0.001;
/// How much of the new a measured time takes over from each fork.
const FORK_SHARE: f64 = 0.125;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    bounds: Ready,
    rate: f64,
    shortage: f64,
    /// Seconds that a fork takes.
    fork: f64,
    looked_ns: u64,
    /// Instances that stood ready after the last look, with those made since.
    ahead: usize,
}

impl Pool {
    pub(crate) fn new(bounds: Ready, now_ns: u64) -> Self {
        Self { bounds, rate: 0.0, shortage: 0.0, fork: 0.0, looked_ns: now_ns, ahead: 0 }
    }

    /// Takes note of what the worker sees: instances that can take a call, and messages that nobody has taken. Returns how many
    /// instances should stand ready.
    pub(crate) fn look(&mut self, now_ns: u64, ahead: usize, waiting: usize) -> usize {
        let seconds = now_ns.saturating_sub(self.looked_ns) as f64 / 1e9;
        self.looked_ns = now_ns;
        let left = left_after(seconds);
        let taken = self.ahead.saturating_sub(ahead);
        // So that a steady rate averages to itself.
        self.rate = self.rate * left + taken as f64 * std::f64::consts::LN_2 / HALF_LIFE;
        self.shortage *= left;
        if waiting > 0 && ahead == 0 {
            self.shortage = (self.shortage + 1.0).min(self.bounds.most as f64);
        }
        self.ahead = ahead;
        self.target()
    }

    /// An instance was made, in so many nanoseconds.
    pub(crate) fn made(&mut self, took_ns: u64) {
        let took = took_ns as f64 / 1e9;
        self.fork += (took - self.fork) * if self.fork == 0.0 { 1.0 } else { FORK_SHARE };
        self.ahead += 1;
    }

    fn target(&self) -> usize {
        let meanwhile = self.rate * (2.0 * self.fork + TURN);
        // Less than a hundredth of a call is none.
        let more = (meanwhile - 0.01).max(0.0).ceil() + self.shortage.round();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number that is not negative"
        )]
        let more = more as usize;
        self.bounds.least.saturating_add(more).min(self.bounds.most)
    }
}

/// How much of an average is left after so many seconds: half after [`HALF_LIFE`], within a few hundredths, and nothing after many of them.
/// It is (1 + x/8)⁻⁸ in place of e⁻ˣ, which alone would have every function load the C library's mathematics: pages to hold, and mappings
/// to copy in each fork.
fn left_after(seconds: f64) -> f64 {
    let eighth = 1.0 + seconds * std::f64::consts::LN_2 / HALF_LIFE / 8.0;
    let square = eighth * eighth;
    let fourth = square * square;
    1.0 / (fourth * fourth)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Ready = Ready { least: 1, most: 16 };
    const MS: u64 = 1_000_000;

    /// A second of calls at a steady rate, each looked at when it has been taken, each replaced in 100 µs: the target at the end.
    fn steady(pool: &mut Pool, calls_per_second: u64, from_ns: u64) -> usize {
        let mut target = pool.bounds.least;
        for call in 0..calls_per_second {
            let now = from_ns + call * 1_000_000_000 / calls_per_second;
            let ahead = pool.ahead.saturating_sub(1);
            target = pool.look(now, ahead, 0);
            for _ in ahead..target {
                pool.made(100_000);
            }
        }
        target
    }

    #[test]
    fn an_average_is_forgotten_by_half_in_its_half_life() {
        for (half_lives, left) in [(0.0, 1.0), (0.001, 0.9993), (0.5, 0.712), (1.0, 0.514), (3.0, 0.157), (60.0, 0.0)] {
            assert!(
                (left_after(half_lives * HALF_LIFE) - left).abs() < 0.002,
                "{half_lives}: {}",
                left_after(half_lives)
            );
        }
    }

    #[test]
    fn more_calls_keep_more_ready() {
        let targets: Vec<usize> = [100, 1_000, 5_000].map(|rate| steady(&mut Pool::new(AUTO, 0), rate, 0)).into();
        assert_eq!(targets[0], 2, "one, and one for the call that may come meanwhile");
        assert!(targets.is_sorted() && targets[2] > targets[1] && targets[2] <= AUTO.most, "{targets:?}");
    }

    #[test]
    fn without_calls_it_comes_back_to_the_least() {
        let mut pool = Pool::new(AUTO, 0);
        assert!(steady(&mut pool, 5_000, 0) > 3);
        let ahead = pool.ahead;
        assert_eq!(pool.look(60_000 * MS, ahead, 0), AUTO.least);
    }

    #[test]
    fn calls_that_find_nobody_make_it_grow_up_to_the_most() {
        let mut pool = Pool::new(AUTO, 0);
        let targets: Vec<usize> = (1..100).map(|look| pool.look(look * MS, 0, 3)).collect();
        assert!(targets.is_sorted() && targets[0] > AUTO.least);
        assert_eq!(targets.last(), Some(&AUTO.most));
    }

    #[test]
    fn a_fixed_number_stays() {
        let mut pool = Pool::new(Ready { least: 4, most: 4 }, 0);
        assert_eq!(pool.look(MS, 0, 9), 4);
        assert_eq!(steady(&mut pool, 2_000, MS), 4);
        assert_eq!(Pool::new(Ready { least: 0, most: 0 }, 0).look(MS, 0, 9), 0);
    }

    #[test]
    fn a_clock_that_stands_still_does_no_harm() {
        let mut pool = Pool::new(AUTO, 5 * MS);
        for _ in 0..10_000 {
            assert!(pool.look(5 * MS, 0, 1) <= AUTO.most);
            pool.made(0);
        }
        assert!(pool.look(0, 0, 0) <= AUTO.most);
    }
}
