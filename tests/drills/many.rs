//! Hundreds of sandboxes side by side on one machine, and the host as it was when they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::host::Host;
use crate::support::process::{self, NAMESPACES, Process};
use crate::support::{PATIENCE, bundle, remains, until_within};
use crate::{census, is_soak, load, turn};

/// Sandboxes of the short form, of the long one, and what says how many else.
const SHORT: usize = 500;
const FULL: usize = 1000;
const VARIABLE: &str = "SANDBAR_MANY";

#[test]
fn hundreds_of_sandboxes_serve_side_by_side_and_leave_the_host_as_it_was() {
    let _turn = turn();
    let Some(mut host) = Host::start_with(&census::SOON_AT_REST) else { return };
    let many = std::env::var(VARIABLE).map_or(if is_soak() { FULL } else { SHORT }, |many| many.parse().unwrap());
    let template = template(&host);
    // What is allocated once has been, and the host has its own control groups.
    deploy(&host, &template, "first-of-all");
    let before = (census::taken_at_rest(&host), files(&host), resident(&host), available_kib());
    let names: Vec<String> = (0..many).map(|number| format!("app-{number}")).collect();
    let mut times: Vec<Duration> = names.iter().map(|name| deploy(&host, &template, name)).collect();
    let began = Instant::now();
    for name in &names {
        let (status, body) = load::post(host.http, name).unwrap();
        assert_eq!((status, body.as_str()), (200, "x>first"), "{name}");
    }
    let calls = began.elapsed();
    assert_all_alive(&host, &names);
    println!("{many} sandboxes: {}", spread(&mut times));
    println!("a call of each, one after the other: {calls:.1?} in all");
    let agent = resident(&host).saturating_sub(before.2);
    println!(
        "memory: {} KiB less available, {agent} KiB of them the agent's",
        before.3.saturating_sub(available_kib())
    );
    println!("the host takes {:?}, {:?} before", census::taken(&host), before.0);
    kill_and_start(&mut host, &names);
    let mut removals: Vec<Duration> = names.iter().map(|name| remove(&host, name)).collect();
    println!("removed: {}", spread(&mut removals));
    // At rest since the start, and made again for this.
    assert_eq!(load::post(host.http, "first-of-all").unwrap(), (200, "x>first".to_owned()));
    census::assert_no_more_than(before.0, &host);
    assert_eq!(files(&host), before.1);
    assert_eq!(remains::mounts(&host.state()), Vec::<String>::new());
    // Stopping, it sees to it that nothing is left in the system.
    drop(host);
    census::assert_no_orphans();
}

/// The agent is killed: all die with it, and all are back when it is started again.
fn kill_and_start(host: &mut Host, names: &[String]) {
    let descendants = process::descendants(host.agent().pid);
    let began = Instant::now();
    assert_eq!(host.end(Signal::SIGKILL), None);
    until_within(Duration::from_secs(60), "all processes are dead", || {
        (!descendants.iter().any(census::lives)).then_some(())
    });
    let dead = began.elapsed();
    let began = Instant::now();
    host.serve();
    let ready = began.elapsed();
    tell_state(host);
    for name in names {
        let answered =
            until_within(PATIENCE, name, || load::post(host.http, name).ok().filter(|(status, _)| *status == 200));
        assert_eq!(answered.1, "x>first", "{name}");
    }
    println!(
        "killed: all dead after {dead:.1?}; started: ready after {ready:.1?}, all answered after {:.1?}",
        began.elapsed()
    );
    tell_state(host);
}

/// An application of one small native function, whose name is still to be said.
fn template(host: &Host) -> PathBuf {
    let folder = host.folder().join("template");
    fs::create_dir(&folder).unwrap();
    fs::copy(bundle::example("chain").join("bin/chain"), folder.join("chain")).unwrap();
    folder
}

fn deploy(host: &Host, template: &std::path::Path, name: &str) -> Duration {
    let manifest = format!(
        "name = \"{name}\"\n[limits]\nmemory = \"16MiB\"\nprocesses = 8\n[functions.first]\nruntime = \"native\"\ncode = \"chain\"\n"
    );
    fs::write(template.join("sandbar.toml"), manifest).unwrap();
    let began = Instant::now();
    let request = serde_json::json!({ "source": template }).to_string();
    let response = host.manage("POST", "/v1/applications", request.as_bytes());
    assert_eq!(response.status, 200, "{name}: {}\n{}", response.text(), host.agent_log());
    began.elapsed()
}

fn remove(host: &Host, name: &str) -> Duration {
    let began = Instant::now();
    let response = host.manage("DELETE", &format!("/v1/applications/{name}"), b"");
    assert_eq!(response.status, 204, "{name}: {}\n{}", response.text(), host.agent_log());
    began.elapsed()
}

/// Every sandbox has its first process, and namespaces that no other has.
fn assert_all_alive(host: &Host, names: &[String]) {
    let listed = host.manage("GET", "/v1/applications", b"").json();
    let listed = listed.as_array().unwrap();
    let running: Vec<&Value> = listed.iter().filter(|it| it["state"] == "running").collect();
    assert_eq!(running.len(), names.len() + 1, "{listed:?}");
    let memory: u64 = running.iter().filter_map(|it| it["memory_bytes"].as_u64()).sum();
    println!("memory of the sandboxes' control groups: {} KiB each", memory / 1024 / running.len() as u64);
    let firsts = running.iter().map(|it| Process::new(u32::try_from(it["pid"].as_u64().unwrap()).unwrap()).unwrap());
    let firsts: Vec<Process> = firsts.collect();
    for kind in NAMESPACES {
        let namespaces: BTreeSet<_> = firsts.iter().map(|first| first.namespace(kind).unwrap()).collect();
        assert_eq!(namespaces.len(), firsts.len(), "{kind}");
    }
    tell_state(host);
}

/// How many run, and how many have gone to rest, and how far; and what all of it takes up.
fn tell_state(host: &Host) {
    let listed = host.manage("GET", "/v1/applications", b"").json();
    let mut steps: BTreeMap<String, usize> = BTreeMap::new();
    for status in listed.as_array().unwrap() {
        let step =
            status["resting"].as_str().map_or_else(|| "awake".to_owned(), |without| format!("without {without}"));
        *steps.entry(step).or_default() += 1;
    }
    let processes = process::descendants(host.agent().pid);
    let sum: u64 = processes.iter().filter_map(pss_kib).sum();
    let agent = pss_kib(&host.agent()).unwrap_or(0);
    println!("{steps:?}: {} processes, PSS {sum} KiB, and the agent's {agent} KiB", processes.len());
}

/// The process's share of the memory that it has mapped, if it is still there.
fn pss_kib(process: &Process) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// All of the host's files but for what they hold.
fn files(host: &Host) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut directories = vec![host.state()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

fn resident(host: &Host) -> u64 {
    host.agent().resident_kib()
}

fn available_kib() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let all: Duration = times.iter().sum();
    let [least, half, most] = [0, times.len() / 2, times.len() - 1].map(|at| times[at]);
    format!("{all:.1?} in all; each {least:.1?} at least, {half:.1?} in the middle, {most:.1?} at most")
}
