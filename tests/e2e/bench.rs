//! `sandbar bench`: what it counts is what happened.

use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::host::Host;

fn report(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn calls_over_each_way_are_made_and_counted() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let coap = format!("coap://{}/chain", host.coap);
    let http = format!("http://{}/chain/first", host.http);
    for (target, load, value, expected) in
        [(coap.as_str(), "--rate", "200", 40), (http.as_str(), "--in-flight", "2", 40), ("chain", "--burst", "10", 10)]
    {
        let given = ["bench", target, load, value, "--calls", "40", "--for", "20s", "--json", "--strict"];
        let finished = host.sandbar(&given);
        assert_eq!(finished.code, Some(0), "{target}: {}", finished.stderr);
        let report = report(&finished.stdout);
        assert_eq!((report["calls"].as_u64(), report["done"].as_u64()), (Some(expected), Some(expected)), "{report}");
        let [p50, p99] = ["p50", "p99"].map(|part| report["latency_us"][part].as_f64().unwrap());
        assert!(p50 > 0.0 && p50 <= p99, "{report}");
    }
}

#[test]
fn what_does_not_end_well_is_counted_by_its_kind() {
    let Some(host) = Host::start() else { return };
    let missing = host.sandbar(&["bench", &format!("http://{}/nothing", host.http), "--calls", "3", "--json"]);
    assert_eq!(report(&missing.stdout)["errors"]["status 404"], 3);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("0 of 3 calls were done; most of the others: status 404"), "{}", missing.stderr);
    // Who says nothing has lost the call.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("coap://{}/a", silent.local_addr().unwrap());
    let lost = host.sandbar(&["bench", &silent, "--calls", "2", "--timeout", "200ms", "--json"]);
    assert_eq!((report(&lost.stdout)["lost"].as_u64(), lost.code), (Some(2), Some(1)));
    // Nobody is there at all.
    let nobody = host.sandbar(&["bench", "http://127.0.0.1:1/", "--calls", "2"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("connection refused"), "{}", nobody.stderr);
    let nonsense = host.sandbar(&["bench", "coap://127.0.0.1/a", "--data", &"x".repeat(1025), "--calls", "1"]);
    assert!(nonsense.stderr.contains("1024"), "{}", nonsense.stderr);
}

#[test]
fn what_the_host_refuses_is_counted_and_timed_by_itself() {
    let Some(host) = Host::start_with(&["--calls-max", "1", "--calls-assured", "1"]) else { return };
    host.deploy_python(
        "slow",
        &["slow"],
        "import time\ndef slow(payload, context):\n    time.sleep(0.5)\n    return payload\n",
    );
    for target in [format!("coap://{}/slow", host.coap), format!("http://{}/slow", host.http), "slow".to_owned()] {
        let finished = host.sandbar(&["bench", &target, "--burst", "12", "--json"]);
        let report = report(&finished.stdout);
        let [calls, done, refused] = ["calls", "done", "refused"].map(|name| report[name].as_u64().unwrap());
        assert!(calls == 12 && done > 0 && refused > 0 && done + refused == 12, "{target}: {report}");
        assert!(report["refused_us"]["p50"].is_number() && finished.code == Some(0), "{report}");
    }
    let strict = host.sandbar(&["bench", "slow", "--burst", "12", "--strict"]);
    assert_eq!(strict.code, Some(1), "{}", strict.text());
}

#[test]
fn a_call_that_is_due_beyond_what_may_be_outstanding_is_counted() {
    let Some(host) = Host::start() else { return };
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("coap://{}/a", silent.local_addr().unwrap());
    let given = ["bench", &silent, "--rate", "1000", "--calls", "5", "--outstanding", "2", "--timeout", "2s", "--json"];
    let report = report(&host.sandbar(&given).stdout);
    assert_eq!((report["calls"].as_u64(), report["lost"].as_u64()), (Some(5), Some(2)), "{report}");
    assert_eq!(report["errors"]["not sent: too many outstanding"], 3, "{report}");
    assert!(report["duration_s"].as_f64().unwrap() < 2.0, "the wait for what is lost is not in it: {report}");
}

#[test]
fn an_interrupted_run_tells_what_it_has_measured() {
    let Some(host) = Host::start() else { return };
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let target = format!("coap://{}/a", server.local_addr().unwrap());
    let mut command = host.command(&["bench", &target, "--in-flight", "3", "--for", "60s", "--non", "--json"]);
    let bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It is at work once its calls are here. One is answered, and followed by another.
    let mut buffer = [0; 2048];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&[&[0x54, 0x44], &buffer[2..8]].concat(), from).unwrap();
    for _ in 0..3 {
        server.recv_from(&mut buffer).unwrap();
    }
    kill(Pid::from_raw(bench.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = bench.wait_with_output().unwrap();
    let report = report(&output.stdout);
    assert_eq!((report["calls"].as_u64(), report["done"].as_u64()), (Some(4), Some(1)), "{report}");
    assert_eq!(report["errors"]["not waited for: interrupted"], 3, "{report}");
    assert_eq!(output.status.code(), Some(0));
}
