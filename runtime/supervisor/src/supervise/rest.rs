//! The steps to rest that are taken inside a sandbox, one after another, while nothing is under way.
//!
//! ```text
//!            nothing under way for `ready`                 … for `workers`
//!   Awake ──────────────────────────────────▶ Instances ──────────────────▶ Workers
//!     ▲       instances that stand ready end      │  workers end, a template     │
//!     │                                           │  for Python stands by        │
//!     └───────────────────────────────────────────┴──────────────────────────────┘
//!        something is under way: workers are started again, those first that have messages or will be handed some
//! ```
//!
//! The last step, the end of the sandbox, is the agent's. A message for a function without a worker wakes the supervisor as any message
//! does, and waits in its queue until a worker has made an instance for it.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use sandbar_bus::slot::Phase;

use super::worker::{AGAIN, Worker};
use super::{Supervisor, TICK};
use crate::protocol::{Event, RestPlan, RestStep};

/// How far an application has gone to rest, and when it goes on.
#[derive(Debug)]
pub(super) struct Rest {
    plan: RestPlan,
    step: RestStep,
}

impl Rest {
    pub(super) fn new(plan: RestPlan) -> Self {
        Self { plan, step: RestStep::Awake }
    }

    /// The step that is due when nothing has been under way for so long.
    fn due(&self, quiet: Duration) -> RestStep {
        let over = |after: Option<Duration>| after.is_some_and(|after| after <= quiet);
        if over(self.plan.workers) {
            RestStep::Workers
        } else if over(self.plan.ready) {
            RestStep::Instances.max(self.step)
        } else {
            self.step
        }
    }

    /// How long until the next step, if there is one.
    fn until_next(&self, quiet: Duration) -> Option<Duration> {
        let ready = self.plan.ready.filter(|_| self.step == RestStep::Awake);
        let workers = self.plan.workers.filter(|_| self.step < RestStep::Workers);
        ready.into_iter().chain(workers).min().map(|after| after.saturating_sub(quiet))
    }
}

impl Supervisor {
    /// How long until the next step is to be taken; `None` if there is none.
    pub(super) fn rest_timeout(&self, now: Instant) -> Option<Duration> {
        let left = self.rest.until_next(now.saturating_duration_since(self.busy_at))?;
        // One that is due and could not be taken is tried again.
        Some(if left.is_zero() { TICK } else { left })
    }

    /// Takes the steps that are due. To be called when nothing is under way.
    pub(super) fn rest_if_due(&mut self, now: Instant) {
        let due = self.rest.due(now.saturating_duration_since(self.busy_at));
        if !self.was_ready || due == self.rest.step {
            return;
        }
        if self.rest.step == RestStep::Awake {
            self.end_instances();
            self.step_to(RestStep::Instances);
        }
        if due == RestStep::Workers && self.may_end_workers() {
            self.end_workers();
            self.step_to(RestStep::Workers);
        }
    }

    fn step_to(&mut self, step: RestStep) {
        self.rest.step = step;
        self.tell(&Event::Rests { step });
    }

    fn end_instances(&mut self) {
        for function in 0..self.functions.len() {
            self.bus.keep_none_ready(function, true);
            for slot in 0..self.bus.slots().len() {
                self.dismiss(function, slot);
            }
        }
    }

    /// Whether no instance is left, nor any worker that is being started or renewed.
    fn may_end_workers(&self) -> bool {
        let free = self.bus.slots().iter().all(|slot| slot.state().is_some_and(|state| state.phase == Phase::Free));
        let still =
            |worker: &Worker| !matches!(worker, Worker::Loading { .. } | Worker::Running { successor: Some(_), .. });
        free && self.dying.is_empty() && self.workers.iter().all(still)
    }

    fn end_workers(&mut self) {
        for worker in &mut self.workers {
            if let Worker::Running { pid, .. } = worker {
                let pid = *pid;
                *worker = Worker::Resting { ending: Some(pid) };
                let _dead_already = kill(pid, Signal::SIGKILL);
            }
        }
        self.templates.stand_by(&self.outlets, &self.functions);
    }

    /// Something is under way: workers are there again, and instances stand ready, from now on.
    pub(super) fn wake_up(&mut self) {
        if self.rest.step == RestStep::Awake {
            return;
        }
        for function in 0..self.functions.len() {
            self.bus.keep_none_ready(function, false);
            self.bus.worker_bell(function).ring();
        }
        self.rest.step = RestStep::Awake;
        self.recall_workers();
        self.tell(&Event::Rests { step: RestStep::Awake });
    }

    /// Starts workers that were ended for rest: at once those of functions with messages, and of those that these hand on to; then the
    /// others, one at a time, so that they do not hold up the first.
    pub(super) fn recall_workers(&mut self) {
        let rests = |worker: &Worker| matches!(worker, Worker::Resting { ending: None });
        if self.rest.step != RestStep::Awake || !self.workers.iter().any(rests) {
            return;
        }
        let wanted = with_next(|function| self.bus.waiting(function) > 0, &self.next);
        let loads = self.workers.iter().any(|worker| matches!(worker, Worker::Loading { .. }));
        let waited_for = (0..wanted.len()).any(|function| wanted[function] && rests(&self.workers[function]));
        let mut others = usize::from(!loads && !waited_for);
        for (function, wanted) in wanted.into_iter().enumerate() {
            if !rests(&self.workers[function]) || !wanted && others == 0 {
                continue;
            }
            others -= usize::from(!wanted);
            self.workers[function] = match self.spawn_worker(function) {
                Ok(process) => Worker::Loading { process, pause: AGAIN.0 },
                Err(_) => Worker::Down { until: Instant::now() + AGAIN.0, pause: AGAIN.0 },
            };
        }
    }
}

/// By function, whether it is one of these or gets messages that began there.
fn with_next(first: impl Fn(usize) -> bool, next: &[Vec<usize>]) -> Vec<bool> {
    let mut wanted = vec![false; next.len()];
    let mut found: Vec<usize> = (0..next.len()).filter(|function| first(*function)).collect();
    while let Some(function) = found.pop() {
        let seen = wanted.get_mut(function).map(|wanted| std::mem::replace(wanted, true));
        if seen == Some(false) {
            found.extend(&next[function]);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rest(ready: Option<u64>, workers: Option<u64>, step: RestStep) -> Rest {
        Rest { plan: RestPlan { ready: ready.map(s), workers: workers.map(s) }, step }
    }

    #[test]
    fn each_step_has_its_time() {
        let awake = rest(Some(30), Some(120), RestStep::Awake);
        assert_eq!((awake.due(s(29)), awake.until_next(s(29))), (RestStep::Awake, Some(s(1))));
        assert_eq!((awake.due(s(30)), awake.until_next(s(31))), (RestStep::Instances, Some(Duration::ZERO)));
        let instances = rest(Some(30), Some(120), RestStep::Instances);
        assert_eq!((instances.due(s(31)), instances.until_next(s(31))), (RestStep::Instances, Some(s(89))));
        assert_eq!(instances.due(s(120)), RestStep::Workers);
        let workers = rest(Some(30), Some(120), RestStep::Workers);
        assert_eq!((workers.due(s(1000)), workers.until_next(s(1000))), (RestStep::Workers, None));
    }

    #[test]
    fn a_step_that_is_never_taken_is_passed_over_by_the_next() {
        let never = rest(None, None, RestStep::Awake);
        assert_eq!((never.due(s(10_000)), never.until_next(s(0))), (RestStep::Awake, None));
        let workers_alone = rest(None, Some(60), RestStep::Awake);
        assert_eq!((workers_alone.due(s(59)), workers_alone.until_next(s(0))), (RestStep::Awake, Some(s(60))));
        assert_eq!(workers_alone.due(s(60)), RestStep::Workers);
        let workers_first = rest(Some(60), Some(10), RestStep::Awake);
        assert_eq!((workers_first.due(s(10)), workers_first.until_next(s(0))), (RestStep::Workers, Some(s(10))));
    }

    #[test]
    fn workers_of_a_chain_are_wanted_together() {
        // 0 → 1 → 2 → 1, 3 alone; a successor that does not exist is nobody.
        let next = [vec![1], vec![2, 9], vec![1], vec![]];
        assert_eq!(with_next(|function| function == 0, &next), [true, true, true, false]);
        assert_eq!(with_next(|function| function == 3, &next), [false, false, false, true]);
        assert_eq!(with_next(|_| false, &next), [false; 4]);
    }
}
