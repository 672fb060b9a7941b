//! Peers: others that answer a call, each beside Sandbar in the same run.
//!
//! ```text
//!   server ─▶ sandbar, wasm, cgi, python, named ─┐                       ┌─▶ paced: all on one processor
//!                                                ├─▶ a turn of each, ────┤
//!   program ─▶ container ────────────────────────┘   round after round   └─▶ saturated: callers on the other
//!   hand_over: NATS and iceoryx2 beside a hop                 ▼
//!                                                           table
//! ```
//!
//! Each is sent 64 bytes and answers with them. Latency is taken at 1,000 calls/s, or at a tenth of what the peer can do where that is less,
//! so that each has time that it does not spend on calls, as Sandbar has for its forks. Each figure is the median of all rounds. A peer that
//! cannot be had, or that does not answer, is skipped and told with its reason.
//!
//! What is started here ends with its owner, as all that the bench runs (`running`).

mod cgi;
mod container;
mod hand_over;
mod named;
mod program;
mod python;
mod sandbar;
mod server;
mod table;
mod wasm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use claims_report::{Claim, Goal, Rounds};

pub(crate) use self::named::name;
use self::program::Program;
use self::server::Server;
use crate::load::{Latency, Load, load};
use crate::memory;
use crate::running::pause;
use crate::stage::{Host, Place, Scale};

/// Calls per second.
const RATE_MAX: f64 = 1000.0;
/// Of all calls, those that must be done if a turn is to count.
const DONE_MIN: f64 = 0.99;
const WASMTIME: &str = "wasmtime serve";

/// Why a peer is not measured.
pub(crate) struct Skipped(String);

impl From<String> for Skipped {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// How a peer is called.
enum Way {
    /// At a URL, by `sandbar bench`.
    Served(String, Runs),
    /// By a process that is started for the call.
    Started(Program),
}

/// What answers at a URL.
enum Runs {
    Sandbar(Host),
    /// Started here, and ended with its peer.
    Ours(Server),
    /// It ran before, and goes on.
    Already,
}

/// How often a peer is called while its latency is measured.
#[derive(Clone, Copy, PartialEq)]
enum Rate {
    /// As often as the performance goals say.
    Most,
    /// A tenth as often as it can be, if that is less.
    Found,
}

/// One of those that are measured.
struct Peer {
    name: String,
    /// What is made for a call, and for no other.
    isolation: &'static str,
    rate: Rate,
    way: Way,
    calls_per_s_paced: f64,
    p50: Latency,
    p99: Latency,
    calls_per_s: Rounds,
    /// MiB of its processes, when it has just been called; empty where none stay.
    pss_mib: Rounds,
}

impl Peer {
    fn new(name: impl Into<String>, isolation: &'static str, rate: Rate, way: Way) -> Self {
        let (p50, p99) = (Latency::default(), Latency::default());
        let (calls_per_s, pss_mib) = (Rounds::default(), Rounds::default());
        Self { name: name.into(), isolation, rate, way, calls_per_s_paced: RATE_MAX, p50, p99, calls_per_s, pss_mib }
    }

    /// Finds the rate at which it is to be called, and that it answers.
    fn prepare(&mut self) -> Result<(), Skipped> {
        let most = self.saturate(1)?;
        if self.rate == Rate::Found {
            self.calls_per_s_paced = (most / 10.0).min(RATE_MAX);
        }
        Ok(())
    }

    fn turn(&mut self, scale: Scale) -> Result<(), Skipped> {
        self.pace(scale.of(4, 2))?;
        match &self.way {
            Way::Served(_, Runs::Sandbar(host)) => self.pss_mib.push(memory::whole(host)),
            Way::Served(_, Runs::Ours(server)) => self.pss_mib.push(memory::tree(server.pid())),
            Way::Served(_, Runs::Already) | Way::Started(_) => {}
        }
        let calls_per_s = self.saturate(scale.of(2, 1))?;
        self.calls_per_s.push(calls_per_s);
        Ok(())
    }

    /// Calls at its rate. All run on the first processor.
    fn pace(&mut self, seconds: u64) -> Result<(), Skipped> {
        // Where Ctrl-C is heard, as a call of a program is not waited for there.
        pause(Duration::from_millis(1));
        let rate = self.calls_per_s_paced;
        match &mut self.way {
            Way::Served(url, _) => {
                let time = format!("{seconds}s");
                let paced = ["--rate", &rate.to_string(), "--for", &time, "--warm-up", "500ms"];
                let measured = answered(load(Place::First, url, &paced))?;
                self.p50.add(&measured, |figures| figures.p50);
                self.p99.add(&measured, |figures| figures.p99);
            }
            Way::Started(program) => {
                let [p50, p99] = program.pace(rate, Duration::from_secs(seconds))?;
                for (latency, figure) in [(&mut self.p50, p50), (&mut self.p99, p99)] {
                    latency.due.push(figure.due_us);
                    latency.sent.push(figure.started_us);
                }
            }
        }
        Ok(())
    }

    /// Calls per second as fast as they are answered. The callers are on the second processor, but for a program's, which is started from where
    /// it is to run.
    fn saturate(&mut self, seconds: u64) -> Result<f64, Skipped> {
        pause(Duration::from_millis(1));
        match &mut self.way {
            Way::Served(url, _) => {
                let time = format!("{seconds}s");
                let closed = ["--in-flight", "16", "--for", &time, "--warm-up", "500ms"];
                Ok(answered(load(Place::Second, url, &closed))?.throughput_per_s)
            }
            Way::Started(program) => program.saturate(Duration::from_secs(seconds)),
        }
    }
}

/// A load, if it was answered.
fn answered(measured: Load) -> Result<Load, Skipped> {
    if measured.done > 0 && measured.done as f64 >= DONE_MIN * measured.calls as f64 {
        return Ok(measured);
    }
    Err(format!("{} of {} calls were done: {measured:?}", measured.done, measured.calls).into())
}

/// All peers in turns, and each beside Sandbar.
pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let folder = tempfile::Builder::new().prefix("sandbar-peers-").tempdir().unwrap();
    let mut skipped = Vec::new();
    let mut peers = Vec::new();
    for (name, found) in candidates(folder.path()) {
        match found.and_then(|mut peer| peer.prepare().map(|()| peer)) {
            Ok(peer) => peers.push(peer),
            Err(Skipped(reason)) => skip(&mut skipped, &name, reason),
        }
    }
    for _ in 0..scale.of(7, 3) {
        peers.retain_mut(|peer| match peer.turn(scale) {
            Ok(()) => true,
            Err(Skipped(reason)) => {
                skip(&mut skipped, &peer.name, reason);
                false
            }
        });
    }
    let mut claims = beside_us(&peers);
    let rows: Vec<table::Row> = peers.iter().map(table::Row::of).collect();
    // All of them end, before others are measured.
    drop(peers);
    let (hop, others) = hand_over::measure(scale).unwrap_or_else(|Skipped(reason)| {
        skip(&mut skipped, "a hop's peers", reason);
        Default::default()
    });
    claims.extend(hand_over::claims(&hop, &others));
    table::write(&rows, &hop, &others, &skipped);
    claims
}

fn skip(skipped: &mut Vec<(String, String)>, name: &str, reason: String) {
    println!("  SKIPPED: {name}: {reason}");
    skipped.push((name.to_owned(), reason));
}

/// Everyone, started, with Sandbar first.
fn candidates(folder: &Path) -> Vec<(String, Result<Peer, Skipped>)> {
    let mut all = sandbar::peers();
    all.extend(wasm::peers(folder));
    all.push(cgi::peer(folder));
    all.push(python::peer(folder));
    all.extend(container::peers(folder));
    all.extend(named::peers());
    all
}

/// Our native call over HTTP beside that of each peer.
fn beside_us(peers: &[Peer]) -> Vec<Claim> {
    let Some(ours) = peers.iter().find(|peer| peer.name == sandbar::NATIVE) else { return Vec::new() };
    let mut claims = Vec::new();
    for peer in peers.iter().filter(|peer| !peer.name.starts_with(sandbar::NATIVE)) {
        let goal = if peer.name == WASMTIME { Goal::AtMost(0.75) } else { Goal::None };
        let what = |quantile: &str| format!("warm native call at 1,000/s, one core, HTTP, {quantile}");
        let beside = match peer.calls_per_s_paced {
            RATE_MAX => peer.name.clone(),
            rate => format!("{}, at {rate:.0}/s", peer.name),
        };
        claims.push(ours.p50.claim(what("p50"), &beside, &peer.p50, goal));
        claims.push(ours.p99.claim(what("p99"), &beside, &peer.p99, Goal::None));
        let (ours, theirs) = (ours.calls_per_s.clone(), peer.calls_per_s.clone());
        let what = "native calls per second and core, over HTTP";
        claims.push(Claim::new(what, "/s", ours, peer.name.as_str(), theirs, Goal::None));
    }
    claims
}

/// A program of Debian's, by its name.
fn installed(program: &str, package: &str) -> Result<PathBuf, Skipped> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are root's, and not on everyone's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|program| program.is_file());
    found.ok_or_else(|| format!("{program} is not installed: apt-get install {package}").into())
}

/// A program that `make bench` builds.
fn built(path: &str) -> Result<PathBuf, Skipped> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path);
    if program.exists() {
        Ok(program)
    } else {
        Err(format!("{} is not built: run `make bench`", program.display()).into())
    }
}

/// The function that Sandbar's worker runs, linked statically, as suits those who start it for each call.
fn function() -> Result<PathBuf, Skipped> {
    built("bench-static/release/claims-functions")
}
