//! What applications that nobody calls take up, and what many of them cost those that are called.

use std::fs;
use std::time::Duration;

use crate::report::{Claim, Goal, median};
use crate::stage::{Host, Place, Scale, block_on, figure, load};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 64\npayload = \"1MiB\"";
const MIB: f64 = 1024.0;

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let mut claims = idle();
    claims.extend(many(scale.of(1000, 100)));
    claims
}

/// Idle, with instances ready; idle for long, without; and without workers.
fn idle() -> Vec<Claim> {
    let claim = |what: String, ours: f64, limit: f64| Claim {
        what,
        unit: "MiB",
        ours,
        beside: "limit".to_owned(),
        theirs: limit,
        goal: Goal::AtMost(1.0),
    };
    let python = "def handle(event, context):\n    return event\n";
    let mut claims = Vec::new();
    for (name, limit) in [("native", 3.0), ("python", 15.0)] {
        let steps = [
            ("an instance of each ready", "never", "never"),
            ("not called for a while", "1s", "never"),
            ("not called for longer, its workers ended", "1s", "1500ms"),
        ];
        for (when, ready, workers) in steps {
            let host = Host::start(Place::Any, &["--rest-ready", ready, "--rest-workers", workers]);
            match name {
                "native" => host.deploy_chain(name, 5, LIMITS),
                _ => host.deploy_python(name, 5, LIMITS, python),
            }
            std::thread::sleep(Duration::from_secs(4));
            let what = format!("5 {name} functions, {when}: PSS of all processes");
            claims.push(claim(what, pss_of_sandbox(&host) / MIB, limit));
        }
    }
    claims
}

fn many(count: usize) -> Vec<Claim> {
    let host = Host::start(Place::Any, &["--rest-ready", "5s", "--rest-sandbox", "20s"]);
    host.deploy_chain("called", 1, LIMITS);
    let target = format!("http://{}/called", host.http);
    let p99 = || {
        let mut rounds: Vec<f64> = (0..3)
            .map(|_| load(Place::Any, &target, &["--rate", "500", "--for", "4s", "--warm-up", "1s"]))
            .map(|measured| figure(&measured, "service_us", "p99"))
            .collect();
        median(&mut rounds)
    };
    let alone = p99();
    let agent_alone = pss(host.pid()) / MIB;
    for number in 0..count {
        host.deploy_chain(&format!("other-{number}"), 1, LIMITS);
    }
    let agent_running = pss(host.pid()) / MIB;
    std::thread::sleep(Duration::from_secs(35));
    let states = block_on(host.client.applications()).unwrap();
    let resting = states.iter().filter(|status| status.state == "resting").count();
    println!("  {resting} of {} at rest; agent {agent_running:.1} MiB after the last was deployed", states.len());
    let beside_many = p99();
    let agent_resting = pss(host.pid()) / MIB;
    vec![
        Claim {
            what: format!("p99 of a warm call with {count} applications deployed"),
            unit: "µs",
            ours: beside_many,
            beside: "with one".to_owned(),
            theirs: alone,
            goal: Goal::AtMost(1.5),
        },
        Claim {
            what: format!("the agent with {count} applications deployed, those that are not called at rest"),
            unit: "MiB",
            ours: agent_resting,
            beside: "limit".to_owned(),
            theirs: 50.0,
            goal: Goal::AtMost(1.0),
        },
        Claim {
            what: format!("the agent with {count} applications deployed"),
            unit: "MiB",
            ours: agent_resting,
            beside: "with one".to_owned(),
            theirs: agent_alone,
            goal: Goal::None,
        },
    ]
}

/// KiB of all processes of the only application's sandbox, each page shared out among those that have it, the segment's included.
fn pss_of_sandbox(host: &Host) -> f64 {
    let supervisor = block_on(host.client.applications()).unwrap()[0].pid.unwrap();
    let mut sum = pss(supervisor);
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
    for child in children.split_ascii_whitespace() {
        sum += pss(child.parse().unwrap());
    }
    sum
}

fn pss(pid: u32) -> f64 {
    let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { return 0.0 };
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or("0");
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}
