//! Calls whose deadline has passed: their callers are answered by the clock.

use std::time::{Duration, Instant};

use sandbar_bus::clock::now_ns;

use super::Running;
use crate::call::{Answer, Outcome};

/// How much longer than the longest chain may take a function may be silent.
const SILENCE_SLACK: Duration = Duration::from_secs(2);

impl Running {
    /// Answers calls at their deadline, for ever: all of them from one timer, as one for each would be a system call for each.
    pub(super) async fn keep_time(&self) {
        loop {
            let next_ns = self.end_overdue();
            let earlier = self.earlier.notified();
            let Some(next_ns) = next_ns else {
                earlier.await;
                continue;
            };
            let left = Duration::from_nanos(next_ns.saturating_sub(now_ns()));
            let _woken = tokio::time::timeout(left, earlier).await;
        }
    }

    /// Ends the calls whose deadline has passed. If none of a function's calls has had any other end for long, the sandbox is ended.
    /// Tells when the next deadline passes.
    fn end_overdue(&self) -> Option<u64> {
        let patience = self.application.longest_chain_timeout() + SILENCE_SLACK;
        let mut table = self.calls();
        let calls = table.as_mut()?;
        let (overdue, next_ns) = calls.take_overdue(now_ns());
        let now = Instant::now();
        let mut silent = Vec::new();
        for (id, pending) in &overdue {
            if calls.silence.timed_out(*id, pending.function, now, patience) {
                silent.push(pending.function);
            }
        }
        drop(table);
        if !overdue.is_empty() {
            self.is_active(now_ns());
        }
        for (_, pending) in overdue {
            let allowed = Duration::from_nanos(pending.deadline_ns.saturating_sub(pending.began_ns));
            let allowed_ms = allowed.as_micros().div_ceil(1000);
            let diagnostic = format!("{}: no answer within {allowed_ms} ms", self.function_name(pending.function));
            // A caller that is gone needs no answer.
            let _gone = pending.answer.send(Answer::refused(Outcome::DeadlinePassed, diagnostic));
        }
        for function in silent {
            self.log.add(self.function_name(function), "nothing comes out of its calls any more");
            self.corrupt.notify_one();
        }
        next_ns
    }
}
