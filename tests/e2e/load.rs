//! Many clients at once: every call is answered, and nothing of them stays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::coap::Client;
use crate::support::host::Host;
use crate::support::process::{self, Role};
use crate::support::{bundle, remains, until_within};

const CLIENTS: usize = 50;
const CALLS_PER_CLIENT: usize = 200;
/// Before anything is counted: what is allocated once has been.
const WARM_UP_PER_CLIENT: usize = 20;
/// Exchanges are remembered for minutes, as the protocol asks, and each takes some hundred bytes; and allocators keep some of
/// what they got. The limit is some hundred bytes a call.
const MEMORY_KIB_MAX: u64 = 12 << 10;
/// How long the host may take to be as before.
const REST_MAX: Duration = Duration::from_secs(15);

/// Functions of the application that is called.
const FUNCTIONS: usize = 5;
/// Instances that stand ready for one function at most: as many as are made for a burst, which others may have served.
const READY_MAX: usize = 8;

/// What a host takes of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// But for instances.
    processes: usize,
    instances: usize,
    descriptors: usize,
    groups: usize,
}

fn taken(host: &Host) -> Taken {
    let agent = host.agent();
    let sandbox = process::of_sandbox(host.first_process("chain").pid);
    let instances = sandbox.iter().filter(|(_, role)| *role == Role::Instance).count();
    Taken {
        processes: process::descendants(agent.pid).len().saturating_sub(instances),
        instances,
        descriptors: agent.descriptors(),
        groups: remains::cgroups(&host.name()).len(),
    }
}

/// What it takes when that has been the same for a while, as it is when nothing of earlier calls is being cleared away any more.
fn taken_at_rest(host: &Host) -> Taken {
    const SAME: Duration = Duration::from_millis(300);
    let (mut last, mut since) = (taken(host), Instant::now());
    until_within(REST_MAX, "the host comes to rest", || {
        let now = taken(host);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= SAME).then_some(now)
    })
}

/// Makes calls from all clients at once, and counts the codes of the answers; lost calls are counted as such.
fn load(host: &Host, path: &str, calls_per_client: usize) -> BTreeMap<String, usize> {
    let mut codes = BTreeMap::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::new(host.coap);
                    let answers = (0..calls_per_client).map(|_| client.post(path, b"x"));
                    answers.map(|answer| answer.map_or("lost".to_owned(), |it| checked_code(&it))).collect::<Vec<_>>()
                })
            })
            .collect();
        for code in clients.into_iter().flat_map(|client| client.join().unwrap()) {
            *codes.entry(code).or_insert(0) += 1;
        }
    });
    codes
}

fn checked_code(answer: &crate::support::coap::Message) -> String {
    if answer.code() == "2.04" {
        assert!(["x>first>second>third", "slept"].contains(&answer.text().as_str()), "{answer:?}");
    }
    if answer.code() == "5.03" {
        assert!(answer.max_age().is_some_and(|seconds| seconds > 0), "it says when to try again: {answer:?}");
    }
    answer.code()
}

#[test]
fn ten_thousand_calls_of_fifty_clients_are_all_answered_and_leave_nothing() {
    let Some(host) = Host::start_alone() else { return };
    host.deploy_example("chain");
    load(&host, "chain", WARM_UP_PER_CLIENT);
    let before = taken_at_rest(&host);
    let memory_before = host.agent().resident_kib();
    let start = Instant::now();
    let codes = load(&host, "chain", CALLS_PER_CLIENT);
    let took = start.elapsed();
    let answered = codes.get("2.04").copied().unwrap_or(0);
    let refused = codes.get("5.03").copied().unwrap_or(0);
    println!("{codes:?} in {took:.1?}: {:.0} calls/s", answered as f64 / took.as_secs_f64());
    assert_eq!(answered + refused, CLIENTS * CALLS_PER_CLIENT, "{codes:?}");
    assert!(answered > CLIENTS * CALLS_PER_CLIENT / 2, "{codes:?}");
    until_within(REST_MAX, &format!("the host is as before: {before:?}"), || {
        let now = taken(&host);
        let same = now.processes <= before.processes
            && now.instances <= FUNCTIONS * READY_MAX
            && now.descriptors <= before.descriptors
            && now.groups <= before.groups;
        same.then_some(())
    });
    let grown = host.agent().resident_kib().saturating_sub(memory_before);
    println!("{before:?}; memory {memory_before} KiB, grown by {grown} KiB");
    assert!(grown < MEMORY_KIB_MAX, "the agent has grown by {grown} KiB");
}

#[test]
fn more_calls_than_an_application_takes_are_refused_and_none_is_lost() {
    let Some(host) = Host::start_alone() else { return };
    let folder = host.folder().join("narrow");
    let manifest = bundle::python_manifest("narrow", &["slow"]) + "\n[limits]\nqueue = 4\ncalls = 12\nprocesses = 8\n";
    let code = "import time\ndef slow(event, context):\n    time.sleep(0.05)\n    return 'slept'\n";
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", code)]);
    host.deploy(&folder);
    let codes = load(&host, "narrow", 4);
    println!("{codes:?}");
    let counts = ["2.04", "5.03"].map(|code| codes.get(code).copied().unwrap_or(0));
    assert!(counts.iter().all(|count| *count > 0), "{codes:?}");
    assert_eq!(counts.iter().sum::<usize>(), CLIENTS * 4, "{codes:?}");
    assert_eq!(host.call("narrow", b"").done(), "slept", "it takes calls again");
}

/// As many small messages as its queue holds may wait for a function, if its manifest says that so many calls may be under way.
#[test]
fn a_burst_is_served_whole_up_to_the_queue() {
    let Some(host) = Host::start_with(&["--delay-max", "never"]) else { return };
    let folder = host.folder().join("wide");
    let manifest = bundle::python_manifest("wide", &["echo"]) + "\n[limits]\nqueue = 1024\ncalls = 1024\n";
    bundle::write(
        &folder,
        &[("sandbar.toml", &manifest), ("functions.py", "def echo(event, context):\n    return event\n")],
    );
    host.deploy(&folder);
    let burst = host.sandbar(&["bench", "wide", "--burst", "900", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&burst.stdout).unwrap();
    assert_eq!((&told["done"], &told["refused"]), (&900.into(), &0.into()), "{told}");
}
