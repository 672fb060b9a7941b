//! More calls than can be served: at once, and for long.
//!
//! Saturation is what callers get that wait, sixteen at a time, each round anew: as many as keep a processor busy, and no more. What lasts of
//! an overload is held against their latency. That of as many calls at equal times has no meaning at saturation, where a queue has no length to
//! come back to; at nine tenths of it, it is told beside.

use std::time::Duration;

use claims_report::{Claim, Findings, Goal, Line, Plot, Rounds};

use crate::calls::WasmServer;
use crate::load::{Latency, Load, load};
use crate::stage::{Host, Place, Scale};

const LIMITS: &str = "[limits]\nmemory = \"256MiB\"\nprocesses = 128\npayload = \"64KiB\"\ncalls = 1024\nqueue = 1024";
const WAITING: &str = "16";
const BELOW: f64 = 0.9;
const BEYOND: f64 = 3.0;
const BURST: f64 = 500.0;
/// Bursts are what comes after nothing.
const QUIET: Duration = Duration::from_secs(1);
const COAP_BURST: f64 = 100.0;
/// Of saturation, for the plot.
const LOADS: [f64; 10] = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0];

/// Of each round.
#[derive(Default)]
struct Found {
    burst_left: Rounds,
    burst_last_ms: Rounds,
    coap_burst_left: Rounds,
    saturation: Rounds,
    waiting_p99_ms: Latency,
    below_p99_ms: Latency,
    beyond_p99_ms: Latency,
    beyond_done: Rounds,
    beyond_refused_share: Rounds,
    refused_p99_ms: Rounds,
    lost: Rounds,
}

pub(crate) fn measure(scale: Scale) -> Findings {
    let host = Host::start(Place::First, &[]);
    host.deploy_chain("echo", 1, LIMITS);
    let target = format!("http://{}/echo", host.http);
    let mut found = Found::default();
    for _ in 0..scale.of(7, 2) {
        found.bursts(&host);
        found.lasting(&target, scale.of("4s", "2s"));
    }
    let plot = plot(&target, found.saturation.median(), scale.of("2s", "1s"));
    Findings { claims: found.claims(), plots: vec![plot] }
}

/// Calls at so many per second, whatever becomes of them.
fn paced(target: &str, rate: f64, time: &str) -> Load {
    let rate = format!("{rate:.0}");
    load(Place::Second, target, &["--rate", &rate, "--for", time, "--warm-up", "500ms", "--outstanding", "900"])
}

impl Found {
    fn bursts(&mut self, host: &Host) {
        let coap = format!("coap://{}/echo", host.coap);
        std::thread::sleep(QUIET);
        let burst = load(Place::Second, &coap, &["--burst", &COAP_BURST.to_string()]);
        self.coap_burst_left.push((burst.calls - burst.done) as f64);
        // Over the management socket: the HTTP door gives one client address no more than its share.
        let burst = load(Place::Second, "echo", &["--burst", &BURST.to_string(), "--socket", &host.socket()]);
        self.burst_left.push((burst.calls - burst.done) as f64);
        self.burst_last_ms.push(burst.latency().max / 1e3);
    }

    fn lasting(&mut self, target: &str, time: &str) {
        let waiting = load(Place::Second, target, &["--in-flight", WAITING, "--for", time, "--warm-up", "500ms"]);
        let saturation = waiting.throughput_per_s;
        let below = paced(target, saturation * BELOW, time);
        let beyond = paced(target, saturation * BEYOND, time);
        self.saturation.push(saturation);
        self.waiting_p99_ms.add(&waiting, |figures| figures.p99 / 1e3);
        self.below_p99_ms.add(&below, |figures| figures.p99 / 1e3);
        self.beyond_p99_ms.add(&beyond, |figures| figures.p99 / 1e3);
        self.beyond_done.push(beyond.throughput_per_s);
        self.beyond_refused_share.push(beyond.refused as f64 / beyond.calls as f64 * 100.0);
        self.refused_p99_ms.push(beyond.refused_us.map_or(0.0, |figures| figures.p99 / 1e3));
        let lost: u64 = [waiting, below, beyond].iter().map(Load::lost).sum();
        self.lost.push(lost as f64);
    }

    fn claims(self) -> Vec<Claim> {
        let per_s = |what: &str, ours, beside, theirs| Claim::new(what, "/s", ours, beside, theirs, Goal::None);
        let none = |what: &str, ours| Claim::new(what, "calls", ours, "none", 0.0, Goal::Zero);
        let last = self.saturation.map(|saturation| BURST / saturation * 1e3);
        let refused = "at 3 x saturation, refused";
        vec![
            none("500 calls at once, those not done", self.burst_left),
            none("100 CoAP calls at once, those not done", self.coap_burst_left),
            Claim::new("500 calls at once, the last", "ms", self.burst_last_ms, "at saturation", last, Goal::None),
            self.beyond_p99_ms.claim_in(
                "ms",
                "at 3 x saturation, p99 of calls that are done",
                "16 callers that wait",
                &self.waiting_p99_ms,
                Goal::AtMost(3.0),
            ),
            self.beyond_p99_ms.claim_in(
                "ms",
                "at 3 x saturation, p99 of calls that are done",
                "at 0.9 x saturation",
                &self.below_p99_ms,
                Goal::None,
            ),
            Claim::new(format!("{refused} after, p99"), "ms", self.refused_p99_ms, "limit", 5.0, Goal::AtMost(1.0)),
            Claim::new(refused, "%", self.beyond_refused_share, "of all calls", 100.0, Goal::None),
            none("up to 3 x saturation, calls lost or failed", self.lost),
            per_s("at 3 x saturation, calls done per second", self.beyond_done, "at saturation", self.saturation),
        ]
    }
}

/// Latencies over the load, one round each, beside the peer at the same loads.
fn plot(target: &str, saturation: f64, time: &str) -> Plot {
    let wasm = WasmServer::start();
    let mut targets = vec![("Sandbar", target)];
    targets.extend(wasm.as_ref().map(|wasm| ("fresh WebAssembly instance", wasm.target.as_str())));
    let mut lines: Vec<_> = targets.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for rate in LOADS.map(|load| load * saturation) {
        for ((_, target), (p50, p99)) in targets.iter().zip(&mut lines) {
            let latency = paced(target, rate, time).latency();
            p50.push((rate, latency.p50));
            p99.push((rate, latency.p99));
        }
    }
    let lines = targets.iter().zip(lines).flat_map(|((name, _), (p50, p99))| {
        let line = if *name == "Sandbar" { Line::ours } else { Line::beside };
        [line(format!("{name}, p50"), p50), line(format!("{name}, p99"), p99)]
    });
    Plot {
        file: "load.svg",
        title: "Latency of calls done over the load, one native function over HTTP, one core",
        x: "calls offered per second",
        y: "latency since due (µs)",
        lines: lines.collect(),
    }
}
