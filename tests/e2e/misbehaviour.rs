//! Functions that go wrong: their callers are told what happened, in time, and nobody else is the worse for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::clients::{self, got};
use crate::support::coap::Client;
use crate::support::host::Host;
use crate::support::{bundle, process, until, until_within};

/// What may pass beyond a function's time-out until its caller is told.
const TOLERANCE: Duration = Duration::from_secs(1);

/// A way to go wrong, and what the caller is told.
struct Wrong {
    function: &'static str,
    coap: &'static str,
    http: u16,
    diagnostic: &'static str,
    timeout: Duration,
}

const fn failed(function: &'static str, diagnostic: &'static str) -> Wrong {
    Wrong { function, coap: "5.00", http: 500, diagnostic, timeout: Duration::from_secs(2) }
}

const WRONG: [Wrong; 7] = [
    failed("crash", "killed by signal 6 (SIGABRT)"),
    failed("silent", "exited with status 0 without answering"),
    failed("raise", "OnPurpose: raised on purpose, with 5 bytes in hand"),
    failed("shell", "exited with status 3: shell: failed on purpose"),
    failed("large", "larger than the limit of 1048576 bytes"),
    Wrong { timeout: Duration::from_secs(10), ..failed("hungry", "out of memory") },
    Wrong { coap: "5.04", http: 504, timeout: Duration::from_millis(500), ..failed("never", "never: ") },
];

/// Forks as often as it is let, and so do its children.
const FORK_BOMB: &str = r#"
import os

def fork(event, context):
    while True:
        try:
            os.fork()
        except OSError:
            pass

def echo(event, context):
    return event
"#;

#[test]
fn each_way_to_go_wrong_is_told_over_coap_within_its_deadline() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let mut client = Client::new(host.coap);
    for wrong in WRONG {
        let start = Instant::now();
        let answer = client.post(&format!("failures/{}", wrong.function), b"event").unwrap();
        let took = start.elapsed();
        assert_eq!(answer.code(), wrong.coap, "{}: {}", wrong.function, answer.text());
        assert!(answer.text().contains(wrong.diagnostic), "{}: {}", wrong.function, answer.text());
        assert!(took < wrong.timeout + TOLERANCE, "{} took {took:?}", wrong.function);
    }
    assert_eq!(client.post("failures/echo", b"still here").unwrap().text(), "still here");
}

#[test]
fn each_way_to_go_wrong_is_told_over_http_within_its_deadline() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    for wrong in WRONG {
        let start = Instant::now();
        let answer = host.http("POST", &format!("/failures/{}", wrong.function), None, b"event");
        let took = start.elapsed();
        assert_eq!(answer.status, wrong.http, "{}: {}", wrong.function, answer.text());
        assert!(answer.text().contains(wrong.diagnostic), "{}: {}", wrong.function, answer.text());
        assert!(took < wrong.timeout + TOLERANCE, "{} took {took:?}", wrong.function);
    }
    assert_eq!(host.http("POST", "/failures/echo", None, b"still here").text(), "still here");
}

#[test]
fn coap_client_shows_why_a_function_failed() {
    let Some(mut client) = clients::coap_client() else { return };
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let answer = got(client.args(["-m", "post"]), host.folder(), &host.coap_uri("failures/raise"));
    assert_eq!(answer.code, "5.00", "{}", answer.shown);
    assert!(answer.shown.contains("OnPurpose: raised on purpose"), "{}", answer.shown);
}

#[test]
fn the_command_tells_outcomes_apart_by_its_exit_code() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    for (target, code, said) in [
        ("failures/echo", 0, ""),
        ("failures/raise", 7, "failed: raise: OnPurpose"),
        ("failures/crash", 7, "signal 6"),
        ("failures/never", 9, "deadline passed: never"),
        ("failures/unheard-of", 3, "no function \"unheard-of\""),
        ("unheard-of", 3, "no application \"unheard-of\""),
    ] {
        let invoked = host.sandbar(&["invoke", target, "event"]);
        assert_eq!(invoked.code, Some(code), "{target}: {}", invoked.stderr);
        assert!(invoked.stderr.contains(said), "{target}: {}", invoked.stderr);
        assert_eq!(invoked.stdout.is_empty(), code != 0, "{target}: only an answer goes to standard output");
    }
}

#[test]
fn children_that_a_function_leaves_behind_are_dead_right_after() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let first = host.first_process("failures").pid;
    for _ in 0..3 {
        let mut answer: Value = serde_json::from_str(&host.call("failures/children", b"8").done()).unwrap();
        let left: Vec<u32> = serde_json::from_value(answer["pids"].take()).unwrap();
        assert_eq!(left.len(), 8);
        until_within(Duration::from_secs(2), "they are dead", || {
            let inside = process::descendants(first);
            let alive = inside.iter().filter_map(process::Process::inner_pid).any(|inner| left.contains(&inner));
            (!alive).then_some(())
        });
    }
}

#[test]
fn a_function_that_forks_without_end_is_over_at_its_deadline_with_all_it_forked() {
    let Some(host) = Host::start_alone() else { return };
    host.deploy_example("chain");
    let folder = host.folder().join("bomb");
    let manifest = bundle::python_manifest("bomb", &["fork", "echo"])
        .replace("handler = \"fork\"", "handler = \"fork\"\ntimeout = \"700ms\"");
    // Enough for all the processes there may be: it is to be time that ends them.
    let manifest = format!("{manifest}\n[limits]\nmemory = \"1GiB\"\n");
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", FORK_BOMB)]);
    host.deploy(&folder);
    let sandbox = host.first_process("bomb");
    std::thread::scope(|scope| {
        let bomb = scope.spawn(|| host.call("bomb/fork", b""));
        until("it has forked", || (process::descendants(sandbox.pid).len() > 30).then_some(()));
        let beside = host.call("chain", b"x");
        assert!(beside.took < TOLERANCE, "another application took {:?}", beside.took);
        assert_eq!(beside.done(), "x>first>second>third");
        let called = bomb.join().unwrap();
        assert_eq!(called.outcome, "deadline-passed", "{}", called.diagnostic);
        assert!(called.took < Duration::from_millis(700) + TOLERANCE, "told after {:?}", called.took);
    });
    until_within(TOLERANCE * 2, "all that it forked is dead", || {
        // Two workers and two instances of each that stand ready, or a few more after a burst.
        (process::descendants(sandbox.pid).len() <= 12).then_some(())
    });
    assert_eq!(host.call("bomb/echo", b"still here").done(), "still here");
    assert_eq!(host.first_process("bomb"), sandbox, "the sandbox itself was not harmed");
}

/// Forks and answers twice, as careless code does; `through` has a call of its own under way while it does.
const TWICE: &str = r#"
import os

def twice(event, context):
    os.fork()
    return event

def through(event, context):
    os.fork()
    return context.call("echo", event)

def echo(event, context):
    return event
"#;

#[test]
fn a_function_that_forks_and_answers_twice_mixes_up_no_answers() {
    let Some(host) = Host::start() else { return };
    // Room for all that stand ready, serve and have not been buried yet, and a twin of each: a fork that fails is not what is looked at.
    let manifest = bundle::python_manifest("twice", &["twice", "through", "echo"]);
    let manifest = format!("{manifest}\n[limits]\nprocesses = 256\n");
    let folder = host.folder().join("twice");
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", TWICE)]);
    host.deploy(&folder);
    std::thread::scope(|scope| {
        for function in ["twice", "through", "echo", "twice"] {
            let host = &host;
            scope.spawn(move || {
                for call in 0..60 {
                    let payload = format!("{function} {call}");
                    assert_eq!(host.call(&format!("twice/{function}"), payload.as_bytes()).done(), payload);
                }
            });
        }
    });
}

#[test]
fn while_functions_misbehave_others_answer_in_time() {
    let Some(host) = Host::start_alone() else { return };
    host.deploy_example("failures");
    host.deploy_example("chain");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for functions in [["crash", "never", "raise"], ["silent", "children", "large"], ["hungry", "shell", "never"]] {
            let (host, over) = (&host, &over);
            scope.spawn(move || {
                for function in functions.iter().cycle() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    host.call(&format!("failures/{function}"), b"");
                }
            });
        }
        let start = Instant::now();
        let (mut calls, mut slowest) = (0, Duration::ZERO);
        let mut wrong = Vec::new();
        while start.elapsed() < Duration::from_secs(4) {
            for target in ["chain", "failures/echo"] {
                let called = host.call(target, b"x");
                (calls, slowest) = (calls + 1, slowest.max(called.took));
                if called.outcome != "done" {
                    wrong.push(format!("{target}: {}: {}", called.outcome, called.diagnostic));
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        println!("{calls} calls beside those that went wrong; the slowest took {slowest:?}");
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(calls > 50 && slowest < Duration::from_secs(1), "{calls} calls; the slowest took {slowest:?}");
    });
}
