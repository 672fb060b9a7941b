//! What was typed.

use clap::{Parser, ValueEnum};

/// Measures the application bus of Sandbar beside floors and peers, in one run.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Rounds; each has a slice of every measurement, so that noise hits all alike
    #[arg(long, env = "SANDBAR_BENCH_ROUNDS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rounds: u32,
    /// Three rounds: a look, not a measurement
    #[arg(long, env = "SANDBAR_BENCH_QUICK")]
    pub(crate) quick: bool,
    /// Measure this alone, as when one looks where its time goes
    #[arg(long, env = "SANDBAR_BENCH_ONLY")]
    pub(crate) only: Option<Part>,
}

/// A part of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    RoundTrips,
    Streams,
    Copies,
    /// A round of the smallest round trips on one core, as JSON: for the bench `claims`, which takes turns with it
    Peers,
}

impl Arguments {
    /// Whether this part is to be measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    /// Rounds to run.
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 3 } else { self.rounds }
    }
}
