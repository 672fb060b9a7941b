//! Hostile archives: what is deployed is written by people whom the host does not trust.
//!
//! The built command is given archives of every kind of malice that we know of, against a host that serves a neighbour. Each must
//! be refused soon, for the reason that is the right one, and leave nothing: no file, no memory, no call of the neighbour's that
//! fails. Archives as people make them are deployed.
//!
//! | module | |
//! |---|---|
//! | [`kinds`] | the archives, and what is to be said of each |
//! | [`tar`], [`zip`], [`compressed`] | how they are made, byte by byte |
//! | [`good`] | archives that are deployed, made by the usual programs |
//!
//! They need root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail loudly, and what they print is for people"
)]

mod compressed;
mod good;
mod kinds;
#[allow(dead_code, reason = "shared with the end-to-end tests, which need more of it")]
#[path = "../e2e/support.rs"]
mod support;
mod tar;
mod zip;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kinds::{Kind, application};
use support::host::Host;

/// The longest that a refusal may take. The slowest reads 256 MiB; the command is not optimised, and the machine is busy.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);

/// What the host agent's memory may grow by at the most, over all archives: two windows, the table of a bundle's entries, and what the
/// allocator keeps.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

/// What an archive that gets out would leave.
const ESCAPED: &str = "/tmp/sandbar-escaped";

/// Bytes of a file that is mostly a hole, with these at its start.
fn sparse(path: &Path, head: &[u8], length: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(head).unwrap();
    file.set_len(length).unwrap();
}

/// A tar of a million files.
fn million(path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&application()).unwrap();
    let mut block = tar::header(b"f0000000", b'0', 0);
    let zeros = u32::from(b'0') * 7;
    let sum_of_zeros: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>()
        - block[148..156].iter().map(|byte| u32::from(*byte)).sum::<u32>()
        + 8 * 32;
    for number in 0..1_000_000 {
        let digits = format!("{number:07}");
        let sum = sum_of_zeros - zeros + digits.bytes().map(u32::from).sum::<u32>();
        block[1..8].copy_from_slice(digits.as_bytes());
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        file.write_all(&block).unwrap();
    }
    file.write_all(&tar::end()).unwrap();
    file.flush().unwrap();
}

/// Kinds that are no matter of bytes in memory: what is at the path, and what is said of it.
fn special(folder: &Path) -> Vec<(&'static str, PathBuf, &'static str)> {
    let path = |name: &str| folder.join(name);
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("endless")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("folder/sandbar.toml"), kinds::MANIFEST).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path("folder/functions.py")).unwrap();
    let of = |size| [application(), tar::header(b"hole", b'0', size).to_vec()].concat();
    sparse(&path("huge"), &of(600 << 20), 600 << 20);
    let holes =
        |names: &[&str]| -> Vec<u8> { names.iter().flat_map(|name| tar::header(name.as_bytes(), b'0', 0)).collect() };
    sparse(
        &path("hole"),
        &[application(), holes(&["a", "b"]), tar::header(b"c", b'0', 120 << 20).to_vec()].concat(),
        100 << 20,
    );
    in_all(&path("in_all"));
    million(&path("million"));
    vec![
        ("a named pipe as an archive", path("pipe"), "a named pipe"),
        ("a socket as an archive", path("socket"), "a socket"),
        ("a device as an archive", path("endless"), "a device"),
        ("a link to nowhere as an archive", path("dangling"), "cannot read"),
        ("a folder with a link", path("folder"), "is a symbolic link"),
        ("an archive of 600 MiB", path("huge"), "the archive is too large: up to 536870912 bytes are taken"),
        ("an archive that is cut off in a hole", path("hole"), "in the middle of an entry"),
        ("three files of 100 MiB", path("in_all"), "a bundle holds up to 268435456 bytes in all"),
        ("a million files", path("million"), "is too much: a bundle holds up to 10000 files and directories"),
    ]
}

/// A tar of three files of 100 MiB, mostly holes.
fn in_all(path: &Path) {
    const SIZE: u64 = 100 << 20;
    sparse(path, &application(), application().len() as u64);
    let mut file = File::options().write(true).open(path).unwrap();
    for name in ["a", "b", "c"] {
        let end = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        file.write_all(&tar::header(name.as_bytes(), b'0', SIZE)).unwrap();
        file.set_len(end + 512 + SIZE).unwrap();
    }
    let end = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.set_len(end + 1024).unwrap();
}

/// The names in the directory of applications.
fn deployed(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.state().join("applications")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What came of all of them.
#[derive(Default)]
struct Refused {
    count: usize,
    slowest: (Duration, &'static str),
    /// What was not as it should be.
    wrong: Vec<String>,
}

impl Refused {
    /// Has the command refuse what is at this path.
    fn deploy(&mut self, host: &Host, name: &'static str, path: &Path, said: &str) {
        let start = Instant::now();
        let refused = host.sandbar(&["deploy", path.to_str().unwrap()]);
        let took = start.elapsed();
        let shown: String = refused.stderr.chars().take(2000).collect();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                self.wrong.push(format!("{name}: {what}: {:?} after {took:?}: {shown}", refused.code));
            }
        };
        must(refused.code == Some(1), "it is not refused");
        must(shown.contains(said), &format!("{said:?} is not said"));
        must(shown == refused.stderr, "too much is said");
        must(took < REFUSED_WITHIN, "it takes too long");
        must(deployed(host) == ["neighbour"], "it leaves something");
        must(!Path::new(ESCAPED).exists(), "it gets out");
        self.slowest = self.slowest.max((took, name));
        self.count += 1;
    }

    /// Has the command look at it, which says the same.
    fn check(&mut self, host: &Host, name: &str, path: &Path, said: &str) {
        let checked = host.sandbar(&["check", path.to_str().unwrap()]);
        if checked.code != Some(1) || !checked.stderr.contains(said) {
            self.wrong.push(format!("{name}: checked: {:?}: {}", checked.code, checked.stderr));
        }
    }
}

/// Has them all refused, one after another.
fn refuse_all(host: &Host) -> Refused {
    let mut refused = Refused::default();
    let folder = host.folder().join("archives");
    fs::create_dir(&folder).unwrap();
    for Kind { name, bytes, said } in kinds::all() {
        let path = folder.join("archive.tar.gz");
        fs::write(&path, bytes).unwrap();
        refused.deploy(host, name, &path, said);
        refused.check(host, name, &path, said);
    }
    for (name, path, said) in special(&folder) {
        refused.deploy(host, name, &path, said);
    }
    fs::remove_dir_all(&folder).unwrap();
    refused
}

#[test]
fn every_kind_of_hostile_archive_is_refused_and_leaves_nothing() {
    let Some(host) = Host::start() else { return };
    assert!(!Path::new(ESCAPED).exists(), "{ESCAPED} is there before anything is deployed");
    host.deploy_python("neighbour", &["echo"], "def echo(event, context):\n    return event\n");
    // What it has had at most is counted from here.
    fs::write(format!("/proc/{}/clear_refs", host.agent().pid), "5").unwrap();
    let peak = || host.agent().status("VmHWM").and_then(|size| size.strip_suffix(" kB")?.parse::<u64>().ok()).unwrap();
    let (before, descriptors) = (peak(), host.agent().descriptors());
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let Refused { count, slowest, wrong } = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(host.call("neighbour", b"well?").done(), "well?");
                calls.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| refuse_all(&host)));
        done.store(true, Ordering::Relaxed);
        refused.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let growth = peak().saturating_sub(before);
    let calls = calls.into_inner();
    // Past the test harness, which swallows what passing tests print.
    let told = format!(
        "{count} kinds of hostile archives refused; the slowest was {} ({:?})\n\
         the agent grew by {growth} KiB at most; its neighbour answered {calls} calls meanwhile\n",
        slowest.1, slowest.0
    );
    std::io::stdout().write_all(told.as_bytes()).unwrap();
    assert!(wrong.is_empty(), "{} are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
    assert!(growth < GROWTH_KIB_MAX, "the agent grew by {growth} KiB");
    assert!(calls > count, "the neighbour had {calls} calls");
    support::until("its descriptors are closed", || (host.agent().descriptors() <= descriptors).then_some(()));
}
