//! A device's readings are answered, over each protocol and with each client.

use std::path::Path;

use serde_json::Value;

use crate::support::clients::{self, got};
use crate::support::host::Host;
use crate::support::{PATIENCE, program};

fn hot() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/thermostat/readings/hot.json").to_str().unwrap().to_owned()
}

fn assert_is_alarm(payload: &[u8]) {
    let answer: Value = serde_json::from_slice(payload).unwrap();
    assert_eq!(answer["state"], "alarm", "{answer}");
    assert_eq!(answer["alarms"].as_array().unwrap().len(), 2, "{answer}");
}

#[test]
fn a_reading_posted_by_coap_client_goes_through_its_chain() {
    let Some(mut client) = clients::coap_client() else { return };
    let Some(host) = Host::start() else { return };
    host.deploy_example("thermostat");
    let client = client.args(["-m", "post", "-t", "110", "-f", &hot()]);
    let answer = got(client, host.folder(), &host.coap_uri("thermostat"));
    assert_eq!(answer.code, "2.04", "{}", answer.shown);
    assert!(answer.shown.contains("Content-Format:application/json"), "{}", answer.shown);
    assert_is_alarm(&answer.payload);
}

#[test]
fn a_non_confirmable_reading_is_answered_as_well() {
    let Some(mut client) = clients::coap_client() else { return };
    let Some(host) = Host::start() else { return };
    host.deploy_example("thermostat");
    let client = client.args(["-N", "-m", "post", "-t", "110", "-f", &hot()]);
    let answer = got(client, host.folder(), &host.coap_uri("thermostat"));
    assert_eq!(answer.code, "2.04", "{}", answer.shown);
    assert!(answer.shown.contains(" t:NON "), "{}", answer.shown);
    assert_is_alarm(&answer.payload);
}

#[test]
fn where_addresses_are_verified_coap_client_shows_its_own_and_all_is_counted() {
    let Some(mut client) = clients::coap_client() else { return };
    let Some(host) = Host::start_with(&["--coap-verify", "always"]) else { return };
    host.deploy_example("thermostat");
    let client = client.args(["-m", "post", "-t", "110", "-f", &hot()]);
    let answer = got(client, host.folder(), &host.coap_uri("thermostat"));
    assert_eq!(answer.code, "2.04", "{}", answer.shown);
    let counted = host.sandbar(&["counts"]).well().text();
    let times = |name: &str| {
        let line = counted.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().nth(2)?.parse::<u64>().ok()
    };
    assert_eq!((times("challenged"), times("verified"), times("calls")), (Some(1), Some(1), Some(1)), "{counted}");
    let status: Value = serde_json::from_slice(&host.manage("GET", "/v1/host", b"").body).unwrap();
    assert_eq!(status["doors"][0]["counters"]["repeated"], 0, "{status}");
    assert_eq!(status["doors"][0]["limits"]["observers_max"], 10_000, "{status}");
    let limits = host.sandbar(&["counts", "--limits"]).well().text();
    for name in ["observers_max", "confirmable_lifetime_ms", "connections_max"] {
        assert!(limits.lines().any(|line| line.split_whitespace().nth(1) == Some(name)), "{name}: {limits}");
    }
}

#[test]
fn a_reading_sent_with_aiocoap_goes_through_its_chain() {
    let Some(mut client) = clients::aiocoap_client() else { return };
    let Some(host) = Host::start() else { return };
    host.deploy_example("thermostat");
    let client = client.args(["-m", "POST", "--content-format", "application/senml+json"]);
    let client = client.args(["--payload", &format!("@{}", hot()), &host.coap_uri("thermostat")]);
    let answer = program::run(client, PATIENCE).well();
    assert_is_alarm(&answer.stdout);
}

#[test]
fn a_reading_sent_over_http_goes_through_the_same_chain() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("thermostat");
    let readings = std::fs::read(hot()).unwrap();
    let answer = host.http("POST", "/thermostat", Some("application/senml+json"), &readings);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("sandbar-outcome"), Some("done"));
    assert_is_alarm(&answer.body);
}

#[test]
fn each_method_has_its_code_and_each_function_its_path() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let call = |method: &str, path: &str, payload: Option<&str>| {
        let mut client = clients::coap_client()?;
        client.args(["-m", method]).args(payload.iter().flat_map(|payload| ["-e", payload]));
        Some(got(&mut client, host.folder(), &host.coap_uri(path)))
    };
    let Some(get) = call("get", "failures/pids", None) else { return };
    assert_eq!(get.code, "2.05", "{}", get.shown);
    let pids: Value = serde_json::from_slice(&get.payload).unwrap();
    assert_eq!(pids["parent"], 1, "an instance's parent is the sandbox's first process");
    for (method, path) in [("put", "failures/echo"), ("post", "failures/echo"), ("post", "failures")] {
        let answer = call(method, path, Some("21.5")).unwrap();
        assert_eq!((answer.code.as_str(), &answer.payload[..]), ("2.04", &b"21.5"[..]), "{method} {path}");
    }
    let over_http = host.http("PUT", "/failures/echo", Some("text/plain"), b"21.5");
    assert_eq!((over_http.status, over_http.body.as_slice()), (200, &b"21.5"[..]));
}
