//! Calls of one native function: how soon they are answered, and how many a processor serves.

use std::path::Path;

use claims_report::{Claim, Goal, Rounds};

use crate::load::{Latency, load};
use crate::running::{Running, printed};
use crate::stage::{Host, Place, Scale, free_port, functions_program};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 128\npayload = \"64KiB\"";
/// How much later than over HTTP a call over CoAP may be answered, in microseconds.
const ABOVE_HTTP_US: f64 = 5.0;
const FRESH_WASM: &str = "a server with a fresh WebAssembly instance";

/// A peer: a fresh WebAssembly instance for each request, and nothing more.
pub(crate) struct WasmServer {
    _process: Running,
    pub(crate) target: String,
}

impl WasmServer {
    /// `None` where it is not built.
    pub(crate) fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-wasm/release/wasm-server");
        let address = free_port("tcp");
        if !program.exists() {
            println!("  SKIPPED: the WebAssembly server is not built: run `make bench`");
            return None;
        }
        let mut command = Place::First.command(program);
        command.arg(&address);
        let mut process = Running::start(command).unwrap();
        assert_ne!(process.first_line(), "", "the WebAssembly server did not start");
        Some(Self { _process: process, target: format!("http://{address}/") })
    }
}

/// Of one target.
#[derive(Default)]
struct Latencies {
    p50: Latency,
    p99: Latency,
}

/// Warm calls at 1,000 per second, all on one processor, in turns with the peer.
pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::First, &[]);
    host.deploy_chain("echo", 1, LIMITS);
    let wasm = WasmServer::start();
    let mut targets = vec![format!("http://{}/echo", host.http), format!("coap://{}/echo", host.coap)];
    targets.extend(wasm.as_ref().map(|wasm| wasm.target.clone()));
    let mut of_targets: Vec<_> = targets.iter().map(|_| Latencies::default()).collect();
    let seconds = scale.of("4s", "2s");
    for _ in 0..scale.of(7, 3) {
        for (target, of_target) in targets.iter().zip(&mut of_targets) {
            let paced = ["--rate", "1000", "--for", seconds, "--warm-up", "500ms"];
            let measured = load(Place::First, target, &paced);
            of_target.p50.add(&measured, |figures| figures.p50);
            of_target.p99.add(&measured, |figures| figures.p99);
        }
    }
    let (http, coap) = (&of_targets[0], &of_targets[1]);
    let claim = |what: &str, ours: &Latency, beside: &str, theirs: &Latency, goal: Goal| {
        ours.claim(format!("warm native call at 1,000/s, one core, {what}"), beside, theirs, goal)
    };
    let mut claims = vec![
        claim("CoAP, p50", &coap.p50, "over HTTP", &http.p50, Goal::AtMost(1.0)),
        // What a device waits beyond what a client of HTTP does: the two doors differ by some microseconds, whatever the call.
        claim("CoAP, p50", &coap.p50, "over HTTP, in the same rounds", &http.p50, Goal::AtMostAbove(ABOVE_HTTP_US)),
        claim("HTTP, p99", &http.p99, "its p50", &http.p50, Goal::AtMost(5.0)),
        claim("CoAP, p99", &coap.p99, "its p50", &coap.p50, Goal::AtMost(5.0)),
    ];
    claims.push(http.p50.none_left("warm native call at 1,000/s, HTTP"));
    claims.push(coap.p50.none_left("warm native call at 1,000/s, CoAP"));
    if let Some(wasm) = of_targets.get(2) {
        // The part `peers` has the goal, beside what people run: `wasmtime serve`.
        claims.push(claim("HTTP, p50", &http.p50, FRESH_WASM, &wasm.p50, Goal::None));
        claims.push(claim("HTTP, p99", &http.p99, FRESH_WASM, &wasm.p99, Goal::None));
    }
    claims
}

/// Calls per second of one processor, beside processes that the same program forks there without a sandbox.
pub(crate) fn measure_throughput(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::First, &["--delay-max", "never"]);
    host.deploy_chain("echo", 1, LIMITS);
    let wasm = WasmServer::start();
    let (mut ours, mut floor, mut peer) = (Rounds::default(), Rounds::default(), Rounds::default());
    let closed = ["--in-flight", "16", "--for", scale.of("4s", "2s"), "--warm-up", "500ms"];
    let throughput = |target: &str| load(Place::Second, target, &closed).all_done(target).throughput_per_s;
    for _ in 0..scale.of(5, 2) {
        ours.push(throughput(&format!("http://{}/echo", host.http)));
        if let Some(wasm) = &wasm {
            peer.push(throughput(&wasm.target));
        }
        const FORKS: f64 = 5000.0;
        let mut forks = Place::First.command(functions_program());
        forks.args(["forks", &FORKS.to_string()]);
        let ns: f64 = printed(forks).parse().unwrap();
        floor.push(FORKS / (ns / 1e9));
    }
    let claim = |beside: &str, theirs: Rounds, goal: Goal| {
        Claim::new("native calls per second and core, over HTTP", "/s", ours.clone(), beside, theirs, goal)
    };
    let mut claims = vec![claim("fork, exit and wait of the same program", floor, Goal::AtLeast(0.8))];
    if wasm.is_some() {
        claims.push(claim(FRESH_WASM, peer, Goal::None));
    }
    claims
}
