//! A call of a Python function with a large heap, beside a fork of the same interpreter with the same heap.

use claims_report::{Claim, Goal, Rounds};

use crate::load::{Latency, load};
use crate::running::printed;
use crate::stage::{Host, Place, Scale};

const LIMITS: &str = "[limits]\nmemory = \"1GiB\"\nprocesses = 64\npayload = \"64KiB\"";

/// Modules as a function may have, and small objects of 64 MiB in all, as large modules leave them.
const HEAP: &str = r#"
import argparse, asyncio, decimal, json, logging, urllib.request

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

objects, goal = [], resident() + (64 << 20)
while resident() < goal:
    objects.extend({"name": str(number), "place": (number, None)} for number in range(1000))
"#;

const HANDLE: &str = "\ndef handle(event, context):\n    return bytes(bytearray(event))\n";

const FORKS: &str = r#"
import os, time
times = []
for _ in range(100):
    began = time.perf_counter_ns()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    times.append(time.perf_counter_ns() - began)
    time.sleep(0.01)
print(sorted(times)[50], resident())
"#;

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::Any, &[]);
    host.deploy_python("heap", 1, LIMITS, &format!("{HEAP}{HANDLE}"));
    let target = format!("http://{}/heap", host.http);
    let (mut ours, mut floor, mut resident) = (Latency::default(), Rounds::default(), Rounds::default());
    for _ in 0..scale.of(5, 2) {
        let paced = ["--rate", "100", "--for", scale.of("5s", "2s"), "--warm-up", "500ms"];
        ours.add(&load(Place::Any, &target, &paced), |figures| figures.p50);
        let mut forks = Place::Any.command("python3");
        forks.args(["-c", &format!("{HEAP}{FORKS}")]);
        let said = printed(forks);
        let (ns, bytes) = said.split_once(' ').unwrap();
        floor.push(ns.parse::<f64>().unwrap() / 1000.0);
        resident.push(bytes.parse::<f64>().unwrap() / f64::from(1 << 20));
    }
    let beside = format!(
        "os.fork(), exit and wait of an interpreter with the same imports and 64 MiB of objects beyond them, {:.0} MiB resident in all",
        resident.median()
    );
    let theirs = Latency::of_floor(floor);
    let what = "Python call at 100/s, the same imports and objects, over HTTP, p50";
    vec![ours.claim(what, &beside, &theirs, Goal::AtMost(0.1)), ours.none_left("Python call at 100/s")]
}
