//! A display observes a function, and is told of what it gives out, whoever calls it and wherever in a chain.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::display::{self, Display, registered};
use crate::support::host::Host;
use crate::support::{bundle, clients, program, until};

/// A chain of three, each of which puts its name before what it gets, and an aside.
const MANIFEST: &str = r#"
name = "chain"
entry = "a"
[functions.a]
runtime = "executable"
code = "step.sh"
next = "b"
[functions.b]
runtime = "executable"
code = "step.sh"
next = ["c", "aside"]
[functions.c]
runtime = "executable"
code = "step.sh"
[functions.aside]
runtime = "executable"
code = "step.sh"
[functions.alone]
runtime = "executable"
code = "step.sh"
[functions.private]
runtime = "executable"
code = "step.sh"
observe = false
next = "c"
[functions.before-private]
runtime = "executable"
code = "step.sh"
next = "private-end"
[functions.private-end]
runtime = "executable"
code = "step.sh"
observe = false
[rest]
ready = "1s"
workers = "1s"
sandbox = "2s"
"#;

const STEP: &str = "#!/bin/sh\nprintf '%s ' \"$SANDBAR_FUNCTION\"\ncat\n";

fn start(more: &[&str]) -> Option<Host> {
    let host = Host::start_with(more)?;
    let folder = host.folder().join("chain");
    bundle::write(&folder, &[("sandbar.toml", MANIFEST), ("step.sh", STEP)]);
    host.deploy(&folder);
    Some(host)
}

#[test]
fn a_display_with_libcoap_observes_the_end_of_a_chain_that_others_call() {
    let Some(host) = start(&[]) else { return };
    let Some(mut client) = display::libcoap(&host, "chain/c") else { return };
    let display = Display::begin(&host, &mut client, "libcoap");
    assert_eq!(host.http("POST", "/chain", None, b"over http").text(), "c b a over http");
    display.shows("c b a over http");
    assert_eq!(host.call("chain/b", b"by the host").done(), "c b by the host");
    display.shows("c b by the host");
    let Some(mut device) = clients::coap_client() else { return };
    let answer =
        clients::got(device.args(["-m", "post", "-e", "from a device"]), host.folder(), &host.coap_uri("chain/c"));
    assert_eq!(answer.payload, b"c from a device");
    display.shows("c from a device");
    assert!(display::counted(&host, "notifications") >= 3);
    // What is removed is observed no more.
    host.sandbar(&["remove", "chain"]).well();
    until("the observation is over", || (display::counted(&host, "observers_ended") == 1).then_some(()));
    display.shows("4.04");
}

#[test]
fn what_is_observed_is_what_comes_out_of_the_sandbox() {
    let Some(host) = start(&[]) else { return };
    let mut displays = Vec::new();
    for function in ["chain", "chain/a", "chain/b", "chain/aside"] {
        let Some(mut client) = display::libcoap(&host, function) else { return };
        displays.push(Display::begin(&host, &mut client, &format!("at-{}", function.replace('/', "-"))));
    }
    let [entry, called, middle, aside] = &displays[..] else { panic!() };
    host.call("chain", b"1").done();
    for display in [entry, called] {
        display.shows("c b a 1");
    }
    aside.shows("aside b a 1");
    host.call("chain/b", b"2").done();
    middle.shows("c b 2");
    let shown = middle.shown();
    assert!(!shown.contains("b a 1"), "what it handed on within the chain: {shown}");
}

#[test]
fn what_a_manifest_keeps_private_is_told_to_its_callers_alone() {
    let Some(host) = start(&[]) else { return };
    let mut displays = Vec::new();
    for function in ["chain/c", "chain/before-private"] {
        let Some(mut client) = display::libcoap(&host, function) else { return };
        displays.push(Display::begin(&host, &mut client, &format!("at-{}", function.replace('/', "-"))));
    }
    let observes = registered(&host);
    let Some(mut device) = clients::coap_client() else { return };
    // A request to observe is a call: the function runs for who asks, and nothing is observed.
    let uri = host.coap_uri("chain/private");
    let answer = clients::got(device.args(["-s", "1"]), host.folder(), &uri);
    assert!(answer.payload.starts_with(b"c private "), "{answer:?}");
    assert_eq!(registered(&host), observes);
    // Neither what answers its callers nor what it makes of the calls of others is told.
    assert_eq!(host.call("chain/private", b"1").done(), "c private 1");
    assert_eq!(host.call("chain/before-private", b"2").done(), "private-end before-private 2");
    // Outputs come in the order in which they are given: what is not there before this one never comes.
    assert_eq!(host.call("chain/c", b"3").done(), "c 3");
    let [end, before] = &displays[..] else { panic!() };
    end.shows("c 3");
    let shown = [end, before].map(Display::shown).concat();
    assert!(!shown.contains("private 1") && !shown.contains("private-end"), "{shown}");
}

#[test]
fn a_display_with_aiocoap_observes_as_well() {
    let Some(host) = start(&[]) else { return };
    let Some(mut client) = display::aiocoap(&host.coap_uri("chain/c")) else { return };
    let display = Display::begin(&host, &mut client, "aiocoap");
    for number in 0..3 {
        let text = format!("reading {number}");
        host.call("chain", text.as_bytes()).done();
        display.shows(&format!("c b a {text}"));
    }
    // Larger than a datagram: the rest is asked for.
    let large = "x".repeat(5000);
    host.call("chain", large.as_bytes()).done();
    display.shows(&large);
}

#[test]
fn a_device_with_a_key_observes_what_it_was_granted() {
    let Some(client) = clients::coaps_clients().into_iter().next() else { return };
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("keys.toml");
    let key = enroll(&file, "display", "chain/c");
    let arguments = ["--coap", "none", "--coaps", "127.0.0.1:0", "--psk-file", file.to_str().unwrap()];
    let Some(host) = start(&arguments[2..]) else { return };
    let status = host.manage("GET", "/v1/host", b"").json();
    let door = status["doors"].as_array().unwrap().iter().find(|door| door["protocol"] == "coaps").unwrap();
    let uri = |path: &str| format!("coaps://{}/{path}", door["address"].as_str().unwrap());
    let observing = |path: &str| {
        let mut command = Command::new(&client);
        command.args(["-u", "display", "-k", &key, "-w", "-v", "6", "-B", "20"]).arg("-s").arg("60").arg(uri(path));
        command
    };
    let display = Display::begin(&host, &mut observing("chain/c"), "coaps");
    host.call("chain", b"secret").done();
    display.shows("c b a secret");
    let refused = program::run(observing("chain/a").args(["-s", "1"]), crate::support::PATIENCE);
    assert!((refused.text() + &refused.stderr).contains("4.03"), "{}", refused.stderr);
    assert_eq!(registered(&host), 1);
    // Its leave is taken away: it is told so.
    key_command(&file, &["new", "another"]);
    let text = fs::read_to_string(&file).unwrap().replace("\"chain/c\"", "\"other\"");
    fs::write(&file, text).unwrap();
    host.agent().signal(nix::sys::signal::Signal::SIGHUP);
    until("the observation is over", || (display::counted(&host, "observers_ended") == 1).then_some(()));
    display.shows("4.03");
}

fn enroll(file: &Path, identity: &str, grant: &str) -> String {
    key_command(file, &["new", identity, "--grant", grant])
}

fn key_command(file: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbar"));
    command.arg("key").args(arguments).arg("--psk-file").arg(file);
    program::run(&mut command, crate::support::PATIENCE).well().text().trim().to_owned()
}

#[test]
fn an_observation_keeps_no_sandbox_awake_and_outlives_its_rest() {
    let Some(host) = start(&[]) else { return };
    let Some(mut client) = display::libcoap(&host, "chain/c") else { return };
    let display = Display::begin(&host, &mut client, "resting");
    host.call("chain", b"before").done();
    display.shows("c b a before");
    until("it rests", || (host.applications()[0]["state"] == "resting").then_some(()));
    host.call("chain", b"after").done();
    display.shows("c b a after");
    assert_eq!((registered(&host), display::counted(&host, "observers_ended")), (1, 0));
}
