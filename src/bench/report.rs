//! The figures, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::load::Plan;
use super::schedule::Load;
use super::tally::{Figures, Tally};
use super::target::BenchTarget;

/// What was measured. Times are in microseconds unless their name says otherwise.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    target: String,
    mode: &'static str,
    rate_per_s: Option<f64>,
    in_flight: Option<usize>,
    /// From the first counted call's time to the end of the last, but for the wait for calls that are lost.
    duration_s: f64,
    calls: u64,
    done: u64,
    refused: u64,
    lost: u64,
    errors: BTreeMap<String, u64>,
    /// Calls done per second.
    throughput_per_s: f64,
    /// Of calls done, since they were due.
    latency_us: Option<Figures>,
    /// Whether what other callers would have waited is in the latency.
    corrected_for_coordinated_omission: bool,
    /// Of calls done, since they were sent.
    service_us: Option<Figures>,
    /// Of calls refused, since they were sent.
    refused_us: Option<Figures>,
}

impl Report {
    pub(crate) fn of(target: &BenchTarget, plan: &Plan, tally: &Tally, took: Duration) -> Self {
        let duration_s = took.as_secs_f64();
        let (mode, rate_per_s, in_flight) = match plan.load {
            Load::Open { rate, .. } => ("open", Some(rate), None),
            Load::Closed { in_flight } => ("closed", None, Some(in_flight)),
            Load::Burst { .. } => ("burst", None, None),
        };
        Self {
            target: target.to_string(),
            mode,
            rate_per_s,
            in_flight,
            duration_s,
            calls: tally.calls,
            done: tally.done,
            refused: tally.refused,
            lost: tally.lost,
            errors: tally.errors.clone(),
            throughput_per_s: if duration_s > 0.0 { tally.done as f64 / duration_s } else { 0.0 },
            latency_us: tally.latency(),
            corrected_for_coordinated_omission: mode != "closed",
            service_us: tally.service(),
            refused_us: tally.refusals(),
        }
    }

    /// What most calls that were not done ended with.
    pub(crate) fn most_frequent_error(&self) -> String {
        let named = [("refused as overloaded", self.refused), ("no answer in time", self.lost)];
        let named = named.into_iter().map(|(name, count)| (name.to_owned(), count));
        let all = self.errors.iter().map(|(kind, count)| (kind.clone(), *count)).chain(named);
        all.max_by_key(|(_, count)| *count).map_or_else(String::new, |(kind, _)| kind)
    }

    /// A table.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let load = match (self.rate_per_s, self.in_flight) {
            (Some(rate), _) => format!("{rate} calls/s"),
            (None, Some(in_flight)) => format!("{in_flight} in flight"),
            (None, None) => "all at once".to_owned(),
        };
        // Writing to a string cannot fail.
        let mut line = |it: std::fmt::Arguments<'_>| writeln!(text, "{it}").unwrap_or(());
        line(format_args!("{}, {load}, {:.1} s", self.target, self.duration_s));
        line(format_args!(
            "calls {}, done {} ({:.1}/s), refused {}, lost {}",
            self.calls, self.done, self.throughput_per_s, self.refused, self.lost
        ));
        for (kind, count) in &self.errors {
            line(format_args!("  {count} × {}", crate::output::visible(kind)));
        }
        line(format_args!("µs                          min       p50       p90       p99     p99.9       max"));
        let since_due =
            if self.corrected_for_coordinated_omission { "since it was due" } else { "of callers that wait" };
        let rows = [(since_due, self.latency_us), ("since it was sent", self.service_us), ("refused", self.refused_us)];
        for (what, figures) in rows {
            if let Some(Figures { min, p50, p90, p99, p999, max, .. }) = figures {
                line(format_args!("{what:20} {min:10.1}{p50:10.1}{p90:10.1}{p99:10.1}{p999:10.1}{max:10.1}"));
            }
        }
        text
    }
}

/// One line of where it stands.
pub(crate) fn progress(tally: &Tally, since: Duration, calls_before: &mut u64) -> String {
    let calls = tally.calls.saturating_sub(std::mem::replace(calls_before, tally.calls));
    let p50 = tally.latency().map_or_else(String::new, |figures| format!(", p50 {:.1} µs", figures.p50));
    let bad = tally.calls - tally.done;
    format!("{:4.0} s: {calls} calls in the last second, {} done, {bad} not{p50}", since.as_secs_f64(), tally.done)
}

/// The distribution of latencies, a line each.
pub(crate) fn distribution(tally: &Tally) -> String {
    let mut text = "quantile microseconds calls\n".to_owned();
    for (quantile, micros, calls) in tally.distribution() {
        text.push_str(&format!("{quantile:.6} {micros:.1} {calls}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Arrivals;
    use super::super::tally::{End, Times};
    use super::*;

    #[test]
    fn every_figure_is_told_to_people_and_to_machines() {
        let mut tally = Tally::new().unwrap();
        let times = |ended| Times { due: Duration::ZERO, sent: Duration::ZERO, ended: Duration::from_micros(ended) };
        tally.add(End::Done, times(100));
        tally.add(End::Refused, times(20));
        tally.add(End::Error("status 404".to_owned()), times(20));
        let plan = Plan {
            load: Load::Open { rate: 10.0, arrivals: Arrivals::Even },
            duration: Duration::from_secs(1),
            calls_max: 3,
            warm_up: Duration::ZERO,
            timeout: Duration::from_secs(1),
            outstanding_max: 1,
        };
        let target = "chain".parse().unwrap();
        let report = Report::of(&target, &plan, &tally, Duration::from_secs(2));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["calls"].as_u64(), json["throughput_per_s"].as_f64()), (Some(3), Some(0.5)));
        assert_eq!(json["errors"]["status 404"], 1);
        assert!(json["refused_us"]["p50"].is_number() && json["mode"] == "open");
        let text = report.text();
        assert!(text.contains("1 × status 404") && text.contains("since it was due"), "{text}");
        assert_eq!(progress(&tally, Duration::from_secs(1), &mut 1).split(':').nth(1).unwrap().trim()[..7], *"2 calls");
        assert!(distribution(&tally).lines().count() > 1);
    }
}
