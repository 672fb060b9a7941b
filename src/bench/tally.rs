//! What became of the calls.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::errno::Errno;
use serde::Serialize;

/// How one call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    /// The server was overloaded.
    Refused,
    /// No answer came in time.
    Lost,
    /// Anything else, by its kind.
    Error(String),
}

impl End {
    /// What the system refuses is told in its words, without the number.
    pub(crate) fn of(error: &io::Error) -> Self {
        let code = error.raw_os_error().map(Errno::from_raw);
        Self::Error(code.map_or_else(|| error.to_string(), |code| code.desc().to_lowercase()))
    }
}

/// When a call was due, sent and answered, since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) due: Duration,
    pub(crate) sent: Duration,
    pub(crate) ended: Duration,
}

/// Counts, and histograms of nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    /// When the last thing happened: a call was due, or ended otherwise than by waiting in vain.
    pub(crate) last: Duration,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    refusals: Histogram<u64>,
}

/// Figures of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Figures {
    /// `None` without any value.
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let micros = |ns: u64| ns as f64 / 1000.0;
        let part = |quantile| micros(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            min: micros(histogram.min()),
            mean: histogram.mean() / 1000.0,
            p50: part(0.5),
            p90: part(0.9),
            p99: part(0.99),
            p999: part(0.999),
            max: micros(histogram.max()),
        })
    }
}

impl Tally {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::new(3);
        Ok(Self {
            calls: 0,
            done: 0,
            refused: 0,
            lost: 0,
            errors: BTreeMap::new(),
            last: Duration::ZERO,
            latency: histogram()?,
            service: histogram()?,
            refusals: histogram()?,
        })
    }

    pub(crate) fn add(&mut self, end: End, times: Times) {
        self.calls += 1;
        // The wait for a call that is lost is no time in which less was done: nothing else may have been asked for meanwhile.
        self.last = self.last.max(if end == End::Lost { times.sent } else { times.ended });
        let service = times.ended.saturating_sub(times.sent);
        match end {
            End::Done => {
                self.done += 1;
                // A call that was sent late, as those before it were slow, has waited since it was due.
                record(&mut self.latency, times.ended.saturating_sub(times.due));
                record(&mut self.service, service);
            }
            End::Refused => {
                self.refused += 1;
                record(&mut self.refusals, service);
            }
            End::Lost => self.lost += 1,
            End::Error(kind) => *self.errors.entry(kind).or_default() += 1,
        }
    }

    /// Calls that were under way when the run was interrupted.
    pub(crate) fn interrupted(&mut self, calls: u64) {
        self.calls += calls;
        if calls > 0 {
            *self.errors.entry("not waited for: interrupted".to_owned()).or_default() += calls;
        }
    }

    /// Of calls that were done, since they were due.
    pub(crate) fn latency(&self) -> Option<Figures> {
        Figures::of(&self.latency)
    }

    /// Of calls that were done, since they were sent.
    pub(crate) fn service(&self) -> Option<Figures> {
        Figures::of(&self.service)
    }

    /// Of calls that were refused, since they were sent.
    pub(crate) fn refusals(&self) -> Option<Figures> {
        Figures::of(&self.refusals)
    }

    /// The distribution of the latency: quantile, microseconds, calls up to there.
    pub(crate) fn distribution(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let values = self.latency.iter_quantiles(5);
        values.scan(0, |calls, value| {
            *calls += value.count_since_last_iteration();
            Some((value.quantile_iterated_to(), value.value_iterated_to() as f64 / 1000.0, *calls))
        })
    }
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    // The histogram grows with what is recorded; a value that it cannot grow to counts as the largest it knows.
    if histogram.record(ns).is_err() {
        histogram.saturating_record(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(due_ms: u64, sent_ms: u64, ended_ms: u64) -> Times {
        let [due, sent, ended] = [due_ms, sent_ms, ended_ms].map(Duration::from_millis);
        Times { due, sent, ended }
    }

    /// A server that stands still for a second, while a call is due each millisecond and one can be outstanding: each of those calls has
    /// waited, though each was answered within a millisecond once it was sent.
    #[test]
    fn a_stall_shows_in_every_call_that_was_due_meanwhile() {
        let mut tally = Tally::new().unwrap();
        let mut free_at = 1000;
        for due in 0..2000 {
            let sent = free_at.max(due);
            free_at = sent + 1;
            tally.add(End::Done, times(due, sent, sent + 1));
        }
        let (latency, service) = (tally.latency().unwrap(), tally.service().unwrap());
        assert!((service.max - 1000.0).abs() < 10.0, "{service:?}");
        assert!(latency.p50 > 900_000.0, "{latency:?}");
        assert_eq!(tally.distribution().last().map(|(_, _, calls)| calls), Some(2000));
    }

    #[test]
    fn each_end_is_counted_by_itself() {
        let mut tally = Tally::new().unwrap();
        for end in [End::Done, End::Refused, End::Lost, End::Error("a".into()), End::Error("a".into())] {
            tally.add(end, times(0, 0, 2));
        }
        tally.interrupted(2);
        assert_eq!((tally.calls, tally.done, tally.refused, tally.lost), (7, 1, 1, 1));
        assert_eq!(tally.errors.values().sum::<u64>(), 4);
        assert!((tally.refusals().unwrap().p50 - 2000.0).abs() < 10.0);
        assert_eq!(Tally::new().unwrap().latency(), None);
    }

    #[test]
    fn waiting_in_vain_is_no_time_in_which_less_was_done() {
        let mut tally = Tally::new().unwrap();
        tally.add(End::Done, times(0, 0, 5));
        tally.add(End::Lost, times(1, 7, 10_000));
        assert_eq!(tally.last, Duration::from_millis(7));
        tally.add(End::Refused, times(8, 8, 9));
        assert_eq!(tally.last, Duration::from_millis(9));
    }

    #[test]
    fn what_the_system_refuses_has_a_name() {
        let of = |errno: Errno| End::of(&io::Error::from(errno));
        assert_eq!(of(Errno::EMFILE), End::Error("too many open files".to_owned()));
        assert_eq!(of(Errno::ECONNREFUSED), End::Error("connection refused".to_owned()));
        assert_eq!(End::of(&io::ErrorKind::UnexpectedEof.into()), End::Error("unexpected end of file".to_owned()));
    }
}
