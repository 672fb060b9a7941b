//! The first call of an application at rest.

use std::time::{Duration, Instant};

use sandbar_runtime::{Outcome, Request};

use crate::report::{Claim, Goal, median};
use crate::stage::{Host, Place, Scale, block_on};

const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 64\npayload = \"64KiB\"";
const IMPORTS: &str =
    "import argparse, asyncio, decimal, email.message, http.client, json, logging, ssl, urllib.request\n";
const HANDLE: &str = "def handle(event, context):\n    return event\n";

pub(crate) fn measure(scale: Scale) -> Vec<Claim> {
    let rounds = scale.of(20, 5);
    let host = Host::start(Place::Any, &["--rest-sandbox", "200ms"]);
    host.deploy_chain("native", 1, LIMITS);
    host.deploy_python("python", 1, LIMITS, &format!("{IMPORTS}{HANDLE}"));
    // Itself, not a script that looks for it.
    let asked =
        Place::Any.command("python3").args(["-c", "import sys; print(sys.executable, end='')"]).output().unwrap();
    let interpreter = String::from_utf8(asked.stdout).unwrap();
    let (mut native, mut python, mut start) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        native.push(first_call(&host, "native"));
        python.push(first_call(&host, "python"));
        let began = Instant::now();
        assert!(Place::Any.command(&interpreter).args(["-s", "-c", IMPORTS]).status().unwrap().success());
        start.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let claim = |what: &str, ours: f64, beside: &str, theirs: f64, goal: f64| Claim {
        what: format!("first call of {what} at rest, p50"),
        unit: "ms",
        ours,
        beside: beside.to_owned(),
        theirs,
        goal: Goal::AtMost(goal),
    };
    vec![
        claim("a native application", median(&mut native), "10 ms", 10.0, 1.0),
        claim(
            "a Python application",
            median(&mut python),
            "the interpreter with the same imports",
            median(&mut start),
            1.3,
        ),
    ]
}

/// Milliseconds, once the application is at rest.
fn first_call(host: &Host, name: &str) -> f64 {
    block_on(async {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let all = host.client.applications().await.unwrap();
            if all.iter().any(|status| status.name == name && status.state == "resting") {
                break;
            }
            assert!(Instant::now() < until, "{name} does not go to rest");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let request = Request { application: name.to_owned(), payload: "x".into(), ..Request::default() };
        let began = Instant::now();
        let answer = host.client.call(request).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
        began.elapsed().as_secs_f64() * 1e3
    })
}
