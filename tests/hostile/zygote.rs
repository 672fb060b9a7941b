//! Probes that go for the worker that calls are forked from; and code that is hostile when the worker loads it.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::battery::{Group, call_within, deploy, event, is_wanted, over, program_text, run_group, write_application};
use crate::neighbours::{self, OTHER};
use crate::probe::{Harm, Probe, python};
use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::{until, until_within};
use crate::surroundings::Surroundings;

const PROBES: &[Probe] = &[python("mutate-the-interpreter").times(4), python("leave-modules")];

const GROUP: Group = Group { name: "zygote", probes: PROBES };

#[test]
fn a_call_does_not_change_the_worker_for_the_next() {
    run_group(&GROUP);
}

#[test]
fn no_two_calls_draw_the_same_random_numbers_nor_does_a_new_worker_load_what_a_call_left() {
    let Some(host) = Host::start_alone() else { return };
    deploy(&host, &GROUP);
    let call = |name: &'static str| {
        let payload = event(&host, &python(name));
        call_within(&host, GROUP.name, "python", payload.as_bytes(), Duration::from_secs(5)).done()
    };
    let draws: Vec<BTreeMap<String, String>> =
        (0..6).map(|_| serde_json::from_str(&call("random-state")).unwrap()).collect();
    let mut same = Vec::new();
    for source in draws[0].keys() {
        let drawn: std::collections::BTreeSet<&String> = draws.iter().map(|draw| &draw[source]).collect();
        if drawn.len() != draws.len() {
            same.push(format!("{source}: {drawn:?}"));
        }
    }
    assert!(call("leave-modules").starts_with("held: "));
    let worker = worker_of(&host, GROUP.name);
    worker.signal(Signal::SIGKILL);
    until("a new worker is there", || (worker_of(&host, GROUP.name) != worker).then_some(()));
    let loaded = call("mutate-the-interpreter");
    over(2, usize::from(!same.is_empty()) + usize::from(!loaded.starts_with("held: ")));
    assert!(loaded.starts_with("held: "), "the new worker: {loaded}");
    assert!(same.is_empty(), "the same in more than one call: {same:#?}");
}

/// The processes of a sandbox's Python function, but for its instances: the worker, which is the first, and what it started.
fn of_worker(host: &Host, application: &str) -> Vec<Process> {
    let supervisor = host.first_process(application);
    let (namespace, base) = (supervisor.namespace("pid"), supervisor.users().unwrap()[0]);
    let is_of_worker = |process: &Process| {
        let user = process.users().map(|users| users[0].wrapping_sub(base));
        process.namespace("pid") == namespace
            && process.variable("SANDBAR_FUNCTION").as_deref() == Some("python")
            && user.is_some_and(|user| !(2000..2400).contains(&user))
    };
    let mut found: Vec<Process> = process::all().into_iter().filter(is_of_worker).collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn worker_of(host: &Host, application: &str) -> Process {
    until(&format!("{application} has a worker"), || of_worker(host, application).into_iter().next())
}

/// How the deployment of code that is hostile when it is loaded must end.
enum Loaded {
    /// Refused, for a reason that has this in it.
    Refused(&'static str),
    /// Deployed: it takes calls, and all that the worker started ends with it.
    Deployed { started: usize },
    /// Deployed, but its calls find nobody.
    Deaf,
}

use Loaded::{Deaf, Deployed, Refused};

const IMPORTS: [(&str, Loaded); 17] = [
    ("exits", Refused("exited with status 3")),
    ("kills-itself", Refused("killed by signal 9")),
    ("dies-by-an-odd-signal", Refused("killed by signal 40")),
    ("raises", Refused("RuntimeError")),
    // That it forked enough, or that all those together exceeded the memory.
    ("forks", Refused("function python: ")),
    ("takes-memory", Refused("memory")),
    ("prints", Refused("printed enough")),
    ("has-threads", Refused("threads")),
    ("closes-descriptors", Refused("")),
    ("has-nobody-to-tell", Refused("exited with status 1")),
    ("fills-its-report", Refused("xxx")),
    ("becomes-another", Refused("exited with status 0")),
    ("takes-users", Refused("held: no other user")),
    ("kills-the-others", Deployed { started: 0 }),
    ("leaves-processes", Deployed { started: 3 }),
    ("leaves-processes-of-others", Deployed { started: 0 }),
    ("says-that-it-is-ready", Deaf),
];

/// Deploys an application that does this when its code is loaded, and says what gave way.
fn deploy_hostile(host: &Host, kind: &str, loaded: &Loaded) -> Vec<String> {
    let folder = host.folder().join(kind);
    let (code, probing) = (program_text("imports.py"), program_text("probing.py"));
    let files = [("imports.py", code.as_str()), ("probing.py", probing.as_str()), ("kind", kind)];
    write_application(&folder, "import", &[("python", "runtime = \"python3\"\ncode = \"imports.py\"")], &files);
    let deployed = host.sandbar(&["deploy", folder.to_str().unwrap()]);
    let mut wrong = Vec::new();
    if deployed.stderr.chars().any(|c| c.is_control() && c != '\n') {
        wrong.push(format!("the reason steers a terminal: {:?}", deployed.stderr));
    }
    match (loaded, deployed.code) {
        (Refused(reason), Some(code)) if code != 0 => {
            if !deployed.stderr.contains(reason) {
                wrong.push(format!("refused, but {}", deployed.stderr));
            }
            return wrong;
        }
        (Deployed { .. } | Deaf, Some(0)) => {}
        (_, code) => return vec![format!("the deployment ended with {code:?}: {}", deployed.stderr)],
    }
    match loaded {
        Deployed { started } => wrong.extend(ends_with_its_worker(host, *started)),
        Deaf => {
            let called = call_within(host, "import", "python", b"anybody?", Duration::from_millis(500));
            if called.outcome != "deadline-passed" {
                wrong.push(format!("told {}: {}", called.outcome, called.diagnostic));
            }
        }
        Refused(_) => {}
    }
    wrong.extend(neighbours::recovered(host, "import"));
    host.sandbar(&["remove", "import"]).well();
    wrong
}

/// The function works; its worker is killed; nothing that the worker had started may be there when another has taken its place.
fn ends_with_its_worker(host: &Host, started: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let works = |when: &str| {
        let called = call_within(host, "import", "python", b"event", Duration::from_secs(5));
        (called.text() != "event").then(|| format!("{when}: told {}: {}", called.outcome, called.diagnostic))
    };
    wrong.extend(works("at first"));
    let before = of_worker(host, "import");
    if before.len() != 1 + started {
        wrong.push(format!("the worker has started {:?}", &before[1..]));
    }
    before[0].signal(Signal::SIGKILL);
    let gone = std::panic::catch_unwind(|| {
        until_within(Duration::from_secs(3), "it is gone", || before.iter().all(|it| !it.exists()).then_some(()))
    });
    if gone.is_err() {
        let left: Vec<_> = before.iter().filter(|process| process.exists()).map(|it| (it, it.users())).collect();
        wrong.push(format!("outlive their worker: {left:?}"));
    }
    wrong.extend(works("with a new worker"));
    wrong
}

#[test]
fn code_that_is_hostile_when_it_is_loaded_harms_no_other_and_leaves_nothing() {
    let Some(host) = Host::start_alone() else { return };
    let other = host.folder().join("other");
    write_application(&other, OTHER, &[], &[]);
    host.deploy(&other);
    let mut before = Surroundings::look(&host, OTHER);
    let mut gave_way = Vec::new();
    for (kind, loaded) in IMPORTS.iter().filter(|(kind, _)| is_wanted(kind)) {
        let begin = std::time::Instant::now();
        let (mut wrong, of_other) = neighbours::beside_other(&host, || deploy_hostile(&host, kind, loaded));
        wrong.extend(of_other.into_iter().take(4));
        wrong.extend(before.differences(Harm::None));
        println!("import/{kind}: {:?}", begin.elapsed());
        if !wrong.is_empty() {
            gave_way.push(format!("{kind}:\n    {}", wrong.join("\n    ")));
            let _left = host.sandbar(&["remove", "import"]);
        }
    }
    over(IMPORTS.len(), gave_way.len());
    assert!(gave_way.is_empty(), "{} of {} did not hold:\n{}", gave_way.len(), IMPORTS.len(), gave_way.join("\n"));
}
