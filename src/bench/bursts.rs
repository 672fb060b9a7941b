//! Each burst by itself: what became of its calls.
//!
//! ```text
//!   first call is due ──▶ open (a tally of its own) ── last call has ended, or the run has ──▶ told (figures alone)
//! ```
//!
//! A tally has histograms: one is kept only as long as calls of the burst are under way.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::schedule::Load;
use super::tally::{End, Figures, Tally, Times};

/// What became of one burst.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Burst {
    /// When it was due, since the start.
    pub(crate) due_s: f64,
    /// From then to the last answer, but for the wait for calls that are lost.
    pub(crate) duration_s: f64,
    pub(crate) calls: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    /// Calls that ended otherwise, by their kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Of calls done, since the burst was due.
    pub(crate) latency_us: Option<Figures>,
    /// Of calls refused, since they were sent.
    pub(crate) refused_us: Option<Figures>,
}

/// The bursts of a load; none of other loads.
#[derive(Debug)]
pub(crate) struct Bursts {
    load: Load,
    /// What a burst begins with.
    empty: Tally,
    open: BTreeMap<u32, Open>,
    told: BTreeMap<u32, Burst>,
}

#[derive(Debug)]
struct Open {
    due: Duration,
    sent: u64,
    tally: Tally,
}

impl Bursts {
    pub(crate) fn new(load: Load, empty: Tally) -> Self {
        Self { load, empty, open: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// A call of the burst that is due then is under way.
    pub(crate) fn sent(&mut self, due: Duration) {
        if let Some(number) = self.load.burst_of(due) {
            let open = || Open { due, sent: 0, tally: self.empty.clone() };
            self.open.entry(number).or_insert_with(open).sent += 1;
        }
    }

    /// A call has ended.
    pub(crate) fn add(&mut self, end: &End, times: Times) {
        let Load::Bursts { calls, .. } = self.load else { return };
        let Some(number) = self.load.burst_of(times.due) else { return };
        let Some(open) = self.open.get_mut(&number) else { return };
        open.tally.add(end.clone(), times);
        if open.tally.calls == calls {
            self.tell(number);
        }
    }

    /// The run has ended: nothing more is waited for.
    pub(crate) fn end(&mut self) {
        while let Some((&number, open)) = self.open.iter_mut().next() {
            open.tally.interrupted(open.sent - open.tally.calls);
            self.tell(number);
        }
    }

    /// Those that have ended, in order.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Burst> {
        self.told.values()
    }

    fn tell(&mut self, number: u32) {
        let Some(Open { due, tally, .. }) = self.open.remove(&number) else { return };
        let burst = Burst {
            due_s: due.as_secs_f64(),
            duration_s: tally.last.saturating_sub(due).as_secs_f64(),
            calls: tally.calls,
            done: tally.done,
            refused: tally.refused,
            lost: tally.lost,
            latency_us: tally.latency(),
            refused_us: tally.refusals(),
            errors: tally.errors,
        };
        self.told.insert(number, burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(due: Duration, ms: u64) -> Times {
        Times { due, sent: due, ended: due + Duration::from_millis(ms) }
    }

    #[test]
    fn each_burst_has_its_own_calls_even_where_they_overlap() {
        let mut bursts = Bursts::new(Load::Bursts { calls: 2, every: SECOND, times: 3 }, Tally::new().unwrap());
        for due in [Duration::ZERO, Duration::ZERO, SECOND, SECOND, 2 * SECOND] {
            bursts.sent(due);
        }
        bursts.add(&End::Done, after(SECOND, 4));
        bursts.add(&End::Done, after(Duration::ZERO, 2000));
        bursts.add(&End::Refused, after(SECOND, 1));
        bursts.add(&End::Lost, after(Duration::ZERO, 9000));
        assert_eq!((bursts.told().count(), bursts.open.len()), (2, 1), "what has ended is told at once");
        bursts.end();
        let all: Vec<_> = bursts.told().map(|it| (it.due_s, it.calls, it.done, it.refused, it.lost)).collect();
        assert_eq!(all, [(0.0, 2, 1, 0, 1), (1.0, 2, 1, 1, 0), (2.0, 1, 0, 0, 0)]);
        let durations: Vec<_> = bursts.told().map(|it| it.duration_s).collect();
        assert_eq!(durations, [2.0, 0.004, 0.0]);
        let last = bursts.told().last().unwrap();
        assert_eq!(last.errors.values().sum::<u64>(), 1, "that was under way: {last:?}");
    }

    #[test]
    fn other_loads_have_none() {
        let mut bursts = Bursts::new(Load::Closed { in_flight: 1 }, Tally::new().unwrap());
        bursts.sent(Duration::ZERO);
        bursts.add(&End::Done, after(Duration::ZERO, 1));
        bursts.end();
        assert_eq!(bursts.told().count(), 0);
    }
}
