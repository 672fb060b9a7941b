//! How many calls may be under way: of each application a few in any case, of all together as many as the host takes.
//!
//! ```text
//!  calls of A  ├── assured ──┤── above ──┐
//!  calls of B  ├─ as ─┤      │           ├──▶ the common part: at most `common_max`
//!  calls of C  ├── assured ──┤─ above ───┘
//! ```
//!
//! Invariants:
//! 1. An application with fewer than `assured` calls under way is admitted, whatever the others do.
//! 2. The common part counts, for each application, its calls above `assured`, and no others: which of its calls end first
//!    does not matter.
//! 3. The common part never counts more than `common_max`. For a moment it may count a place that is being given back: a call
//!    may then be refused that would have had the very last place.
//!
//! The count of one application goes up from `assured` or more only by whoever holds a place of the common part, and each
//! step down from above `assured` gives one back. Nothing waits and nothing is looked for, so that admission costs the same
//! with one application and with thousands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the host admits, and has admitted.
#[derive(Debug)]
pub(super) struct Admission {
    /// Calls each application may always have under way.
    assured: usize,
    /// Calls above that, of all applications together.
    common_max: usize,
    common: AtomicUsize,
}

/// The calls of one application that are under way.
#[derive(Debug, Default)]
pub(super) struct Share {
    calls: AtomicUsize,
}

/// The place of one call. Given back when dropped.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    share: Arc<Share>,
}

impl Admission {
    pub(super) fn new(assured: usize, common_max: usize) -> Self {
        Self { assured, common_max, common: AtomicUsize::new(0) }
    }

    /// A place for one more call of the application with this share; `None` if there is none.
    pub(super) fn admit(&self, share: &Arc<Share>) -> Option<Admitted<'_>> {
        // The counts guard no memory: they need no ordering but each its own.
        let mut calls = share.calls.load(Ordering::Relaxed);
        loop {
            let common = calls >= self.assured;
            if common && !self.take_common() {
                return None;
            }
            match share.calls.compare_exchange_weak(calls, calls + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Admitted { admission: self, share: Arc::clone(share) }),
                Err(now) => calls = now,
            }
            if common {
                self.give_common_back();
            }
        }
    }

    fn take_common(&self) -> bool {
        let one_more = |common| (common < self.common_max).then_some(common + 1);
        self.common.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn give_common_back(&self) {
        self.common.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let calls = self.share.calls.fetch_sub(1, Ordering::Relaxed);
        if calls > self.admission.assured {
            self.admission.give_common_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(admission: &Admission) -> usize {
        admission.common.load(Ordering::Relaxed)
    }

    fn calls(share: &Share) -> usize {
        share.calls.load(Ordering::Relaxed)
    }

    #[test]
    fn a_flood_leaves_every_other_application_its_share() {
        let admission = Admission::new(2, 3);
        let flooded = Arc::new(Share::default());
        let flood: Vec<_> = (0..100).map_while(|_| admission.admit(&flooded)).collect();
        assert_eq!(flood.len(), 5, "its share and all of the common part");
        for _ in 0..50 {
            let other = Arc::new(Share::default());
            let places: Vec<_> = (0..3).map_while(|_| admission.admit(&other)).collect();
            assert_eq!(places.len(), 2, "its share, and no more");
        }
        drop(flood);
        assert_eq!(common(&admission), 0);
    }

    #[test]
    fn places_come_back_in_whatever_order_calls_end() {
        let orders: [[usize; 4]; 4] = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]];
        for order in orders {
            let admission = Admission::new(2, 2);
            let share = Arc::new(Share::default());
            let mut places: Vec<_> = (0..4).map(|_| admission.admit(&share)).collect();
            assert!(places.iter().all(Option::is_some) && admission.admit(&share).is_none());
            for (ended, left) in order.into_iter().zip([3_usize, 2, 1, 0]) {
                places[ended] = None;
                assert_eq!(calls(&share), left);
                assert_eq!(common(&admission), left.saturating_sub(2), "{order:?}, {left} left");
            }
        }
    }

    #[test]
    fn what_one_application_gives_back_another_can_have() {
        let admission = Admission::new(1, 1);
        let (one, other) = (Arc::new(Share::default()), Arc::new(Share::default()));
        let assured = admission.admit(&one).unwrap();
        let above = admission.admit(&one).unwrap();
        let others = admission.admit(&other).unwrap();
        assert!(admission.admit(&other).is_none());
        // The first call of it ends: the one that is left now has the assured place.
        drop(assured);
        assert!(admission.admit(&other).is_some());
        drop((above, others));
        assert_eq!((common(&admission), calls(&one), calls(&other)), (0, 0, 0));
    }

    #[test]
    fn nothing_assured_and_nothing_common_are_limits_too() {
        let share = Arc::new(Share::default());
        let admission = Admission::new(0, 1);
        let place = admission.admit(&share);
        assert!(place.is_some() && admission.admit(&Arc::new(Share::default())).is_none());
        let admission = Admission::new(1, 0);
        let share = Arc::new(Share::default());
        let place = admission.admit(&share);
        assert!(place.is_some() && admission.admit(&share).is_none());
    }

    #[test]
    fn threads_that_come_and_go_leave_the_counts_right() {
        const ASSURED: usize = 2;
        const COMMON_MAX: usize = 3;
        let admission = Admission::new(ASSURED, COMMON_MAX);
        let shares: [Arc<Share>; 2] = Default::default();
        let under_way: [AtomicUsize; 2] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..6_usize {
                let (admission, share, under_way) = (&admission, &shares[thread % 2], &under_way[thread % 2]);
                scope.spawn(move || {
                    for round in 0..5_000_usize {
                        let mut places = Vec::new();
                        for _ in 0..=(round + thread) % 4 {
                            let Some(place) = admission.admit(share) else { continue };
                            let now = under_way.fetch_add(1, Ordering::SeqCst) + 1;
                            assert!(now <= ASSURED + COMMON_MAX, "{now} at one time");
                            places.push(place);
                        }
                        if round % 7 == 0 {
                            std::thread::yield_now();
                        }
                        while let Some(place) = places.pop() {
                            under_way.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert_eq!((common(&admission), calls(&shares[0]), calls(&shares[1])), (0, 0, 0));
    }
}
