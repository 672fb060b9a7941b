//! How long the making of a sandbox takes, phase by phase, for the agent's own log at the level `debug`.

use std::time::Instant;

/// Microseconds since the making of a sandbox began, at the end of each phase.
#[derive(Debug)]
pub(super) struct Phases {
    began: Instant,
    /// Segment, pipes and control groups are there.
    limited_us: u64,
    /// The supervisor stands in its namespaces and on its root.
    built_us: u64,
    /// It is in its control groups, has its users, and was told to go on.
    entered_us: u64,
}

impl Phases {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), limited_us: 0, built_us: 0, entered_us: 0 }
    }

    pub(super) fn limited(&mut self) {
        self.limited_us = self.now_us();
    }

    pub(super) fn built(&mut self) {
        self.built_us = self.now_us();
    }

    pub(super) fn entered(&mut self) {
        self.entered_us = self.now_us();
    }

    /// Every worker has loaded its code: the sandbox is made.
    pub(super) fn ready(self, sandbox: &str) {
        let (ready_us, Self { limited_us, built_us, entered_us, .. }) = (self.now_us(), self);
        tracing::debug!(sandbox, limited_us, built_us, entered_us, ready_us, "a sandbox was made");
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
