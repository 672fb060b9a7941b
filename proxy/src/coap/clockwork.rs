//! A state machine that several tasks share: one lock, and one task that keeps its time.
//!
//! ```text
//!   any task     change ──▶ something is due before what is waited for? ──▶ earlier ─┐
//!                                                                                   ▼
//!   time keeper  tick ──▶ wait until the next deadline ◀──────────────── or until told
//! ```
//!
//! Invariant: what the time keeper waits for is never later than what is due, but for the moment between `tick` and `wait`, in which
//! the notice waits for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::datagram::Transmit;

/// What is told the time.
pub(super) trait Timed {
    /// When [`Self::tick`] has to be called next.
    fn next_deadline(&self) -> Option<Instant>;

    /// Does what is due, and gives what is to be sent.
    fn tick(&mut self, now: Instant, out: &mut Vec<Transmit>);
}

/// A state machine among tasks. The lock is held for the time of one state change, never across an await.
#[derive(Debug)]
pub(super) struct Clockwork<M> {
    state: Mutex<State<M>>,
    /// Tells the time keeper that something is due before what it waits for.
    earlier: Notify,
}

#[derive(Debug)]
struct State<M> {
    machine: M,
    /// What the time keeper waits for.
    awaited: Option<Instant>,
}

impl<M: Timed> Clockwork<M> {
    pub(super) fn new(machine: M) -> Self {
        Self { state: Mutex::new(State { machine, awaited: None }), earlier: Notify::new() }
    }

    /// Changes the state, and tells the time keeper if something is due earlier than it knows.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut M, Instant) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state.machine, Instant::now());
        let next = state.machine.next_deadline();
        let earlier = next.is_some_and(|next| state.awaited.is_none_or(|awaited| next < awaited));
        if earlier {
            state.awaited = next;
        }
        drop(state);
        if earlier {
            self.earlier.notify_one();
        }
        changed
    }

    /// Looks at the state, or changes what no deadline depends on.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut M) -> T) -> T {
        look(&mut self.lock().machine)
    }

    /// Does what is due; gives what to [`Self::wait`] for.
    pub(super) fn tick(&self, out: &mut Vec<Transmit>) -> Option<Instant> {
        let mut state = self.lock();
        state.machine.tick(Instant::now(), out);
        state.awaited = state.machine.next_deadline();
        state.awaited
    }

    /// Waits until then, or until something is due before. For one task, the time keeper.
    pub(super) async fn wait(&self, until: Option<Instant>) {
        match until {
            None => self.earlier.notified().await,
            // A tick has left some of what is due to the next, so that others have their turn in between. A sleep that is over already would
            // not give it to those of the same task.
            Some(deadline) if deadline <= Instant::now() => tokio::task::yield_now().await,
            Some(deadline) => {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline.into()) => {}
                    () = self.earlier.notified() => {}
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        // A panic under the lock is a bug of ours; the door goes on with the state as it is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Something is due at one time, once.
    struct Once(Option<Instant>);

    impl Timed for Once {
        fn next_deadline(&self) -> Option<Instant> {
            self.0
        }

        fn tick(&mut self, now: Instant, _: &mut Vec<Transmit>) {
            self.0 = self.0.filter(|due| *due > now);
        }
    }

    /// Whether the time keeper, waiting for one time, is woken at once by a change to another.
    async fn wakes(awaited_s: Option<u64>, changed_s: Option<u64>) -> bool {
        let after = |seconds: Option<u64>| seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let clockwork = Clockwork::new(Once(after(awaited_s)));
        let until = clockwork.tick(&mut Vec::new());
        clockwork.change(|once, _| once.0 = after(changed_s));
        let wait = tokio::time::timeout(Duration::from_millis(1), clockwork.wait(until));
        wait.await.is_ok()
    }

    #[tokio::test]
    async fn what_is_due_earlier_wakes_the_time_keeper_and_what_is_due_later_does_not() {
        assert!(wakes(None, Some(3600)).await);
        assert!(wakes(Some(7200), Some(3600)).await);
        assert!(!wakes(Some(3600), Some(7200)).await);
        assert!(!wakes(Some(3600), None).await);
        assert!(!wakes(None, None).await);
    }

    /// More is due than one tick does.
    struct Endless {
        due: Instant,
        ticks: usize,
    }

    impl Timed for Endless {
        fn next_deadline(&self) -> Option<Instant> {
            Some(self.due)
        }

        fn tick(&mut self, _: Instant, _: &mut Vec<Transmit>) {
            self.ticks += 1;
        }
    }

    #[tokio::test]
    async fn the_time_keeper_leaves_others_of_its_task_their_turn_between_two_ticks() {
        let due = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        let clockwork = Clockwork::new(Endless { due, ticks: 0 });
        let keep_time = async {
            loop {
                let until = clockwork.tick(&mut Vec::new());
                clockwork.wait(until).await;
            }
        };
        tokio::select! {
            biased;
            () = keep_time => {}
            () = std::future::ready(()) => {}
        }
        assert_eq!(clockwork.with(|endless| endless.ticks), 1);
    }

    #[tokio::test]
    async fn the_time_keeper_wakes_when_something_is_due() {
        let clockwork = Clockwork::new(Once(Some(Instant::now() + Duration::from_millis(5))));
        let mut out = Vec::new();
        while let Some(until) = clockwork.tick(&mut out) {
            clockwork.wait(Some(until)).await;
        }
        assert!(clockwork.with(|once| once.0.is_none()));
    }
}
