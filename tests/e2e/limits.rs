//! What functions may use: each of its own, all of an application together, and what a host gives at most.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::host::Host;
use crate::support::process::{self, Role};
use crate::support::{bundle, remains, until};

/// Functions that use what there is.
const HUNGRY: &str = r#"
import json, os, resource, subprocess, sys, time

def memory(event, context):
    taken = bytearray(int(event) << 20)
    taken[::4096] = b"x" * len(taken[::4096])
    return "had it"

def child(event, context):
    code = f"a = bytearray({int(event)} << 20); a[::4096] = b'x' * len(a[::4096])"
    return str(subprocess.run([sys.executable, "-c", code]).returncode)

def processes(event, context):
    made = 0
    try:
        for made in range(1000):
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
    except OSError:
        pass
    return str(made)

def spin(event, context):
    end = time.monotonic() + float(event)
    while time.monotonic() < end:
        pass
    return str(time.process_time())

def order(event, context):
    with open("/proc/self/oom_score_adj") as file:
        score = file.read().strip()
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:
            file.write("0")
        lowered = "lowered"
    except OSError as error:
        lowered = type(error).__name__
    return json.dumps([score, lowered])

def leave(event, context):
    folder = f"/tmp/left-{os.getpid()}"
    os.makedirs(f"{folder}/deep")
    for path in [f"{folder}/deep/file", f"/dev/shm/file-{os.getpid()}"]:
        with open(path, "w") as file:
            file.write(event.decode())
    private = os.stat(folder).st_mode & 0o077 == 0
    os.chmod(folder, 0o777)
    return "left" if private else "open to others"

def found(event, context):
    return json.dumps(os.listdir("/tmp") + os.listdir("/dev/shm"))
"#;

const FUNCTIONS: [&str; 7] = ["memory", "child", "processes", "spin", "order", "leave", "found"];

/// Deploys those functions, one of them with limits of its own.
fn deploy(host: &Host, name: &str, function: &str, limits: &str) {
    let folder = host.folder().join(name);
    let own = format!("\n[functions.{function}.limits]\n{limits}\n\n[limits]\nmemory = \"256MiB\"\n");
    let manifest = bundle::python_manifest(name, &FUNCTIONS) + &own;
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", HUNGRY)]);
    host.deploy(&folder);
}

#[test]
fn a_function_that_exceeds_its_own_memory_is_told_its_limit_and_others_have_theirs() {
    let Some(host) = Host::start() else { return };
    deploy(&host, "hungry", "memory", "memory = \"32MiB\"");
    let called = host.call("hungry/memory", b"48");
    assert_eq!(called.outcome, "failed");
    let said = "out of memory: the function's limit is 32 MiB, the application's 256 MiB";
    assert!(called.diagnostic.contains(said), "{}", called.diagnostic);
    assert_eq!(host.call("hungry/memory", b"2").done(), "had it");
    assert_eq!(host.call("hungry/child", b"48").done(), "0", "another function has the application's");
    let whole = host.call("hungry/child", b"400");
    assert_eq!(whole.done(), "-9", "which has a bound as well");
}

#[test]
fn a_function_has_no_more_processes_than_its_own_limit() {
    let Some(host) = Host::start() else { return };
    deploy(&host, "hungry", "processes", "processes = 8");
    let made: usize = host.call("hungry/processes", b"").done().parse().unwrap();
    assert!((1..8).contains(&made), "{made}");
    assert_eq!(host.call("hungry/memory", b"1").done(), "had it", "what they leave to others is enough");
}

#[test]
fn a_function_has_no_more_processor_time_than_its_own_limit() {
    let Some(host) = Host::start() else { return };
    deploy(&host, "hungry", "spin", "cpus = 0.1");
    let start = Instant::now();
    let used: f64 = host.call("hungry/spin", b"2").done().parse().unwrap();
    let share = used / start.elapsed().as_secs_f64();
    assert!(share < 0.25, "{share}");
}

#[test]
fn control_groups_of_functions_go_with_their_sandbox() {
    let Some(host) = Host::start() else { return };
    deploy(&host, "hungry", "memory", "memory = \"32MiB\"\nprocesses = 8\ncpus = 0.5");
    let groups = || remains::cgroups(&host.name());
    let of_function: Vec<_> = groups().into_iter().filter(|path| path.ends_with("function-0")).collect();
    assert!(!of_function.is_empty());
    for group in &of_function {
        assert_ne!(fs::read_to_string(group.join("cgroup.procs")).unwrap(), "", "its worker is in {group:?}");
    }
    host.sandbar(&["remove", "hungry"]).well();
    until("they are gone", || of_function.iter().all(|path| !path.exists()).then_some(()));
}

#[test]
fn the_kernel_takes_an_instance_first_and_the_supervisor_last() {
    let Some(host) = Host::start() else { return };
    deploy(&host, "hungry", "memory", "memory = \"32MiB\"");
    let first = host.first_process("hungry").pid;
    let score = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok();
    assert_eq!(score(first).as_deref(), Some("0\n"));
    // One that is gone is not asked; a worker stands as its instance while it forks it, and an instance is its worker's user at first.
    until("each stands where it should", || {
        let mut processes = process::of_sandbox(first).into_iter();
        let stands = |(process, role): (process::Process, Role)| match role {
            Role::Supervisor => true,
            Role::Worker | Role::Template => score(process.pid).is_none_or(|score| score == "500\n"),
            Role::Instance => score(process.pid).is_none_or(|score| score == "1000\n"),
        };
        processes.all(stands).then_some(())
    });
    let said: Value = serde_json::from_str(&host.call("hungry/order", b"").done()).unwrap();
    assert_eq!(said, serde_json::json!(["1000", "PermissionError"]), "an instance cannot put itself behind others");
}

#[test]
fn what_a_call_leaves_in_temporary_files_is_gone_when_it_has_ended() {
    let Some(host) = Host::start() else { return };
    deploy(&host, "hungry", "memory", "memory = \"32MiB\"");
    for _ in 0..20 {
        assert_eq!(host.call("hungry/leave", b"secret").done(), "left");
    }
    until("nothing is left", || (host.call("hungry/found", b"").done() == "[]").then_some(()));
}

#[test]
fn what_a_worker_starts_ends_with_it() {
    let Some(host) = Host::start() else { return };
    let code =
        "import subprocess\nsubprocess.Popen(['sleep', '300'])\n\ndef leave(event, context):\n    return event\n";
    host.deploy_python("starter", &["leave"], code);
    let worker = host.processes_of("starter", "leave", Role::Worker).remove(0);
    let started = until("it has started something", || process::children(worker.pid).into_iter().next());
    worker.signal(nix::sys::signal::Signal::SIGKILL);
    until("it is dead", || (!started.exists()).then_some(()));
    assert_eq!(host.call("starter", b"still here").done(), "still here");
}

#[test]
fn a_manifest_above_the_hosts_ceiling_is_refused_with_the_flag_that_raises_it() {
    let Some(host) = Host::start_with(&["--memory-max", "64MiB", "--cpus-max", "0.5", "--processes-max", "32"]) else {
        return;
    };
    let folder = host.folder().join("greedy");
    let deploy = |limits: &str| {
        let manifest = format!("{}\n[limits]\n{limits}\n", bundle::python_manifest("greedy", &FUNCTIONS[..2]));
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", HUNGRY)]);
        host.sandbar(&["deploy", folder.to_str().unwrap()])
    };
    for (limits, said) in [
        ("memory = \"65MiB\"\ncpus = 0.5\nprocesses = 32", "--memory-max"),
        ("memory = \"64MiB\"\ncpus = 0.6\nprocesses = 32", "--cpus-max"),
        ("memory = \"64MiB\"\ncpus = 0.5\nprocesses = 33", "--processes-max"),
    ] {
        let refused = deploy(limits);
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
    }
    assert!(host.applications().is_empty());
    deploy("memory = \"64MiB\"\ncpus = 0.5\nprocesses = 32").well();
}

/// Says whether it can open a connection to where it is told.
const CALLER: &str = r#"
import socket

def connect(event, context):
    try:
        socket.create_connection(("127.0.0.1", int(event)), timeout=2).close()
        return "connected"
    except OSError as error:
        return type(error).__name__
"#;

#[test]
fn the_hosts_network_is_had_if_both_the_manifest_and_the_host_say_so() {
    for allowed in [false, true] {
        let flags: &[&str] = if allowed { &["--allow-host-network"] } else { &[] };
        let Some(host) = Host::start_with(flags) else { return };
        let folder = host.folder().join("caller");
        let manifest = format!("network = \"host\"\n{}", bundle::python_manifest("caller", &["connect"]));
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", CALLER)]);
        let deployed = host.sandbar(&["deploy", folder.to_str().unwrap()]);
        if allowed {
            deployed.well();
            let port = host.http.port().to_string();
            assert_eq!(host.call("caller", port.as_bytes()).done(), "connected");
            let first = host.first_process("caller");
            let (inside, outside) = (first.namespaces().unwrap(), host.agent().namespaces().unwrap());
            let same: Vec<bool> = inside.iter().zip(&outside).map(|(inside, outside)| inside == outside).collect();
            assert_eq!(same.iter().filter(|same| **same).count(), 1, "the network alone is the host's");
        } else {
            assert!(deployed.stderr.contains("--allow-host-network"), "{}", deployed.stderr);
        }
        host.deploy_python("other", &["connect"], CALLER);
        let port = host.http.port().to_string();
        assert_ne!(host.call("other", port.as_bytes()).done(), "connected", "nobody else has it");
    }
}

#[test]
fn time_lost_to_files_of_calls_that_go_on_is_bounded() {
    let Some(host) = Host::start() else { return };
    let code = "import os, time\n\ndef many(event, context):\n    os.makedirs('/tmp/many')\n    for number in range(8000):\n        \
                open(f'/tmp/many/{number}', 'w').close()\n    context.log('written')\n    time.sleep(4)\n\ndef echo(event, context):\n    return event\n";
    host.deploy_python("busy", &["many", "echo"], code);
    std::thread::scope(|scope| {
        let many = scope.spawn(|| host.call("busy/many", b""));
        host.logged("busy/many", "written");
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let called = host.call("busy/echo", b"x");
            slowest = slowest.max(called.took);
            called.done();
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        many.join().unwrap();
    });
}
