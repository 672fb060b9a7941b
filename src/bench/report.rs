//! The figures, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::bursts::Burst;
use super::load::{Measured, Plan};
use super::schedule::Load;
use super::tally::{Figures, Tally};
use super::target::BenchTarget;
use crate::output::{self, NOTHING};

/// The fields of a [`Report`] in JSON, as `--help` tells them.
pub(crate) const FIELDS: &str = "\
With --json, one object of these fields. A number without a unit in its name is a count; null is
what this load has not.
  target             what was called
  mode               open (--rate), closed (--in-flight) or burst (--burst)
  rate_per_s         calls due per second; of open loads
  in_flight          calls kept under way; of closed loads
  payload_bytes      bytes sent with each call
  connections        connections or sockets side by side; null for an application of this host
  duration_s         seconds from the start to the last answer, without the warm-up and without
                     the wait for lost calls
  calls              calls that were due: the sum of done, refused, lost and all errors
  done               answered well (CoAP 2.xx, HTTP 2xx)
  refused            refused as overloaded (CoAP 5.03, HTTP 503)
  lost               not answered in time
  errors             an object: calls that ended otherwise, by their kind
  throughput_per_s   calls done per second
  latency_us         of calls done, microseconds since they were due: an object of min, mean, p50,
                     p90, p99, p999 and max; null if no call was done
  corrected_for_coordinated_omission
                     whether latency_us has in it what calls waited before they could be sent: not
                     in closed loads
  service_us         as latency_us, since they were sent
  refused_us         as latency_us, of calls refused, since they were sent
  bursts             a list; of each burst due_s (seconds since the start), duration_s, calls, done,
                     refused, lost, errors, latency_us and refused_us; of burst loads";

/// What was measured, as [`FIELDS`] explains it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    target: String,
    mode: &'static str,
    rate_per_s: Option<f64>,
    in_flight: Option<usize>,
    payload_bytes: usize,
    connections: Option<usize>,
    duration_s: f64,
    calls: u64,
    done: u64,
    refused: u64,
    lost: u64,
    errors: BTreeMap<String, u64>,
    throughput_per_s: f64,
    latency_us: Option<Figures>,
    corrected_for_coordinated_omission: bool,
    service_us: Option<Figures>,
    refused_us: Option<Figures>,
    bursts: Option<Vec<Burst>>,
}

impl Report {
    pub(crate) fn of(target: &BenchTarget, plan: &Plan, payload_bytes: usize, measured: &Measured) -> Self {
        let tally = &measured.tally;
        let duration_s = measured.took.as_secs_f64();
        let (mode, rate_per_s, in_flight) = match plan.load {
            Load::Open { rate, .. } => ("open", Some(rate), None),
            Load::Closed { in_flight } => ("closed", None, Some(in_flight)),
            Load::Bursts { .. } => ("burst", None, None),
        };
        Self {
            target: target.to_string(),
            mode,
            rate_per_s,
            in_flight,
            payload_bytes,
            connections: (!matches!(target, BenchTarget::Application(_))).then_some(measured.lanes),
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
            bursts: (mode == "burst").then(|| measured.bursts.told().cloned().collect()),
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
            (None, None) => match self.bursts.as_ref().map_or(0, Vec::len) {
                0 | 1 => "all at once".to_owned(),
                bursts => format!("{bursts} bursts"),
            },
        };
        let over = self.connections.map_or_else(String::new, |connections| format!(" over {connections} connections"));
        // Writing to a string cannot fail.
        let mut line = |it: std::fmt::Arguments<'_>| writeln!(text, "{it}").unwrap_or(());
        line(format_args!("{}, {load}{over}, {:.1} s", self.target, self.duration_s));
        line(format_args!(
            "calls {}, done {} ({:.1}/s), refused {}, lost {}",
            self.calls, self.done, self.throughput_per_s, self.refused, self.lost
        ));
        for (kind, count) in &self.errors {
            line(format_args!("  {count} × {}", output::visible(kind)));
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
        if let Some(bursts) = self.bursts.as_deref().filter(|bursts| bursts.len() > 1) {
            text.push_str(&table(bursts));
        }
        text
    }
}

/// A line for each burst.
fn table(bursts: &[Burst]) -> String {
    let titles =
        ["DUE s", "CALLS", "DONE", "REFUSED", "LOST", "OTHER", "P50 µs", "P99 µs", "MAX µs"].map(str::to_owned);
    let rows = bursts.iter().map(|burst| {
        let of = |part: fn(&Figures) -> f64| {
            burst.latency_us.as_ref().map_or_else(|| NOTHING.to_owned(), |figures| format!("{:.1}", part(figures)))
        };
        [
            format!("{:.3}", burst.due_s),
            burst.calls.to_string(),
            burst.done.to_string(),
            burst.refused.to_string(),
            burst.lost.to_string(),
            burst.errors.values().sum::<u64>().to_string(),
            of(|figures| figures.p50),
            of(|figures| figures.p99),
            of(|figures| figures.max),
        ]
    });
    output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>())
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
    use super::super::bursts::Bursts;
    use super::super::schedule::Arrivals;
    use super::super::tally::{End, Times};
    use super::*;

    fn times(due: Duration, took_us: u64) -> Times {
        Times { due, sent: due, ended: due + Duration::from_micros(took_us) }
    }

    /// Of calls that were done after so many microseconds, one that was refused and one that failed.
    fn report(load: Load, done_us: &[u64]) -> Report {
        let mut tally = Tally::new().unwrap();
        let mut bursts = Bursts::new(load, tally.clone());
        let mut schedule = super::super::schedule::Schedule::new(load, 1);
        let ends = done_us
            .iter()
            .map(|us| (End::Done, *us))
            .chain([(End::Refused, 20), (End::Error("status 404".to_owned()), 20)]);
        for (end, took) in ends {
            let times = times(schedule.next().unwrap_or_default(), took);
            bursts.sent(times.due);
            bursts.add(&end, times);
            tally.add(end, times);
        }
        bursts.end();
        let plan = Plan {
            load,
            duration: Duration::from_secs(1),
            calls_max: 3,
            warm_up: Duration::ZERO,
            timeout: Duration::from_secs(1),
            outstanding_max: 1,
        };
        let measured = Measured { tally, bursts, took: Duration::from_secs(2), lanes: 7 };
        Report::of(&"http://h/".parse().unwrap(), &plan, 64, &measured)
    }

    #[test]
    fn every_figure_is_told_to_people_and_to_machines() {
        let report = report(Load::Open { rate: 10.0, arrivals: Arrivals::Even }, &[100]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["calls"].as_u64(), json["throughput_per_s"].as_f64()), (Some(3), Some(0.5)));
        assert_eq!((json["payload_bytes"].as_u64(), json["connections"].as_u64()), (Some(64), Some(7)));
        assert_eq!(json["errors"]["status 404"], 1);
        assert!(json["refused_us"]["p50"].is_number() && json["mode"] == "open" && json["bursts"].is_null());
        let text = report.text();
        for told in ["1 × status 404", "since it was due", "10 calls/s over 7 connections"] {
            assert!(text.contains(told), "{text}");
        }
    }

    /// Programs read them: none goes, none changes its name, and none comes without being explained.
    #[test]
    fn the_fields_are_those_that_the_help_explains() {
        let bursts = report(Load::Bursts { calls: 2, every: Duration::from_secs(1), times: 2 }, &[5, 6]);
        let json = serde_json::to_value(&bursts).unwrap();
        let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let explained: Vec<_> = FIELDS
            .lines()
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
            .filter(|it| !it.is_empty())
            .collect();
        let mut sorted = explained.clone();
        sorted.sort_unstable();
        assert_eq!(names(&json), sorted);
        let mut figures = names(&json["latency_us"]);
        figures.sort_unstable();
        assert_eq!(figures, ["max", "mean", "min", "p50", "p90", "p99", "p999"]);
        let of_a_burst =
            ["calls", "done", "due_s", "duration_s", "errors", "latency_us", "lost", "refused", "refused_us"];
        assert_eq!(names(&json["bursts"][0]), of_a_burst);
        let told = FIELDS.split("  bursts ").last().unwrap();
        assert!(figures.iter().all(|it| FIELDS.contains(it.as_str())) && of_a_burst.iter().all(|it| told.contains(it)));
    }

    #[test]
    fn each_burst_has_a_line_when_there_are_several() {
        let of = |times| report(Load::Bursts { calls: 2, every: Duration::from_secs(1), times }, &[5, 6]).text();
        let text = of(2);
        assert!(text.contains("2 bursts") && text.contains("\n0.000      2     2 "), "{text}");
        assert!(text.lines().last().unwrap().starts_with("1.000      2     0        1     0      1"), "{text}");
        assert!(!of(1).contains("DUE"), "{}", of(1));
    }

    #[test]
    fn progress_and_distribution_have_what_there_is() {
        let mut tally = Tally::new().unwrap();
        (0..3).for_each(|_| tally.add(End::Done, times(Duration::ZERO, 100)));
        assert_eq!(progress(&tally, Duration::from_secs(1), &mut 1).split(':').nth(1).unwrap().trim()[..7], *"2 calls");
        assert!(distribution(&tally).lines().count() > 1);
    }
}
