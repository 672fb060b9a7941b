//! What was found, beside what is claimed.

use serde_json::{Value, json};

use crate::LOADS;
use crate::load::Run;
use crate::servers::Kind;

const STATE_BYTES_GOAL: u64 = 2048;

/// All figures: by server, by load, by round.
pub(crate) struct Found {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) runs: Vec<Vec<Vec<Run>>>,
    pub(crate) bytes_per_peer: u64,
}

/// The least, the median and the greatest of what the rounds gave.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// A figure over rounds: its median, with the least and the greatest.
fn over_rounds(runs: &[Run], figure: impl Fn(&Run) -> f64) -> String {
    let (least, median, greatest) = spread(runs.iter().map(figure));
    format!("{median:.0} ({least:.0}–{greatest:.0})")
}

/// The median of one server's figure as a multiple of another's in the same round, and how it is told: with the least and the greatest.
fn ratio(ours: &[Run], theirs: &[Run], figure: impl Fn(&Run) -> f64) -> (f64, String) {
    let values = ours.iter().zip(theirs).map(|(ours, theirs)| figure(ours) / figure(theirs));
    let (least, median, greatest) = spread(values);
    (median, format!("{median:.2} ({least:.2}–{greatest:.2})"))
}

fn lost(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.lost).sum()
}

impl Found {
    pub(crate) fn print(&self) {
        println!(
            "{:<10} {:>6} {:>24} {:>18} {:>20} {:>5} {:>5}",
            "", "load", "1/s", "p50 µs", "p99 µs", "lost", "wrong"
        );
        for (at, load) in LOADS.iter().enumerate() {
            for (kind, runs) in self.kinds.iter().zip(&self.runs) {
                let runs = &runs[at];
                println!(
                    "{:<10} {:>6} {:>24} {:>18} {:>20} {:>5} {:>5}",
                    kind.name(),
                    format!("{}x{}", load.peers, load.window),
                    over_rounds(runs, |run| run.per_second),
                    over_rounds(runs, |run| run.p50_us),
                    over_rounds(runs, |run| run.p99_us),
                    lost(runs),
                    runs.iter().map(|run| run.wrong).sum::<u64>(),
                );
            }
        }
        println!("a peer at rest: {} bytes", self.bytes_per_peer);
        for (claim, found, holds) in self.claims() {
            println!("{} {claim}: {found}", if holds { "holds " } else { "MISSED" });
        }
    }

    /// Each claim, what was found of it, and whether it holds.
    fn claims(&self) -> Vec<(String, String, bool)> {
        let mut claims = Vec::new();
        let theirs = self.kinds.iter().position(|kind| matches!(kind, Kind::Libcoap(_)));
        for (at, load) in LOADS.iter().enumerate().skip(1) {
            let name = format!("{} peers with {} in flight", load.peers, load.window);
            if let Some(theirs) = theirs {
                let (ours, theirs) = (&self.runs[0][at], &self.runs[theirs][at]);
                let (rate, told) = ratio(ours, theirs, |run| run.per_second);
                claims.push((format!("{name}: >= 1.0 of libcoap's rate"), told, rate >= 1.0));
                let (p99, told) = ratio(ours, theirs, |run| run.p99_us);
                claims.push((format!("{name}: p99 <= 1.25 of libcoap's"), told, p99 <= 1.25));
            }
            let lost = lost(&self.runs[0][at]);
            claims.push((format!("{name}: no loss"), lost.to_string(), lost == 0));
        }
        let state = self.bytes_per_peer;
        claims.push(("a peer at rest: <= 2,048 bytes".to_owned(), state.to_string(), state <= STATE_BYTES_GOAL));
        claims
    }

    pub(crate) fn json(&self) -> Value {
        let runs = |kind: &Kind, runs: &[Vec<Run>]| {
            LOADS
                .iter()
                .zip(runs)
                .map(|(load, runs)| {
                    json!({
                        "server": kind.name(),
                        "peers": load.peers,
                        "window": load.window,
                        "rounds": runs.iter().map(|run| json!({
                            "answered": run.answered, "lost": run.lost, "wrong": run.wrong,
                            "per_second": run.per_second, "p50_us": run.p50_us, "p99_us": run.p99_us,
                        })).collect::<Vec<_>>(),
                    })
                })
                .collect::<Vec<_>>()
        };
        let claims = self.claims().into_iter();
        json!({
            "loads": self.kinds.iter().zip(&self.runs).flat_map(|(kind, all)| runs(kind, all)).collect::<Vec<_>>(),
            "bytes_per_peer": self.bytes_per_peer,
            "claims": claims.map(|(claim, found, holds)| json!({"claim": claim, "found": found, "holds": holds})).collect::<Vec<_>>(),
        })
    }
}
