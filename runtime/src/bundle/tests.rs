use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::{BundleLimits, discard, left_out, stage, sweep_staging};
use crate::manifest::Name;

/// A source folder with a file in it, and a directory for applications.
struct Host {
    _dir: tempfile::TempDir,
    source: PathBuf,
    applications: PathBuf,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, applications) = (dir.path().join("source"), dir.path().join("applications"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&applications).unwrap();
        fs::write(source.join("hello.py"), "hello").unwrap();
        Self { _dir: dir, source, applications }
    }

    /// The error of staging the source, after which nothing must be left.
    fn refused(&self, limits: &BundleLimits) -> String {
        let error = stage(&self.source, &self.applications, limits).unwrap_err().to_string();
        assert_eq!(self.names(), [""; 0], "a refused bundle leaves nothing");
        error
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.applications).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn files_are_copied_with_masked_modes() {
    let host = Host::new();
    fs::create_dir_all(host.source.join("lib/inner/empty")).unwrap();
    fs::write(host.source.join("lib/inner/data"), vec![7; 300_000]).unwrap();
    fs::write(host.source.join("run"), "#!/bin/sh\n").unwrap();
    set_mode(&host.source.join("run"), 0o6711);
    set_mode(&host.source.join("hello.py"), 0o600);
    set_mode(&host.source.join("lib"), 0o700);
    let installed =
        stage(&host.source, &host.applications, &BundleLimits::default()).unwrap().install(&name("a")).unwrap();
    assert_eq!((installed.directory.clone(), installed.previous), (host.applications.join("a"), None));
    let copy = |path: &str| installed.directory.join(path);
    assert_eq!(fs::read(copy("lib/inner/data")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read_to_string(copy("hello.py")).unwrap(), "hello");
    assert!(copy("lib/inner/empty").is_dir());
    assert_eq!([mode(&copy("run")), mode(&copy("hello.py"))], [0o755, 0o644]);
    assert_eq!([mode(&copy("lib")), mode(&copy(""))], [0o755, 0o755]);
    assert_eq!(host.names(), ["a"]);
}

#[test]
fn what_is_neither_file_nor_directory_is_refused_by_name() {
    let host = Host::new();
    let special = host.source.join("lib/special");
    fs::create_dir(host.source.join("lib")).unwrap();
    let refused = |kind: &str| {
        let error = host.refused(&BundleLimits::default());
        assert!(error.contains("lib/special") && error.contains(kind), "{error}");
        fs::remove_file(&special).unwrap();
    };
    symlink("/etc/passwd", &special).unwrap();
    refused("a symbolic link");
    symlink("/etc", &special).unwrap();
    refused("a symbolic link");
    symlink("nowhere", &special).unwrap();
    refused("a symbolic link");
    nix::unistd::mkfifo(&special, nix::sys::stat::Mode::S_IRUSR).unwrap();
    refused("a named pipe");
    let socket = UnixListener::bind(&special).unwrap();
    refused("a socket");
    drop(socket);
    let device = nix::sys::stat::makedev(1, 3);
    let made = nix::sys::stat::mknod(&special, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR, device);
    if made.is_ok() {
        refused("a device");
    } else {
        eprintln!("SKIPPED: no device can be made here");
    }
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    let host = Host::new();
    fs::write(host.source.join(OsStr::from_bytes(b"a\xff")), "").unwrap();
    assert!(host.refused(&BundleLimits::default()).contains("is not UTF-8"));
}

#[test]
fn every_limit_is_kept() {
    let host = Host::new();
    let limits = BundleLimits { entries: 4, depth: 2, file_bytes: 10, total_bytes: 15, ..BundleLimits::default() };
    fs::create_dir_all(host.source.join("a/b")).unwrap();
    fs::write(host.source.join("a/b/ten"), "0123456789").unwrap();
    assert!(stage(&host.source, &host.applications, &limits).is_ok(), "all limits are just reached");
    fs::write(host.source.join("hello.py"), "123456").unwrap();
    let error = host.refused(&limits);
    assert!(error.contains("is too much: a bundle holds up to 15 bytes in all"), "{error}");
    let error = host.refused(&BundleLimits { file_bytes: 9, total_bytes: 100, ..limits });
    assert!(error.contains("a/b/ten\" is too much: a bundle holds up to 9 bytes in one file"), "{error}");
}

#[test]
fn depth_and_number_of_entries_are_kept() {
    let host = Host::new();
    let limits = BundleLimits { entries: 3, depth: 1, ..BundleLimits::default() };
    fs::create_dir_all(host.source.join("a/b")).unwrap();
    let error = host.refused(&limits);
    assert!(error.contains("a/b\" is too much") && error.contains("up to 1 directories inside each other"), "{error}");
    fs::remove_dir(host.source.join("a/b")).unwrap();
    fs::write(host.source.join("x"), "").unwrap();
    assert!(stage(&host.source, &host.applications, &limits).is_ok());
    fs::write(host.source.join("y"), "").unwrap();
    assert!(host.refused(&limits).contains("up to 3 files and directories"));
}

#[test]
fn history_and_build_output_at_the_top_are_left_out() {
    let host = Host::new();
    for dir in [".git", "target", "lib/target"] {
        fs::create_dir_all(host.source.join(dir)).unwrap();
        fs::write(host.source.join(dir).join("file"), "").unwrap();
    }
    symlink("/etc/passwd", host.source.join("target/link")).unwrap();
    let staged = stage(&host.source, &host.applications, &BundleLimits::default()).unwrap();
    let copied = |path: &str| staged.path().join(path).exists();
    assert!(!copied(".git") && !copied("target") && copied("lib/target/file") && copied("hello.py"));
    assert_eq!(left_out(Path::new("target/release/f")), Some("target"));
    assert_eq!(left_out(Path::new("lib/target")), None);
}

#[test]
fn a_staged_bundle_that_is_dropped_is_gone() {
    let host = Host::new();
    let staged = stage(&host.source, &host.applications, &BundleLimits::default()).unwrap();
    assert!(staged.path().join("hello.py").is_file());
    drop(staged);
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_new_version_takes_the_name_in_one_step_and_the_old_one_keeps_its_files() {
    let host = Host::new();
    let install =
        || stage(&host.source, &host.applications, &BundleLimits::default()).unwrap().install(&name("a")).unwrap();
    install();
    let still_open = fs::File::open(host.applications.join("a/hello.py")).unwrap();
    fs::write(host.source.join("hello.py"), "hello again").unwrap();
    let second = install();
    assert_eq!(fs::read_to_string(second.directory.join("hello.py")).unwrap(), "hello again");
    let previous = second.previous.unwrap();
    assert_eq!(fs::read_to_string(previous.join("hello.py")).unwrap(), "hello");
    discard(&previous).unwrap();
    discard(&previous).unwrap();
    assert_eq!(still_open.metadata().unwrap().len(), 5);
    assert_eq!(host.names(), ["a"]);
}

#[test]
fn what_an_interrupted_deployment_left_is_swept_and_nothing_else() {
    let host = Host::new();
    stage(&host.source, &host.applications, &BundleLimits::default()).unwrap().install(&name("a")).unwrap();
    std::mem::forget(stage(&host.source, &host.applications, &BundleLimits::default()).unwrap());
    std::mem::forget(stage(&host.source, &host.applications, &BundleLimits::default()).unwrap());
    assert_eq!(sweep_staging(&host.applications).unwrap(), 2);
    assert_eq!(sweep_staging(&host.applications).unwrap(), 0);
    assert_eq!(host.names(), ["a"]);
}

#[test]
fn the_hosts_own_state_cannot_be_deployed_into_itself() {
    let host = Host::new();
    let above = host.applications.parent().unwrap();
    for source in [above, host.applications.as_path()] {
        let error = stage(source, &host.applications, &BundleLimits::default()).unwrap_err().to_string();
        assert!(error.contains("keeps its applications"), "{error}");
    }
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn a_source_that_is_neither_directory_nor_archive_is_refused() {
    let host = Host::new();
    nix::unistd::mkfifo(&host.source.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    for (source, why) in [("hello.py", "this is no archive"), ("nowhere", "cannot read"), ("pipe", "a named pipe")] {
        let error = stage(&host.source.join(source), &host.applications, &BundleLimits::default()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(host.names(), [""; 0]);
}

#[test]
fn names_that_are_one_elsewhere_or_mislead_are_refused() {
    let host = Host::new();
    for (name, why) in [("Hello.py", "differ in case only"), ("a\nb", "a control character"), ("e\u{301}", "NFC")] {
        fs::write(host.source.join(name), "").unwrap();
        let error = host.refused(&BundleLimits::default());
        assert!(error.contains(why), "{error}");
        fs::remove_file(host.source.join(name)).unwrap();
    }
}
