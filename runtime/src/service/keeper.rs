//! Who keeps an application in service: owns its sandbox, makes another when one ends, and puts it to rest.
//!
//! ```text
//!               ended by itself                       made, after a pause
//!   Running ───────────────────────▶ Down ───────────────────────────────▶ Running
//!      │                              ▲ could not be made
//!      │ nothing for long, or asked   │               made for a call
//!      └────────────────────────────▶ Resting ───────────────────────────▶ Running
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, watch};

use super::{Maker, State, Stop};
use crate::memory;
use crate::running::Running;
use crate::sandbox::SandboxError;

/// Pause before a sandbox that ended by itself is made again: doubles each time, from the first to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// A sandbox that lived this long has ended of something new.
const LIVED_WELL: Duration = Duration::from_secs(30);
/// How long after an application went to rest the agent gives memory back.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(6);
/// How often, at least, one looks whether what runs on its own has ended, once an application would be at rest but for that. Its end is told,
/// unless somebody inside sees to it that it is not.
const LOOK: Duration = Duration::from_secs(1);
/// For how long who asks for rest now has one wait until nothing is under way.
pub(super) const ASKED_MAX: Duration = Duration::from_secs(5);
/// How often one looks meanwhile.
const ASKED_LOOK: Duration = Duration::from_millis(20);
/// How long an old version may take to finish its calls after a new one has come.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Sandboxes that are started or made again at one time: as many as keep a small machine busy. When a host starts, or all its
/// sandboxes have died at once, each would else wait for all others until its time is over.
static TURNS: Semaphore = Semaphore::const_new(4);
/// How long one of them is counted.
const TURN_MAX: Duration = Duration::from_secs(3);

/// Completes when nothing has happened for so long, or somebody has asked for it, and the sandbox is out of service for it. `quiet` tells how
/// long nothing has, and `retire` takes it out of service, if nothing is under way.
///
/// It is so within a few milliseconds of its time, and within [`LOOK`] if an aside of the application's ends untold.
async fn until_rest(quiet: impl Fn() -> Duration, retire: impl Fn() -> bool, after: Option<Duration>, asked: &Notify) {
    // One who asked for an earlier sandbox has been answered.
    forget(asked).await;
    let mut pause = Duration::ZERO;
    loop {
        let due = async {
            let Some(after) = after else { return std::future::pending().await };
            tokio::time::sleep(after.saturating_sub(quiet()).max(pause)).await;
        };
        tokio::select! {
            () = due => {
                let after = after.unwrap_or_default();
                if quiet() >= after && retire() {
                    return;
                }
                pause = if quiet() >= after { LOOK.min(after) } else { Duration::ZERO };
            }
            () = asked.notified() => {
                let until = tokio::time::Instant::now() + ASKED_MAX;
                while tokio::time::Instant::now() < until {
                    if retire() {
                        return;
                    }
                    tokio::time::sleep(ASKED_LOOK).await;
                }
            }
        }
    }
}

/// Forgets what was told before.
async fn forget(told: &Notify) {
    tokio::select! {
        biased;
        () = told.notified() => {}
        () = std::future::ready(()) => {}
    }
}

/// The pause before the next sandbox, when one has ended that lived so long.
fn pause_after(pause: Duration, over: Over, lived: Duration) -> Duration {
    if over == Over::Rests || lived > LIVED_WELL { AGAIN.0 } else { pause }
}

/// Owns the sandbox of an application for as long as it is deployed.
pub(super) struct Keeper {
    pub(super) maker: Maker,
    pub(super) states: watch::Sender<State>,
    pub(super) stopped: watch::Receiver<Stop>,
    /// How long nothing happens before it is put to rest.
    pub(super) rest_after: Option<Duration>,
    /// Told when a call comes for an application at rest.
    pub(super) wanted: Arc<Notify>,
    /// Told when it is to be put to rest now.
    pub(super) asked_to_rest: Arc<Notify>,
}

/// Why a sandbox is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// It ended by itself.
    Ended,
    /// It was not called for long.
    Rests,
    /// The service ends.
    Stopped,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut pause = AGAIN.0;
        if matches!(*self.states.borrow(), State::Down(_)) {
            self.make("started").await;
        }
        loop {
            let state = self.states.borrow().clone();
            match state {
                State::Running(running) => {
                    let since = Instant::now();
                    let over = Box::pin(self.keep(&running)).await;
                    Box::pin(self.retire(running, over)).await;
                    if over == Over::Stopped {
                        return;
                    }
                    pause = pause_after(pause, over, since.elapsed());
                }
                State::Resting => {
                    tokio::select! {
                        () = self.wanted.notified() => {}
                        _ = self.stopped.wait_for(|stop| *stop != Stop::No) => return,
                    }
                    self.make("made for a call").await;
                }
                State::Down(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = self.stopped.wait_for(|stop| *stop != Stop::No) => return,
                    }
                    pause = (pause * 2).min(AGAIN.1);
                    self.make("made again").await;
                }
            }
        }
    }

    /// Serves a sandbox until it is over.
    async fn keep(&mut self, running: &Arc<Running>) -> Over {
        let serving = running.serve();
        tokio::pin!(serving);
        let resting = until_rest(|| running.quiet(), || running.retire_if_idle(), self.rest_after, &self.asked_to_rest);
        let stop = tokio::select! {
            () = &mut serving => return Over::Ended,
            () = resting => return Over::Rests,
            stop = self.stopped.wait_for(|stop| *stop != Stop::No) => stop.map_or(Stop::AtOnce, |stop| *stop),
        };
        if stop == Stop::Drained {
            let drained = async {
                while !running.retire_if_idle() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = &mut serving => {}
                _ = self.stopped.wait_for(|stop| *stop == Stop::AtOnce) => {}
                result = tokio::time::timeout(DRAIN_MAX, drained) => {
                    if result.is_err() {
                        self.maker.log.add("", "the old version is ended with calls under way");
                    }
                }
            }
        }
        Over::Stopped
    }

    /// Takes a sandbox out of service and ends it.
    async fn retire(&self, running: Arc<Running>, over: Over) {
        let state = match over {
            Over::Rests => {
                tracing::debug!(application = self.maker.specification.application.name.as_str(), "put to rest");
                // One that was told while another sandbox was made is of a call that has long been served.
                forget(&self.wanted).await;
                State::Resting
            }
            Over::Ended | Over::Stopped => State::Down("its sandbox ended".to_owned()),
        };
        self.states.send_replace(state);
        running.retire();
        running.sandbox.end().await;
        drop(running);
        if over == Over::Rests {
            // Later than the others that go to rest about now.
            tokio::spawn(async {
                tokio::time::sleep(GIVE_BACK_AFTER).await;
                tokio::task::spawn_blocking(memory::give_back);
            });
        }
    }

    /// Makes a sandbox; `what` is said of it in the log.
    async fn make(&self, what: &str) {
        let name = self.maker.specification.application.name.as_str();
        // Its state is large, and is not to lie in that of every application at rest.
        match Box::pin(self.in_turn()).await {
            Ok(running) => {
                if matches!(*self.states.borrow(), State::Resting) {
                    tracing::debug!(application = name, "back from rest");
                } else {
                    self.maker.log.add("", &format!("the sandbox was {what}"));
                }
                self.states.send_replace(State::Running(running));
            }
            Err(SandboxError::Unwanted) => {}
            Err(error) => {
                let error = crate::chain(&error);
                tracing::warn!(application = name, error, "a sandbox could not be {what}; it is tried again");
                self.maker.log.add("", &format!("the sandbox could not be {what}: {error}"));
                self.states.send_replace(State::Down(error));
            }
        }
    }

    /// Makes a sandbox when no more than a few others are being made. One that takes long is no longer counted: its code may hang.
    async fn in_turn(&self) -> Result<Arc<Running>, SandboxError> {
        let unwanted = || {
            let mut stopped = self.stopped.clone();
            async move {
                let _stopped = stopped.wait_for(|stop| *stop != Stop::No).await;
            }
        };
        let turn = tokio::select! {
            turn = TURNS.acquire() => turn,
            () = unwanted() => return Err(SandboxError::Unwanted),
        };
        let making = self.maker.make(unwanted());
        tokio::pin!(making);
        if let Ok(made) = tokio::time::timeout(TURN_MAX, &mut making).await {
            return made;
        }
        drop(turn);
        making.await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// An application that was active last at some time, and whether anything is under way.
    struct Activity {
        began: tokio::time::Instant,
        active: Cell<Duration>,
        busy: Cell<bool>,
    }

    impl Activity {
        fn begin() -> Self {
            Self { began: tokio::time::Instant::now(), active: Cell::default(), busy: Cell::new(false) }
        }

        fn quiet(&self) -> Duration {
            self.began.elapsed().saturating_sub(self.active.get())
        }

        /// How long it takes until it rests, beside what else happens.
        async fn rests_after(
            &self,
            after: Option<Duration>,
            asked: &Notify,
            happens: impl Future<Output = ()>,
        ) -> Duration {
            let rests = async {
                until_rest(|| self.quiet(), || !self.busy.get(), after, asked).await;
                self.began.elapsed()
            };
            tokio::join!(rests, happens).0
        }

        /// Something ends at this time, which is told.
        async fn ends(&self, at: Duration) {
            tokio::time::sleep_until(self.began + at).await;
            self.active.set(at);
            self.busy.set(false);
        }
    }

    const AFTER: Duration = Duration::from_secs(100);
    const SLACK: Duration = Duration::from_millis(5);

    fn at(time: Duration, seconds: u64) {
        let due = Duration::from_secs(seconds);
        assert!((due..=due + SLACK).contains(&time), "{time:?} is not {due:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_rests_when_its_time_has_come_and_not_later() {
        let never = Notify::new();
        at(Activity::begin().rests_after(Some(AFTER), &never, async {}).await, 100);
        let called = Activity::begin();
        at(called.rests_after(Some(AFTER), &never, called.ends(Duration::from_secs(99))).await, 199);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_what_ran_on_its_own() {
        let (never, aside) = (Notify::new(), Activity::begin());
        aside.busy.set(true);
        at(aside.rests_after(Some(AFTER), &never, aside.ends(Duration::from_secs(150))).await, 250);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_untold_holds_it_up_for_a_look() {
        let (never, aside) = (Notify::new(), Activity::begin());
        aside.busy.set(true);
        let ends_untold = async {
            tokio::time::sleep(Duration::from_millis(150_500)).await;
            aside.busy.set(false);
        };
        let rested = aside.rests_after(Some(AFTER), &never, ends_untold).await;
        assert!(rested <= Duration::from_millis(150_500) + LOOK + SLACK, "{rested:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_obeyed_when_nothing_is_under_way() {
        let (asked, busy) = (Notify::new(), Activity::begin());
        busy.busy.set(true);
        let asks = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.notify_one();
            busy.ends(Duration::from_secs(3)).await;
        };
        let rested = busy.rests_after(None, &asked, asks).await;
        assert!(rested <= Duration::from_secs(3) + ASKED_LOOK + SLACK, "{rested:?}");
    }

    #[test]
    fn one_that_rested_or_lived_well_is_made_again_soon() {
        let (long, short) = (AGAIN.1, Duration::from_secs(1));
        assert_eq!(pause_after(long, Over::Ended, short), long);
        assert_eq!(pause_after(long, Over::Rests, short), AGAIN.0);
        assert_eq!(pause_after(long, Over::Ended, LIVED_WELL * 2), AGAIN.0);
    }
}
