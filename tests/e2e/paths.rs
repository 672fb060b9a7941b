//! A call's path is told, and each call has processes of its own.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::host::Host;

const CALLS: usize = 1_000;
const CALLERS: usize = 4;

#[test]
fn invoke_prints_each_hop_with_its_process_and_its_times() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let invoked = host.sandbar(&["invoke", "chain", "x", "--trace"]).well();
    assert_eq!(invoked.text(), "x>first>second>third");
    let table = invoked.stderr;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["FUNCTION", "PID", "AT", "µs", "WAITED", "µs", "RAN", "µs"], "{table}");
    let mut times = Vec::new();
    for (line, function) in lines[1..4].iter().zip(["first", "second", "third"]) {
        assert_eq!(line[0], function, "{table}");
        assert!(line[1].parse::<u32>().unwrap() > 1, "{table}");
        let micros: Vec<f64> = line[2..].iter().map(|micros| micros.parse().unwrap()).collect();
        assert!(micros.len() == 3 && micros.iter().all(|micros| (0.0..2e6).contains(micros)), "{table}");
        times.push(micros[0]);
    }
    assert!(times.is_sorted(), "{table}");
    assert_eq!(lines[4][0], "total", "{table}");
}

#[test]
fn a_thousand_calls_are_a_thousand_processes_of_each_function() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < CALLS {
                    let called = host.call("chain", b"x");
                    assert_eq!(called.outcome, "done", "{}", called.diagnostic);
                    let functions: Vec<&str> = called.hops.iter().map(|hop| hop.function.as_str()).collect();
                    assert_eq!(functions, ["first", "second", "third"]);
                    for hop in called.hops {
                        assert!(hop.sent_ns <= hop.taken_ns && hop.taken_ns <= hop.done_ns, "{hop:?}");
                        assert!(seen.lock().unwrap().insert(hop.pid), "{hop:?} has served another call");
                    }
                }
            });
        }
    });
    assert_eq!(seen.into_inner().unwrap().len(), 3 * CALLS);
}

#[test]
fn calls_of_one_function_by_another_are_hops_of_the_same_call() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let called = host.call("chain/caller", b"x");
    let mut functions: Vec<&str> = called.hops.iter().map(|hop| hop.function.as_str()).collect();
    functions.sort_unstable();
    assert_eq!(functions, ["caller", "first", "second", "third"]);
    assert_eq!(called.done(), "x>first>second>third");
    assert_eq!(host.call("chain/sender", b"y").done(), "sent");
    host.logged("chain/third", "done, 20 bytes that nobody waits for");
}
