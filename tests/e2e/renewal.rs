//! Workers are renewed, and no call notices.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::host::Host;
use crate::support::process::Role;
use crate::support::{bundle, until};

/// A function that says where its code lies in memory, and how texts hash.
const LAYOUT: &str = r#"
import ctypes

def layout(event, context):
    return f"{ctypes.addressof(ctypes.c_char.from_buffer(bytearray(1)))} {hash('text')}"
"#;

#[test]
fn calls_share_one_address_layout_no_longer_than_their_worker_lives() {
    let Some(host) = Host::start_with(&["--renew-calls", "20"]) else { return };
    host.deploy_python("layout", &["layout"], LAYOUT);
    let mut seeds = HashSet::new();
    let mut workers = HashSet::new();
    until("the worker was renewed three times", || {
        workers.insert(host.processes_of("layout", "layout", Role::Worker)[0].pid);
        for _ in 0..10 {
            let said = host.call("layout", b"").done();
            seeds.insert(said.split(' ').next_back().unwrap().to_owned());
        }
        (workers.len() > 3 && seeds.len() > 3).then_some(())
    });
}

#[test]
fn no_call_is_lost_or_waits_while_workers_are_renewed() {
    let Some(host) = Host::start_with(&["--renew-calls", "50"]) else { return };
    host.deploy_example("chain");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for call in 0..250 {
                    let called = host.call("chain", b"x");
                    assert!(called.took < Duration::from_secs(2), "call {call} took {:?}", called.took);
                    called.done();
                }
            });
        }
    });
}

#[test]
fn a_worker_whose_successor_cannot_load_serves_on() {
    let Some(host) = Host::start_with(&["--renew-calls", "5"]) else { return };
    // The first worker leaves a mark that keeps those after it from loading.
    let code = "import os\nif os.path.exists('/tmp/mark'):\n    raise RuntimeError('not again')\nopen('/tmp/mark', 'w').close()\n\n\
                def once(event, context):\n    return event\n";
    let folder = host.folder().join("once");
    bundle::write(&folder, &[("sandbar.toml", &bundle::python_manifest("once", &["once"])), ("functions.py", code)]);
    host.deploy(&folder);
    for _ in 0..30 {
        assert_eq!(host.call("once", b"x").done(), "x");
    }
    host.logged(
        "once",
        "the worker could not be renewed and serves on: cannot load functions.py: RuntimeError: not again",
    );
    assert_eq!(host.call("once", b"x").done(), "x");
}
