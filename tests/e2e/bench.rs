//! `sandbar bench`: what it counts is what happened.

use std::net::UdpSocket;

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
