//! What an application takes up that nobody calls, step by step on its way to rest; and that nothing is left of it there.

use std::time::Duration;

use claims_report::{Claim, Goal, Rounds};

use crate::memory::{self, Census, descendants};
use crate::running::{pause, until};
use crate::stage::{Host, Place, Scale};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 64\npayload = \"1MiB\"";
const FUNCTIONS: usize = 5;
const PYTHON: &str = "def handle(event, context):\n    return event\n";
/// A while after the deployment, before the first step.
const SETTLED: Duration = Duration::from_millis(1500);
const REST: [&str; 4] = ["--rest-ready", "3s", "--rest-sandbox", "5s"];
const STEP_WAIT: Duration = Duration::from_secs(20);

/// A language, with what an idle application may have of memory, in MiB.
const KINDS: [(&str, f64); 2] = [("native", 3.0), ("Python", 15.0)];

/// Of the applications of one language, a figure for each round; MiB but for the last.
#[derive(Default)]
struct Steps {
    ready: Rounds,
    workers: Rounds,
    left_at_rest: Rounds,
}

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let mut of_kinds = KINDS.map(|_| Steps::default());
    for _ in 0..scale.of(5, 2) {
        for ((kind, _), steps) in KINDS.iter().zip(&mut of_kinds) {
            steps.add(kind);
        }
    }
    let claims = KINDS.iter().zip(of_kinds).flat_map(|((kind, limit), steps)| {
        let claim = |when: &str, unit, ours: Rounds, beside: &str, theirs: f64, goal| {
            Claim::new(format!("{FUNCTIONS} {kind} functions, {when}"), unit, ours, beside, theirs, goal)
        };
        let memory = |when: &str, ours| {
            let what = format!("{when}: PSS of all processes and the segment");
            claim(&what, "MiB", ours, "limit", *limit, Goal::AtMost(1.0))
        };
        let left = "at rest: processes, control groups and segments";
        [
            memory("an instance of each ready", steps.ready),
            memory("workers alone", steps.workers),
            claim(left, "", steps.left_at_rest, "as before it was deployed", 0.0, Goal::Zero),
        ]
    });
    claims.collect()
}

impl Steps {
    /// One round, on a host of its own: pages are shared out among all that have them.
    fn add(&mut self, kind: &str) {
        let host = Host::start(Place::Any, &REST);
        let before = Census::of(&host);
        match kind {
            "native" => host.deploy_chain("idle", FUNCTIONS, LIMITS),
            _ => host.deploy_python("idle", FUNCTIONS, LIMITS, PYTHON),
        }
        pause(SETTLED);
        let all = descendants(host.pid()).len();
        // Else nothing would be found at rest whatever were there.
        let now = Census::of(&host);
        assert!(all > 2 * FUNCTIONS && now.groups > before.groups && now.segments > before.segments, "{now:?}");
        self.ready.push(memory::sandbox(&host));
        until("no instance is left", STEP_WAIT, || (descendants(host.pid()).len() + FUNCTIONS <= all).then_some(()));
        pause(Duration::from_millis(300));
        assert_eq!(host.state("idle"), "running", "its workers are still there");
        self.workers.push(memory::sandbox(&host));
        until("it is at rest", STEP_WAIT, || (host.state("idle") == "resting").then_some(()));
        pause(Duration::from_millis(300));
        let left = Census::of(&host);
        if left.beyond(before) > 0 {
            println!("  at rest there is {left:?}, before there was {before:?}");
        }
        self.left_at_rest.push(left.beyond(before) as f64);
    }
}
