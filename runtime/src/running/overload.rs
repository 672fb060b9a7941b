//! Whether more comes than an application can serve: then calls are refused on arrival, so that those which are taken do not wait for
//! long, whatever their number.
//!
//! A queue is good for a burst, and bad when it stands: then each call only waits for those before it. As CoDel does for packets (Nichols
//! and Jacobson, ACM Queue 2012), a queue is told to stand by time, not by length: it has not been empty for [`INTERVAL`]. It stands until
//! nothing was refused for as long, as a queue that is kept short is empty now and then, and would be long at once if all were taken again.
//! While it stands, a call is refused if what waits is
//!
//! - more than is served in the delay that is allowed, by the rate of the last tenths of a second, and
//! - more than is being served: who calls slow functions can wait as long as one call of them takes, and
//! - more than a queue that is no overload, whatever holds it up.
//!
//! A queue stands as well where many callers each wait for their answer before they call again. They cannot come faster than they are
//! served, and their wait is what their number makes it: they have all of the delay that the host allows. Where [many](REFUSED_PART) had to be
//! refused even so, others only wait behind a queue that will never be shorter, and a short one keeps the application as busy: they have a
//! [part](OVERLOADED_PART) of it.
//!
//! So a burst of any length is served in order, up to the limits on numbers, and of a lasting overload as much as can be served soon. How
//! many messages wait is what the segment says: an application that lies about it refuses calls of its own.

use std::time::Duration;

/// A queue that was never empty for so long stands: longer than hundreds of calls take that come at once.
const INTERVAL: Duration = Duration::from_millis(200);
/// A queue of so many calls that stands is never refused: a few dozen callers that wait for their answers are no overload, however slow
/// the host.
const STANDING_LEAST: usize = 64;
/// Nor one of so many where many are refused: as many as keep an application busy.
const OVERLOADED_LEAST: usize = 16;
/// Many are refused if they are more than this part of those that are served.
const REFUSED_PART: f64 = 0.25;
/// Of the delay allowed, what those have that come where many are refused.
const OVERLOADED_PART: f64 = 0.25;
/// The span over which the rates are known: the last whole one, and the one that has begun.
const SPAN_NS: u64 = 200_000_000;

/// What is known of the load of one application.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Overload {
    /// When its queues were last seen empty.
    empty_ns: u64,
    /// When a call was last refused.
    refused_ns: u64,
    span_began_ns: u64,
    now: Counts,
    before: Counts,
}

/// Calls of one span.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    refused: u64,
    ended: u64,
}

/// Calls per second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    refused: f64,
    ended: f64,
}

impl Overload {
    /// A call has ended.
    pub(super) fn ended(&mut self, now_ns: u64) {
        self.turn(now_ns);
        self.now.ended += 1;
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
        let since = |then_ns: u64| Duration::from_nanos(now_ns.saturating_sub(then_ns));
        if since(self.empty_ns) < INTERVAL && since(self.refused_ns) >= INTERVAL {
            return Ok(());
        }
        self.turn(now_ns);
        let rates = self.rates(now_ns);
        let overloaded = rates.refused > rates.ended * REFUSED_PART;
        let (part, least) = if overloaded { (OVERLOADED_PART, OVERLOADED_LEAST) } else { (1.0, STANDING_LEAST) };
        let soon = rates.ended * delay_max.as_secs_f64() * part;
        let served = under_way.saturating_sub(waiting);
        if waiting <= least.max(served) || waiting as f64 <= soon {
            return Ok(());
        }
        self.refused_ns = now_ns;
        self.now.refused += 1;
        // Without any end of a call to go by, it takes as long as a queue may stand.
        let wait_s = if rates.ended > 0.0 { waiting as f64 / rates.ended } else { 1.0 };
        Err(Duration::from_secs_f64(wait_s.min(60.0)))
    }

    fn rates(&self, now_ns: u64) -> Rates {
        // As much of the span before as makes a whole one with what there is of this.
        let rest = 1.0 - now_ns.saturating_sub(self.span_began_ns) as f64 / SPAN_NS as f64;
        let per_second = |now: u64, before: u64| (now as f64 + before as f64 * rest) * 1e9 / SPAN_NS as f64;
        Rates {
            refused: per_second(self.now.refused, self.before.refused),
            ended: per_second(self.now.ended, self.before.ended),
        }
    }

    fn turn(&mut self, now_ns: u64) {
        let spans = now_ns.saturating_sub(self.span_began_ns) / SPAN_NS;
        if spans > 0 {
            self.before = if spans == 1 { self.now } else { Counts::default() };
            self.now = Counts::default();
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

    /// One place, 4,000 calls per second, and so many that come: how long those wait that are taken, but for the first second, and
    /// which share is refused.
    fn lasting(calls_per_second: u64) -> (Duration, f64) {
        let mut world = World::new(1, 250 * US);
        let calls = calls_per_second * 5;
        let mut began = 0;
        for call in 0..calls {
            world.call(1_000_000_000 + call * 1_000_000_000 / calls_per_second);
            if call == calls / 5 {
                began = world.delays.len();
            }
        }
        world.delays.drain(..began);
        (Duration::from_nanos(world.p99()), world.refused as f64 / calls as f64)
    }

    #[test]
    fn what_is_taken_of_a_large_overload_waits_for_a_part_of_what_is_allowed() {
        let (p99, refused) = lasting(12_000);
        assert!(p99 < DELAY.mul_f64(OVERLOADED_PART * 1.5), "{p99:?}");
        assert!((0.6..0.7).contains(&refused), "two of three: {refused}");
    }

    #[test]
    fn what_is_taken_of_a_small_overload_waits_no_longer_than_allowed() {
        let (p99, refused) = lasting(4_400);
        assert!(p99 < DELAY * 3 / 2, "{p99:?}");
        assert!((0.05..0.15).contains(&refused), "one of eleven: {refused}");
    }

    /// Every tenth of a second nothing comes for ten milliseconds, and what waits is served.
    #[test]
    fn a_moment_without_a_queue_does_not_let_all_in_again() {
        let mut world = World::new(1, 250 * US);
        let (mut now, mut longest) = (1_000_000_000, 0);
        for call in 0..60_000u64 {
            now += if call % 1_200 == 0 { 10_000 * US } else { 83 * US };
            world.call(now);
            if call >= 15_000 {
                longest = longest.max(world.waiting.len());
            }
        }
        let most = DELAY.as_nanos() as f64 * OVERLOADED_PART / (250 * US) as f64;
        assert!(longest as f64 <= most + 2.0, "{longest} calls waited");
    }

    /// Callers of whom each calls again when it has its answer, at a fast host and at a slow one: all that come are served, as long as
    /// they wait.
    #[test]
    fn callers_that_wait_are_not_refused() {
        for (callers, service_ns) in [(70, 250 * US), (50, 2_000 * US), (50, 20_000 * US)] {
            let mut world = World::new(1, service_ns);
            let mut now = 1_000_000_000;
            for _ in 0..callers {
                world.call(now);
            }
            for _ in 0..20_000 {
                now += service_ns;
                world.call(now);
            }
            assert_eq!(world.refused, 0, "{callers} callers, {service_ns} ns each");
        }
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
            assert_eq!(overload.admit(at * 1_000_000_000, STANDING_LEAST, STANDING_LEAST, DELAY), Ok(()));
        }
        assert!(overload.admit(200_000_000_000, STANDING_LEAST + 1, STANDING_LEAST + 1, DELAY).is_err());
    }
}
