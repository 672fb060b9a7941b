//! What a hop between two functions of a chain costs, beside the floor: one sleep and wake-up on a shared word.
//!
//! Both in one run, in turns, pinned to one processor, so that the ratio holds where the times do not. A hop is the time from
//! the moment a function's instance begins to hand its output over (the report of its trace is behind it) to the moment the next
//! function's instance, a process of its own, has it in hand.
//! Calls are paced, so that instances stand ready as they do on a host that is not saturated.
//!
//! Needs root and `examples/chain/bin/chain` (`make bench` builds it). Prints a table and writes `target/bench/hop.json`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench prints, and ends at any error")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use sandbar_bus::futex;
use sandbar_proxy::management::Client;
use sandbar_runtime::{Outcome, Request};

const ROUNDS: usize = 10;
const FLOOR_PER_ROUND: usize = 2_000;
const CALLS_PER_ROUND: usize = 200;
const PACE: Duration = Duration::from_millis(2);

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: sandboxes are made by root");
        return;
    }
    pin_to_first_processor();
    let host = Host::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut floor, mut hops) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.extend(futex_round_trips());
        hops.extend(runtime.block_on(host.hops()));
    }
    report(&mut floor, &mut hops);
}

fn pin_to_first_processor() {
    let mut processors = CpuSet::new();
    processors.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &processors).unwrap();
}

/// Two threads hand a word to and fro: nanoseconds of each round trip.
fn futex_round_trips() -> Vec<u64> {
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let theirs = Arc::clone(&words);
    let partner = std::thread::spawn(move || {
        for turn in 0..FLOOR_PER_ROUND {
            wait_past(&theirs[0], turn);
            pass(&theirs[1]);
        }
    });
    let mut times = Vec::with_capacity(FLOOR_PER_ROUND);
    for turn in 0..FLOOR_PER_ROUND {
        let began = Instant::now();
        pass(&words[0]);
        wait_past(&words[1], turn);
        times.push(u64::try_from(began.elapsed().as_nanos()).unwrap());
    }
    partner.join().unwrap();
    times
}

fn pass(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    futex::wake(word);
}

fn wait_past(word: &AtomicU32, turn: usize) {
    let turn = u32::try_from(turn).unwrap();
    while word.load(Ordering::SeqCst) == turn {
        futex::wait(word, turn, None);
    }
}

/// A host of the bench's own with the chain deployed.
struct Host {
    process: Child,
    folder: PathBuf,
    client: Client,
}

impl Host {
    fn start() -> Self {
        let chain = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/chain");
        assert!(chain.join("bin/chain").exists(), "examples/chain/bin/chain is not built: run examples/build.sh");
        let folder = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
        command.args(["serve", "--coap", "127.0.0.1:0", "--log", "warn", "--state"]).arg(folder.join("state"));
        let mut process = command.arg("--socket").arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        let host = Self { process, folder, client: Client::new(&socket) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(host.client.deploy(&chain)).unwrap();
        host
    }

    /// Nanoseconds of each hop of a round of calls.
    async fn hops(&self) -> Vec<u64> {
        let mut hops = Vec::with_capacity(CALLS_PER_ROUND * 2);
        for _ in 0..CALLS_PER_ROUND {
            tokio::time::sleep(PACE).await;
            let request =
                Request { application: "chain".to_owned(), payload: "x".into(), trace: true, ..Request::default() };
            let answer = self.client.call(request).await.unwrap();
            assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
            hops.extend(answer.hops.iter().skip(1).map(|hop| hop.taken_ns.saturating_sub(hop.sent_ns)));
        }
        hops
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.process.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// The value that so many hundredths of all are not above, in microseconds.
fn percentile(sorted: &[u64], hundredths: usize) -> f64 {
    let at = sorted.len() * hundredths / 100;
    sorted[at.min(sorted.len() - 1)] as f64 / 1000.0
}

fn report(floor: &mut [u64], hops: &mut [u64]) {
    floor.sort_unstable();
    hops.sort_unstable();
    let [floor_p50, floor_p99, hop_p50, hop_p99] =
        [percentile(floor, 50), percentile(floor, 99), percentile(hops, 50), percentile(hops, 99)];
    println!("one processor, {} round trips, {} hops              p50 µs    p99 µs", floor.len(), hops.len());
    println!("futex round trip (floor)                              {floor_p50:8.1}  {floor_p99:8.1}");
    println!("hop between two functions, a process each             {hop_p50:8.1}  {hop_p99:8.1}");
    println!(
        "ratio                                                 {:8.2}  {:8.2}",
        hop_p50 / floor_p50,
        hop_p99 / floor_p99
    );
    println!(
        "hop p50 / half a round trip (goal 2.5), p99 (goal 30) {:8.2}  {:8.2}",
        hop_p50 / floor_p50 * 2.0,
        hop_p99 / floor_p50 * 2.0
    );
    let json = serde_json::json!({
        "floor": { "what": "futex round trip, one processor", "count": floor.len(), "p50_us": floor_p50, "p99_us": floor_p99 },
        "hop": { "what": "hop between two native functions, one processor", "count": hops.len(), "p50_us": hop_p50, "p99_us": hop_p99 },
        "ratio_p50": hop_p50 / floor_p50,
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("hop.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&json).unwrap()).unwrap();
    println!("written to {}", path.display());
}
