//! What many applications take up, running and at rest, and what they cost one that is called.

use std::time::Duration;

use claims_report::{Claim, Findings, Goal, Line, Plot, Rounds};

use crate::load::{Latency, load};
use crate::memory::{self, Census};
use crate::running::{block_on, pause, until};
use crate::stage::{Host, Place, Scale};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 64\npayload = \"1MiB\"";
/// Readings of the same applications: their deployment is not repeated.
const READINGS: usize = 3;
const AGENT_LIMIT_MIB: f64 = 50.0;

/// At one number of applications that all are in one state: MiB of the agent with all its processes, and of itself.
#[derive(Default)]
struct Memory {
    whole: Rounds,
    agent: Rounds,
}

/// At one number of applications.
struct Both {
    applications: usize,
    running: Memory,
    resting: Memory,
}

pub(crate) fn measure(scale: Scale) -> Findings {
    let counts = scale.of([1, 10, 100, 1000], [1, 10, 50, 100]);
    let most = counts[counts.len() - 1];
    // One after the other: pages that two hosts have would be shared out between them.
    let running = memory_of(counts, &["--rest-ready", "never", "--rest-sandbox", "never"], "running").0;
    let rest = ["--rest-ready", "500ms", "--rest-sandbox", "1s"];
    let (resting, many) = memory_of(counts, &rest, "resting");
    let both = running.into_iter().zip(resting);
    let both =
        counts.into_iter().zip(both).map(|(applications, (running, resting))| Both { applications, running, resting });
    let memory: Vec<_> = both.collect();
    let mut claims = claims(&memory);
    claims.extend(p99_beside(&many, most, scale));
    Findings { claims, plots: vec![plot(&memory)] }
}

/// Deploys ever more applications of one native function, and measures whenever there are as many as asked and all are in this state.
fn memory_of(counts: [usize; 4], rest: &[&str], state: &str) -> ([Memory; 4], Host) {
    let host = Host::start(Place::Any, rest);
    let mut deployed = 0;
    let figures = counts.map(|count| {
        for number in deployed..count {
            host.deploy_chain(&format!("other-{number}"), 1, LIMITS);
        }
        deployed = count;
        until(&format!("{count} applications are {state}"), Duration::from_secs(60), || {
            let all = block_on(host.client.applications()).unwrap();
            (all.len() == count && all.iter().all(|application| application.state == state)).then_some(())
        });
        // Pools have filled, or what was put to rest has been given back.
        pause(Duration::from_millis(1500));
        let mut memory = Memory::default();
        for _ in 0..READINGS {
            pause(Duration::from_millis(200));
            memory.whole.push(memory::whole(&host));
            memory.agent.push(memory::agent(&host));
        }
        memory
    });
    let census = Census::of(&host);
    println!("  {deployed} applications {state}: {census:?}");
    assert!(state == "running" || census.processes == 0, "no process is left of applications at rest");
    (figures, host)
}

fn claims(memory: &[Both]) -> Vec<Claim> {
    let (first, last) = (&memory[0], &memory[memory.len() - 1]);
    let (one_running, one_resting) = (&first.running.whole, &first.resting.whole);
    let mut claims = Vec::new();
    for Both { applications, running, resting } in memory {
        let often = |one, agent| agent + (one - agent) * *applications as f64;
        let expected = one_running.with(one_resting, often).expect("all have as many readings");
        let claim = |state: &str, ours: &Rounds, beside: &str, theirs: Rounds| {
            let what = format!("{applications} deployed, all {state}: agent and all processes");
            Claim::new(what, "MiB", ours.clone(), beside, theirs, Goal::None)
        };
        claims.push(claim("running", &running.whole, "if each took what the first takes", expected));
        claims.push(claim("at rest", &resting.whole, "one at rest", one_resting.clone()));
    }
    for (state, memory) in [("running", &last.running), ("at rest", &last.resting)] {
        let what = format!("the agent with {} applications deployed, all {state}", last.applications);
        claims.push(Claim::new(what, "MiB", memory.agent.clone(), "limit", AGENT_LIMIT_MIB, Goal::AtMost(1.0)));
    }
    claims
}

/// Warm calls of one application, on a host with many others and on one with none, in turns.
fn p99_beside(many: &Host, count: usize, scale: Scale) -> [Claim; 2] {
    let alone = Host::start(Place::Any, &[]);
    let manifest = format!("{LIMITS}\n[rest]\nready = \"never\"\nsandbox = \"never\"");
    let targets = [&alone, many].map(|host| {
        host.deploy_chain("called", 1, &manifest);
        format!("http://{}/called", host.http)
    });
    let mut p99s = [(); 2].map(|()| Latency::default());
    for _ in 0..scale.of(7, 3) {
        for (target, p99) in targets.iter().zip(&mut p99s) {
            let paced = ["--rate", "500", "--for", scale.of("4s", "2s"), "--warm-up", "1s"];
            p99.add(&load(Place::Any, target, &paced), |figures| figures.p99);
        }
    }
    let [alone_p99, many_p99] = p99s;
    let what = format!("warm call at 500/s with {count} others deployed, all at rest, p99");
    [many_p99.claim(&what, "with none", &alone_p99, Goal::AtMost(1.5)), many_p99.none_left(&what)]
}

fn plot(memory: &[Both]) -> Plot {
    let points =
        |of: fn(&Both) -> &Rounds| memory.iter().map(|both| (both.applications as f64, of(both).median())).collect();
    let most = memory.iter().map(|both| both.applications as f64).fold(1.0, f64::max);
    Plot {
        file: "memory.svg",
        title: "Memory over applications, of one native function each",
        x: "applications deployed",
        y: "PSS (MiB)",
        lines: vec![
            Line::ours("all running, an instance of each ready", points(|both| &both.running.whole)),
            Line::ours("the agent's part of that", points(|both| &both.running.agent)),
            Line::ours("all at rest: the agent alone", points(|both| &both.resting.whole)),
            Line::beside("goal for the agent", vec![(1.0, AGENT_LIMIT_MIB), (most, AGENT_LIMIT_MIB)]),
        ],
    }
}
