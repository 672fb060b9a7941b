//! What was accepted is made, whatever becomes of the agent, and of the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::UNDER_WAY_MAX;
use crate::support::accepted::{self, ALL_MAX, NOTING, RESPOND_ASYNC, id_of};
use crate::support::host::Host;
use crate::support::{PATIENCE, process, program, skipped, until, until_within};

/// How many are accepted before the agent ends, at least, and in all, unless more were.
const BEFORE: usize = 120;
const CALLS: usize = 200;
/// How many of them are done by then.
const DONE_BEFORE: usize = 20;

/// As [`NOTING`], and takes its time.
fn slow() -> String {
    NOTING.replace("    return", "    time.sleep(0.05)\n    return")
}

/// The next call is accepted, or the agent has ended.
fn accept_next(host_door: std::net::SocketAddr, accepted: &Mutex<Vec<String>>) -> bool {
    let payload = accepted.lock().unwrap().len().to_string();
    match accepted::ask(host_door, "/den", RESPOND_ASYNC, payload.as_bytes()) {
        Ok(response) if response.status == 202 => {
            accepted.lock().unwrap().push(response.header("location").unwrap().to_owned());
            true
        }
        _ => false,
    }
}

/// The agent is sent a signal while it makes calls that were accepted, and accepts more. Gives its exit code, and how often each call was
/// made, when all have been.
fn end_in_the_midst(signal: Signal) -> Option<(Option<i32>, BTreeMap<String, usize>)> {
    let mut host = Host::start()?;
    host.deploy_patient("den", &["note"], &slow());
    let (accepted, mut told, mut code) = (Mutex::new(Vec::new()), BTreeMap::new(), None);
    std::thread::scope(|scope| {
        let (door, accepted) = (host.http, &accepted);
        // Up to what is kept.
        scope.spawn(move || while accept_next(door, accepted) && accepted.lock().unwrap().len() < 900 {});
        until_within(ALL_MAX, "many are accepted, and some are done", || {
            let some = accepted.lock().unwrap().clone();
            let done = host.accepted(&["--state", "done"]);
            let is_time = some.len() >= BEFORE && done.len() >= DONE_BEFORE;
            is_time.then(|| {
                let locations = done.iter().map(|call| call["location"].as_str().unwrap().to_owned());
                told = locations.map(|location| (location.clone(), host.told(&location))).collect();
            })
        });
        code = host.end(signal);
    });
    let first = accepted.lock().unwrap().len();
    host.serve();
    while accepted.lock().unwrap().len() < CALLS {
        assert!(accept_next(host.http, &accepted), "{}", host.agent_log());
    }
    let accepted = accepted.into_inner().unwrap();
    println!("{first} accepted and {} done before {signal}, {} in all", told.len(), accepted.len());
    for (payload, location) in accepted.iter().enumerate() {
        let now = host.assert_made(location, &payload.to_string());
        assert_eq!(told.get(location).unwrap_or(&now), &now, "an answer stays what it is");
    }
    // One may have been stored whose caller was not answered any more, as the agent had ended.
    let (listed, mine): (Vec<_>, BTreeSet<_>) = (host.accepted(&[]), accepted.iter().map(String::as_str).collect());
    let strangers = listed.iter().filter(|call| !mine.contains(call["location"].as_str().unwrap())).count();
    assert!(listed.len() - strangers == accepted.len() && strangers <= 1, "{} listed", listed.len());
    assert_eq!(host.accepted(&["--state", "dead"]).len(), 0);
    Some((code, host.times_made("den")))
}

fn assert_repeats_only_what_was_under_way(times: &BTreeMap<String, usize>) {
    let again: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.len() <= UNDER_WAY_MAX && again.iter().all(|(_, times)| **times == 2), "{again:?}");
}

#[test]
fn an_agent_that_is_killed_loses_no_call_and_repeats_only_those_under_way() {
    let Some((code, times)) = end_in_the_midst(Signal::SIGKILL) else { return };
    assert_eq!(code, None);
    assert_repeats_only_what_was_under_way(&times);
}

#[test]
fn an_agent_that_is_stopped_in_the_midst_leaves_the_rest_to_the_next() {
    let Some((code, times)) = end_in_the_midst(Signal::SIGTERM) else { return };
    assert_eq!(code, Some(0));
    assert_repeats_only_what_was_under_way(&times);
}

/// The agent does not start on this state, and says why and what to do.
fn assert_refused(host: &Host, texts: &[&str]) {
    let refused = program::run(&mut host.serve_command(), PATIENCE);
    assert_eq!((refused.code, refused.text().as_str()), (Some(1), ""), "{}", refused.stderr);
    for text in texts {
        assert!(refused.stderr.contains(text), "{text:?} is not said: {}", refused.stderr);
    }
    assert!(!host.socket().exists());
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_left_as_it_is() {
    let Some(mut host) = Host::start() else { return };
    host.deploy_patient("den", &["note"], NOTING);
    let file = host.state().join("calls.db");
    assert!(!file.exists(), "there is none before the first call is accepted");
    let location = host.accept("/den", "x");
    host.assert_made(&location, "x");
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    let (name, whole) = (file.to_str().unwrap(), fs::read(&file).unwrap());
    // SQLite has the number of the format there, the user version.
    File::options().write(true).open(&file).unwrap().write_all_at(&99_u32.to_be_bytes(), 60).unwrap();
    assert_refused(&host, &[name, "later version of Sandbar", "99", "move the file away"]);
    fs::write(&file, b"These are no calls. ".repeat(1000)).unwrap();
    assert_refused(&host, &[name, "not a database", "move the file away"]);
    assert_eq!(fs::read(&file).unwrap(), b"These are no calls. ".repeat(1000));
    // What is said helps.
    fs::remove_file(&file).unwrap();
    host.serve();
    assert_eq!(host.told(&location).status, 404);
    host.assert_made(&host.accept("/den", "y"), "y");
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    fs::write(&file, whole).unwrap();
    host.serve();
    host.assert_made(&location, "x");
}

/// A file system of its own for the state, which nobody but this thread and what it starts sees.
fn small_disk(state: &Path) -> Option<()> {
    let nothing = None::<&str>;
    let made = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing))
        .and_then(|()| mount(Some("small"), state, Some("tmpfs"), MsFlags::empty(), Some("size=48m,mode=700")));
    made.map_err(|errno| skipped(&format!("no file system can be mounted: {errno}"))).ok()
}

/// Takes up all that is left of a disk.
fn fill(ballast: &Path) {
    let mut file = File::create(ballast).unwrap();
    for chunk in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; chunk]).is_ok() {}
    }
}

fn on_a_full_disk() {
    let Some(mut host) = Host::start() else { return };
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    let (state, ballast) = (host.state(), host.state().join("ballast"));
    let Some(()) = small_disk(&state) else { return };
    host.serve();
    host.deploy_patient("den", &["hold", "note"], NOTING);
    let under_way = host.accept("/den", "x");
    until("it is under way", || (host.accepted(&["--state", "under-way"]).len() == 1).then_some(()));
    fill(&ballast);
    let payload = "y".repeat(16 << 10);
    for _ in 0..3 {
        let refused = accepted::ask(host.http, "/den/note", RESPOND_ASYNC, payload.as_bytes()).unwrap();
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(host.call("den/note", b"z").outcome, "done", "the host serves on");
    }
    // What was made then cannot be written down, and is not made again for that.
    host.end_the_wait("den");
    until("it is tried to write it down", || host.agent_log().contains("trying again").then_some(()));
    assert_eq!(host.told(&under_way).status, 202);
    fs::remove_file(&ballast).unwrap();
    host.assert_made(&under_way, "x");
    assert_eq!(host.times_made("den").get(id_of(&under_way)), Some(&1));
    let accepted = host.accept("/den/note", &payload);
    host.assert_made(&accepted, &payload);
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    host.serve();
    assert_eq!(host.accepted(&[]).len(), 2, "nothing is stored of those that were refused");
    let descendants = process::descendants(host.agent().pid);
    assert_eq!(host.end(Signal::SIGTERM), Some(0), "{}", host.agent_log());
    host.assert_nothing_is_left(&descendants);
    umount(&state).unwrap();
}

#[test]
fn a_full_disk_accepts_nothing_and_loses_nothing() {
    let alone = std::thread::Builder::new().name("a_full_disk_accepts_nothing_and_loses_nothing".to_owned());
    if let Err(panicked) = alone.spawn(on_a_full_disk).unwrap().join() {
        std::panic::resume_unwind(panicked);
    }
}
