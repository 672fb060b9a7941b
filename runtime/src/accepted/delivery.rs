//! Accepted calls made: each is begun when its application has a place for it, and its end written down.
//!
//! What becomes of an attempt:
//!
//! | outcome | |
//! |---|---|
//! | done | the answer is kept |
//! | failed, deadline passed | made again after a pause, as often as [`attempts_max`](super::AcceptedLimits) says; then it is dead |
//! | overloaded | made again when the host says so; not counted |
//! | the application is not there | the same: it could not be started with the host, or is being replaced |
//! | any other: the function is gone, the payload too large now, … | dead: it would be the same each time |

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::store::StoreError;
use super::{Accepted, now_ms, record};
use crate::call::{Answer, CallId, Outcome};
use crate::host_bus::HostBus;

/// How often it is looked whether answers have been kept for long enough.
const EXPIRY: Duration = Duration::from_secs(60);
/// The least pause before a call is made again that was refused as overloaded: others come first.
const OVERLOADED_PAUSE_MIN: Duration = Duration::from_millis(200);
/// The pause before it is tried again to make a call whose application is not there.
const ABSENT_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause before another attempt.
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// The pause before a failing disk is tried again, at first and at most.
const DISK_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long calls under way may take when the agent stops.
const LAST: Duration = Duration::from_secs(1);

/// What becomes of a call after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ended,
    /// Another attempt, after this pause; whether this one counts.
    Again(Duration, bool),
}

impl Accepted {
    /// Makes calls from now on.
    pub(crate) fn deliver(self: &Arc<Self>, bus: &Arc<HostBus>) {
        let task = tokio::spawn(Arc::clone(self).run(Arc::clone(bus)));
        self.delivery.lock().unwrap_or_else(std::sync::PoisonError::into_inner).replace(task);
    }

    async fn run(self: Arc<Self>, bus: Arc<HostBus>) {
        // Dropped, it ends them.
        let mut under_way = JoinSet::new();
        let mut expiry = Instant::now();
        let mut stopping = self.stopping.subscribe();
        while !*stopping.borrow_and_update() {
            let now = Instant::now();
            if expiry <= now {
                self.expire().await;
                expiry = now + EXPIRY;
            }
            let begun = self.index().begin(now);
            for call in begun {
                under_way.spawn(Arc::clone(&self).make(Arc::clone(&bus), call));
            }
            let (next, keeps) = {
                let index = self.index();
                (index.next_begin(), index.keeps())
            };
            let until = [next, keeps.then_some(expiry)].into_iter().flatten().min();
            tokio::select! {
                () = self.changed.notified() => {}
                _ = stopping.changed() => {}
                Some(_) = under_way.join_next() => {}
                () = wait(until) => {}
            }
        }
        let drained = async { while under_way.join_next().await.is_some() {} };
        // Those that take longer are made again by the next agent.
        let _all = timeout(LAST, drained).await;
    }

    /// Makes a call once, and writes down what became of it.
    async fn make(self: Arc<Self>, bus: Arc<HostBus>, call: CallId) {
        let _begun = Begun { accepted: &self, call };
        let request = match patiently(|| self.store.run(move |database| record::request(database, call))).await {
            Ok(Some(request)) => request,
            Ok(None) => {
                self.index().forget(call);
                return;
            }
            Err(_) => return,
        };
        let application = request.application.clone();
        let answer = bus.call_by(call, request).await;
        let absent = answer.outcome == Outcome::NotFound && bus.service(&application).is_none();
        // Forgotten, if its application was removed meanwhile.
        let Some(attempts) = self.index().attempt(call) else { return };
        match self.verdict(&answer, absent, attempts) {
            Verdict::Again(pause, counts) => {
                let attempts = if counts { attempts } else { attempts - 1 };
                // That there was no room is over when it is tried again, and may be so every moment: it is not worth a commit.
                if answer.outcome != Outcome::Overloaded {
                    self.attempted(call, attempts, answer).await;
                }
                self.index().again(call, attempts, Instant::now() + pause);
            }
            Verdict::Ended => self.ended(&bus, call, attempts, answer).await,
        }
    }

    async fn attempted(&self, call: CallId, attempts: u32, answer: Answer) {
        let written = self.store.run(move |database| record::attempted(database, call, attempts, &answer)).await;
        if let Err(error) = written {
            tracing::warn!(%call, error = crate::chain(&error), "an attempt is not written down");
        }
    }

    async fn ended(&self, bus: &HostBus, call: CallId, attempts: u32, answer: Answer) {
        let ended_ms = now_ms();
        let answer = Arc::new(answer);
        let written = patiently(|| {
            let answer = Arc::clone(&answer);
            self.store.run(move |database| record::end(database, call, attempts, &answer, ended_ms))
        });
        if written.await.is_err() {
            return;
        }
        let answer_bytes = (answer.outcome == Outcome::Done).then(|| answer.payload.len());
        let (ticket, application) = {
            let mut index = self.index();
            index.end(call, attempts, answer_bytes, ended_ms);
            let Some((ticket, application)) = index.owner(call) else { return };
            (ticket, application.to_owned())
        };
        // When it is known to have ended, not before: a door that looks then has to find it so.
        self.outputs.ended(&application, ticket);
        if answer_bytes.is_none() {
            let line = format!(
                "accepted call {call} was given up after attempt {attempts}: {}: {}",
                answer.outcome, answer.diagnostic
            );
            if let Some(service) = bus.service(&application) {
                service.log.add("", &line);
            }
            tracing::warn!(application, "{line}");
        }
        self.expire().await;
    }

    fn verdict(&self, answer: &Answer, absent: bool, attempts: u32) -> Verdict {
        match answer.outcome {
            Outcome::Overloaded => {
                let pause = answer.retry_after.unwrap_or_default().max(OVERLOADED_PAUSE_MIN);
                Verdict::Again(pause, false)
            }
            Outcome::NotFound if absent => Verdict::Again(ABSENT_PAUSE, false),
            Outcome::Failed | Outcome::DeadlinePassed if attempts < self.limits.attempts_max => {
                let factor = 4_u32.saturating_pow(attempts - 1);
                Verdict::Again(self.limits.pause.saturating_mul(factor).min(PAUSE_MAX), true)
            }
            Outcome::Done
            | Outcome::Accepted
            | Outcome::BadRequest
            | Outcome::NotAllowed
            | Outcome::NotFound
            | Outcome::TooLarge
            | Outcome::Failed
            | Outcome::DeadlinePassed => Verdict::Ended,
        }
    }
}

/// A call that was begun. One whose task ends before it knows what became of it, because it panicked say, is made again.
struct Begun<'a> {
    accepted: &'a Accepted,
    call: CallId,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut index = self.accepted.index();
        if index.is_under_way(self.call)
            && let Some(attempts) = index.attempt(self.call)
        {
            index.again(self.call, attempts - 1, Instant::now() + ABSENT_PAUSE);
        }
    }
}

/// Tries again while the disk fails: an answer that was made must not be made again because the disk was full. Meanwhile the call keeps its
/// place, so that no more are begun than can be written down.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(mut work: impl FnMut() -> F) -> Result<T, StoreError> {
    let (mut pause, most) = DISK_PAUSE;
    loop {
        match work().await {
            Err(StoreError::Closed) => return Err(StoreError::Closed),
            Err(error) => {
                tracing::error!(error = crate::chain(&error), "accepted calls cannot be written down: trying again");
                sleep(pause).await;
                pause = (pause * 2).min(most);
            }
            done => return done,
        }
    }
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "delivery/tests.rs"]
mod tests;
