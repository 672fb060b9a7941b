//! Applications that are not called are put to rest, step by step, and the next call brings them back.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::host::Host;
use crate::support::process::{self, Role};
use crate::support::{bundle, until};

const SOON: [&str; 4] = ["--rest-ready", "300ms", "--rest-sandbox", "1500ms"];

fn state_of(host: &Host, application: &str) -> String {
    let applications = host.applications();
    let found = applications.iter().find(|status| status["name"] == application);
    found.map_or_else(String::new, |status| status["state"].as_str().unwrap_or_default().to_owned())
}

/// Instances of any function that stand ready, or serve.
fn instances(host: &Host, application: &str) -> usize {
    let all = process::of_sandbox(host.first_process(application).pid);
    all.iter().filter(|(_, role)| *role == Role::Instance).count()
}

fn until_it_rests(host: &Host, application: &str) {
    until("the application is at rest", || (state_of(host, application) == "resting").then_some(()));
}

#[test]
fn instances_go_first_and_the_sandbox_next() {
    let Some(host) = Host::start_with(&SOON) else { return };
    host.deploy_example("chain");
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    until("no instance stands ready", || {
        (instances(&host, "chain") == 0 && state_of(&host, "chain") == "running").then_some(())
    });
    assert_eq!(host.processes_of("chain", "first", Role::Worker).len(), 1);
    assert_eq!(host.call("chain", b"y").done(), "y>first>second>third");
    until("instances stand ready again", || (instances(&host, "chain") > 0).then_some(()));
    until_it_rests(&host, "chain");
    until("no process is left", || process::descendants(host.agent().pid).is_empty().then_some(()));
    let status = &host.applications()[0];
    assert!(status["pid"].is_null() && status["memory_bytes"].is_null(), "{status}");
    assert_eq!(host.call("chain", b"z").done(), "z>first>second>third");
    assert_eq!((state_of(&host, "chain").as_str(), host.applications()[0]["calls"].as_u64()), ("running", Some(3)));
}

#[test]
fn all_who_call_an_application_at_rest_are_answered() {
    let Some(host) = Host::start_with(&SOON) else { return };
    host.deploy_example("chain");
    until_it_rests(&host, "chain");
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| assert_eq!(host.call("chain", b"x").done(), "x>first>second>third"));
        }
    });
}

#[test]
fn no_call_is_lost_between_going_to_rest_and_coming_back() {
    let Some(host) = Host::start_with(&["--rest-ready", "100ms", "--rest-sandbox", "100ms"]) else { return };
    host.deploy_example("chain");
    for round in 0..60 {
        assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
        // Around the time at which it goes to rest: before, meanwhile, after.
        thread::sleep(Duration::from_millis(80 + round % 20 * 4));
    }
}

#[test]
fn what_runs_on_its_own_keeps_it_awake() {
    let Some(host) = Host::start_with(&["--rest-ready", "100ms", "--rest-sandbox", "200ms"]) else { return };
    let code = "import time\n\ndef front(event, context):\n    context.send('slow', event)\n    return 'sent'\n\n\
                def slow(event, context):\n    time.sleep(1.5)\n    context.log('it was not cut off')\n";
    host.deploy_python("aside", &["front", "slow"], code);
    assert_eq!(host.call("aside/front", b"").done(), "sent");
    host.logged("aside", "it was not cut off");
    until_it_rests(&host, "aside");
}

#[test]
fn an_application_at_rest_is_replaced_removed_and_there_after_a_restart() {
    let Some(mut host) = Host::start_with(&SOON) else { return };
    host.deploy_example("chain");
    until_it_rests(&host, "chain");
    host.deploy_example("chain");
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    host.serve();
    assert_eq!(state_of(&host, "chain"), "resting", "nothing is made before it is called");
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    until_it_rests(&host, "chain");
    host.sandbar(&["remove", "chain"]).well();
    assert!(host.applications().is_empty());
}

#[test]
fn one_that_does_not_come_back_says_why() {
    let Some(host) = Host::start_with(&SOON) else { return };
    host.deploy_python("broken", &["f"], "def f(event, context):\n    return b'well'\n");
    until_it_rests(&host, "broken");
    let code = host.state().join("applications/broken/functions.py");
    let well = std::fs::read(&code).unwrap();
    std::fs::write(&code, "raise RuntimeError('gone bad')\n").unwrap();
    let called = host.call("broken", b"");
    assert_eq!(called.outcome, "overloaded");
    assert!(called.diagnostic.contains("gone bad"), "{}", called.diagnostic);
    std::fs::write(&code, well).unwrap();
    until("it is back", || (host.call("broken", b"").outcome == "done").then_some(()));
}

#[test]
fn an_application_says_itself_when_it_rests() {
    let Some(host) = Host::start_with(&["--rest-ready", "never", "--rest-sandbox", "never"]) else { return };
    let folder = host.folder().join("dozes");
    let manifest = format!("{}\n[rest]\nsandbox = \"300ms\"\n", bundle::python_manifest("dozes", &["f"]));
    bundle::write(
        &folder,
        &[("sandbar.toml", &manifest), ("functions.py", "def f(event, context):\n    return event\n")],
    );
    host.deploy(&folder);
    host.deploy_example("chain");
    until_it_rests(&host, "dozes");
    assert_eq!(state_of(&host, "chain"), "running");
    assert_eq!(host.call("dozes", b"awake").done(), "awake");
}
