//! `sandbar bench`: a load on a function, or on any HTTP server, and what it answered.
//!
//! ```text
//!   schedule ──due──▶ load ──▶ lane (CoAP, HTTP, management) ──▶ tally ──▶ report
//! ```
//!
//! In an open load each call's time is fixed beforehand, and its latency counts from then: what a slow answer keeps from being sent in
//! time has waited too (no coordinated omission). In a closed load the next call waits for the one before, as a caller would; what others
//! would have waited meanwhile is not in its figures.

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

use self::lane::Lanes;
use self::load::Plan;
use self::report::Report;
use self::schedule::{Arrivals, Load};
use self::tally::Tally;
use self::target::BenchTarget;
use crate::arguments::HostSocket;
use crate::exit;
use crate::failure::Failure;
use crate::output;

/// The payload, unless one is given.
const PAYLOAD_BYTES: usize = 64;

const EXAMPLES: &str = "\
Examples:
  sandbar bench thermostat
  sandbar bench coap://127.0.0.1/thermostat --rate 1000 --for 30s
  sandbar bench http://127.0.0.1:8000/gallery/thumbnail --in-flight 8 --file photo.jpg --json
  sandbar bench http://127.0.0.1:8000/chain --burst 500";

/// Load a function, or any HTTP server, and measure what it answers
///
/// With --rate calls are due at fixed times, and their latency counts from then, however late they could be sent. Else
/// --in-flight calls are kept under way, each followed by the next. A call that is refused as overloaded, gets no answer in time, or fails
/// is counted as such, and is in no latency.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::TABLE))]
pub(crate) struct BenchArguments {
    // Not a comment of documentation, in which brackets are links.
    #[arg(
        value_name = "TARGET",
        help = "coap://HOST[:PORT]/APP[/FUNCTION], http://HOST[:PORT]/PATH, or APP[/FUNCTION] of this host"
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
    /// So many calls at once, and no more
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    burst: Option<u32>,
    /// How long calls are made
    #[arg(long = "for", value_name = "TIME", value_parser = quantity::time, default_value = "10s")]
    duration: Duration,
    /// How many calls are made, at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    calls: Option<u64>,
    /// How long calls are made before any is counted
    #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "0s", conflicts_with = "burst")]
    warm_up: Duration,
    /// How long a call is waited for before it is lost
    #[arg(long, value_name = "TIME", value_parser = quantity::time, default_value = "10s")]
    timeout: Duration,
    /// Calls that may be outstanding with --rate; one that is due beyond that is counted as not sent
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
    /// Print a line each second to standard error, even if that is no terminal
    #[arg(long)]
    progress: bool,
    /// Print all figures as a JSON object; times are in microseconds
    #[arg(long)]
    json: bool,
    /// Write the distribution of latencies to this file: quantile, microseconds, calls up to there
    #[arg(long, value_name = "PATH")]
    histogram: Option<PathBuf>,
    #[command(flatten)]
    host: HostSocket,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("give a number of calls per second, 0.001 to 1000000"),
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
        raise_descriptor_limit().map_err(|errno| Failure::System(errno.into()))?;
        let lanes = self.lanes()?;
        let tally = Tally::new().map_err(|error| Failure::System(io::Error::other(error)))?;
        let shows_progress = self.progress || io::stderr().is_terminal();
        let mut calls_before = 0;
        let progress = |tally: &Tally, since: Duration| {
            if shows_progress && since >= Duration::from_millis(500) {
                output::note(&report::progress(tally, since, &mut calls_before));
            }
        };
        let stop = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
        let (tally, took) = load::run(plan, lanes, tally, stop, progress).await.map_err(Failure::System)?;
        let report = Report::of(&self.target, &plan, &tally, took);
        if self.json {
            output::json(&report)?
        } else {
            output::write(report.text().as_bytes())?
        }
        if let Some(path) = &self.histogram {
            std::fs::write(path, report::distribution(&tally))
                .map_err(|source| Failure::Keep { path: path.clone(), source })?;
        }
        let all_done = tally.done == tally.calls;
        if tally.done > 0 && (all_done || !self.strict) {
            return Ok(());
        }
        Err(Failure::Bench { calls: tally.calls, done: tally.done, most: report.most_frequent_error() })
    }

    fn plan(&self) -> Plan {
        let load = match (self.rate, self.burst) {
            (Some(rate), _) => Load::Open { rate, arrivals: self.arrivals },
            (None, Some(calls)) => Load::Burst { calls: calls.into() },
            (None, None) => Load::Closed { in_flight: self.in_flight.unwrap_or(1) as usize },
        };
        let outstanding_max = match load {
            Load::Open { .. } => self.outstanding as usize,
            Load::Closed { .. } | Load::Burst { .. } => usize::MAX,
        };
        Plan {
            load,
            duration: self.duration,
            calls_max: self.calls.unwrap_or(u64::MAX),
            warm_up: self.warm_up,
            timeout: self.timeout,
            outstanding_max,
        }
    }

    fn lanes(&self) -> Result<Lanes, Failure> {
        let payload = match (&self.data, &self.file) {
            (Some(data), _) => data.clone().into_bytes(),
            (None, Some(path)) => {
                std::fs::read(path).map_err(|source| Failure::Input { what: path.display().to_string(), source })?
            }
            (None, None) => vec![b'x'; PAYLOAD_BYTES],
        };
        let address = |url: &target::Url| {
            url.address().map_err(|source| Failure::Input { what: format!("the address of {}", url.authority), source })
        };
        Ok(match &self.target {
            BenchTarget::Coap(url) => {
                let datagram = coap::datagram(url, &payload, !self.non);
                let datagram = datagram.map_err(|why| Failure::Input {
                    what: "the payload".to_owned(),
                    source: io::Error::new(io::ErrorKind::InvalidInput, why),
                })?;
                Lanes::Coap { to: address(url)?, datagram, confirmable: !self.non }
            }
            BenchTarget::Http(url) => Lanes::Http { to: address(url)?, request: http::request(url, &payload).into() },
            BenchTarget::Application(target) => {
                let request = Request {
                    application: target.application.clone(),
                    function: target.function.clone(),
                    payload: Bytes::from(payload),
                    ..Request::default()
                };
                Lanes::Application(Rc::new((self.host.client(), request)))
            }
        })
    }
}
