//! The host agent's own life.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::{PATIENCE, program, until};

#[test]
fn the_socket_is_its_owners_alone() {
    let Some(host) = Host::start() else { return };
    let socket = host.socket().metadata().unwrap();
    assert_eq!((socket.mode() & 0o7777, socket.uid()), (0o600, 0));
    assert_eq!(host.state().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    // Another user is refused even where the file would let it pass.
    let Some(setpriv) = program::find(&["setpriv"]) else { return };
    let mut other = Command::new(setpriv);
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_sandbar"));
    other.arg("list").arg("--socket").arg(host.socket());
    let refused = program::run(&mut other, PATIENCE);
    assert_ne!(refused.code, Some(0), "{}", refused.text());
}

#[test]
fn each_signal_to_stop_stops_everything_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let Some(mut host) = Host::start() else { return };
        host.deploy_example("chain");
        host.call("chain", b"x").done();
        let descendants = process::descendants(host.agent().pid);
        assert_eq!(host.end(signal), Some(0), "{signal}: {}", host.agent_log());
        host.assert_nothing_is_left(&descendants);
        let stranded = host.sandbar(&["list"]);
        assert_eq!(stranded.code, Some(10), "{}", stranded.stderr);
        assert!(stranded.stderr.contains(host.socket().to_str().unwrap()), "{}", stranded.stderr);
        // What was deployed is there again at the next start.
        host.serve();
        assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
    }
}

#[test]
fn a_call_under_way_is_answered_before_the_agent_stops() {
    let Some(mut host) = Host::start() else { return };
    let code = "import time\ndef slow(event, context):\n    context.log('has begun')\n    time.sleep(1)\n    return 'done in time'\n";
    host.deploy_python("porch", &["slow"], code);
    let caller = host.command(&["invoke", "porch", ""]).stdout(Stdio::piped()).spawn().unwrap();
    host.logged("porch", "has begun");
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    let output = caller.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done in time");
    host.serve();
}

#[test]
fn a_second_agent_is_refused_and_the_first_serves_on() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let same_socket = program::run(&mut host.serve_command(), PATIENCE);
    assert_eq!(same_socket.code, Some(1), "{}", same_socket.stderr);
    assert!(same_socket.stderr.contains("another sandbar serves on"), "{}", same_socket.stderr);
    let mut same_state = Command::new(env!("CARGO_BIN_EXE_sandbar"));
    same_state.args(["serve", "--coap", "127.0.0.1:0", "--state"]).arg(host.state());
    same_state.arg("--socket").arg(host.folder().join("another"));
    let same_state = program::run(&mut same_state, PATIENCE);
    assert_eq!(same_state.code, Some(1), "{}", same_state.stderr);
    assert!(same_state.stderr.contains("another sandbar uses the state in"), "{}", same_state.stderr);
    assert_eq!(same_state.text(), "", "it never was ready");
    assert!(!host.folder().join("another").exists());
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
}

#[test]
fn a_port_that_is_taken_is_told_and_nothing_is_left() {
    let Some(host) = Host::start() else { return };
    let mut other = Command::new(env!("CARGO_BIN_EXE_sandbar"));
    let state = host.folder().join("other-state");
    other.args(["serve", "--coap", &host.coap.to_string(), "--state"]).arg(&state);
    other.arg("--socket").arg(host.folder().join("another"));
    let refused = program::run(&mut other, PATIENCE);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let said = format!("cannot open the CoAP door at {}", host.coap);
    assert!(refused.stderr.contains(&said), "{}", refused.stderr);
    assert!(!host.folder().join("another").exists());
}

#[test]
fn the_service_manager_is_told_when_the_doors_are_open_and_when_they_close() {
    let Some(mut host) = Host::start() else { return };
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    let path = host.folder().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut agent =
        host.serve_command().env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(heard(), "READY=1");
    host.sandbar(&["list"]).well();
    Process::new(agent.id()).unwrap().signal(Signal::SIGTERM);
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(program::wait(&mut agent, PATIENCE), Some(Some(0)));
}

#[test]
fn calls_beyond_what_the_host_takes_are_refused_as_overloaded() {
    let Some(host) = Host::start_with(&["--calls-max", "2", "--calls-assured", "0"]) else { return };
    let code = "import time\ndef slow(event, context):\n    context.log('has begun')\n    time.sleep(1.5)\n    return 'slept'\n";
    host.deploy_python("porch", &["slow"], code);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| host.call("porch", b""))).collect();
        until("both have begun", || {
            let log = host.sandbar(&["logs", "porch"]).well().text();
            (log.matches("has begun").count() == 2).then_some(())
        });
        let over_http = host.http("POST", "/porch", None, b"");
        assert_eq!(over_http.status, 503, "{}", over_http.text());
        assert!(over_http.header("retry-after").is_some());
        let over_coap = crate::support::coap::Client::new(host.coap).post("porch", b"x").unwrap();
        assert_eq!(over_coap.code(), "5.03", "{}", over_coap.text());
        assert!(over_coap.max_age().is_some_and(|seconds| seconds > 0));
        assert_eq!(host.sandbar(&["invoke", "porch", ""]).code, Some(8));
        for call in calls {
            assert_eq!(call.join().unwrap().done(), "slept");
        }
    });
    assert_eq!(host.call("porch", b"").done(), "slept");
}

#[test]
fn a_flood_of_one_application_closes_no_door_to_another() {
    let Some(host) = Host::start_with(&["--calls-max", "2", "--calls-assured", "1"]) else { return };
    let code = "import time\ndef slow(event, context):\n    context.log('has begun')\n    time.sleep(2.5)\n    return 'slept'\n";
    host.deploy_python("porch", &["slow"], code);
    host.deploy_python("den", &["echo"], "def echo(event, context):\n    return event\n");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| host.http("POST", "/porch", None, b""))).collect();
        until("all three have begun", || {
            let log = host.sandbar(&["logs", "porch"]).well().text();
            (log.matches("has begun").count() == 3).then_some(())
        });
        assert_eq!(host.http("POST", "/porch", None, b"").status, 503, "the flood has all that it may have");
        for _ in 0..3 {
            let over_http = host.http("POST", "/den", None, b"still here");
            assert_eq!((over_http.status, over_http.text().as_str()), (200, "still here"));
            assert_eq!(host.call("den", b"still here").done(), "still here");
            assert_eq!(host.sandbar(&["invoke", "den", "still here"]).well().text(), "still here");
        }
        for call in calls {
            assert_eq!(call.join().unwrap().status, 200);
        }
    });
}

#[test]
fn a_reload_without_a_key_file_changes_nothing() {
    let Some(host) = Host::start() else { return };
    host.agent().signal(Signal::SIGHUP);
    until("the agent has seen the signal", || {
        host.agent_log().contains("there is no key file to read again").then_some(())
    });
    assert_eq!(host.manage("GET", "/v1/host", b"").status, 200);
}
