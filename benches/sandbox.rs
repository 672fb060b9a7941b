//! What a sandbox costs, and what an instance in it, each beside the same in plain C: `sandbox/floor.c` and `sandbox/worker.c`.
//!
//! - **A sandbox**: from the start until its worker has said that it is ready. The agent measures that itself, as it does for
//!   anyone who runs it with `--log debug`: the floor has the same phases. An application with one native function is deployed and
//!   removed, in turns with the floor's.
//! - **An instance**: what each call costs in the sandbox, while one call follows the other on one processor: the processor time of
//!   supervisor, worker and all instances; and the time on the clock, less the processor time of the agent and of the caller.
//!   Either is more than an instance: what the bus does for the call is in it. The floor is a process in a process id namespace of
//!   its own and with its own user, forked from an image of the same size by a program that does nothing else.
//!
//! Needs root, control groups v1, a C compiler, and `examples/chain/bin/chain` (`make bench` builds it). Prints tables and writes
//! `target/bench/sandbox.json`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench prints, and ends at any error")]

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, SysconfVar, sysconf};
use sandbar_proxy::management::Client;
use sandbar_runtime::{Outcome, Request};
use sandbar_supervisor::seccomp;

const SANDBOXES: usize = 80;
/// Between two sandboxes, so that what the kernel does after the end of one is not in the other's time.
const PAUSE: Duration = Duration::from_millis(20);
const ROUNDS: usize = 8;
const CALLS_PER_ROUND: usize = 2_000;
const FORKS_PER_ROUND: usize = 1_000;
const MEMORY_BYTES: u64 = 64 << 20;
const MANIFEST: &str = r#"
name = "one"
entry = "first"
[limits]
memory = "64MiB"
processes = 64
payload = "1MiB"
[functions.first]
runtime = "native"
code = "bin/chain"
timeout = "5s"
"#;
/// As `worker.c` has them; the last is the floor of an instance.
const KINDS: [&str; 4] = ["plain", "user", "sweep", "namespace"];
const PHASES: [&str; 4] = ["limited_us", "built_us", "entered_us", "ready_us"];

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: sandboxes are made by root");
        return;
    }
    if TREES.iter().any(|tree| !Path::new("/sys/fs/cgroup").join(tree).exists()) {
        println!("SKIPPED: the floor is written for control groups v1");
        return;
    }
    let folder = Folder::new();
    let all = [Part::Sandbox, Part::Instance];
    let named = all.into_iter().filter(|part| std::env::args().any(|argument| argument == part.name()));
    let named: Vec<Part> = named.collect();
    let mut json = serde_json::Map::new();
    for part in if named.is_empty() { &all[..] } else { &named[..] } {
        let found = match part {
            Part::Sandbox => report_sandboxes(sandboxes(&folder)),
            Part::Instance => report_instances(&instances(&folder)),
        };
        json.insert(part.name().to_owned(), found);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("sandbox.json");
    fs::write(&path, serde_json::to_vec_pretty(&json).unwrap()).unwrap();
    println!("written to {}", path.display());
}

/// What can be asked for by its name: `cargo bench --bench sandbox -- instance`.
#[derive(Clone, Copy)]
enum Part {
    Sandbox,
    Instance,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Instance => "instance",
        }
    }
}

/// Microseconds of each phase: of the floor's sandboxes, and of ours.
fn sandboxes(folder: &Folder) -> [Vec<Vec<u64>>; 2] {
    let mut host = Host::start(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(host.deploy(folder));
    let segment_bytes = segment_bytes(runtime.block_on(host.supervisor()));
    runtime.block_on(host.remove());
    let mut floor = Floor::start(folder, segment_bytes);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..SANDBOXES {
        std::thread::sleep(PAUSE);
        times[0].push(floor.line("\n"));
        std::thread::sleep(PAUSE);
        times[1].push(runtime.block_on(host.deploy(folder)));
        runtime.block_on(host.remove());
    }
    times
}

/// What one process or call costs, in nanoseconds: on the clock, and of processor time.
#[derive(Clone, Copy, Default)]
struct Cost {
    clock: f64,
    processor: f64,
}

/// Costs of each round: of the floor's kinds of processes, and of calls.
struct Instances {
    image_kib: u64,
    floor: [Vec<Cost>; KINDS.len()],
    calls: Vec<Cost>,
}

fn instances(folder: &Folder) -> Instances {
    let mut processors = CpuSet::new();
    processors.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &processors).unwrap();
    let mut host = Host::start(folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(host.deploy(folder));
    let supervisor = runtime.block_on(host.supervisor());
    // The child of the supervisor that came first: instances are its children too.
    let image_kib = written_kib(children(supervisor).into_iter().min().unwrap());
    let mut forks = Floor::start_forks(folder, image_kib, segment_bytes(supervisor));
    let mut found = Instances { image_kib, floor: Default::default(), calls: Vec::new() };
    runtime.block_on(host.calls(supervisor));
    for _ in 0..ROUNDS {
        found.calls.push(runtime.block_on(host.calls(supervisor)));
        for (kind, costs) in KINDS.iter().zip(&mut found.floor) {
            let line = forks.line(&format!("{kind} {FORKS_PER_ROUND}\n"));
            let each = |at: usize| line[at] as f64 / FORKS_PER_ROUND as f64;
            costs.push(Cost { clock: each(0), processor: each(1) });
        }
    }
    found
}

/// A directory of the bench's own: the application, the floor's programs and places, the filters.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let chain = root.join("examples/chain/bin/chain");
        assert!(chain.exists(), "examples/chain/bin/chain is not built: run examples/build.sh");
        let path = std::env::temp_dir().join(format!("sandbar-bench-{}", std::process::id()));
        for place in ["one/bin", "floor/root", "floor/inside", "floor/application"] {
            fs::create_dir_all(path.join(place)).unwrap();
        }
        fs::write(path.join("one/sandbar.toml"), MANIFEST).unwrap();
        fs::copy(chain, path.join("one/bin/chain")).unwrap();
        compile(&root.join("benches/sandbox/floor.c"), &path.join("floor/floor"), &["-static"]);
        // With the libraries of a program in Rust.
        let libraries = ["-Wl,--no-as-needed", "-lgcc_s"];
        compile(&root.join("benches/sandbox/worker.c"), &path.join("floor/application/worker"), &libraries);
        for (name, filter) in [("filter", seccomp::sandbox_filter()), ("worker-filter", seccomp::worker_filter())] {
            let filter = filter.unwrap();
            let bytes = filter.iter().flat_map(|instruction| {
                let [low, high] = instruction.code.to_ne_bytes();
                let [a, b, c, d] = instruction.k.to_ne_bytes();
                [low, high, instruction.jt, instruction.jf, a, b, c, d]
            });
            fs::write(path.join("floor").join(name), bytes.collect::<Vec<_>>()).unwrap();
        }
        Self(path)
    }

    fn floor(&self, name: &str) -> PathBuf {
        self.0.join("floor").join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn compile(source: &Path, program: &Path, last: &[&str]) {
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(program).arg(source).args(last);
    assert!(command.status().unwrap().success(), "{} does not compile", source.display());
}

/// A program of the floor: a line in, a line of numbers out.
struct Floor {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

/// The hierarchies in which the floor has groups.
const TREES: [&str; 4] = ["memory", "pids", "cpu", "freezer"];

fn floor_group() -> String {
    format!("sandbar-bench-floor-{}", std::process::id())
}

impl Floor {
    fn start(folder: &Folder, segment_bytes: u64) -> Self {
        let mut command = Command::new(folder.floor("floor"));
        command.arg("agent").arg(floor_group());
        command.args(["root", "inside", "application"].map(|place| folder.floor(place)));
        command.args([segment_bytes, MEMORY_BYTES].map(|bytes| bytes.to_string()));
        command.args(["filter", "worker-filter"].map(|filter| folder.floor(filter)));
        Self::run(command)
    }

    fn start_forks(folder: &Folder, image_kib: u64, segment_bytes: u64) -> Self {
        let mut command = Command::new(folder.floor("application/worker"));
        command.arg("fork").args([image_kib, segment_bytes].map(|size| size.to_string())).arg(folder.floor("filter"));
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, input, output }
    }

    fn line(&mut self, asked: &str) -> Vec<u64> {
        self.input.as_mut().unwrap().write_all(asked.as_bytes()).unwrap();
        let line = self.output.next().expect("the floor ended").unwrap();
        line.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // At the end of its input it ends, and its groups are empty.
        self.input = None;
        self.process.wait().ok();
        for group in TREES.map(|tree| Path::new("/sys/fs/cgroup").join(tree).join(floor_group())) {
            for left in fs::read_dir(&group).into_iter().flatten().flatten() {
                fs::remove_dir(left.path()).ok();
            }
            fs::remove_dir(group).ok();
        }
    }
}

/// A host of the bench's own.
struct Host {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    state: PathBuf,
    client: Client,
}

impl Host {
    fn start(folder: &Folder) -> Self {
        let state = folder.0.join("state");
        let socket = folder.0.join("socket");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
        command.args(["serve", "--coap", "127.0.0.1:0", "--log", "warn,sandbar_runtime::sandbox=debug", "--state"]);
        command.arg(&state).arg("--socket").arg(&socket).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log, state, client: Client::new(&socket) }
    }

    /// Microseconds since its making began at which the new sandbox came to the end of each phase.
    async fn deploy(&mut self, folder: &Folder) -> Vec<u64> {
        self.client.deploy(&folder.0.join("one")).await.unwrap();
        let made = self.log.find(|line| line.as_ref().unwrap().contains("a sandbox was made")).unwrap().unwrap();
        let value = |phase: &str| made.split(&format!("{phase}=")).nth(1)?.split(' ').next()?.parse().ok();
        PHASES.map(|phase| value(phase).unwrap_or_else(|| panic!("no {phase} in {made:?}"))).into()
    }

    async fn remove(&self) {
        self.client.remove("one").await.unwrap();
    }

    async fn supervisor(&self) -> u32 {
        self.client.applications().await.unwrap()[0].pid.unwrap()
    }

    /// What a call costs, of a round of them, one after the other.
    async fn calls(&self, supervisor: u32) -> Cost {
        let others = || processor_ns(self.process.id()) + processor_ns(std::process::id());
        // A worker, or an instance that waits, counts as the supervisor's when it has ended.
        let inside = || children(supervisor).into_iter().map(processor_ns).sum::<u64>() + processor_ns(supervisor);
        let (began, others_before, inside_before) = (Instant::now(), others(), inside());
        for _ in 0..CALLS_PER_ROUND {
            let request = Request { application: "one".to_owned(), payload: "x".into(), ..Request::default() };
            let answer = self.client.call(request).await.unwrap();
            assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
        }
        let each = |ns: u64| ns as f64 / CALLS_PER_ROUND as f64;
        let clock = u64::try_from(began.elapsed().as_nanos()).unwrap() - (others() - others_before);
        Cost { clock: each(clock), processor: each(inside() - inside_before) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.process.wait().ok();
        fs::remove_dir_all(&self.state).ok();
    }
}

fn proc_file(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

fn children(pid: u32) -> Vec<u32> {
    let children = proc_file(pid, &format!("task/{pid}/children"));
    children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Memory that belongs to a process alone: what a fork of it has to share anew.
fn written_kib(pid: u32) -> u64 {
    let memory = proc_file(pid, "smaps_rollup");
    memory.split("Anonymous:").nth(1).unwrap().split_ascii_whitespace().next().unwrap().parse().unwrap()
}

fn segment_bytes(supervisor: u32) -> u64 {
    let maps = proc_file(supervisor, "maps");
    let segment = maps.lines().find(|line| line.contains("memfd:sandbar-bus")).unwrap();
    let (from, to) = segment.split(' ').next().unwrap().split_once('-').unwrap();
    u64::from_str_radix(to, 16).unwrap() - u64::from_str_radix(from, 16).unwrap()
}

/// Processor time of a process and of all its children that have ended, those that it did not fork itself included. None, if it
/// has ended itself.
fn processor_ns(pid: u32) -> u64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    let fields = stat.rsplit(") ").next().unwrap().split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum();
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap();
    ticks * 1_000_000_000 / u64::try_from(ticks_per_second).unwrap()
}

/// The value that so many hundredths of all are not above.
fn percentile(values: impl Iterator<Item = f64>, hundredths: usize) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * hundredths / 100).min(sorted.len() - 1)]
}

fn report_sandboxes([floor, ours]: [Vec<Vec<u64>>; 2]) -> serde_json::Value {
    println!("a sandbox for one native function, {SANDBOXES} of each     plain C            sandbar          ratio");
    println!("until, ms                                     min    p50    p90     min    p50    p90      p50");
    let mut json = serde_json::Map::new();
    let mut phases: Vec<_> = PHASES.iter().enumerate().collect();
    phases.rotate_right(1);
    for (at, phase) in phases {
        let what = match *phase {
            "limited_us" => "  segment, pipes and control groups are there",
            "built_us" => "  the supervisor stands on its root",
            "entered_us" => "  it has its users, and may go on",
            _ => "its worker is ready",
        };
        let row = |times: &[Vec<u64>]| {
            [0, 50, 90].map(|part| percentile(times.iter().map(|phases| phases[at] as f64 / 1000.0), part))
        };
        let (floor, ours) = (row(&floor), row(&ours));
        let ratio = ours[1] / floor[1];
        let [a, b, c] = floor;
        let [d, e, f] = ours;
        println!("{what:45} {a:6.2} {b:6.2} {c:6.2}  {d:6.2} {e:6.2} {f:6.2}   {ratio:6.2}");
        json.insert((*phase).to_owned(), serde_json::json!({ "floor_ms": floor, "ours_ms": ours, "ratio_p50": ratio }));
    }
    json.into()
}

fn report_instances(found: &Instances) -> serde_json::Value {
    println!();
    println!("an instance, image of {} KiB, one processor      processor time, µs        clock, µs", found.image_kib);
    println!("{ROUNDS} rounds of each                                 min    p50    max     min    p50    max");
    let mut json = serde_json::Map::new();
    let mut row = |name: &str, what: &str, costs: &[Cost]| {
        let of = |part: fn(&Cost) -> f64| [0, 50, 100].map(|at| percentile(costs.iter().map(part), at) / 1000.0);
        let (processor, clock) = (of(|cost| cost.processor), of(|cost| cost.clock));
        let ([a, b, c], [d, e, f]) = (processor, clock);
        println!("{what:45} {a:6.1} {b:6.1} {c:6.1}  {d:6.1} {e:6.1} {f:6.1}");
        json.insert(name.to_owned(), serde_json::json!({ "processor_us": processor, "clock_us": clock }));
        [b, e]
    };
    let what = ["C: a fork", "C: and a user", "C: and a sweep of that user", "C: a namespace and a user (floor)"];
    let floors: Vec<_> = (0..KINDS.len()).map(|kind| row(KINDS[kind], what[kind], &found.floor[kind])).collect();
    let [processor, clock] = row("call", "a call: all of it in the sandbox", &found.calls);
    let [floor_processor, floor_clock] = floors[KINDS.len() - 1];
    println!(
        "ratio, p50                                           {:6.2}                {:6.2}",
        processor / floor_processor,
        clock / floor_clock
    );
    json.insert("ratio_processor_p50".to_owned(), (processor / floor_processor).into());
    json.insert("ratio_clock_p50".to_owned(), (clock / floor_clock).into());
    json.into()
}
