//! `sandbar bench`: what it counts is what happened.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
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
    for wrong in [&["coap://127.0.0.1/a%2"][..], &["http://127.0.0.1/", "--in-flight", "3", "--connections", "2"]] {
        let nonsense = host.sandbar(&[&["bench"], wrong].concat());
        assert_eq!(nonsense.code, Some(2), "{}", nonsense.stderr);
    }
}

/// A function that says whether all of the payload came, with an answer that is longer.
#[test]
fn over_coap_payloads_and_answers_of_many_blocks_are_carried_and_paths_decoded() {
    let Some(host) = Host::start() else { return };
    host.deploy_python(
        "long",
        &["twice"],
        "def twice(payload, context):\n    assert len(payload) == 5000\n    return payload * 2\n",
    );
    let file = host.folder().join("payload");
    std::fs::write(&file, [7; 5000]).unwrap();
    let target = format!("coap://{}/l%6Fng/twice?a=%20", host.coap);
    let given = ["bench", &target, "--calls", "3", "--file", file.to_str().unwrap(), "--strict", "--json"];
    let finished = host.sandbar(&given);
    assert_eq!(finished.code, Some(0), "{}{}", finished.text(), finished.stderr);
    let report = report(&finished.stdout);
    assert_eq!((report["done"].as_u64(), report["payload_bytes"].as_u64()), (Some(3), Some(5000)));
    let short = host.sandbar(&["bench", &target, "--calls", "1", "--data", "short"]);
    assert!(short.stderr.contains("code 5.00"), "{}", short.stderr);
}

#[test]
fn each_of_several_bursts_is_told_and_all_of_them() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let target = format!("coap://{}/chain", host.coap);
    let given = ["bench", &target, "--burst", "5", "--every", "300ms", "--times", "3", "--strict", "--json"];
    let report = report(&host.sandbar(&given).well().stdout);
    let bursts = report["bursts"].as_array().unwrap();
    let told: Vec<_> = bursts.iter().map(|it| (it["due_s"].as_f64().unwrap(), it["done"].as_u64().unwrap())).collect();
    assert_eq!(told, [(0.0, 5), (0.3, 5), (0.6, 5)], "{report}");
    let longest = bursts.iter().map(|burst| burst["latency_us"]["max"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!((report["done"].as_u64(), report["latency_us"]["max"].as_f64()), (Some(15), Some(longest)));
    assert!(report["duration_s"].as_f64().unwrap() >= 0.6, "{report}");
    let text = host.sandbar(&given[..given.len() - 1]).well().text();
    assert_eq!(text.lines().filter(|line| line.contains(" 5     5 ")).count(), 3, "{text}");
}

/// A server that counts whom it answers, each connection by itself.
#[test]
fn a_load_is_spread_over_so_many_connections_and_peers() {
    let Some(host) = Host::start() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let connections: Vec<_> = (0..4).map(|_| listener.accept().unwrap().0).collect();
        let served = connections.into_iter().map(|connection| {
            std::thread::spawn(move || answer_each(connection, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
        });
        served.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let given = ["bench", &http, "--rate", "200", "--calls", "40", "--connections", "4", "--strict", "--json"];
    // The server answers nobody before all four have come.
    let told = report(&host.sandbar(&given).well().stdout);
    assert_eq!((told["done"].as_u64(), told["connections"].as_u64()), (Some(40), Some(4)), "{told}");
    assert_eq!(server.join().unwrap().iter().sum::<usize>(), 40);
    // A burst of more calls than peers takes turns.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let coap = format!("coap://{}/a", socket.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut peers = BTreeMap::new();
        let mut buffer = [0; 2048];
        for _ in 0..12 {
            let (_, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&[&[0x64, 0x44], &buffer[2..8]].concat(), from).unwrap();
            *peers.entry(from).or_insert(0) += 1;
        }
        peers.into_values().collect::<Vec<_>>()
    });
    let told = report(&host.sandbar(&["bench", &coap, "--burst", "12", "--peers", "3", "--json"]).well().stdout);
    assert_eq!((told["done"].as_u64(), told["connections"].as_u64()), (Some(12), Some(3)), "{told}");
    assert_eq!(server.join().unwrap(), [4, 4, 4]);
}

/// Answers requests without a body, each with this, until the connection ends; tells how many.
fn answer_each(mut connection: TcpStream, answer: &str) -> usize {
    let mut answered = 0;
    let mut input = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read = connection.read(&mut buffer).unwrap();
        if read == 0 {
            return answered;
        }
        input.extend_from_slice(&buffer[..read]);
        // A head, and the payload of 64 bytes.
        let Some(head) = input.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        if input.len() < head + 4 + 64 {
            continue;
        }
        input.clear();
        connection.write_all(answer.as_bytes()).unwrap();
        answered += 1;
    }
}

/// Says first that it goes on, answers in chunks, and closes each connection without a word.
#[test]
fn interim_responses_chunks_and_closed_connections_cost_no_call() {
    let Some(host) = Host::start() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for _ in 0..5 {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let mut read = 0;
            while !request[..read].ends_with(&[b'x'; 64]) {
                read += connection.read(&mut request[read..]).unwrap();
            }
            for part in [
                "HTTP/1.1 100 Continue\r\n\r\n",
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "3\r\nabc\r\n",
                "0\r\nchecksum: 7\r\n\r\n",
            ] {
                connection.write_all(part.as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    // Each call comes a while after the connection before it was closed.
    let given = ["bench", &target, "--rate", "10", "--calls", "5", "--strict", "--json"];
    let told = report(&host.sandbar(&given).well().stdout);
    assert_eq!((told["done"].as_u64(), &told["errors"]), (Some(5), &serde_json::json!({})), "{told}");
    server.join().unwrap();
}

#[test]
fn progress_is_told_where_it_is_asked_for_and_the_help_explains_fields_and_codes() {
    let Some(host) = Host::start() else { return };
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("coap://{}/a", silent.local_addr().unwrap());
    let given = ["bench", &silent, "--for", "1500ms", "--timeout", "200ms", "--json", "--progress"];
    let told = host.sandbar(&given);
    assert!(told.stderr.contains("calls in the last second"), "{}", told.stderr);
    let untold = host.sandbar(&given[..given.len() - 1]);
    assert!(!untold.stderr.contains("in the last second"), "{}", untold.stderr);
    let help = host.sandbar(&["bench", "--help"]).well().text();
    for explained in ["corrected_for_coordinated_omission", "Exit codes:", "--peers"] {
        assert!(help.contains(explained), "{help}");
    }
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
