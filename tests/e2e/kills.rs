//! What dies comes back by itself, and takes nothing else with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::coap::Client;
use crate::support::host::Host;
use crate::support::process::{self, Process, Role};
use crate::support::{PATIENCE, remains, until, until_within};

/// A function that says which process serves, and takes as many seconds as the payload says.
const PATIENT: &str = r#"
import os, time

def patient(event, context):
    context.log(f"serving {event.decode()} as {os.getpid()}")
    time.sleep(float(event))
    return event
"#;

/// How soon a caller is told that its call cannot end any more.
const PROMPT: Duration = Duration::from_secs(2);

/// The process that serves the call with this payload.
fn serving(host: &Host, payload: &str) -> Process {
    let line = host.logged("patient", &format!("serving {payload} as "));
    let inner: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    let processes = process::of_sandbox(host.first_process("patient").pid);
    let serving = processes.into_iter().find(|(process, _)| process.inner_pid() == Some(inner));
    serving.expect("the instance that serves is in the sandbox").0
}

#[test]
fn a_worker_that_is_killed_comes_back_and_its_instances_serve_on() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let worker = host.processes_of("failures", "echo", Role::Worker).remove(0);
    worker.signal(Signal::SIGKILL);
    for call in 0..30 {
        assert_eq!(host.call("failures/echo", b"still here").done(), "still here", "call {call}");
    }
    assert_eq!(host.call("failures/pids", b"").outcome, "done", "other functions have not noticed");
    host.logged("failures/echo", "the worker was killed by signal 9 (SIGKILL); started again in");
    let anew = host.processes_of("failures", "echo", Role::Worker).remove(0);
    assert_ne!(anew, worker);
    until("the dead worker is reaped", || (!worker.exists()).then_some(()));
}

#[test]
fn workers_that_are_killed_under_load_cost_no_call() {
    let Some(host) = Host::start_alone() else { return };
    host.deploy_example("chain");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (host, over) = (&host, &over);
        let clients: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(move || {
                    let (mut client, mut calls) = (Client::new(host.coap), 0);
                    while !over.load(Ordering::Relaxed) {
                        let answer = client.post("chain", b"x").expect("an answer");
                        assert_eq!((answer.code(), answer.text()), ("2.04".into(), "x>first>second>third".into()));
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        // No more often than that the pause before a worker is started again stays well within the functions' time-outs.
        for function in ["first", "second", "third"].iter().cycle().take(9) {
            host.processes_of("chain", function, Role::Worker).remove(0).signal(Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
        let calls: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        println!("{calls} calls while nine workers were killed");
        assert!(calls > 50);
    });
}

#[test]
fn an_instance_that_is_killed_fails_its_call_at_once_and_no_other() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("patient", &["patient"], PATIENT);
    std::thread::scope(|scope| {
        let doomed = scope.spawn(|| Client::new(host.coap).post("patient", b"8.5").unwrap());
        let other = scope.spawn(|| host.call("patient", b"1.5"));
        let victim = serving(&host, "8.5");
        serving(&host, "1.5");
        let killed = std::time::Instant::now();
        victim.signal(Signal::SIGKILL);
        let answer = doomed.join().unwrap();
        assert!(killed.elapsed() < PROMPT, "told after {:?}", killed.elapsed());
        assert_eq!(answer.code(), "5.00", "{answer:?}");
        assert!(answer.text().contains("killed by signal 9 (SIGKILL)"), "{}", answer.text());
        assert_eq!(other.join().unwrap().done(), "1.5");
    });
    assert_eq!(host.call("patient", b"0").done(), "0");
}

#[test]
fn a_sandbox_whose_first_process_is_killed_comes_back_and_no_other_notices() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("patient", &["patient"], PATIENT);
    host.deploy_example("chain");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| host.call("patient", b"1.5"));
        serving(&host, "1.5");
        let first = host.first_process("chain");
        let inhabitants = process::of_sandbox(first.pid);
        first.signal(Signal::SIGKILL);
        until("the agent has noticed", || (!first.exists()).then_some(()));
        let next = host.call("chain", b"x").done();
        assert_eq!(next, "x>first>second>third", "it waits for the new sandbox");
        assert_ne!(host.first_process("chain"), first);
        until("the old sandbox is gone", || (!inhabitants.iter().any(|(process, _)| process.exists())).then_some(()));
        assert_eq!(other.join().unwrap().done(), "1.5");
    });
    // One group for each sandbox in each hierarchy, and the host's above them.
    let groups = remains::cgroups(&host.name()).len();
    let first = host.first_process("patient");
    first.signal(Signal::SIGKILL);
    until("the agent has noticed", || (!first.exists()).then_some(()));
    assert_eq!(host.call("patient", b"0").done(), "0");
    until("the dead sandbox's control groups are gone", || {
        (remains::cgroups(&host.name()).len() == groups).then_some(())
    });
}

#[test]
fn calls_under_way_in_a_sandbox_that_ends_fail_at_once() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("patient", &["patient"], PATIENT);
    std::thread::scope(|scope| {
        let doomed = scope.spawn(|| host.call("patient", b"8.5"));
        serving(&host, "8.5");
        host.first_process("patient").signal(Signal::SIGKILL);
        let called = doomed.join().unwrap();
        assert_eq!(called.outcome, "failed", "{}", called.diagnostic);
        assert!(called.diagnostic.contains("sandbox ended"), "{}", called.diagnostic);
        assert!(called.took < PATIENCE / 2, "told after {:?}", called.took);
    });
}

#[test]
fn an_agent_that_is_killed_leaves_nothing_and_has_its_applications_back_when_it_starts_again() {
    let Some(mut host) = Host::start() else { return };
    host.deploy_python("patient", &["patient"], PATIENT);
    host.deploy_example("chain");
    let groups = remains::cgroups(&host.name()).len();
    let descendants = process::descendants(host.agent().pid);
    assert!(descendants.len() > 6, "{descendants:?}");
    // With a call under way, whose instance is busy when everything ends.
    let mut caller = host.command(&["invoke", "patient", "30"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    serving(&host, "30");
    assert_eq!(host.end(Signal::SIGKILL), None);
    assert!(!caller.wait().unwrap().success());
    until_within(Duration::from_secs(5), "its processes are gone", || {
        let gone =
            !descendants.iter().any(Process::exists) && remains::processes(&host.name(), &host.state()).is_empty();
        gone.then_some(())
    });
    assert_eq!(remains::mounts(&host.state()), Vec::<String>::new());
    host.serve();
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    assert_eq!(host.call("patient", b"0").done(), "0");
    let names: Vec<_> = host.applications().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["chain", "patient"]);
    assert_eq!(remains::cgroups(&host.name()).len(), groups, "the dead agent's control groups are cleared away");
}
