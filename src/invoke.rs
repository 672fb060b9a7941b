//! `sandbar invoke`: one call, from the command line: by the host agent, or over CoAP as a device makes it.

mod coap;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use sandbar_runtime::manifest::quantity;
use sandbar_runtime::{Hop, Mode, Origin, Outcome, Request};

use crate::answer;
use crate::arguments::{HostSocket, Target};
use crate::exit;
use crate::failure::Failure;
use crate::identity::IdentityArguments;
use crate::output;
use crate::url::CoapUrl;

/// The most that is read as a payload, in bytes. No host takes as much; it only makes endless input end.
const INPUT_BYTES_MAX: u64 = 1 << 30;

const EXAMPLES: &str = "\
Examples:
  sandbar invoke thermostat '[{\"n\":\"temp\",\"u\":\"Cel\",\"v\":21.5}]' --content-format 110
  sandbar invoke thermostat/average --file readings.json --trace
  sandbar invoke gallery <photo.jpg >thumbnail.jpg
  sandbar invoke thermostat 21.5 --async          # prints where its answer will be
  sandbar invoke coap://192.0.2.7/thermostat --file readings.json --content-format 110
  sandbar invoke coaps://192.0.2.7/gallery <photo.jpg >thumbnail.jpg --psk-file camera.toml";

/// Call a function and print its answer
///
/// The payload is DATA, else a file's content, else standard input. The answer's bytes go to standard output as they
/// are (with a line end after them on a terminal); a call that ends in any other way prints its outcome to standard
/// error.
///
/// With --async it is not waited for: once the call is stored, its location goes to standard output, and `sandbar calls answer` prints its
/// answer when it has been made.
///
/// With an address the call is made over CoAP, to any host, as a device makes it: over coaps:// by an identity of a key file.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::TABLE))]
pub(crate) struct InvokeArguments {
    // Not a comment of documentation, in which brackets are links.
    #[arg(
        value_name = "TARGET",
        help = "APP[/FUNCTION] of this host (its entry unless a function is named), coap://HOST[:PORT]/APP[/FUNCTION], or coaps://…"
    )]
    target: InvokeTarget,
    /// The payload
    #[arg(allow_negative_numbers = true)]
    pub(crate) data: Option<OsString>,
    /// A file that holds the payload
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// The payload's format, a number of the CoAP Content-Formats registry
    ///
    /// 0 is text, 42 bytes, 50 JSON, 60 CBOR, 110 SenML in JSON.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) content_format: Option<u16>,
    /// How long to wait, such as 500ms or 2s; the time-outs of the chain apply where they are shorter
    ///
    /// Over CoAP, 60s unless given. With --async on this host, how long an attempt to make the call may take.
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    pub(crate) timeout: Option<Duration>,
    /// Print the call's path to standard error: the process of each hop, and its times; not over CoAP
    #[arg(long)]
    trace: bool,
    /// Do not wait for the answer: have the call accepted, to be made as soon as may be, and print its location
    #[arg(long = "async", conflicts_with = "trace")]
    asynchronous: bool,
    /// Print the whole answer as a JSON object, with the payload in it
    ///
    /// "payload" holds it as text if it is UTF-8, else "payload_hex" does.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    identity: IdentityArguments,
    #[command(flatten)]
    pub(crate) host: HostSocket,
}

/// What is called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
enum InvokeTarget {
    Application(Target),
    Coap(CoapUrl),
}

impl FromStr for InvokeTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(parsed) = CoapUrl::parse(text) {
            return parsed.map(Self::Coap);
        }
        if text.contains("://") {
            return Err("only coap:// and coaps:// are spoken here; http:// is curl's".to_owned());
        }
        text.parse().map(Self::Application).map_err(|why: &str| why.to_owned())
    }
}

impl InvokeArguments {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let payload = payload(self.data, self.file.as_deref())?;
        let answer = match self.target {
            InvokeTarget::Coap(_) if self.trace => {
                return Err(Failure::Arguments("--trace is for applications of this host".to_owned()));
            }
            InvokeTarget::Coap(url) => {
                let call = coap::Call {
                    payload: &payload,
                    content_format: self.content_format,
                    timeout: self.timeout,
                    asynchronous: self.asynchronous,
                };
                call.make(&url, &self.identity).await?
            }
            InvokeTarget::Application(target) => {
                self.identity.for_target(false)?;
                let request = Request {
                    application: target.application,
                    function: target.function,
                    payload,
                    content_format: self.content_format,
                    timeout: self.timeout,
                    trace: self.trace,
                    mode: if self.asynchronous { Mode::Asynchronous } else { Mode::Synchronous },
                    origin: Origin::Known,
                    ..Request::default()
                };
                self.host.client().call(request).await?
            }
        };
        answer::print(&answer, self.json)?;
        if self.asynchronous && answer.outcome == Outcome::Done {
            output::note(
                "sandbar: the server did not accept the call to make it later: it was made, and this is its answer",
            );
        }
        // An instance that dies hands nothing over, and so has no part in the path.
        if self.trace && !answer.hops.is_empty() {
            output::note(path(&answer.hops).trim_end());
        }
        answer::judge(answer)
    }
}

fn payload(data: Option<OsString>, file: Option<&Path>) -> Result<Bytes, Failure> {
    if let Some(data) = data {
        return Ok(data.into_vec().into());
    }
    let (what, read) = match file {
        Some(path) => (path.display().to_string(), File::open(path).and_then(read_to_end)),
        None => {
            let stdin = io::stdin().lock();
            if stdin.is_terminal() {
                output::note("sandbar: type the payload, then Ctrl-D");
            }
            ("standard input".to_owned(), read_to_end(stdin))
        }
    };
    read.map_err(|source| Failure::Input { what, source })
}

fn read_to_end(input: impl Read) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        let problem = format!("it is longer than {}", quantity::show_size(INPUT_BYTES_MAX));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes.into())
}

/// The path of a call as a table. All times are microseconds:
/// AT from the call's start to the hand-over to this function, WAITED from there until an instance had the message
/// in hand, RAN from there until the instance handed its output over.
fn path(hops: &[Hop]) -> String {
    let titles = ["FUNCTION", "PID", "AT µs", "WAITED µs", "RAN µs"].map(str::to_owned);
    let rows = hops.iter().map(|hop| {
        [
            hop.function.clone(),
            hop.pid.to_string(),
            micros(hop.sent_ns),
            micros(hop.taken_ns.saturating_sub(hop.sent_ns)),
            micros(hop.done_ns.saturating_sub(hop.taken_ns)),
        ]
    });
    let table = output::table(&std::iter::once(titles).chain(rows).collect::<Vec<_>>());
    let total_ns = hops.iter().map(|hop| hop.done_ns).max().unwrap_or(0);
    format!("{table}total {} µs\n", micros(total_ns))
}

/// Nanoseconds as microseconds, with one digit after the point.
fn micros(nanos: u64) -> String {
    let tenths = nanos.saturating_add(50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_shows_each_hop_and_the_total() {
        let hop = |function: &str, pid, [sent_ns, taken_ns, done_ns]: [u64; 3]| Hop {
            function: function.into(),
            pid,
            sent_ns,
            taken_ns,
            done_ns,
        };
        let hops = [hop("ingest", 41, [1_000, 6_049, 500_000]), hop("average", 1042, [500_100, 504_150, 510_000])];
        let expected = "\
FUNCTION   PID  AT µs  WAITED µs  RAN µs
ingest      41    1.0        5.0   494.0
average   1042  500.1        4.1     5.9
total 510.0 µs
";
        assert_eq!(path(&hops), expected);
    }

    #[test]
    fn times_that_make_no_sense_do_no_harm() {
        assert_eq!(micros(u64::MAX), "18446744073709551.6");
        let hop = Hop { function: "f".into(), pid: 1, sent_ns: 9, taken_ns: 5, done_ns: 1 };
        assert!(path(&[hop]).contains("0.0"));
    }

    #[test]
    fn data_wins_over_standard_input() {
        let given = payload(Some("21.5".into()), None).unwrap();
        assert_eq!(given, "21.5");
        let missing = payload(None, Some(Path::new("/nonexistent/file"))).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read /nonexistent/file");
    }
}
