//! Calls of one native function: how soon they are answered, and how many a processor serves.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::report::{Claim, Goal, median};
use crate::stage::{Host, Place, Scale, end, figure, free_port, functions_program, load};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 128\npayload = \"64KiB\"";

/// A peer: a fresh WebAssembly instance for each request.
struct WasmServer(Child, String);

impl WasmServer {
    /// `None` where it is not built.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-wasm/release/wasm-server");
        let address = free_port("tcp");
        if !program.exists() {
            println!("  SKIPPED: the WebAssembly server is not built: run `make bench`");
            return None;
        }
        let mut process = Place::First.command(program).arg(&address).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        Some(Self(process, address))
    }
}

impl Drop for WasmServer {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

/// Warm calls at 1,000 per second, all on one processor, in turns with the peer.
pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::First, &[]);
    host.deploy_chain("echo", 1, LIMITS);
    let wasm = WasmServer::start();
    let mut targets =
        vec![("HTTP", format!("http://{}/echo", host.http)), ("CoAP", format!("coap://{}/echo", host.coap))];
    targets.extend(wasm.as_ref().map(|wasm| ("wasm", format!("http://{}/", wasm.1))));
    let mut p50s: Vec<Vec<f64>> = vec![Vec::new(); targets.len()];
    let mut p99s = p50s.clone();
    let seconds = scale.of("4s", "2s");
    for _ in 0..scale.of(7, 3) {
        for (at, (_, target)) in targets.iter().enumerate() {
            let measured =
                load(Place::First, target, &["--rate", "1000", "--for", seconds, "--warm-up", "500ms", "--strict"]);
            p50s[at].push(figure(&measured, "service_us", "p50"));
            p99s[at].push(figure(&measured, "service_us", "p99"));
        }
    }
    let (p50, p99): (Vec<f64>, Vec<f64>) =
        p50s.iter_mut().zip(&mut p99s).map(|(p50, p99)| (median(p50), median(p99))).unzip();
    let claim = |what: &str, ours: f64, beside: &str, theirs: f64, goal: Goal| Claim {
        what: format!("warm native call at 1,000/s, one core, {what}"),
        unit: "µs",
        ours,
        beside: beside.to_owned(),
        theirs,
        goal,
    };
    let mut claims = vec![
        claim("CoAP, p50", p50[1], "over HTTP", p50[0], Goal::AtMost(1.0)),
        claim("HTTP, p99", p99[0], "its p50", p50[0], Goal::AtMost(5.0)),
        claim("CoAP, p99", p99[1], "its p50", p50[1], Goal::AtMost(5.0)),
    ];
    if let Some(wasm_p50) = p50.get(2) {
        claims.push(claim(
            "HTTP, p50",
            p50[0],
            "a server with a fresh WebAssembly instance",
            *wasm_p50,
            Goal::AtMost(0.75),
        ));
        claims.push(claim("HTTP, p99", p99[0], "that server's p99", p99[2], Goal::None));
    }
    claims
}

/// Calls per second of one processor, beside processes that the same program forks there without a sandbox.
pub(crate) fn measure_throughput(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::First, &["--delay-max", "never"]);
    host.deploy_chain("echo", 1, LIMITS);
    let wasm = WasmServer::start();
    let target = format!("http://{}/echo", host.http);
    let (mut ours, mut floor, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.of(5, 2) {
        let closed = ["--in-flight", "16", "--for", scale.of("4s", "2s"), "--warm-up", "500ms"];
        ours.push(load(Place::Second, &target, &closed)["throughput_per_s"].as_f64().unwrap());
        if let Some(wasm) = &wasm {
            let target = format!("http://{}/", wasm.1);
            peers.push(load(Place::Second, &target, &closed)["throughput_per_s"].as_f64().unwrap());
        }
        const FORKS: f64 = 5000.0;
        let forks = Place::First.command(functions_program()).args(["forks", "5000"]).output().unwrap();
        let ns: f64 = String::from_utf8(forks.stdout).unwrap().trim().parse().unwrap();
        floor.push(FORKS / (ns / 1e9));
    }
    let ours = median(&mut ours);
    let claim = |beside: &str, theirs: f64, goal: Goal| Claim {
        what: "native calls per second and core, over HTTP".to_owned(),
        unit: "/s",
        ours,
        beside: beside.to_owned(),
        theirs,
        goal,
    };
    let mut claims = vec![claim("fork, exit and wait of the same program", median(&mut floor), Goal::AtLeast(0.8))];
    if !peers.is_empty() {
        claims.push(claim("a server with a fresh WebAssembly instance", median(&mut peers), Goal::None));
    }
    claims
}
