//! Instances that write to the shared memory what is not so of themselves are found out by the kernel's word, and by the clock.

use std::time::{Duration, Instant};

use crate::support::host::Host;
use crate::support::process::{self, Role};
use crate::support::{bundle, until};

/// Finds its own slot in the segment by its process id, and writes into it. A slot has 64 bytes: the state word (phase in the topmost
/// byte) at 0, the deadline at 8, the process id at 28.
const LIAR: &str = r#"
import ctypes, os, struct, time

def segment():
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "memfd:" in line and "rw-s" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                return (ctypes.c_char * (end - start)).from_address(start)

def own_slot(memory):
    pid = struct.pack("<I", os.getpid())
    at = -1
    head = bytes(memory[: 1 << 20])
    while True:
        at = head.find(pid, at + 1)
        if at < 0:
            raise LookupError("no slot")
        if at % 64 == 28 and head[at - 28 + 7] == 3:
            return at - 28

def write(memory, at, data):
    memory[at : at + len(data)] = data

def lie(event, context):
    if event == b"honestly":
        return event
    memory = segment()
    slot = own_slot(memory)
    for word in event.decode().split():
        if word == "forever":
            write(memory, slot + 8, struct.pack("<Q", 2**63))
        elif word == "nobody":
            write(memory, slot + 28, struct.pack("<I", 0))
        else:
            phase = {"free": 0, "forking": 1, "ready": 2, "done": 4, "nonsense": 9}[word]
            write(memory, slot + 7, bytes([phase]))
    context.log(f"lied {event.decode()}")
    time.sleep(600)

def vanish(event, context):
    memory = segment()
    write(memory, own_slot(memory) + 28, struct.pack("<I", 0))
    os._exit(0)

def echo(event, context):
    return event
"#;

#[test]
fn instances_that_lie_about_themselves_do_not_outlive_their_deadline() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("liar");
    let manifest = bundle::python_manifest("liar", &["lie", "vanish", "echo"])
        .replace("handler = \"lie\"", "handler = \"lie\"\ntimeout = \"1s\"")
        .replace("handler = \"vanish\"", "handler = \"vanish\"\ntimeout = \"1s\"")
        .replace("handler = \"echo\"", "handler = \"echo\"\ntimeout = \"2s\"");
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", LIAR)]);
    host.deploy(&folder);
    let first = host.first_process("liar").pid;
    for lie in
        ["forever", "nobody", "forever nobody", "free", "done", "nonsense", "forking nobody", "forever nobody done"]
    {
        let start = Instant::now();
        assert_ne!(host.call("liar/lie", lie.as_bytes()).outcome, "done", "{lie}");
        assert!(start.elapsed() < Duration::from_secs(2), "{lie}: its caller was told late");
        assert_eq!(host.call("liar/echo", b"x").done(), "x", "{lie}");
        host.logged("liar/lie", &format!("lied {lie}"));
        until(&format!("who said {lie:?} is dead"), || {
            // One that gave its slot away ends with the next call that is served there.
            host.call("liar/lie", b"honestly").done();
            host.call("liar/echo", b"x").done();
            let sleeps =
                |process: &process::Process| process.status("State").is_some_and(|state| state.starts_with('S'));
            let instances =
                process::of_sandbox(first).into_iter().filter(|(it, role)| *role == Role::Instance && sleeps(it));
            (instances.count() <= 6).then_some(())
        });
    }
    // More than there are slots: none is lost.
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| assert_ne!(host.call("liar/vanish", b"").outcome, "done"));
            }
        });
    }
    until("all is well", || (host.call("liar/echo", b"x").outcome == "done").then_some(()));
}

#[test]
fn an_instance_that_pretends_to_wait_for_calls_keeps_no_call_from_being_served() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("liar");
    let manifest = bundle::python_manifest("liar", &["lie", "echo"])
        .replace("handler = \"lie\"", "handler = \"lie\"\ntimeout = \"3s\"");
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", LIAR)]);
    host.deploy(&folder);
    for _ in 0..4 {
        assert_eq!(host.call("liar/lie", b"ready").outcome, "deadline-passed");
        assert_eq!(host.call("liar/echo", b"x").done(), "x");
    }
}
