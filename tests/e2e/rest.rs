//! Applications that are not called are put to rest, step by step, and the next call brings them back.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::host::Host;
use crate::support::process::{self, Role};
use crate::support::{bundle, remains, until};

const SOON: [&str; 4] = ["--rest-ready", "300ms", "--rest-sandbox", "1500ms"];

fn text_of(host: &Host, application: &str, field: &str) -> String {
    let applications = host.applications();
    let found = applications.iter().find(|status| status["name"] == application);
    found.map_or_else(String::new, |status| status[field].as_str().unwrap_or_default().to_owned())
}

fn state_of(host: &Host, application: &str) -> String {
    text_of(host, application, "state")
}

/// Processes of any function that are such.
fn count(host: &Host, application: &str, role: Role) -> usize {
    let all = process::of_sandbox(host.first_process(application).pid);
    all.iter().filter(|(_, of)| *of == role).count()
}

/// Instances of any function that stand ready, or serve.
fn instances(host: &Host, application: &str) -> usize {
    count(host, application, Role::Instance)
}

fn until_without(host: &Host, application: &str, what: &str) {
    until(&format!("{application} has no {what}"), || (text_of(host, application, "resting") == what).then_some(()));
}

fn until_it_rests(host: &Host, application: &str) {
    until("the application is at rest", || (state_of(host, application) == "resting").then_some(()));
}

/// All applications are at rest, and their sandboxes gone.
fn until_nothing_runs(host: &Host) {
    until("no process is left", || process::descendants(host.agent().pid).is_empty().then_some(()));
}

#[test]
fn instances_go_first_and_the_sandbox_next() {
    // Time enough between the two for a busy machine to see that the one is there without the other.
    let Some(host) = Host::start_with(&["--rest-ready", "300ms", "--rest-sandbox", "6s"]) else { return };
    host.deploy_example("chain");
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    until("no instance stands ready", || {
        (instances(&host, "chain") == 0 && state_of(&host, "chain") == "running").then_some(())
    });
    assert_eq!(host.processes_of("chain", "first", Role::Worker).len(), 1);
    assert_eq!(host.call("chain", b"y").done(), "y>first>second>third");
    until("instances stand ready again", || (instances(&host, "chain") > 0).then_some(()));
    until_it_rests(&host, "chain");
    until_nothing_runs(&host);
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

#[test]
fn workers_go_before_the_sandbox_and_the_next_call_starts_them_again() {
    let Some(host) = Host::start_with(&["--rest-ready", "300ms", "--rest-workers", "800ms"]) else { return };
    host.deploy_example("chain");
    let first = host.first_process("chain");
    let before = host.processes_of("chain", "first", Role::Worker);
    for round in ["x", "y", "z"] {
        until_without(&host, "chain", "instances");
        assert_eq!(instances(&host, "chain"), 0);
        until_without(&host, "chain", "workers");
        until("only the supervisor is left", || (process::of_sandbox(first.pid).len() == 1).then_some(()));
        assert!(host.sandbar(&["list"]).well().text().contains("running, no workers"));
        let answer = host.call("chain", round.as_bytes()).done();
        assert_eq!(answer, format!("{round}>first>second>third"));
        until("all workers are there again", || (count(&host, "chain", Role::Worker) == 5).then_some(()));
        assert_eq!(text_of(&host, "chain", "resting"), "");
    }
    assert_eq!(host.first_process("chain"), first, "it is the same sandbox");
    assert!(!before.iter().any(process::Process::exists));
    assert!(!host.sandbar(&["logs", "chain"]).well().text().contains("worker"), "no worker has died of this");
}

#[test]
fn workers_in_python_come_back_from_a_template_of_their_own() {
    let Some(host) = Host::start_with(&["--rest-ready", "200ms", "--rest-workers", "400ms"]) else { return };
    let names = ["one", "two", "three", "four", "five"];
    let bodies = names.map(|name| format!("def {name}(event, context):\n    return event + b'>{name}'\n"));
    let inner = "\ndef one(event, context):\n    return context.call('five', event + b'>one')\n";
    host.deploy_python("many", &names, &(bodies.concat() + inner));
    for _ in 0..3 {
        until_without(&host, "many", "workers");
        until("the template alone is left", || {
            let roles: Vec<Role> =
                process::of_sandbox(host.first_process("many").pid).into_iter().map(|(_, role)| role).collect();
            (roles == [Role::Supervisor, Role::Template]).then_some(())
        });
        assert_eq!(host.call("many/one", b"x").done(), "x>one>five");
        until("all workers are there again", || {
            let workers = count(&host, "many", Role::Worker);
            (workers == 5 && count(&host, "many", Role::Template) == 0).then_some(())
        });
    }
}

#[test]
fn a_pool_that_grew_with_its_calls_shrinks_when_they_are_over() {
    let Some(host) = Host::start_with(&["--rest-ready", "never", "--rest-workers", "never"]) else { return };
    host.deploy_example("chain");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(host.call("chain/third", b"x").done(), "x>third")));
        }
    });
    let ready = || {
        let all = host.processes_of("chain", "third", Role::Instance).len();
        (all == 1).then_some(())
    };
    until("one instance stands ready", ready);
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
}

#[test]
fn the_number_of_calls_never_goes_back() {
    let Some(host) = Host::start_with(&["--rest-ready", "100ms", "--rest-sandbox", "100ms"]) else { return };
    host.deploy_example("chain");
    let calls = || host.applications()[0]["calls"].as_u64().unwrap();
    let mut seen = 0;
    for made in 1..=6 {
        assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
        for _ in 0..10 {
            let now = calls();
            assert!(now >= seen && now <= made, "{now} after {seen}, with {made} made");
            seen = now;
            thread::sleep(Duration::from_millis(20));
        }
    }
    until_it_rests(&host, "chain");
    assert_eq!(calls(), 6);
}

#[test]
fn an_application_is_put_to_rest_on_demand() {
    let Some(host) = Host::start_with(&["--rest-sandbox", "never"]) else { return };
    host.deploy_example("chain");
    assert_eq!(host.sandbar(&["rest", "chain"]).well().text(), "chain is at rest\n");
    assert_eq!(state_of(&host, "chain"), "resting");
    assert!(host.sandbar(&["rest", "chain"]).well().text().contains("at rest"), "it is already");
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    assert_eq!(host.manage("POST", "/v1/applications/nobody/rest", b"").status, 404);
    let code =
        "import time\ndef slow(event, context):\n    context.log('begun')\n    time.sleep(7)\n    return b'done'\n";
    host.deploy_python("busy", &["slow"], code);
    thread::scope(|scope| {
        let call = scope.spawn(|| host.call("busy", b"").done());
        host.logged("busy", "begun");
        let refused = host.manage("POST", "/v1/applications/busy/rest", b"");
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert_eq!(call.join().unwrap(), "done");
    });
    host.sandbar(&["rest", "busy"]).well();
}

#[test]
fn nothing_of_an_application_at_rest_is_left_but_files() {
    let Some(host) = Host::start_with(&SOON) else { return };
    host.deploy_example("chain");
    let of_chain = || {
        let groups = remains::cgroups(&host.name());
        groups
            .into_iter()
            .filter(|group| group.file_name().is_some_and(|name| name.to_string_lossy().starts_with("chain-")))
            .count()
    };
    assert!(of_chain() > 0);
    until_it_rests(&host, "chain");
    until("its control groups are gone", || (of_chain() == 0).then_some(()));
    assert_eq!(remains::mounts(&host.state()), Vec::<String>::new());
}

/// Takes a while to load.
const SLOW_TO_LOAD: &str = "import time\ntime.sleep(1)\n\ndef f(event, context):\n    return b'here'\n";

#[test]
fn what_is_killed_while_it_comes_back_is_made_again() {
    let Some(host) = Host::start_with(&SOON) else { return };
    host.deploy_python("slow", &["f"], SLOW_TO_LOAD);
    until_it_rests(&host, "slow");
    until_nothing_runs(&host);
    thread::scope(|scope| {
        let call = scope.spawn(|| host.call("slow", b""));
        let first = until("it comes back", || {
            process::descendants(host.agent().pid).into_iter().find(|process| process.inner_pid() == Some(1))
        });
        first.signal(Signal::SIGKILL);
        let called = call.join().unwrap();
        assert!(
            called.outcome == "overloaded" || called.outcome == "done",
            "{}: {}",
            called.outcome,
            called.diagnostic
        );
    });
    until("it is back", || (host.call("slow", b"").outcome == "done").then_some(()));
}

#[test]
fn one_is_removed_while_it_comes_back() {
    let Some(host) = Host::start_with(&SOON) else { return };
    host.deploy_python("slow", &["f"], SLOW_TO_LOAD);
    until_it_rests(&host, "slow");
    until_nothing_runs(&host);
    thread::scope(|scope| {
        let call = scope.spawn(|| host.call("slow", b""));
        until("it comes back", || (!process::descendants(host.agent().pid).is_empty()).then_some(()));
        host.sandbar(&["remove", "slow"]).well();
        assert_ne!(call.join().unwrap().outcome, "done");
    });
    until_nothing_runs(&host);
}

#[test]
fn a_host_stops_while_one_rests_and_another_comes_back() {
    let Some(mut host) = Host::start_with(&SOON) else { return };
    host.deploy_example("chain");
    host.deploy_python("slow", &["f"], SLOW_TO_LOAD);
    until_it_rests(&host, "chain");
    until_it_rests(&host, "slow");
    until_nothing_runs(&host);
    let mut calling = host.command(&["invoke", "slow"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it comes back", || (!process::descendants(host.agent().pid).is_empty()).then_some(()));
    let descendants = process::descendants(host.agent().pid);
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    calling.wait().unwrap();
    host.assert_nothing_is_left(&descendants);
    host.serve();
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
}

#[test]
fn a_call_of_another_application_wakes_it() {
    let Some(host) = Host::start_with(&SOON) else { return };
    let deploy = |name: &str, more: &str, code: &str| {
        let folder = host.folder().join(name);
        let manifest = bundle::python_manifest(name, &["f"]);
        let (head, functions) = manifest.split_once("\n\n").unwrap();
        let manifest = format!("{head}\n{more}\n\n{functions}");
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", code)]);
        host.deploy(&folder);
    };
    deploy("asked", "callers = [\"asks\"]", "def f(event, context):\n    return event + b' asked'\n");
    deploy("asks", "calls = [\"/asked\"]", "def f(event, context):\n    return context.call('/asked', event)\n");
    until_it_rests(&host, "asked");
    until_it_rests(&host, "asks");
    assert_eq!(host.call("asks", b"well").done(), "well asked");
    until_it_rests(&host, "asked");
}
