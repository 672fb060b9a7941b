//! `sandbar bench`: a load on a function, or on any HTTP server, and what it answered.
//!
//! ```text
//!   schedule ──due──▶ load ──▶ lane (CoAP, HTTP, management) ──▶ tally ──▶ report
//! ```
//!
//! In an open load each call's time is fixed beforehand, and its latency counts from then: what a slow answer keeps from being sent in
//! time has waited too (no coordinated omission). In a closed load the next call waits for the one before, as a caller would; what others
//! would have waited meanwhile is not in its figures.

mod bursts;
mod coap;
mod http;
mod lane;
mod load;
mod report;
mod schedule;
mod tally;
mod target;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sandbar_runtime::Request;
use sandbar_runtime::manifest::quantity;

use self::lane::{Lanes, Route};
use self::load::Plan;
use self::report::{FIELDS, Report};
use self::schedule::{Arrivals, Load};
use self::tally::Tally;
use self::target::BenchTarget;
use crate::arguments::HostSocket;
use crate::failure::Failure;
use crate::identity::IdentityArguments;
use crate::output;
use crate::url::Url;

/// The payload, unless one is given.
const PAYLOAD_BYTES: usize = 64;
/// How long calls are made, unless it is given.
const DURATION: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  sandbar bench thermostat
  sandbar bench coap://127.0.0.1/thermostat --rate 1000 --for 30s
  sandbar bench coaps://127.0.0.1/thermostat --psk-identity porch-sensor --in-flight 4
  sandbar bench http://127.0.0.1:8000/gallery/thumbnail --in-flight 8 --file photo.jpg --json
  sandbar bench http://127.0.0.1:8000/chain --burst 500
  sandbar bench coap://127.0.0.1/chain --burst 100 --every 2s --times 10 --peers 20";

const EXITS: &str = "\
Exit codes:
   0  at least one call was done; with --strict, all were
   1  no call was done, or with --strict not all; or something else went wrong
   2  the command was not understood
A run that is interrupted (Ctrl-C) reports what it has measured, and ends by the same codes.";

/// Load a function, or any HTTP server, and measure what it answers
///
/// With --rate calls are due at fixed times, and their latency counts from then, however late they could be sent. Else
/// --in-flight calls are kept under way, each followed by the next. A call that is refused as overloaded, gets no answer in time, or fails
/// is counted as such, and is in no latency.
///
/// Calls are POST requests. Over CoAP, payloads and answers beyond 1,024 bytes go in blocks; a call has ended when all of its answer is
/// there.
#[derive(Debug, Args)]
#[command(
    after_help = format!("{EXAMPLES}\n\n{EXITS}"),
    after_long_help = format!("{EXAMPLES}\n\n{FIELDS}\n\n{EXITS}")
)]
pub(crate) struct BenchArguments {
    // Not a comment of documentation, in which brackets are links.
    #[arg(
        value_name = "TARGET",
        help = "coap://HOST[:PORT]/APP[/FUNCTION], coaps://…, http://HOST[:PORT]/PATH, or APP[/FUNCTION] of this host"
    )]
    target: BenchTarget,
    /// Calls per second, whatever becomes of them
    #[arg(long, value_name = "NUMBER", value_parser = rate, conflicts_with_all = ["in_flight", "burst"])]
    rate: Option<f64>,
    /// How calls follow each other with --rate
    #[arg(long, value_enum, default_value = "even", requires = "rate")]
    arrivals: Arrivals,
    /// Calls that are kept under way; 1 unless --rate or --burst is given
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "burst")]
    in_flight: Option<u32>,
    /// So many calls at once
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    burst: Option<u32>,
    /// Repeat the burst, each due so long after the one before, however that went
    #[arg(long, value_name = "TIME", value_parser = interval, requires = "burst")]
    every: Option<Duration>,
    /// How many bursts, instead of as many as there is time for
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000), requires = "every")]
    times: Option<u32>,
    /// Over how many connections (HTTP) or sockets (CoAP) calls are spread, in turn; as many as calls are under way at once unless given
    ///
    /// Each carries one call at a time and is to the server one client, over coaps with a session of its own; calls that are due while all of them are in use wait, and their
    /// latency with them. Each is opened by the first call that it carries: --warm-up keeps that out of the figures.
    #[arg(long, visible_alias = "peers", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// How long calls are made; 10s unless it or --times is given
    #[arg(long = "for", value_name = "TIME", value_parser = quantity::time)]
    duration: Option<Duration>,
    /// How many calls are made, at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// How long calls are made before any is counted
    #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "0s", conflicts_with = "burst")]
    warm_up: Duration,
    /// How long a call is waited for before it is lost; and, before it is sent, waits for a connection
    #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "10s")]
    timeout: Duration,
    /// Calls that may be outstanding with --rate or --every; one that is due beyond that is counted as not sent
    ///
    /// A whole burst may always be.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000), default_value = "1000")]
    outstanding: u32,
    /// The payload; 64 bytes unless it or --file is given
    #[arg(long, conflicts_with = "file")]
    data: Option<String>,
    /// A file that holds the payload
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Send CoAP requests that are not confirmable, and so not repeated
    #[arg(long)]
    non: bool,
    /// Fail if any call was lost, refused or ended otherwise than done
    #[arg(long)]
    strict: bool,
    /// Print a line each second to standard error, even with --json or where that is no terminal
    #[arg(long)]
    progress: bool,
    /// Print all figures as a JSON object; `--help` explains its fields
    #[arg(long)]
    json: bool,
    /// Write the distribution of latencies to this file: quantile, microseconds, calls up to there
    #[arg(long, value_name = "PATH")]
    histogram: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityArguments,
    #[command(flatten)]
    host: HostSocket,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("give a number of calls per second, 0.001 to 1000000"),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match quantity::time(text)? {
        Duration::ZERO => Err("give a time longer than none".to_owned()),
        time => Ok(time),
    }
}

/// Each call under way has a socket of its own.
fn raise_descriptor_limit() -> nix::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
}

impl BenchArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let plan = self.plan();
        self.check(&plan)?;
        raise_descriptor_limit().map_err(|errno| Failure::System(errno.into()))?;
        let payload = self.payload()?;
        let payload_bytes = payload.len();
        let lanes = Lanes::new(self.route(payload)?, plan.timeout, self.connections.map(|number| number as usize));
        let tally = Tally::new().map_err(|error| Failure::System(io::Error::other(error)))?;
        let shows_progress = self.shows_progress(io::stderr().is_terminal());
        let mut calls_before = 0;
        let progress = |tally: &Tally, since: Duration| {
            if shows_progress && since >= Duration::from_millis(500) {
                output::note(&report::progress(tally, since, &mut calls_before));
            }
        };
        let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
        let measured = load::run(plan, lanes, tally, stop, progress).await.map_err(Failure::System)?;
        let report = Report::of(&self.target, &plan, payload_bytes, &measured);
        if self.json {
            output::json(&report)?
        } else {
            output::write(report.text().as_bytes())?
        }
        let tally = &measured.tally;
        if let Some(path) = &self.histogram {
            std::fs::write(path, report::distribution(tally))
                .map_err(|source| Failure::Keep { path: path.clone(), source })?;
        }
        let all_done = tally.done == tally.calls;
        if tally.done > 0 && (all_done || !self.strict) {
            return Ok(());
        }
        Err(Failure::Bench { calls: tally.calls, done: tally.done, most: report.most_frequent_error() })
    }

    /// For people who look on; a program that reads the figures has no use for it.
    fn shows_progress(&self, on_a_terminal: bool) -> bool {
        self.progress || (on_a_terminal && !self.json)
    }

    /// What cannot be said to clap.
    fn check(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(connections) = self.connections else { return Ok(()) };
        if matches!(self.target, BenchTarget::Application(_)) {
            return Err(Failure::Arguments("--connections is for coap://, coaps:// and http:// targets".to_owned()));
        }
        match plan.load {
            Load::Closed { in_flight } if in_flight > connections as usize => Err(Failure::Arguments(format!(
                "--in-flight {in_flight} needs as many --connections: each carries one call at a time"
            ))),
            Load::Closed { .. } | Load::Open { .. } | Load::Bursts { .. } => Ok(()),
        }
    }

    fn plan(&self) -> Plan {
        let load = match (self.rate, self.burst) {
            (Some(rate), _) => Load::Open { rate, arrivals: self.arrivals },
            (None, Some(calls)) => Load::Bursts {
                calls: calls.into(),
                every: self.every.unwrap_or(Duration::MAX),
                times: self.times.unwrap_or(if self.every.is_some() { u32::MAX } else { 1 }),
            },
            (None, None) => Load::Closed { in_flight: self.in_flight.unwrap_or(1) as usize },
        };
        let outstanding_max = match load {
            Load::Open { .. } => self.outstanding as usize,
            Load::Bursts { .. } => self.outstanding.max(self.burst.unwrap_or(0)) as usize,
            Load::Closed { .. } => usize::MAX,
        };
        let unless_given = if self.times.is_some() { Duration::MAX } else { DURATION };
        Plan {
            load,
            duration: self.duration.unwrap_or(unless_given),
            calls_max: self.calls.unwrap_or(u64::MAX),
            warm_up: self.warm_up,
            timeout: self.timeout,
            outstanding_max,
        }
    }

    fn payload(&self) -> Result<Vec<u8>, Failure> {
        match (&self.data, &self.file) {
            (Some(data), _) => Ok(data.clone().into_bytes()),
            (None, Some(path)) => {
                std::fs::read(path).map_err(|source| Failure::Input { what: path.display().to_string(), source })
            }
            (None, None) => Ok(vec![b'x'; PAYLOAD_BYTES]),
        }
    }

    fn route(&self, payload: Vec<u8>) -> Result<Route, Failure> {
        let over_coaps = matches!(&self.target, BenchTarget::Coap(url) if url.secure);
        let credentials = self.identity.for_target(over_coaps)?;
        let address = |url: &Url| {
            url.address().map_err(|source| Failure::Input { what: format!("the address of {}", url.authority), source })
        };
        Ok(match &self.target {
            BenchTarget::Coap(url) => {
                let request = coap::request(&url.url, &payload, !self.non)?;
                let server = coap::Server { to: address(&url.url)?, credentials };
                Route::Coap { server: Rc::new(server), request: Rc::new(request) }
            }
            BenchTarget::Http(url) => Route::Http { to: address(url)?, request: http::request(url, &payload).into() },
            BenchTarget::Application(target) => {
                let request = Request {
                    application: target.application.clone(),
                    function: target.function.clone(),
                    payload: Bytes::from(payload),
                    ..Request::default()
                };
                Route::Application(Rc::new((self.host.client(), request)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn typed(line: &str) -> Result<BenchArguments, clap::Error> {
        Typed::try_parse_from(line.split(' ')).map(|typed| typed.bench)
    }

    #[test]
    fn progress_is_for_people_who_look_on() {
        let shows = |line: &str, terminal| typed(line).unwrap().shows_progress(terminal);
        assert!(shows("bench a", true) && !shows("bench a", false));
        assert!(!shows("bench a --json", true));
        assert!(shows("bench a --json --progress", false));
    }

    #[test]
    fn bursts_last_as_long_as_they_are_many_or_as_there_is_time() {
        let plan = |line: &str| typed(line).unwrap().plan();
        let one = plan("bench a --burst 7");
        assert_eq!(one.load, Load::Bursts { calls: 7, every: Duration::MAX, times: 1 });
        let counted = plan("bench a --burst 2000 --every 30s --times 4");
        assert_eq!((counted.duration, counted.outstanding_max), (Duration::MAX, 2000));
        let timed = plan("bench a --burst 7 --every 1s");
        assert_eq!((timed.duration, timed.outstanding_max), (DURATION, 1000));
        let both = plan("bench a --burst 7 --every 1s --times 9 --for 3s");
        assert_eq!(both.duration, Duration::from_secs(3));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--every 1s", "--burst 1 --times 2", "--burst 1 --every 0s", "--burst 1 --rate 2", "--peers 0"] {
            assert!(typed(&format!("bench a {line}")).is_err(), "{line}");
        }
        for line in ["a --connections 2", "http://h/ --in-flight 3 --connections 2"] {
            let bench = typed(&format!("bench {line}")).unwrap();
            let refused = bench.check(&bench.plan()).unwrap_err();
            assert_eq!(refused.exit(), crate::exit::Exit::Usage, "{line}");
        }
        let spread = typed("bench coap://h/ --burst 3 --peers 2").unwrap();
        assert!(spread.check(&spread.plan()).is_ok(), "they take turns");
    }
}
