//! A call of a Python function with a large heap, beside a fork of the same interpreter with the same heap.

use crate::report::{Claim, Goal, median};
use crate::stage::{Host, Place, Scale, figure, load};

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
print(sorted(times)[50])
"#;

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::Any, &[]);
    host.deploy_python("heap", 1, LIMITS, &format!("{HEAP}{HANDLE}"));
    let target = format!("http://{}/heap", host.http);
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(5, 2) {
        let paced = ["--rate", "100", "--for", scale.of("5s", "2s"), "--warm-up", "500ms", "--strict"];
        ours.push(figure(&load(Place::Any, &target, &paced), "service_us", "p50"));
        let forks = Place::Any.command("python3").args(["-c", &format!("{HEAP}{FORKS}")]).output().unwrap();
        floor.push(String::from_utf8(forks.stdout).unwrap().trim().parse::<f64>().unwrap() / 1000.0);
    }
    vec![Claim {
        what: "Python call at 100/s, 64 MiB on the heap, over HTTP, p50".to_owned(),
        unit: "µs",
        ours: median(&mut ours),
        beside: "os.fork(), exit and wait of the same interpreter".to_owned(),
        theirs: median(&mut floor),
        goal: Goal::AtMost(0.1),
    }]
}
