//! Deaths in awkward orders.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::host::Host;
use crate::support::process::{self, Process, Role};
use crate::support::{PATIENCE, bundle, program, remains, skipped, until, until_within};
use crate::{census, load, turn};

const CHILDREN: &str = "#!/bin/sh\nsleep 60 >/dev/null 2>&1 &\ncat\n";

/// A host with two applications that answer what they are sent, and leave children to be killed.
fn host() -> Option<Host> {
    let host = Host::start()?;
    fs::write(host.state().join("notes"), "").unwrap();
    for name in ["den", "porch"] {
        let folder = host.folder().join(name);
        let manifest = format!("name = \"{name}\"\n[functions.cat]\nruntime = \"executable\"\ncode = \"cat.sh\"\n");
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("cat.sh", CHILDREN)]);
        host.deploy(&folder);
    }
    Some(host)
}

#[track_caller]
fn assert_well(host: &Host) {
    for name in ["den", "porch"] {
        let answered = until_within(PATIENCE, &format!("{name} answers"), || {
            load::post(host.http, name).ok().filter(|(status, _)| *status == 200)
        });
        assert_eq!(answered.1, "x");
    }
    census::assert_files(host, &["den", "porch"].map(str::to_owned).into());
}

/// Starts the agent and does not wait until it serves.
fn begin_to_serve(host: &Host) -> Child {
    host.serve_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill_now(mut agent: Child) {
    agent.kill().unwrap();
    assert!(program::wait(&mut agent, PATIENCE).is_some());
}

#[test]
fn a_sandbox_that_dies_while_the_agent_is_stopped_is_made_again_when_it_goes_on() {
    let _turn = turn();
    let Some(host) = host() else { return };
    let first = host.first_process("porch");
    let inhabitants = process::of_sandbox(first.pid);
    host.agent().signal(Signal::SIGSTOP);
    first.signal(Signal::SIGKILL);
    // All but the first, whom only the agent can reap.
    until("its processes are dead", || {
        (!inhabitants.iter().any(|(process, _)| process.exists() && *process != first)).then_some(())
    });
    host.agent().signal(Signal::SIGCONT);
    until("it is reaped", || (!first.exists()).then_some(()));
    assert_well(&host);
    assert_ne!(host.first_process("porch"), first);
}

#[test]
fn a_sandbox_that_was_stopped_when_the_agent_was_killed_is_ended_by_the_next_start() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    let inhabitants = process::of_sandbox(host.first_process("porch").pid);
    for (process, _) in &inhabitants {
        process.signal(Signal::SIGSTOP);
    }
    assert_eq!(host.end(Signal::SIGKILL), None);
    host.serve();
    // The new agent may have begun to serve a little before the kernel is done with them.
    until("the stopped ones are gone", || {
        (!inhabitants.iter().any(|(process, _)| census::lives(process))).then_some(())
    });
    assert_well(&host);
}

/// Freezes a sandbox, wherever this host's control groups can; false, and the test is skipped, if they cannot.
fn freeze(host: &Host, application: &str) -> bool {
    let is_its = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{application}-")))
    };
    let groups: Vec<PathBuf> = remains::cgroups(&host.name()).into_iter().filter(is_its).collect();
    for (file, value) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
        if let Some(group) = groups.iter().find(|group| group.join(file).exists()) {
            fs::write(group.join(file), value).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            return true;
        }
    }
    skipped("no control group of a sandbox can be frozen here");
    false
}

#[test]
fn a_frozen_sandbox_is_removed_and_one_that_a_killed_agent_left_is_swept() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    let inhabitants = process::of_sandbox(host.first_process("porch").pid);
    if !freeze(&host, "porch") {
        return;
    }
    let began = Instant::now();
    host.sandbar(&["remove", "porch"]).well();
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    until("the frozen ones are gone", || (!inhabitants.iter().any(|(process, _)| process.exists())).then_some(()));
    host.deploy(&host.folder().join("porch"));
    let inhabitants = process::of_sandbox(host.first_process("porch").pid);
    assert!(freeze(&host, "porch"));
    assert_eq!(host.end(Signal::SIGKILL), None);
    host.serve();
    until("the frozen ones are gone", || {
        (!inhabitants.iter().any(|(process, _)| census::lives(process))).then_some(())
    });
    assert_well(&host);
}

#[test]
fn an_agent_that_is_killed_again_and_again_while_it_starts_serves_in_the_end() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    let descendants = process::descendants(host.agent().pid);
    assert_eq!(host.end(Signal::SIGKILL), None);
    for ms in [0, 2, 5, 10, 15, 20, 30, 50, 80, 120, 200] {
        let starting = begin_to_serve(&host);
        std::thread::sleep(Duration::from_millis(ms));
        kill_now(starting);
    }
    census::assert_dead(&host, &descendants);
    host.serve();
    assert_well(&host);
    census::assert_no_orphans();
}

#[test]
fn an_agent_that_is_killed_at_its_very_first_start_can_be_started_again() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    for us in (0..40).map(|step| step * 500) {
        fs::remove_dir_all(host.state()).unwrap();
        let starting = begin_to_serve(&host);
        std::thread::sleep(Duration::from_micros(us));
        kill_now(starting);
        host.serve();
        assert_eq!(host.end(Signal::SIGTERM), Some(0), "{us}: {}", host.agent_log());
    }
    host.serve();
    for name in ["den", "porch"] {
        host.deploy(&host.folder().join(name));
    }
    fs::write(host.state().join("notes"), "").unwrap();
    assert_well(&host);
}

#[test]
fn what_was_half_made_is_cleared_away_at_the_start() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    assert_eq!(host.end(Signal::SIGKILL), None);
    let state = host.state();
    let name = host.name();
    bundle::write(&state.join("applications/.staging-1-0/deep"), &[("sandbar.toml", "name = ")]);
    bundle::write(&state.join("applications/.staging-1-retired-attic"), &[("sandbar.toml", "name = \"attic\"")]);
    bundle::write(&host.folder().join(".sandbar-0-123"), &[("s", ""), ("stale", "")]);
    for half in ["inside/worker.new", "inside/libsandbar_function.new", "logs/attic.log", "logs/attic.log.1"] {
        fs::write(state.join(half), "sandb").unwrap();
    }
    host.serve();
    assert_eq!(host.name(), name);
    assert_well(&host);
}

#[test]
fn a_sandbox_that_was_half_made_when_the_agent_died_ends_by_itself() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    let mut stopped = 0;
    for ms in 0..12 {
        let agent = host.agent();
        let known: BTreeSet<u32> = process::children(agent.pid).iter().map(|process| process.pid).collect();
        let mut client = host.command(&["deploy", host.folder().join("den").to_str().unwrap()]);
        let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let half_made = until("a sandbox is made", || {
            process::children(agent.pid).into_iter().find(|process| !known.contains(&process.pid))
        });
        std::thread::sleep(Duration::from_millis(ms / 2));
        stopped += u32::from(is_sent(&half_made, Signal::SIGSTOP));
        let descendants = process::descendants(agent.pid);
        assert_eq!(host.end(Signal::SIGKILL), None);
        client.wait().unwrap();
        // It was stopped before the agent's death and hears of it only now.
        let _gone = is_sent(&half_made, Signal::SIGCONT);
        census::assert_dead(&host, &descendants);
        until("the half-made sandbox is gone", || (!census::lives(&half_made)).then_some(()));
        host.serve();
        assert_well(&host);
    }
    println!("stopped {stopped} launches");
}

/// How soon what hangs is given up by whoever wants to be rid of it.
const PROMPT: Duration = Duration::from_secs(10);

/// Hangs when it is loaded, if there is a file for it to do so.
const HANGS_IF_TOLD: &str = "import os, time\n\nif os.path.exists(os.path.join(os.path.dirname(__file__), 'hang')):\n    \
                             time.sleep(3600)\n\ndef attic(event, context):\n    return event\n";

#[test]
fn an_application_that_hangs_when_it_is_loaded_again_holds_up_neither_the_start_nor_its_removal_nor_the_stop() {
    let _turn = turn();
    let Some(mut host) = host() else { return };
    host.deploy_python("attic", &["attic"], HANGS_IF_TOLD);
    assert_eq!(host.end(Signal::SIGKILL), None);
    fs::write(host.state().join("applications/attic/hang"), "").unwrap();
    host.serve();
    let waited = Instant::now();
    let (status, said) = load::post(host.http, "attic").unwrap();
    // Until the call's own deadline, ten seconds: it is for this call that the application is made.
    assert_eq!(status, 504, "{said}");
    assert!(said.contains("not back in time") && waited.elapsed() < 3 * PROMPT, "{said} after {:?}", waited.elapsed());
    let began = Instant::now();
    host.sandbar(&["remove", "attic"]).well();
    assert!(began.elapsed() < PROMPT, "removed after {:?}", began.elapsed());
    assert_well(&host);
    // Now one that hangs at its first deployment, while the agent is told to stop.
    let folder = host.folder().join("attic");
    fs::write(folder.join("hang"), "").unwrap();
    let before = process::descendants(host.agent().pid);
    let mut client = host.command(&["deploy", folder.to_str().unwrap()]);
    let client = client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let descendants = until("it is being loaded", || {
        let now = process::descendants(host.agent().pid);
        let worker_of = |first: &Process| {
            let sandbox = process::of_sandbox_if_there(first.pid)?;
            sandbox.into_iter().find(|(_, role)| *role == Role::Worker)
        };
        let is_loaded = now.iter().filter(|it| !before.contains(it)).any(|first| worker_of(first).is_some());
        is_loaded.then_some(now)
    });
    let began = Instant::now();
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    // The grace that calls under way are given, and what the end takes itself.
    assert!(began.elapsed() < 2 * PROMPT, "stopped after {:?}", began.elapsed());
    host.assert_nothing_is_left(&descendants);
    assert_ne!(client.wait_with_output().unwrap().status.code(), Some(0));
    host.serve();
    assert_well(&host);
}

fn is_sent(process: &Process, signal: Signal) -> bool {
    process.exists() && nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid.cast_signed()), signal).is_ok()
}
