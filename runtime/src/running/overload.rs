//! Whether more comes than an application can serve: then calls are refused on arrival, so that those which are taken do not wait for
//! long, whatever their number.
//!
//! A queue is good for a burst, and bad when it stands: then each call only waits for those before it. As CoDel does for packets (Nichols
//! and Jacobson, ACM Queue 2012), a queue is told to stand by time, not by length: it has not been empty for [`INTERVAL`]. While it stands,
//! a call is refused if what waits is
//!
//! - more than is served in the delay that the host allows, by the rate of the last tenths of a second, and
//! - more than is being served: who calls slow functions can wait as long as one call of them takes, and
//! - more than [`WAITING_LEAST`], as a queue that short is no overload, whatever holds it up.
//!
//! So a burst of any length is served in order, up to the limits on numbers, and of a lasting overload as much as can be served soon. How
//! many messages wait is what the segment says: an application that lies about it refuses calls of its own.

use std::time::Duration;

/// A queue that was never empty for so long stands.
const INTERVAL: Duration = Duration::from_millis(100);
/// A queue of so many calls is never refused: a few dozen callers that wait for their answers are no overload, however slow the host.
const WAITING_LEAST: usize = 64;
/// The span over which the rate is known: the last whole one, and the one that has begun.
const SPAN_NS: u64 = 200_000_000;

/// What is known of the load of one application.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overload {
    /// When its queues were last seen empty.
    empty_ns: u64,
    span_began_ns: u64,
    /// Calls that ended in the span.
    ended: u64,
    /// And in the one before.
    ended_before: u64,
}

impl Overload {
    /// A call has ended.
    pub(super) fn ended(&mut self, now_ns: u64) {
        self.turn(now_ns);
        self.ended += 1;
    }

    /// Whether one more call is taken, beside so many that wait and so many under way in all; else how long it would have to wait.
    pub(super) fn admit(
        &mut self,
        now_ns: u64,
        waiting: usize,
        under_way: usize,
        delay_max: Duration,
    ) -> Result<(), Duration> {
        if waiting == 0 {
            self.empty_ns = now_ns;
            return Ok(());
        }
        if Duration::from_nanos(now_ns.saturating_sub(self.empty_ns)) < INTERVAL {
            return Ok(());
        }
        let per_second = self.rate(now_ns);
        let soon = per_second * delay_max.as_secs_f64();
        let served = under_way.saturating_sub(waiting);
        if waiting <= WAITING_LEAST.max(served) || waiting as f64 <= soon {
            return Ok(());
        }
        // Without any end of a call to go by, it takes as long as a queue may stand.
        let wait_s = if per_second > 0.0 { waiting as f64 / per_second } else { 1.0 };
        Err(Duration::from_secs_f64(wait_s.min(60.0)))
    }

    /// Ends of calls per second.
    fn rate(&mut self, now_ns: u64) -> f64 {
        self.turn(now_ns);
        let part = now_ns.saturating_sub(self.span_began_ns) as f64 / SPAN_NS as f64;
        // As much of the span before as makes a whole one with what there is of this.
        let ended = self.ended as f64 + self.ended_before as f64 * (1.0 - part);
        ended * 1e9 / SPAN_NS as f64
    }

    fn turn(&mut self, now_ns: u64) {
        let spans = now_ns.saturating_sub(self.span_began_ns) / SPAN_NS;
        if spans > 0 {
            self.ended_before = if spans == 1 { self.ended } else { 0 };
            self.ended = 0;
            self.span_began_ns = self.span_began_ns.saturating_add(spans.saturating_mul(SPAN_NS));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const DELAY: Duration = Duration::from_millis(20);
    const US: u64 = 1_000;

    /// A server of so many places, each of which takes so long for a call, in a world without chance.
    struct World {
        overload: Overload,
        service_ns: u64,
        /// When each place is free.
        places: Vec<u64>,
        waiting: VecDeque<u64>,
        ends: VecDeque<u64>,
        delays: Vec<u64>,
        refused: usize,
    }

    impl World {
        fn new(places: usize, service_ns: u64) -> Self {
            let (waiting, ends) = (VecDeque::new(), VecDeque::new());
            Self {
                overload: Overload::default(),
                service_ns,
                places: vec![0; places],
                waiting,
                ends,
                delays: Vec::new(),
                refused: 0,
            }
        }

        fn run_until(&mut self, now: u64) {
            loop {
                let place = (0..self.places.len()).min_by_key(|place| self.places[*place]).unwrap();
                let Some(&arrived) = self.waiting.front() else { break };
                let starts = self.places[place].max(arrived);
                if starts > now {
                    break;
                }
                self.waiting.pop_front();
                self.places[place] = starts + self.service_ns;
                self.ends.push_back(starts + self.service_ns);
                self.delays.push(starts - arrived);
            }
            while self.ends.front().is_some_and(|end| *end <= now) {
                let end = self.ends.pop_front().unwrap();
                self.overload.ended(end);
            }
        }

        fn call(&mut self, now: u64) {
            self.run_until(now);
            let under_way = self.waiting.len() + self.ends.len();
            match self.overload.admit(now, self.waiting.len(), under_way, DELAY) {
                Ok(()) => self.waiting.push_back(now),
                Err(wait) => {
                    assert!(wait > Duration::ZERO);
                    self.refused += 1;
                }
            }
        }

        fn p99(&mut self) -> u64 {
            self.delays.sort_unstable();
            self.delays[self.delays.len() * 99 / 100]
        }
    }

    /// One place, 4,000 calls per second: a load of three times as many leaves those that are taken a delay near what is allowed.
    #[test]
    fn what_is_taken_of_a_lasting_overload_waits_no_longer_than_allowed() {
        let mut world = World::new(1, 250 * US);
        let mut began = 0;
        for call in 0..60_000u64 {
            world.call(1_000_000_000 + call * 1_000_000 / 12 * US / 1000);
            if call == 6_000 {
                began = world.delays.len();
            }
        }
        world.delays.drain(..began);
        let p99 = world.p99();
        assert!(Duration::from_nanos(p99) < DELAY * 3 / 2, "{p99} ns");
        let share = world.refused as f64 / 60_000.0;
        assert!((0.6..0.7).contains(&share), "two of three: {share}");
    }

    #[test]
    fn a_burst_is_taken_whole() {
        let mut world = World::new(4, 250 * US);
        for _ in 0..500 {
            world.call(1_000_000_000);
        }
        world.run_until(2_000_000_000);
        assert_eq!((world.refused, world.delays.len()), (0, 500));
    }

    #[test]
    fn after_an_overload_all_are_taken_again() {
        let mut world = World::new(1, 250 * US);
        for call in 0..12_000u64 {
            world.call(1_000_000_000 + call * 83 * US);
        }
        assert!(world.refused > 0);
        world.run_until(3_000_000_000);
        let refused = world.refused;
        for call in 0..2_000u64 {
            world.call(3_000_000_000 + call * 500 * US);
        }
        assert_eq!(world.refused, refused);
    }

    /// Calls of a second each: as many may wait as are served.
    #[test]
    fn who_calls_slow_functions_may_wait_for_one_call_of_them() {
        let mut world = World::new(50, 1_000_000_000);
        for call in 0..100u64 {
            world.call(1_000_000_000 + call * 5_000 * US);
        }
        assert_eq!(world.refused, 0);
        for call in 0..50u64 {
            world.call(1_600_000_000 + call * 1_000 * US);
        }
        assert!(world.refused > 0, "beyond that it is an overload");
    }

    #[test]
    fn a_short_queue_is_no_overload_even_if_nothing_is_served() {
        let mut overload = Overload::default();
        for at in 1..100u64 {
            assert_eq!(overload.admit(at * 1_000_000_000, WAITING_LEAST, WAITING_LEAST, DELAY), Ok(()));
        }
        assert!(overload.admit(200_000_000_000, WAITING_LEAST + 1, WAITING_LEAST + 1, DELAY).is_err());
    }
}
