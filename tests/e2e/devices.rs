//! `sandbar invoke` and `sandbar bench` as devices: over CoAP to a door that wants addresses shown, and over coaps with a key.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::host::Host;
use crate::support::program::Finished;
use crate::support::secure::Secure;
use crate::support::{PATIENCE, program, until};

const ECHO: &str = "def one(event, context):\n    return event\n\ndef two(event, context):\n    return event[::-1]\n";

fn counter(host: &Host, name: &str) -> u64 {
    let status = host.manage("GET", "/v1/host", b"").json();
    let door = status["doors"].as_array().unwrap().iter().find(|door| door["protocol"] == "coap").unwrap().clone();
    door["counters"][name].as_u64().unwrap()
}

#[test]
fn a_door_that_wants_addresses_shown_is_shown_them() {
    let Some(host) = Host::start_with(&["--coap-verify", "always"]) else { return };
    host.deploy_python("echo", &["one", "two"], ECHO);
    let called = host.sandbar(&["invoke", &host.coap_uri("echo/two"), "abc"]).well();
    assert_eq!(called.text(), "cba");
    assert_eq!((counter(&host, "challenged"), counter(&host, "verified")), (1, 1));
    let file = host.folder().join("payload");
    fs::write(&file, [7; 5000]).unwrap();
    let loaded = ["bench", &host.coap_uri("echo"), "--calls", "20", "--in-flight", "2", "--strict", "--file"];
    host.sandbar(&[&loaded[..], &[file.to_str().unwrap()]].concat()).well();
    assert_eq!(counter(&host, "challenged"), 1, "its address is known now");
}

/// An identity's own file, as a device has it.
fn device_file(folder: &Path, identity: &str, key: &str) -> PathBuf {
    let file = folder.join(format!("{identity}.toml"));
    fs::write(&file, format!("[identities.{identity}]\nkey = \"{key}\"\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// Runs the command with a device's file.
fn as_device(secure: &Secure, file: &Path, arguments: &[&str]) -> Finished {
    secure.host.sandbar(&[arguments, &["--psk-file", file.to_str().unwrap()]].concat())
}

#[test]
fn a_call_over_coaps_is_made_with_a_key_of_a_file() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    let made = secure.enroll("camera", &["echo"]);
    let file = device_file(secure.host.folder(), "camera", &made);
    let payload: Vec<u8> = (0..50_000_u32).map(|at| (at ^ at >> 8).to_be_bytes()[3]).collect();
    let sent = secure.host.folder().join("payload");
    fs::write(&sent, &payload).unwrap();
    let given = ["invoke", &secure.uri("echo/two"), "--file", sent.to_str().unwrap()];
    let got = as_device(&secure, &file, &given).well().stdout;
    assert!(got.iter().eq(payload.iter().rev()), "{} bytes came back", got.len());
    // Out of the host's own file, where there are others.
    let own = ["call", &secure.uri("echo"), "x", "--json", "--psk-identity", "camera"];
    let told: Value = serde_json::from_slice(&as_device(&secure, &secure.file(), &own).well().stdout).unwrap();
    assert_eq!((&told["outcome"], &told["payload"]), (&"done".into(), &"x".into()));
    until("sessions are closed by who opened them", || (secure.count("sessions_ended") == 2).then_some(()));
    assert_eq!((secure.count("handshakes_done"), secure.count("records_dropped")), (2, 0));
}

#[test]
fn why_there_was_no_call_over_coaps_is_said_and_coded() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    let made = secure.enroll("sensor", &["echo/two"]);
    let folder = secure.host.folder();
    let good = device_file(folder, "sensor", &made);
    let stranger = device_file(folder, "stranger", &made);
    let elsewhere = folder.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let wrong = device_file(&elsewhere, "sensor", "not the key of it");
    let exposed = device_file(folder, "exposed", &made);
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o644)).unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = format!("coaps://{}/echo", silent.local_addr().unwrap());
    let echo = secure.uri("echo");
    for (file, arguments, code, said) in [
        (&wrong, &[echo.as_str(), "x"][..], 5, "it has no identity \"sensor\", or another key for it"),
        (&stranger, &[&echo, "x"], 5, "it has no identity \"stranger\", or another key for it"),
        (&good, &[&echo, "x"], 5, "not allowed: 4.03"),
        (&good, &[&echo, "x", "--psk-identity", "porch"], 3, "there is no identity \"porch\" in"),
        (&secure.file(), &[&echo, "x"], 2, "--psk-identity says which of the 2 identities"),
        (&exposed, &[&echo, "x"], 1, "chmod 600"),
        (&good, &["coaps://127.0.0.1:1/echo", "x"], 1, "Connection refused"),
        (&good, &[&silent, "x", "--timeout", "100ms"], 1, "no answer from 127.0.0.1"),
        (&good, &[&echo, "x", "--trace"], 2, "--trace is for applications of this host"),
        (&good, &["echo", "x", "--psk-identity", "sensor"], 2, "--psk-identity is for coaps:// targets"),
    ] {
        let refused = as_device(&secure, file, &[&["invoke"], arguments].concat());
        assert_eq!(refused.code, Some(code), "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said) && !refused.stderr.contains(&made), "{arguments:?}: {}", refused.stderr);
    }
    let bench = as_device(&secure, &wrong, &["bench", &echo, "--calls", "2"]);
    assert_eq!(bench.code, Some(1));
    assert!(
        bench.stderr.contains("0 of 2 calls were done; most of the others: no session: it has no"),
        "{}",
        bench.stderr
    );
    let granted = as_device(&secure, &good, &["invoke", &secure.uri("echo/two"), "ab"]).well();
    assert_eq!(granted.text(), "ba");
}

#[test]
fn a_load_over_coaps_has_a_session_for_each_peer() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    let made = secure.enroll("load", &["*"]);
    let file = device_file(secure.host.folder(), "load", &made);
    let given = ["bench", &secure.uri("echo"), "--calls", "60", "--in-flight", "4", "--strict", "--json"];
    let told: Value = serde_json::from_slice(&as_device(&secure, &file, &given).well().stdout).unwrap();
    assert_eq!((told["done"].as_u64(), told["connections"].as_u64()), (Some(60), Some(4)), "{told}");
    assert_eq!((secure.count("handshakes_done"), secure.count("handshakes_failed")), (4, 0));
    until("all sessions are closed", || (secure.count("sessions_ended") == 4).then_some(()));
}

/// What README shows of devices with keys, run by a shell as it stands there but for what a reader puts in its place.
#[test]
fn the_readmes_commands_for_devices_with_keys_work_as_written() {
    let Some(secure) = Secure::start(&[]) else { return };
    let section = include_str!("../../README.md").split("\n## Devices with keys\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let line =
        |begin: &str| section.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin}"));
    let ours = Path::new(env!("CARGO_BIN_EXE_sandbar")).parent().unwrap().display();
    let path = format!("{ours}:{}", std::env::var("PATH").unwrap());
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(secure.host.folder());
        program::run(command.env("PATH", &path).env("SANDBAR_PSK_FILE", secure.file()), PATIENCE).well()
    };
    secure.host.deploy_example("thermostat");
    let known = secure.reads();
    let made = shell(line("sandbar key new porch-sensor")).text().trim().to_owned();
    secure.hang_up(known);
    device_file(secure.host.folder(), "porch-sensor", &made);
    let address = secure.address().to_string();
    let filled = |begin| {
        let line = line(begin).replace("HOST", &address).replace("KEY", &made);
        line.replace("sensor.toml", "porch-sensor.toml")
    };
    let libcoap = program::find(&["coap-client-openssl"]).map(|_| "coap-client-openssl ");
    for begin in libcoap.into_iter().chain(["sandbar invoke coaps:"]) {
        let finished = shell(&filled(begin));
        assert!(finished.text().contains("\"state\":\"ok\""), "{begin}: {}{}", finished.text(), finished.stderr);
    }
}
