//! The first step to rest: instances that stand ready are ended when nothing has been under way for long. Their workers stay, and make
//! instances again when a call comes, which waits for the first of them.

use std::time::{Duration, Instant};

use super::Supervisor;

impl Supervisor {
    /// How long until instances that stand ready are to be ended; `None` if they have been, or never are.
    pub(super) fn rest_timeout(&self, now: Instant) -> Option<Duration> {
        let after = self.rest_ready.filter(|_| !self.resting)?;
        Some(after.saturating_sub(now.saturating_duration_since(self.busy_at)))
    }

    /// Ends instances that stand ready, if it is time. To be called when nothing is under way.
    pub(super) fn rest_if_due(&mut self, now: Instant) {
        if self.rest_timeout(now) != Some(Duration::ZERO) {
            return;
        }
        self.resting = true;
        for function in 0..self.functions.len() {
            self.bus.keep_none_ready(function, true);
            for slot in 0..self.bus.slots().len() {
                self.dismiss(function, slot);
            }
        }
    }

    /// Something is under way: instances stand ready again from now on.
    pub(super) fn wake_up(&mut self) {
        if !self.resting {
            return;
        }
        self.resting = false;
        for function in 0..self.functions.len() {
            self.bus.keep_none_ready(function, false);
            self.bus.worker_bell(function).ring();
        }
    }
}
