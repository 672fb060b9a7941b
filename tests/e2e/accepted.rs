//! Calls that nobody waits for: accepted, made later, and their answers kept for whoever has the location.
//!
//! [`coap`] is how devices have calls accepted; [`kept`] is what becomes of them when the agent or the disk does not go on.

mod coap;
mod kept;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;

use crate::support::accepted::{self, NOTING, RESPOND_ASYNC, id_of};
use crate::support::coap::Client;
use crate::support::host::Host;
use crate::support::{bundle, until};

/// An application's calls under way at one time.
const UNDER_WAY_MAX: usize = 8;

/// A chain whose end says all that can be said of an answer.
const CHAIN: &str = r#"
import os, time

def first(event, context):
    while not os.path.exists("/tmp/over"):
        time.sleep(0.01)
    return b"first " + event

def last(event, context):
    context.set_code("2.01")
    context.set_content_format(110)
    context.set_etag(b"\x01\xfe")
    return context.call_id.encode() + b" last " + event
"#;

fn deploy_chain(host: &Host) {
    let folder = host.folder().join("chain");
    let manifest = bundle::python_manifest("chain", &["first", "last"]);
    let manifest = manifest.replace("[functions.first]\n", "[functions.first]\ntimeout = \"60s\"\nnext = \"last\"\n");
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", CHAIN)]);
    host.deploy(&folder);
}

/// A location that differs in the last digit.
fn guessed(location: &str) -> String {
    let (known, last) = location.split_at(location.len() - 1);
    format!("{known}{}", if last == "0" { "1" } else { "0" })
}

#[test]
fn who_does_not_wait_is_told_where_the_answer_will_be() {
    let Some(host) = Host::start() else { return };
    deploy_chain(&host);
    let response = accepted::ask(host.http, "/chain", RESPOND_ASYNC, b"x").unwrap();
    assert_eq!((response.status, response.text().as_str()), (202, ""));
    assert_eq!(response.header("preference-applied"), Some("respond-async"));
    let location = response.header("location").unwrap();
    assert_eq!(location.strip_prefix("/chain/.calls/").unwrap().len(), 32);
    let pending = host.http("GET", location, None, b"");
    assert_eq!((pending.status, pending.text().as_str()), (202, "{\"outcome\":\"accepted\"}"));
    assert_eq!((pending.header("content-type"), pending.header("retry-after")), (Some("application/json"), Some("1")));
    // As the host's own command has it.
    let printed = host.sandbar(&["invoke", "chain", "y", "--async"]).well().text();
    let by_command = printed.trim();
    assert_eq!(host.sandbar(&["calls", "answer", by_command]).code, Some(11));
    assert_eq!(host.sandbar(&["calls", "replay", by_command]).code, Some(1), "it was not given up");
    assert_eq!(host.accepted(&["chain"]).len(), 2);
    host.end_the_wait("chain");
    let told = host.told_at_the_end(location);
    assert_eq!((told.status, told.etag.as_deref()), (201, Some("\"01fe\"")));
    assert_eq!(told.content_type.as_deref(), Some("application/senml+json"));
    assert_eq!(told.body, format!("{} last first x", id_of(location)));
    assert_eq!(host.told(location), told, "it is there to be asked for again");
    let printed = host.sandbar(&["calls", "answer", by_command, "--wait", "20s"]).well().text();
    assert_eq!(printed, format!("{} last first y", id_of(by_command)));
    // Whoever has only half of the ticket, or another application's name, has nothing.
    let elsewhere = location.replacen("/chain/", "/den/", 1);
    for unknown in [&guessed(location), &elsewhere, &location[..location.len() - 16], "/chain/.calls/", "/chain/.calls"]
    {
        assert_eq!(host.told(unknown).status, 404, "{unknown}");
    }
    let refused = host.http("POST", location, None, b"");
    assert_eq!(refused.status, 405);
    assert!(refused.header("allow").unwrap().contains("GET"));
}

#[test]
fn callers_of_tinyfaas_say_it_their_way() {
    let Some(host) = Host::start() else { return };
    host.deploy_patient("den", &["note"], NOTING);
    let response = accepted::ask(host.http, "/den/note", ("X-tinyFaaS-Async", "true"), b"x").unwrap();
    assert_eq!((response.status, response.header("preference-applied")), (202, None));
    let told = host.assert_made(response.header("location").unwrap(), "x");
    assert!(told.etag.is_some(), "an answer of a function that names none has a name all the same");
}

/// `mended` ends well once the test says so, `broken` never; both tell when they are tried.
const FAILING: &str = r#"
import os, time

def tell(context):
    context.log(f"tried {context.call_id} {time.monotonic()}")

def broken(event, context):
    tell(context)
    raise RuntimeError("no sensor at " + event.decode())

def mended(event, context):
    tell(context)
    if not os.path.exists("/tmp/over"):
        raise RuntimeError("not yet")
    return context.call_id
"#;

/// When a call was tried, in seconds.
fn tried(host: &Host, location: &str) -> Vec<f64> {
    let log = host.sandbar(&["logs", "den"]).well().text();
    let of_call = format!("tried {} ", id_of(location));
    log.lines().filter_map(|line| line.split_once(&of_call)?.1.trim().parse().ok()).collect()
}

#[test]
fn a_call_that_fails_is_made_again_under_the_same_id() {
    let Some(host) = Host::start() else { return };
    host.deploy_patient("den", &["mended"], FAILING);
    let location = host.accept("/den", "");
    until("it was tried", || (!tried(&host, &location).is_empty()).then_some(()));
    host.end_the_wait("den");
    let told = host.told_at_the_end(&location);
    assert_eq!((told.status, told.body.as_str()), (200, id_of(&location)));
    let tried = tried(&host, &location);
    assert!(tried.len() >= 2, "{tried:?}");
    assert!(tried[1] - tried[0] >= 1.0, "there is a pause between: {tried:?}");
    assert_eq!(host.accepted(&[])[0]["attempts"], tried.len());
}

#[test]
fn a_call_that_always_fails_is_given_up_and_can_be_replayed_or_forgotten() {
    let Some(host) = Host::start_with(&["--accepted-attempts", "2"]) else { return };
    host.deploy_patient("den", &["broken"], FAILING);
    let calls = ["the door", "the wall"].map(|payload| host.accept("/den", payload));
    let [location, other] = &calls;
    let told = host.told_at_the_end(location);
    assert!(told.status == 500 && told.body.contains("no sensor at the door"), "{told:?}");
    assert_eq!(tried(&host, location).len(), 2);
    until("the other is given up as well", || (host.accepted(&["--state", "dead"]).len() == 2).then_some(()));
    let listed = host.sandbar(&["calls", "list", "den", "--state", "dead"]).well().text();
    let line = listed.lines().find(|line| line.starts_with(location.as_str())).unwrap();
    assert!(line.contains("dead") && line.contains("failed: ") && line.contains("no sensor at the door"), "{line}");
    assert_eq!(host.accepted(&["den"])[0]["attempts"], 2);
    host.logged("den", &format!("accepted call {} was given up after attempt 2", id_of(location)));
    let answer = host.sandbar(&["calls", "answer", location]);
    assert_eq!((answer.code, answer.text().as_str()), (Some(7), ""));
    assert!(answer.stderr.contains("no sensor at the door"), "{}", answer.stderr);
    // The operator mends the function.
    host.deploy_patient("den", &["broken"], &NOTING.replace("note", "broken"));
    assert_eq!(host.told(location).status, 500, "nobody has asked for it to be made again");
    host.sandbar(&["calls", "replay", location]).well();
    host.assert_made(location, "the door");
    assert_eq!(host.accepted(&["--state", "done"])[0]["attempts"], 1);
    assert_eq!(host.sandbar(&["calls", "replay", location]).code, Some(1), "it was done");
    host.sandbar(&["calls", "forget", location, other]).well();
    assert_eq!(host.accepted(&[]).len(), 0);
    for call in &calls {
        assert_eq!(host.told(call).status, 404);
        assert_eq!(host.sandbar(&["calls", "answer", call]).code, Some(3));
    }
}

#[test]
fn a_stream_of_calls_outlives_redeployments() {
    const VERSIONS: usize = 4;
    let Some(host) = Host::start() else { return };
    let deploy = |version: usize| {
        let code = format!(
            "import time\ndef say(event, context):\n    time.sleep(0.02)\n    return f'{version} {{context.call_id}} {{event.decode()}}'\n"
        );
        host.deploy_patient("den", &["say"], &code);
    };
    deploy(1);
    let over = AtomicBool::new(false);
    let locations = std::thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut locations = Vec::new();
            // No more than are kept.
            while !over.load(Ordering::Relaxed) && locations.len() < 900 {
                locations.push(host.accept("/den", &locations.len().to_string()));
            }
            locations
        });
        for version in 2..=VERSIONS {
            deploy(version);
        }
        over.store(true, Ordering::Relaxed);
        stream.join().unwrap()
    });
    let mut versions = [0; VERSIONS + 1];
    for (number, location) in locations.iter().chain([&host.accept("/den", &locations.len().to_string())]).enumerate() {
        let told = host.told_at_the_end(location);
        let (version, rest) = told.body.split_once(' ').unwrap_or_else(|| panic!("{told:?}"));
        assert_eq!((told.status, rest), (200, format!("{} {number}", id_of(location)).as_str()));
        versions[version.parse::<usize>().unwrap()] += 1;
    }
    assert!(versions[1] > 0 && versions[VERSIONS] > 0, "{versions:?}");
    assert!(host.accepted(&[]).iter().all(|call| call["state"] == "done" && call["attempts"] == 1));
}

#[test]
fn calls_are_removed_with_their_application() {
    let Some(mut host) = Host::start() else { return };
    host.deploy_patient("den", &["hold", "note"], NOTING);
    host.deploy_patient("other", &["note"], NOTING);
    let done = host.accept("/den/note", "x");
    host.assert_made(&done, "x");
    let others = host.accept("/other", "y");
    host.assert_made(&others, "y");
    let mut calls: Vec<_> = (0..UNDER_WAY_MAX + 4).map(|call| host.accept("/den", &call.to_string())).collect();
    calls.push(done);
    until("as many are under way as may", || {
        (host.accepted(&["--state", "under-way"]).len() == UNDER_WAY_MAX).then_some(())
    });
    host.sandbar(&["remove", "den"]).well();
    let assert_gone = |host: &Host| {
        for location in &calls {
            assert_eq!(host.told(location).status, 404, "{location}");
        }
        let left: Vec<_> = host.accepted(&[]).into_iter().map(|call| call["location"].clone()).collect();
        assert_eq!(left, [others.as_str()]);
    };
    assert_gone(&host);
    // Neither does another application of that name have them, nor the next agent, which reads the file.
    host.deploy_patient("den", &["hold", "note"], NOTING);
    assert_gone(&host);
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    host.serve();
    assert_gone(&host);
    host.assert_made(&others, "y");
}

#[test]
fn an_application_at_rest_is_woken() {
    let Some(host) = Host::start() else { return };
    host.deploy_patient("den", &["note"], NOTING);
    host.sandbar(&["rest", "den"]).well();
    assert_eq!(host.applications()[0]["state"], "resting");
    host.assert_made(&host.accept("/den", "x"), "x");
    assert_eq!(host.applications()[0]["state"], "running");
}

#[test]
fn a_flood_is_refused_and_keeps_no_other_out() {
    const FLOOD: usize = 30;
    let Some(mut host) = Host::start_with(&["--accepted-max", &FLOOD.to_string()]) else { return };
    host.deploy_patient("flood", &["hold"], NOTING);
    host.deploy_patient("den", &["note"], NOTING);
    let calls: Vec<_> = (0..FLOOD).map(|call| host.accept("/flood", &call.to_string())).collect();
    let mut device = Client::new(host.coap);
    for _ in 0..3 {
        let over_http = accepted::ask(host.http, "/flood", RESPOND_ASYNC, b"more").unwrap();
        assert_eq!((over_http.status, over_http.header("location")), (503, None));
        assert!(over_http.header("retry-after").is_some());
        let over_coap = device.ask(coap::POST, "flood", &[coap::ASYNC], b"more").unwrap();
        assert_eq!((over_coap.code().as_str(), over_coap.max_age()), ("5.03", Some(1)), "{over_coap:?}");
        assert_eq!(host.sandbar(&["invoke", "flood", "more", "--async"]).code, Some(8));
    }
    assert_eq!(host.accepted(&["flood"]).len(), FLOOD, "none of those that were refused is kept");
    for call in 0..10 {
        let call = call.to_string();
        host.assert_made(&host.accept("/den", &call), &call);
    }
    assert!(host.accepted(&["flood", "--state", "done"]).is_empty());
    host.end_the_wait("flood");
    for (call, location) in calls.iter().enumerate() {
        host.assert_made(location, &call.to_string());
    }
    host.assert_made(&host.accept("/flood", "there is room again"), "there is room again");
    // The next agent reads what is stored, and there is nothing of those that were refused.
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    host.serve();
    assert_eq!((host.accepted(&["flood"]).len(), host.accepted(&["--state", "waiting"]).len()), (FLOOD + 1, 0));
    let made = host.times_made("flood");
    assert!(made.len() == FLOOD + 1 && made.values().all(|times| *times == 1), "{made:?}");
}

#[test]
fn who_waits_is_answered_beside_a_backlog() {
    const BACKLOG: usize = 40;
    let Some(host) = Host::start() else { return };
    host.deploy_patient("den", &["hold", "note"], NOTING);
    host.deploy_patient("other", &["note"], NOTING);
    let calls: Vec<_> = (0..BACKLOG).map(|call| host.accept("/den", &call.to_string())).collect();
    let answered = Mutex::new(0);
    std::thread::scope(|scope| {
        for target in ["den/note", "other"].repeat(2) {
            let (host, answered) = (&host, &answered);
            scope.spawn(move || {
                for call in 0..15 {
                    let call = call.to_string();
                    let answer = host.call(target, call.as_bytes()).done();
                    assert_eq!(answer.split_once(' ').unwrap().1, call);
                    *answered.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(answered.into_inner().unwrap(), 60);
    let of_state = |state| host.accepted(&["den", "--state", state]).len();
    assert_eq!((of_state("under-way"), of_state("waiting")), (UNDER_WAY_MAX, BACKLOG - UNDER_WAY_MAX));
    host.end_the_wait("den");
    for (call, location) in calls.iter().enumerate() {
        host.assert_made(location, &call.to_string());
    }
}
