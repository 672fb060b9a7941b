//! An application's life: made, deployed, deployed again, looked at, removed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::host::Host;
use crate::support::{PATIENCE, bundle, process, program, remains, skipped, until};

/// Writes an application that answers with its version.
fn write_version(folder: &Path, version: u32) {
    let code = format!("def version(event, context):\n    return '{version}'\n");
    bundle::write(
        folder,
        &[("sandbar.toml", &bundle::python_manifest("porch", &["version"])), ("functions.py", &code)],
    );
}

#[test]
fn redeploying_under_load_loses_no_call() {
    let Some(host) = Host::start_alone() else { return };
    let folder = host.folder().join("porch");
    write_version(&folder, 0);
    host.deploy(&folder);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (host, over) = (&host, &over);
        let callers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    let mut calls = 0;
                    let mut latest = 0;
                    while !over.load(Ordering::Relaxed) {
                        let version: u32 = host.call("porch", b"").done().parse().unwrap();
                        assert!(version >= latest, "version {version} answers after {latest}");
                        (calls, latest) = (calls + 1, version);
                    }
                    calls
                })
            })
            .collect();
        for version in 1..=5 {
            write_version(&folder, version);
            host.deploy(&folder);
            assert_eq!(
                host.call("porch", b"").done(),
                version.to_string(),
                "deploy returns when the new version answers"
            );
        }
        over.store(true, Ordering::Relaxed);
        let calls: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        println!("{calls} calls over five deployments");
        assert!(calls > 20);
    });
    let first = host.first_process("porch").pid;
    until("only the last version's sandbox is left", || {
        let sandboxes = process::children(host.agent().pid);
        (sandboxes.len() == 1 && sandboxes[0].pid == first).then_some(())
    });
}

#[test]
fn a_call_under_way_ends_in_the_version_it_began_in() {
    let Some(host) = Host::start() else { return };
    let slow =
        "import time\ndef slow(event, context):\n    context.log('has begun')\n    time.sleep(1.5)\n    return 'old'\n";
    host.deploy_python("porch", &["slow"], slow);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| host.call("porch", b""));
        host.logged("porch", "has begun");
        host.deploy_python("porch", &["slow"], "def slow(event, context):\n    return 'new'\n");
        assert_eq!(host.call("porch", b"").done(), "new");
        assert_eq!(call.join().unwrap().done(), "old");
    });
}

#[test]
fn a_version_that_does_not_start_leaves_the_old_one_serving() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("porch");
    write_version(&folder, 1);
    host.deploy(&folder);
    let (groups, first) = (remains::cgroups(&host.name()).len(), host.first_process("porch"));
    bundle::write(&folder, &[("functions.py", "import nothing_of_this_name\n")]);
    let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("function version") && refused.stderr.contains("nothing_of_this_name"),
        "{}",
        refused.stderr
    );
    assert_eq!(host.call("porch", b"").done(), "1");
    assert_eq!(host.first_process("porch"), first);
    assert_eq!(remains::cgroups(&host.name()).len(), groups);
}

#[test]
fn removing_an_application_leaves_nothing_of_it() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    host.deploy_python(
        "porch",
        &["version"],
        "def version(event, context):\n    context.log('called')\n    return '1'\n",
    );
    let sandbox = process::of_sandbox(host.first_process("porch").pid);
    host.call("porch", b"").done();
    host.logged("porch", "called");
    let groups = remains::cgroups(&host.name());
    host.sandbar(&["remove", "porch"]).well();
    assert_eq!(host.call("porch", b"").outcome, "not-found");
    assert_eq!(host.sandbar(&["logs", "porch"]).code, Some(3));
    assert_eq!(host.sandbar(&["remove", "porch"]).code, Some(3));
    assert!(!sandbox.iter().any(|(process, _)| process.exists()));
    let left = remains::cgroups(&host.name());
    assert!(
        left.len() < groups.len() && !left.iter().any(|group| group.to_string_lossy().contains("porch")),
        "{left:?}"
    );
    let files = program::run(Command::new("find").arg(host.state()).args(["-name", "*porch*"]), PATIENCE).well();
    assert_eq!(files.text(), "", "files are left behind");
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
}

#[test]
fn deploying_and_removing_again_and_again_leaves_nothing() {
    let Some(host) = Host::start() else { return };
    let round = || {
        host.deploy_example("chain");
        assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
        host.sandbar(&["remove", "chain"]).well();
    };
    round();
    let descriptors = host.agent().descriptors();
    for _ in 0..12 {
        round();
    }
    until("the agent holds no more descriptors than before", || {
        (host.agent().descriptors() <= descriptors).then_some(())
    });
    assert_eq!(process::children(host.agent().pid), []);
}

#[test]
fn applications_are_listed_with_what_they_use() {
    let Some(host) = Host::start() else { return };
    assert!(host.applications().is_empty());
    host.deploy_example("chain");
    host.call("chain", b"x").done();
    let listed: Value = host.applications().remove(0);
    assert_eq!(
        (&listed["name"], &listed["state"], &listed["entry"]),
        (&"chain".into(), &"running".into(), &"first".into())
    );
    assert_eq!(listed["functions"], serde_json::json!(["first", "second", "third", "caller", "sender"]));
    assert_eq!(listed["calls"], 1);
    assert!(listed["processes"].as_u64().unwrap() >= 6, "{listed}");
    let memory = listed["memory_bytes"].as_u64().unwrap();
    assert!((100_000..64 << 20).contains(&memory), "{listed}");
    let table = host.sandbar(&["list"]).well().text();
    assert!(table.starts_with("NAME ") && table.contains("\nchain  running  "), "{table}");
}

#[test]
fn logs_can_be_read_by_function_and_followed() {
    let Some(host) = Host::start() else { return };
    let code = "def loud(event, context):\n    print('loud', event.decode(), flush=True)\n\ndef quiet(event, context):\n    context.log('quiet ' + event.decode())\n";
    host.deploy_python("porch", &["loud", "quiet"], code);
    host.call("porch/loud", b"one").done();
    host.call("porch/quiet", b"two").done();
    host.logged("porch", "loud: loud one");
    host.logged("porch", "quiet: quiet two");
    let only = host.sandbar(&["logs", "porch/quiet"]).well().text();
    assert!(only.contains("quiet two") && !only.contains("loud one"), "{only}");
    let json = host.sandbar(&["logs", "porch/quiet", "--json"]).well().text();
    let line: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&line["function"], &line["text"]), (&"quiet".into(), &"quiet two".into()));
    let mut follower = host.command(&["logs", "porch", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let (line, lines) = mpsc::channel();
    let stdout = BufReader::new(follower.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
    let wait_for = |text: &str| while !lines.recv_timeout(PATIENCE).unwrap().contains(text) {};
    wait_for("quiet two");
    host.call("porch/loud", b"three").done();
    wait_for("loud three");
    host.sandbar(&["remove", "porch"]).well();
    assert_eq!(program::wait(&mut follower, PATIENCE), Some(Some(0)), "it ends with the application");
}

#[test]
fn an_application_from_init_can_be_deployed_and_called() {
    let Some(host) = Host::start() else { return };
    for (name, runtime) in [("snake", "python3"), ("shell", "executable")] {
        let folder = host.folder().join(name);
        let path = folder.to_str().unwrap();
        host.sandbar(&["init", path, "--runtime", runtime]).well();
        host.sandbar(&["check", path]).well();
        host.deploy(&folder);
        assert_eq!(host.sandbar(&["invoke", name, "Ada"]).well().text(), "hello, Ada\n");
        host.logged(name, "greeting Ada");
        let again = host.sandbar(&["init", path, "--runtime", runtime]);
        assert_eq!(again.code, Some(1), "nothing is overwritten");
        assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    }
}

#[test]
fn a_native_application_from_init_builds_and_can_be_called() {
    let (Some(_), Some(make)) = (program::find(&["cargo"]), program::find(&["make"])) else {
        return skipped("there is no cargo, or no make");
    };
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("crab");
    let path = folder.to_str().unwrap();
    host.sandbar(&["init", path, "--runtime", "native"]).well();
    let refused = host.sandbar(&["check", path]);
    assert!(refused.code == Some(1) && refused.stderr.contains("bin/hello"), "before it is built: {}", refused.stderr);
    let mut build = Command::new(make);
    // As a user would, who has no variables of this test's cargo.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        build.env_remove(name);
    }
    program::run(build.current_dir(&folder), Duration::from_secs(300)).well();
    host.deploy(&folder);
    assert_eq!(host.sandbar(&["invoke", "crab", "Ada"]).well().text().trim(), "hello, Ada");
}
