//! The load itself: one loop on one thread, which waits for what comes first: the next call's time, or the end of one under way.
//!
//! Nothing spins: a processor that the server shares is the server's. The kernel's timer gives the times (tokio's own have a
//! millisecond), and no call costs a task.

use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::sys::time::TimeSpec;
use nix::sys::timer::Expiration;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::bursts::Bursts;
use super::lane::{Lane, Lanes};
use super::schedule::{Load, Schedule};
use super::tally::{End, Tally, Times};

/// How long, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    /// Calls are sent for so long at most.
    pub(crate) duration: Duration,
    /// And so many at most.
    pub(crate) calls_max: u64,
    /// Calls that are due before this are made, and not counted.
    pub(crate) warm_up: Duration,
    /// How long one call is waited for, and may wait for a lane.
    pub(crate) timeout: Duration,
    pub(crate) outstanding_max: usize,
}

/// What a run has measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) tally: Tally,
    /// Each by itself, of a load of bursts.
    pub(crate) bursts: Bursts,
    /// Since the end of the warm-up.
    pub(crate) took: Duration,
    /// Over how many connections or sockets.
    pub(crate) lanes: usize,
}

type Call = Pin<Box<dyn Future<Output = (Lane, Times, End)>>>;

struct Run {
    plan: Plan,
    lanes: Lanes,
    began: Instant,
    /// When calls are due that wait for a lane.
    waiting: VecDeque<Duration>,
    under_way: FuturesUnordered<Call>,
    /// Of those, and of those that wait, the ones that were due after the warm-up.
    counted: u64,
    sent: u64,
    interrupted: bool,
    tally: Tally,
    bursts: Bursts,
}

/// Loads the target until the plan is done, or `stop` is; then waits for what is outstanding. `progress` is called now and then.
pub(crate) async fn run(
    plan: Plan,
    lanes: Lanes,
    tally: Tally,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(&Tally, Duration),
) -> std::io::Result<Measured> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    let expired = sandbar_runtime::watch(timer.as_fd().try_clone_to_owned()?)?;
    let began = Instant::now();
    let mut run = Run::new(plan, lanes, began, tally);
    let mut schedule = Schedule::new(plan.load, 1);
    let mut next = schedule.next().filter(|due| run.may_send(*due));
    if let Load::Closed { in_flight } = plan.load {
        (0..in_flight).for_each(|_| run.follow_up());
    }
    set(&timer, next, began)?;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut stop = std::pin::pin!(stop);
    loop {
        if next.is_none() && run.under_way.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            Some((lane, times, end)) = run.under_way.next() => {
                run.ended(lane, times, end);
                if matches!(plan.load, Load::Closed { .. }) {
                    run.follow_up();
                }
            }
            ready = expired.readable(), if next.is_some() => {
                ready?.clear_ready();
                while let Some(due) = next.filter(|due| *due <= began.elapsed()) {
                    run.due(due);
                    next = schedule.next().filter(|due| run.may_send(*due));
                }
                set(&timer, next, began)?;
            }
            _ = seconds.tick() => progress(&run.tally, began.elapsed()),
            () = &mut stop => {
                run.interrupt();
                break;
            }
        }
    }
    Ok(run.end())
}

/// Wakes the loop when the next call is due; a time that has passed is now.
fn set(timer: &TimerFd, due: Option<Duration>, began: Instant) -> std::io::Result<()> {
    let Some(due) = due else { return Ok(()) };
    let left = due.saturating_sub(began.elapsed()).max(Duration::from_nanos(1));
    timer.set(Expiration::OneShot(TimeSpec::from(left)), TimerSetTimeFlags::empty())?;
    Ok(())
}

impl Run {
    fn new(plan: Plan, lanes: Lanes, began: Instant, tally: Tally) -> Self {
        Self {
            plan,
            lanes,
            began,
            waiting: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            counted: 0,
            sent: 0,
            interrupted: false,
            bursts: Bursts::new(plan.load, tally.clone()),
            tally,
        }
    }

    fn may_send(&self, due: Duration) -> bool {
        due < self.plan.warm_up.saturating_add(self.plan.duration) && self.sent < self.plan.calls_max
    }

    /// A closed load's next call, which is due when the one before has ended.
    fn follow_up(&mut self) {
        let due = self.began.elapsed();
        if self.may_send(due) {
            self.due(due);
        }
    }

    fn due(&mut self, due: Duration) {
        self.sent += 1;
        self.bursts.sent(due);
        if self.under_way.len() + self.waiting.len() >= self.plan.outstanding_max {
            self.not_sent(due, "not sent: too many outstanding");
            return;
        }
        self.counted += u64::from(self.counts(due));
        self.waiting.push_back(due);
        self.start();
    }

    /// Starts what waits, as far as there are lanes for it.
    fn start(&mut self) {
        while let Some(&due) = self.waiting.front() {
            let Some(lane) = self.lanes.take() else { break };
            self.waiting.pop_front();
            if self.began.elapsed() > due.saturating_add(self.plan.timeout) {
                self.lanes.put(lane);
                self.counted -= u64::from(self.counts(due));
                self.not_sent(due, "not sent: no connection was free in time");
            } else {
                self.under_way.push(call(lane, due, self.began));
            }
        }
    }

    fn counts(&self, due: Duration) -> bool {
        due >= self.plan.warm_up
    }

    fn not_sent(&mut self, due: Duration, why: &str) {
        self.add(End::Error(why.to_owned()), Times { due, sent: due, ended: due });
    }

    fn ended(&mut self, lane: Lane, times: Times, end: End) {
        self.lanes.put(lane);
        self.counted -= u64::from(self.counts(times.due));
        self.add(end, times);
        self.start();
    }

    fn add(&mut self, end: End, times: Times) {
        if self.counts(times.due) {
            self.bursts.add(&end, times);
            self.tally.add(end, times);
        }
    }

    /// What is outstanding is left: nobody waits for it any more.
    fn interrupt(&mut self) {
        self.tally.interrupted(self.counted);
        self.tally.last = self.tally.last.max(self.began.elapsed());
        self.interrupted = true;
    }

    /// Until when calls were made or answered. Waiting for calls that are lost comes after it; where nothing but the time ended the
    /// run, all of that time belongs to it.
    fn end(mut self) -> Measured {
        let by_time =
            !self.interrupted && self.sent < self.plan.calls_max && !matches!(self.plan.load, Load::Bursts { .. });
        let planned = if by_time { self.plan.warm_up + self.plan.duration } else { Duration::ZERO };
        let took = self.tally.last.max(planned).saturating_sub(self.plan.warm_up);
        self.bursts.end();
        Measured { tally: self.tally, bursts: self.bursts, took, lanes: self.lanes.made() }
    }
}

/// One call, to its end.
fn call(mut lane: Lane, due: Duration, began: Instant) -> Call {
    Box::pin(async move {
        let sent = began.elapsed();
        let end = lane.call().await;
        (lane, Times { due, sent, ended: began.elapsed() }, end)
    })
}
