//! When calls are due. Fixed beforehand: what becomes of one call moves none of the others.

use std::time::Duration;

/// How calls arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// So many at a time, each followed by the next.
    Closed { in_flight: usize },
    /// So many per second, whatever becomes of them.
    Open { rate: f64, arrivals: Arrivals },
    /// Some at once, and as many again after each such time.
    Bursts { calls: u64, every: Duration, times: u32 },
}

impl Load {
    /// Of which burst a call is that is due then, counted from 0; `None` in other loads.
    pub(crate) fn burst_of(&self, due: Duration) -> Option<u32> {
        match self {
            Self::Bursts { every, .. } => u32::try_from(due.as_nanos() / every.as_nanos().max(1)).ok(),
            Self::Closed { .. } | Self::Open { .. } => None,
        }
    }
}

/// How calls of an open load follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrivals {
    /// At equal distances.
    Even,
    /// By chance, as calls of many independent callers do.
    Poisson,
}

/// The times at which calls of an open load are due, since its start.
#[derive(Debug)]
pub(crate) struct Schedule {
    load: Load,
    given: u64,
    at_s: f64,
    chance: fastrand::Rng,
}

impl Schedule {
    /// The same `seed` gives the same times.
    pub(crate) fn new(load: Load, seed: u64) -> Self {
        Self { load, given: 0, at_s: 0.0, chance: fastrand::Rng::with_seed(seed) }
    }

    /// When the next call is due; `None` when no more are, or when it depends on others.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        let number = self.given;
        self.given += 1;
        match self.load {
            Load::Closed { .. } => None,
            Load::Bursts { calls, every, times } => {
                let burst = u32::try_from(number / calls).ok().filter(|burst| *burst < times)?;
                every.checked_mul(burst)
            }
            Load::Open { rate, arrivals: Arrivals::Even } => Some(Duration::from_secs_f64(number as f64 / rate)),
            Load::Open { rate, arrivals: Arrivals::Poisson } => {
                self.at_s -= (1.0 - self.chance.f64()).ln() / rate;
                Some(Duration::from_secs_f64(self.at_s))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(load: Load, count: usize) -> Vec<Duration> {
        let mut schedule = Schedule::new(load, 7);
        std::iter::from_fn(|| schedule.next()).take(count).collect()
    }

    #[test]
    fn even_arrivals_are_at_equal_distances() {
        let times = times(Load::Open { rate: 1000.0, arrivals: Arrivals::Even }, 5);
        assert_eq!(times, [0, 1, 2, 3, 4].map(Duration::from_millis));
    }

    #[test]
    fn arrivals_by_chance_have_the_rate_and_the_spread_of_a_poisson_process() {
        let times = times(Load::Open { rate: 1000.0, arrivals: Arrivals::Poisson }, 20_000);
        assert!(times.is_sorted());
        let whole_s = times[times.len() - 1].as_secs_f64();
        assert!((whole_s - 20.0).abs() < 1.0, "{whole_s}");
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1000.0).collect();
        let variance = gaps.iter().map(|gap| (gap - 1.0).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance - 1.0).abs() < 0.1, "as large as the mean: {variance}");
    }

    #[test]
    fn a_burst_is_due_at_once_again_and_again_and_ends() {
        let every = Duration::from_millis(50);
        let bursts = Load::Bursts { calls: 3, every, times: 2 };
        let [first, second] = [Duration::ZERO, every];
        assert_eq!(times(bursts, 10), [first, first, first, second, second, second]);
        assert_eq!([first, every / 2, second].map(|due| bursts.burst_of(due)), [Some(0), Some(0), Some(1)]);
        assert_eq!(times(Load::Bursts { calls: 3, every: Duration::MAX, times: 1 }, 10), [first; 3]);
        let closed = Load::Closed { in_flight: 2 };
        assert_eq!((times(closed, 10), closed.burst_of(first)), (vec![], None));
    }
}
