//! Devices with keys, and who may call: over coaps what a key was granted, in the clear what a manifest lets in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::clients::{self, coaps_clients};
use crate::support::coap::Client;
use crate::support::host::Host;
use crate::support::secure::{Secure, key};
use crate::support::{PATIENCE, program, until};

#[path = "../../proxy/tests/coaps/hello.rs"]
#[allow(dead_code, reason = "shared with the tests of the door alone")]
mod hello;

const ECHO: &str =
    "def one(event, context):\n    return event\n\ndef two(event, context):\n    return b'two: ' + event\n";

#[test]
fn a_device_calls_what_its_key_was_granted_and_sees_nothing_else() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    secure.host.deploy_python("other", &["one"], ECHO);
    let all = secure.enroll("all", &["*"]);
    let some = secure.enroll("some of it", &["echo/two"]);
    for client in coaps_clients() {
        let post = ["-m", "post", "-e", "hello"];
        let answer = secure.get(&client, "all", &all, "echo", &post);
        assert_eq!((answer.code.as_str(), &answer.payload[..]), ("2.04", &b"hello"[..]), "{}", answer.shown);
        let answer = secure.get(&client, "some of it", &some, "echo/two", &post);
        assert_eq!((answer.code.as_str(), &answer.payload[..]), ("2.04", &b"two: hello"[..]), "{}", answer.shown);
        for path in ["echo", "echo/one", "other", "nothing"] {
            let answer = secure.get(&client, "some of it", &some, path, &post);
            assert_eq!(answer.code, "4.03", "{path}: {}", answer.shown);
        }
        let seen = |identity, key| {
            let links = secure.get(&client, identity, key, ".well-known/core", &["-m", "get"]).payload;
            String::from_utf8(links).unwrap()
        };
        let (links, fewer) = (seen("all", &all), seen("some of it", &some));
        assert!(links.contains("</echo>") && links.contains("</other/one>"), "{links}");
        assert_eq!(fewer, "</.well-known/core>;ct=40,</echo/two>;rt=\"sandbar.function\";obs");
    }
    assert_eq!(secure.count("forbidden") % 4, 0);
    assert_eq!(secure.count("handshakes_failed"), 0);
}

#[test]
fn payloads_pass_block_by_block_both_ways() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    let made = secure.enroll("camera", &["echo"]);
    let payload: Vec<u8> = (0..50_000_u32).map(|at| (at ^ at >> 8).to_be_bytes()[3]).collect();
    let file = secure.host.folder().join("payload");
    fs::write(&file, &payload).unwrap();
    for client in coaps_clients() {
        let more = ["-m", "post", "-b", "1024", "-f", file.to_str().unwrap()];
        let answer = secure.get(&client, "camera", &made, "echo", &more);
        assert_eq!((answer.code.as_str(), answer.payload == payload), ("2.04", true), "{}", answer.shown);
    }
    assert_eq!(secure.count("records_dropped"), 0);
}

#[test]
fn another_key_an_unknown_identity_and_one_that_was_removed_are_refused_alike() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    let made = secure.enroll("sensor", &["echo"]);
    for client in coaps_clients() {
        let failed = secure.count("handshakes_failed");
        for (identity, key) in [("sensor", "not the key of it"), ("nobody", made.as_str())] {
            let said = secure.refused(&client, identity, key);
            assert!(said.contains("decrypt error"), "{said}");
        }
        assert_eq!(secure.count("handshakes_failed"), failed + 2);
        assert_eq!(secure.get(&client, "sensor", &made, "echo", &["-m", "post", "-e", "x"]).code, "2.04");
    }
    secure.remove("sensor");
    for client in coaps_clients() {
        assert!(secure.refused(&client, "sensor", &made).contains("decrypt error"));
    }
    assert_eq!(secure.host.call("echo", b"x").done(), "x");
}

#[test]
fn keys_are_kept_from_others() {
    let folder = tempfile::Builder::new().prefix("sandbar-keys-").tempdir().unwrap();
    let file = folder.path().join("etc/keys.toml");
    let made = key(&file, &["new", "a sensor", "--grant", "thermostat", "--grant", "gallery/thumbnail"]);
    assert_eq!(made.len(), 32);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(key(&file, &["list"]), "a sensor\tthermostat gallery/thumbnail");
    assert_eq!(key(&file, &["remove", "a sensor"]), "removed a sensor");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
        program::run(command.args(arguments).arg("--psk-file").arg(&file), PATIENCE)
    };
    let gone = run(&["key", "remove", "a sensor"]);
    assert_eq!(gone.code, Some(3), "{}", gone.stderr);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let state = folder.path().join("state");
    let socket = folder.path().join("socket");
    let serve = ["serve", "--coap", "none", "--coaps", "127.0.0.1:0", "--state"];
    let serve = [&serve[..], &[state.to_str().unwrap(), "--socket", socket.to_str().unwrap()]].concat();
    for arguments in [&["key", "list"][..], &["key", "new", "x"], &serve] {
        let refused = run(arguments);
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains("mode 640") && refused.stderr.contains("chmod 600"), "{}", refused.stderr);
    }
}

#[test]
fn a_manifest_says_which_strangers_it_lets_in() {
    let Some(secure) = Secure::start(&[]) else { return };
    let host = &secure.host;
    let deploy = |name: &str, access: &str| {
        let folder = host.folder().join(name);
        let manifest = format!(
            "name = \"{name}\"\n[access]\n{access}\n[functions.one]\nruntime = \"python3\"\ncode = \"f.py\"\nhandler = \"one\"\n"
        );
        crate::support::bundle::write(&folder, &[("sandbar.toml", &manifest), ("f.py", ECHO)]);
        host.deploy(&folder);
    };
    deploy("open", "");
    deploy("near", "coap = [\"127.0.0.0/8\", \"::1\"]\nhttp = [\"127.0.0.1\"]");
    deploy("far", "coap = [\"192.0.2.0/24\"]\nhttp = [\"192.0.2.0/24\"]");
    deploy("keyed", "coap = \"coaps\"\nhttp = \"none\"");
    let mut plain = Client::new(host.coap);
    for (name, coap, http) in
        [("open", "2.04", 200), ("near", "2.04", 200), ("far", "4.03", 403), ("keyed", "4.03", 403)]
    {
        assert_eq!(plain.post(name, b"x").unwrap().code(), coap, "{name}");
        assert_eq!(host.http("POST", &format!("/{name}"), None, b"x").status, http, "{name}");
        assert_eq!(host.call(name, b"x").done(), "x");
    }
    let made = secure.enroll("device", &["*"]);
    for client in coaps_clients() {
        for name in ["open", "far", "keyed"] {
            assert_eq!(secure.get(&client, "device", &made, name, &["-m", "post", "-e", "x"]).code, "2.04", "{name}");
        }
    }
    if let Some(mut client) = clients::coap_client() {
        let links = clients::got(client.args(["-m", "get"]), host.folder(), &host.coap_uri(".well-known/core"));
        let links = String::from_utf8(links.payload).unwrap();
        assert!(links.contains("</open>") && links.contains("</near>"), "{links}");
        assert!(!links.contains("far") && !links.contains("keyed"), "{links}");
    }
}

#[test]
fn plain_coap_is_answered_to_the_networks_that_are_named() {
    let Some(host) = Host::start_with(&["--coap-from", "192.0.2.0/24", "--coap-from", "127.0.0.2"]) else { return };
    host.deploy_python("echo", &["one", "two"], ECHO);
    let outside = Client::new(host.coap);
    outside.send(b"\x40\x00\x12\x34");
    assert!(outside.receive(Duration::from_millis(300)).is_none(), "not even a ping is answered");
    let inside = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
    inside.set_read_timeout(Some(PATIENCE)).unwrap();
    inside.send_to(b"\x40\x00\x12\x34", host.coap).unwrap();
    let mut answer = [0; 16];
    assert_eq!(inside.recv(&mut answer).unwrap(), 4);
    let status = host.manage("GET", "/v1/host", b"").json();
    let door = status["doors"].as_array().unwrap().iter().find(|door| door["protocol"] == "coap").unwrap().clone();
    assert_eq!((&door["counters"]["outside"], &door["counters"]["pings"]), (&Value::from(1), &Value::from(1)));
}

#[test]
fn a_flood_of_handshakes_and_garbage_leaves_nothing_and_keeps_nobody_out() {
    let Some(secure) = Secure::start(&[]) else { return };
    secure.host.deploy_python("echo", &["one", "two"], ECHO);
    let made = secure.enroll("sensor", &["echo"]);
    let door = secure.address();
    let call_with_each = || {
        for client in coaps_clients() {
            let answer = secure.get(&client, "sensor", &made, "echo", &["-m", "post", "-e", "x"]);
            assert_eq!(answer.code, "2.04", "{}", answer.shown);
        }
    };
    call_with_each();
    let flood = |round: u8| {
        for host in 0..25_u8 {
            let socket = hello::socket([127, 0, round, host + 1], door);
            for random in 0..40 {
                let random = u64::from(host) << 32 | random;
                socket.send(&hello::hello(random, &hello::cookie(&socket, random))).unwrap();
                socket.send(&hello::hello(random + 1000, &[1; 32])).unwrap();
                socket.send(&random.to_be_bytes().repeat(100)).unwrap();
            }
        }
    };
    let resident = || secure.host.agent().resident_kib();
    flood(1);
    let first = resident();
    (2..5).for_each(flood);
    call_with_each();
    assert!(secure.count("handshakes_begun") > 3000);
    let later = resident();
    assert!(later < first + 4096, "{first} KiB after a flood, {later} KiB after four");
    let over = || {
        let counts = ["handshakes_done", "handshakes_failed"].map(|counter| secure.count(counter));
        (secure.count("handshakes_begun") == counts.iter().sum::<u64>()).then_some(())
    };
    until("no handshake is under way", over);
    call_with_each();
}
