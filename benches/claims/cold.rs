//! The first call of an application at rest.

use std::time::{Duration, Instant};

use claims_report::{Claim, Goal, Rounds};
use sandbar_runtime::Outcome;

use crate::chains::request;
use crate::running::{block_on, printed, until};
use crate::stage::{Host, Place, Scale};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 64\npayload = \"64KiB\"";
const IMPORTS: &str =
    "import argparse, asyncio, decimal, email.message, http.client, json, logging, ssl, urllib.request\n";
const HANDLE: &str = "def handle(event, context):\n    return event\n";

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let host = Host::start(Place::Any, &["--rest-sandbox", "200ms"]);
    host.deploy_chain("native", 1, LIMITS);
    host.deploy_python("python", 1, LIMITS, &format!("{IMPORTS}{HANDLE}"));
    // Itself, not a script that looks for it.
    let mut asked = Place::Any.command("python3");
    asked.args(["-c", "import sys; print(sys.executable)"]);
    let interpreter = printed(asked);
    let (mut native, mut python, mut start) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..scale.of(20, 6) {
        native.push(first_call(&host, "native"));
        python.push(first_call(&host, "python"));
        let mut command = Place::Any.command(&interpreter);
        command.args(["-s", "-c", IMPORTS]);
        let began = Instant::now();
        printed(command);
        start.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let claim = |what: &str, ours: Rounds, beside: &str, theirs: Rounds, goal: f64| {
        let what = format!("first call of {what} at rest, p50");
        Claim::new(what, "ms", ours, beside, theirs, Goal::AtMost(goal))
    };
    vec![
        claim("a native application", native, "limit", 10.0.into(), 1.0),
        claim("a Python application", python, "the interpreter's start with the same imports", start, 1.3),
    ]
}

/// Milliseconds, once the application is at rest.
fn first_call(host: &Host, name: &str) -> f64 {
    until("the application is at rest", Duration::from_secs(20), || (host.state(name) == "resting").then_some(()));
    block_on(async {
        let began = Instant::now();
        let answer = host.client.call(request(name, false)).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
        began.elapsed().as_secs_f64() * 1e3
    })
}
