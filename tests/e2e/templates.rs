//! Workers of Python functions that are forked from one template: they share an interpreter, and nothing else. And how the heap lies that
//! a worker has loaded.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;

use crate::support::host::Host;
use crate::support::process::{self, Process, Role};
use crate::support::{skipped, until};

/// The user of a template, in the sandbox.
const TEMPLATE: u32 = 999;

/// Functions that tell of their worker: what it drew when it was loaded, and what it may.
const CODE: &str = r#"
import json, os, random, tempfile

DRAWN = [random.random(), os.urandom(8).hex(), next(tempfile._get_candidate_names())]

def attempt(user):
    try:
        os.setresuid(user, user, user)
        return "done"
    except PermissionError:
        return "refused"

OTHERS = {user: attempt(user) for user in [0, 999, 1000, 1001, 1003, 1999, 65534]}

def tell(event, context):
    return json.dumps({"drawn": DRAWN, "now": random.random(), "others": OTHERS, "function": context.function,
                       "variable": os.environ["SANDBAR_FUNCTION"], "user": os.getuid(), "descriptors": len(os.listdir("/proc/self/fd"))})

first = second = third = tell
"#;

const FUNCTIONS: [&str; 3] = ["first", "second", "third"];

fn heap(process: &Process) -> String {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.pid)).unwrap();
    let heap = maps.lines().find(|line| line.ends_with("[heap]")).unwrap();
    heap.split('-').next().unwrap().to_owned()
}

fn worker(host: &Host, function: &str) -> Process {
    host.processes_of("told", function, Role::Worker).remove(0)
}

#[test]
fn python_workers_share_an_interpreter_and_each_is_its_functions_own() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("told", &FUNCTIONS, CODE);
    let first = host.first_process("told");
    let base = first.users().unwrap()[0];
    let workers = FUNCTIONS.map(|function| worker(&host, function));
    assert_eq!(workers.iter().map(heap).collect::<BTreeSet<_>>().len(), 1, "they are forked from one process");
    for (index, worker) in (0u32..).zip(&workers) {
        let users = [1000 + 2 * index, 1001 + 2 * index].map(|user| base + user);
        let users_of = worker.users().unwrap();
        assert!(users.contains(&users_of[0]) && users_of.iter().all(|user| *user == users_of[0]), "{users_of:?}");
        // To change users and groups, and no more.
        assert_eq!(worker.status("CapEff").as_deref(), Some("00000000000000c0"));
        assert_eq!(worker.status("CapPrm").as_deref(), Some("00000000000000c0"));
        assert_eq!(worker.status("NoNewPrivs").as_deref(), Some("1"));
        assert_eq!(worker.parent(), Some(first.pid));
    }
    until("the template, which has nothing left to do, is gone", || {
        let of_template = |process: &Process| process.users().is_some_and(|users| users[0] == base + TEMPLATE);
        (!process::all().iter().any(of_template)).then_some(())
    });
    let mut drawn = BTreeSet::new();
    for function in FUNCTIONS {
        for _ in 0..2 {
            let told: serde_json::Value =
                serde_json::from_str(&host.call(&format!("told/{function}"), b"").done()).unwrap();
            assert_eq!((&told["function"], &told["variable"]), (&function.into(), &function.into()));
            let others = told["others"].as_object().unwrap();
            assert!(others.values().all(|outcome| outcome == "refused"), "{function}: {others:?}");
            assert!(told["user"].as_u64().unwrap() >= 2000, "{told}");
            assert!(drawn.insert(told["now"].to_string()), "two calls draw the same: {told}");
        }
        let told: serde_json::Value =
            serde_json::from_str(&host.call(&format!("told/{function}"), b"").done()).unwrap();
        for number in told["drawn"].as_array().unwrap() {
            assert!(drawn.insert(number.to_string()), "two workers draw the same: {told}");
        }
    }
}

#[test]
fn a_worker_that_comes_back_has_another_layout_and_the_others_are_as_they_were() {
    let Some(host) = Host::start() else { return };
    host.deploy_python("told", &FUNCTIONS, CODE);
    let before = FUNCTIONS.map(|function| worker(&host, function));
    let layout = heap(&before[0]);
    for _ in 0..2 {
        let old = worker(&host, "second");
        old.signal(Signal::SIGKILL);
        let new = until("the worker is there again", || {
            let new = worker(&host, "second");
            (new != old).then_some(new)
        });
        host.call("told/second", b"").done();
        assert_ne!(heap(&new), layout, "no function is forked twice from one template");
    }
    assert!(before[0].exists() && before[2].exists());
    for function in FUNCTIONS {
        host.call(&format!("told/{function}"), b"").done();
    }
}

#[test]
fn a_function_that_cannot_be_loaded_is_told_by_its_name() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("half");
    let manifest = crate::support::bundle::python_manifest("half", &["good", "bad"]);
    let code = "def good(event, context):\n    return event\n";
    crate::support::bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", code)]);
    let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("function bad: cannot load functions.py: ImportError"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("function good"), "{}", refused.stderr);
}

#[test]
fn a_large_heap_lies_on_huge_pages_and_a_small_one_does_not() {
    let kernel = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if kernel.is_empty() || kernel.contains("[never]") {
        return skipped("the kernel gives no huge pages");
    }
    let Some(host) = Host::start() else { return };
    let code =
        "HEAP = [str(number) * 20 for number in range(SIZE)]\n\ndef heap(event, context):\n    return HEAP[-1]\n";
    let huge_kib = |name: &str, size: &str| {
        host.deploy_python(name, &["heap"], &code.replace("SIZE", size));
        host.call(name, b"").done();
        let worker = host.processes_of(name, "heap", Role::Worker).remove(0);
        let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", worker.pid)).unwrap();
        let line = memory.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    assert_eq!(huge_kib("small", "1000"), 0);
    let huge = huge_kib("large", "250_000");
    assert!(huge >= 8 << 10, "{huge} KiB of 40 MiB");
}
