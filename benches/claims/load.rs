//! Loads, made by `sandbar bench` for us and for peers alike.

use std::collections::BTreeMap;

use claims_report::{Claim, Goal, Rounds};
use serde::Deserialize;

use crate::running::output;
use crate::stage::Place;

/// What became of the calls of a load, as `sandbar bench --json` tells it. Times are in microseconds.
#[derive(Debug, Deserialize)]
pub(crate) struct Load {
    pub(crate) calls: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    errors: BTreeMap<String, u64>,
    pub(crate) throughput_per_s: f64,
    latency_us: Option<Figures>,
    service_us: Option<Figures>,
    pub(crate) refused_us: Option<Figures>,
}

/// Of one kind of calls.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Figures {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Load {
    /// Of calls done, since they were due: corrected for coordinated omission, in an open load.
    pub(crate) fn latency(&self) -> Figures {
        self.latency_us.unwrap_or_else(|| panic!("no call was done: {self:?}"))
    }

    /// Of calls done, since they were sent.
    pub(crate) fn service(&self) -> Figures {
        self.service_us.unwrap_or_else(|| panic!("no call was done: {self:?}"))
    }

    /// Calls that were neither done nor refused: without an answer in time, failed, or never sent as too many were under way.
    pub(crate) fn lost(&self) -> u64 {
        self.calls - self.done - self.refused
    }

    /// # Panics
    /// When a call was refused or lost.
    pub(crate) fn all_done(self, target: &str) -> Self {
        let Self { calls, done, refused, errors, .. } = &self;
        assert!(calls == done, "{target}: {done} of {calls} calls were done, {refused} refused; {errors:?}");
        self
    }
}

/// Makes a load from there.
pub(crate) fn load(place: Place, target: &str, arguments: &[&str]) -> Load {
    let mut command = place.command(env!("CARGO_BIN_EXE_sandbar"));
    command.args(["bench", target, "--json"]).args(arguments);
    let output = output(command);
    let load: Load =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{target}: {error}: {}", output.status));
    if load.lost() > 0 {
        println!(
            "  {target}: {} of {} calls were lost, of these with an error {:?}",
            load.lost(),
            load.calls,
            load.errors
        );
    }
    load
}

/// One quantile of the latencies of a load's rounds, both ways of counting, in a unit of the part's choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    /// Since calls were due.
    pub(crate) due: Rounds,
    /// Since they were sent.
    pub(crate) sent: Rounds,
    /// Calls that were refused or lost; they have no latency.
    not_done: Rounds,
}

impl Latency {
    /// Of what is no call, and so is never late.
    pub(crate) fn of_floor(floor: Rounds) -> Self {
        Self { due: floor.clone(), sent: floor, not_done: Rounds::default() }
    }

    /// Of one round, by the quantile.
    pub(crate) fn add(&mut self, load: &Load, of: impl Fn(Figures) -> f64) {
        self.due.push(of(load.latency()));
        self.sent.push(of(load.service()));
        self.not_done.push((load.refused + load.lost()) as f64);
    }

    /// A claim, in microseconds, that is judged by the times since calls were due.
    pub(crate) fn claim(&self, what: impl Into<String>, beside: &str, theirs: &Self, goal: Goal) -> Claim {
        self.claim_in("µs", what, beside, theirs, goal)
    }

    /// That all calls were done, of which these are the latencies.
    pub(crate) fn none_left(&self, what: &str) -> Claim {
        Claim::new(format!("{what}, calls not done"), "", self.not_done.clone(), "none", 0.0, Goal::Zero)
    }

    /// As [`claim`](Self::claim), in another unit.
    pub(crate) fn claim_in(
        &self,
        unit: &'static str,
        what: impl Into<String>,
        beside: &str,
        theirs: &Self,
        goal: Goal,
    ) -> Claim {
        let claim = Claim::new(what, unit, self.due.clone(), beside, theirs.due.clone(), goal);
        claim.since_sent(self.sent.clone(), theirs.sent.clone())
    }
}
