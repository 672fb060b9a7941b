//! What a function can see and touch of its host, of other applications, and of other functions.

use std::collections::{BTreeMap, HashSet};

use crate::support::host::Host;
use crate::support::process::{self, NAMESPACES, Process, Role};
use crate::support::until;

/// Functions that report on what they find.
const PROBE: &str = r#"
import json, os, socket, time

def slow(event, context):
    context.log(f"serving as {os.getpid()}")
    time.sleep(float(event))
    return "slept"

def files(event, context):
    return json.dumps({path: write(path) for path in json.loads(event)})

def write(path):
    try:
        with open(os.path.join(path, "sandbar-was-here"), "w") as file:
            file.write("x")
        return "written"
    except OSError as error:
        return os.strerror(error.errno)

def network(event, context):
    outcomes = {}
    for address in json.loads(event):
        try:
            socket.create_connection(tuple(address), timeout=1).close()
            outcomes[address[0]] = "connected"
        except OSError as error:
            outcomes[address[0]] = type(error).__name__
    return json.dumps(outcomes)

def processes(event, context):
    return json.dumps([int(name) for name in os.listdir("/proc") if name.isdigit()])
"#;

const FUNCTIONS: [&str; 4] = ["slow", "files", "network", "processes"];

fn namespaces_of(processes: &[(Process, Role)]) -> HashSet<Vec<String>> {
    processes.iter().filter_map(|(process, _)| process.namespaces()).collect()
}

#[test]
fn functions_of_an_application_share_namespaces_and_applications_share_none() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    host.deploy_example("chain");
    let mut sandboxes = Vec::new();
    for application in ["failures", "chain"] {
        let first = host.first_process(application).pid;
        // Instances come and go: those that are gone before they were looked at do not count.
        let processes = process::of_sandbox(first);
        for role in [Role::Worker, Role::Instance] {
            assert!(processes.iter().filter(|(_, of)| *of == role).count() > 1, "{application} has no {role:?}");
        }
        let mut shared = namespaces_of(&processes);
        assert_eq!(shared.len(), 1, "{application}: {shared:?}");
        sandboxes.push(shared.drain().next().unwrap());
    }
    let ours = Process::new(std::process::id()).unwrap().namespaces().unwrap();
    let agents = host.agent().namespaces().unwrap();
    for (index, kind) in NAMESPACES.iter().enumerate() {
        let distinct: HashSet<&String> = [&sandboxes[0][index], &sandboxes[1][index], &ours[index]].into();
        assert_eq!(distinct.len(), 3, "the {kind} namespaces of two sandboxes and the host: {distinct:?}");
        assert_eq!(ours[index], agents[index], "the agent is in the host's {kind} namespace");
    }
    // What a function sees of itself is what the host sees of it.
    let inside: BTreeMap<String, String> = serde_json::from_str(&host.call("failures/namespaces", b"").done()).unwrap();
    for (kind, outside) in NAMESPACES.iter().zip(&sandboxes[0]) {
        assert_eq!(&inside[*kind], outside);
    }
}

#[test]
fn an_instance_has_a_user_of_its_own_and_no_privilege() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("probe", &FUNCTIONS, PROBE);
    let first = host.first_process("probe");
    let range = first.users().unwrap()[0]..first.users().unwrap()[0] + 65_536;
    std::thread::scope(|scope| {
        let call = scope.spawn(|| host.call("probe/slow", b"2"));
        let line = host.logged("probe/slow", "serving as ");
        let inner: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
        let processes = process::of_sandbox(first.pid);
        let serving = processes.iter().find(|(process, _)| process.inner_pid() == Some(inner));
        let (serving, role) = serving.expect("the instance that serves is in the sandbox");
        assert_eq!(*role, Role::Instance);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(serving.status(set).unwrap(), "0000000000000000", "{set}");
        }
        assert_eq!(serving.status("NoNewPrivs").unwrap(), "1");
        assert_eq!(serving.status("Seccomp").unwrap(), "2", "a filter is in force");
        assert_eq!(serving.status("Groups").unwrap(), "", "no supplementary group");
        let users: HashSet<u32> = serving.users().unwrap().into_iter().collect();
        assert_eq!(users.len(), 1, "real, effective and saved user are the same: {users:?}");
        let user = *users.iter().next().unwrap();
        assert!(range.contains(&user), "{user} is in {range:?}");
        for (other, role) in processes.iter().filter(|(process, _)| process != serving) {
            let Some(others) = other.users() else { continue };
            assert!(!others.contains(&user), "{role:?} {other:?} runs as the same user");
            assert_eq!(other.status("NoNewPrivs").unwrap(), "1", "{role:?}");
        }
        let called = call.join().unwrap();
        assert_eq!(called.hops[0].pid, serving.pid, "this was the instance that served");
        assert_eq!(called.done(), "slept");
    });
}

#[test]
fn only_temporary_files_can_be_written() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("probe", &FUNCTIONS, PROBE);
    let paths = ["/", "/app", "/usr", "/etc", "/bin", "/lib", "/sandbar", "/tmp", "/dev/shm"];
    let answer = host.call("probe/files", serde_json::to_string(&paths).unwrap().as_bytes()).done();
    let written: BTreeMap<String, String> = serde_json::from_str(&answer).unwrap();
    for path in ["/", "/app", "/usr", "/etc", "/bin", "/lib", "/sandbar"] {
        assert_ne!(written[path], "written", "{path}: {written:?}");
    }
    assert_eq!(written["/tmp"], "written");
    assert!(!std::path::Path::new("/tmp/sandbar-was-here").exists(), "the sandbox's /tmp is not the host's");
}

#[test]
fn there_is_no_network_but_the_sandbox_itself() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("probe", &FUNCTIONS, PROBE);
    let addresses = serde_json::json!([["127.0.0.1", host.http.port()], ["192.0.2.1", 80]]);
    let answer = host.call("probe/network", addresses.to_string().as_bytes()).done();
    let outcomes: BTreeMap<String, String> = serde_json::from_str(&answer).unwrap();
    assert_ne!(outcomes["127.0.0.1"], "connected", "the host's loopback is not the sandbox's");
    assert_ne!(outcomes["192.0.2.1"], "connected");
    let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", host.first_process("probe").pid)).unwrap();
    let names: Vec<&str> = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert_eq!(names, ["lo"]);
}

#[test]
fn a_sandbox_sees_no_process_of_the_host() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("probe", &FUNCTIONS, PROBE);
    let inside: Vec<u32> = serde_json::from_str(&host.call("probe/processes", b"").done()).unwrap();
    let first = host.first_process("probe").pid;
    let most =
        until("the sandbox has its processes", || Some(process::of_sandbox(first).len()).filter(|count| *count > 4));
    // Two more instances may have been there when it looked.
    assert!(inside.len() <= most + 2, "{inside:?}");
    assert!(inside.iter().all(|pid| *pid < 1_000), "ids start anew: {inside:?}");
}
