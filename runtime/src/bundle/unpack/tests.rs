use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::open;
use proptest::prelude::*;

use super::*;
use crate::bundle::stage;

/// A folder with an application in it, and a directory for applications.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in ["app/lib/target", "app/target", "applications", "root"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for path in ["app/sandbar.toml", "app/lib/target/kept", "app/target/left_out", "app/hello.py"] {
            fs::write(dir.path().join(path), path).unwrap();
        }
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A tar as the program of that name makes it.
    fn packed(&self, arguments: &[&str]) -> Vec<u8> {
        let packed =
            Command::new("tar").current_dir(&self.dir).args(["-c", "-f", "-"]).args(arguments).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        packed.stdout
    }

    /// The files and directories that come of an archive, or why there are none.
    fn staged(&self, bytes: &[u8], limits: &BundleLimits) -> Result<Vec<String>, String> {
        let archive = self.path("archive");
        fs::write(&archive, bytes).unwrap();
        let staged = stage(&archive, &self.path("applications"), limits).map(|staged| below(&staged.path(), ""));
        assert_eq!(below(&self.path("applications"), ""), [""; 0], "nothing is left");
        staged.map_err(|error| crate::chain(&error))
    }
}

fn below(directory: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path(), &format!("{path}/")));
        }
        found.push(path);
    }
    found.sort();
    found
}

const UNPACKED: [&str; 5] = ["hello.py", "lib", "lib/target", "lib/target/kept", "sandbar.toml"];

#[test]
fn the_one_folder_is_left_off_and_so_is_what_is_not_deployed() {
    let host = Host::new();
    fs::create_dir(host.path("target")).unwrap();
    for arguments in [&["app"] as &[&str], &["-C", "app", "."], &["target", "app"], &["./app"]] {
        let unpacked = host.staged(&host.packed(arguments), &BundleLimits::default());
        assert_eq!(unpacked, Ok(UNPACKED.map(str::to_owned).to_vec()), "{arguments:?}");
    }
    // Here the folder is no application's of its own: what is in its `target` is not at the top.
    fs::write(host.path("sandbar.toml"), "").unwrap();
    let unpacked = host.staged(&host.packed(&["sandbar.toml", "app"]), &BundleLimits::default()).unwrap();
    assert!(unpacked.contains(&"app/target/left_out".to_owned()), "{unpacked:?}");
}

#[test]
fn every_limit_is_kept() {
    let host = Host::new();
    fs::write(host.path("app/hello.py"), vec![7; 100_000]).unwrap();
    let bytes = host.packed(&["app"]);
    let total_bytes = 100_000 + ["app/sandbar.toml", "app/lib/target/kept"].map(str::len).iter().sum::<usize>() as u64;
    let limits = BundleLimits { entries: 5, depth: 2, file_bytes: 100_000, total_bytes, ratio: 200 };
    assert_eq!(host.staged(&bytes, &limits).map(|unpacked| unpacked.len()), Ok(5), "all limits are just reached");
    for (limits, why) in [
        (BundleLimits { entries: 4, ..limits }, "up to 4 files and directories"),
        (BundleLimits { depth: 1, ..limits }, "up to 1 directories inside each other"),
        (BundleLimits { file_bytes: 99_999, ..limits }, "up to 99999 bytes in one file"),
        (BundleLimits { total_bytes: total_bytes - 1, ..limits }, "bytes in all"),
        (BundleLimits { total_bytes: 50_000, ..limits }, "up to 100000 bytes are taken"),
    ] {
        let error = host.staged(&bytes, &limits).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_archive_that_changes_meanwhile_is_judged_again() {
    let host = Host::new();
    let limits = BundleLimits::default();
    std::os::unix::fs::symlink("/etc", host.path("app/link")).unwrap();
    let hostile = host.packed(&["app"]);
    fs::remove_file(host.path("app/link")).unwrap();
    let (archive, honest) = (host.path("archive"), host.packed(&["app"]));
    for (second, why) in
        [(hostile, "is a symbolic link"), (host.packed(&["-C", "app", "."]), "changed while it was read")]
    {
        fs::write(&archive, &honest).unwrap();
        let file = File::open(&archive).unwrap();
        let surveyed = survey(&file, honest.len() as u64, &limits).unwrap();
        fs::write(&archive, second).unwrap();
        fs::remove_dir_all(host.path("root")).unwrap();
        fs::create_dir(host.path("root")).unwrap();
        let root = open(&host.path("root"), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let error = surveyed.unpack(root, &limits).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn what_is_made_is_opened_through_no_link() {
    let host = Host::new();
    let root = open(&host.path("root"), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    let limits = BundleLimits::default();
    let mut unpacking = Unpacking::new(&limits, Top::Kept, Some(root));
    let made = unpacking.directory(ROOT, "lib", true).unwrap();
    assert!(unpacking.open(made).is_ok());
    fs::remove_dir(host.path("root/lib")).unwrap();
    std::os::unix::fs::symlink("/etc", host.path("root/lib")).unwrap();
    assert!(unpacking.open(made).is_err());
    assert!(unpacking.directory(made, "inner", true).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// However an archive is changed, what comes of it is in its place, or nothing does.
    #[test]
    fn a_changed_archive_stays_within_its_bundle(
        changes in proptest::collection::vec((0_usize..5000, 0_usize..345, any::<u8>()), 1..4),
    ) {
        let host = Host::new();
        let outside = below(host.dir.path(), "");
        let mut bytes = host.packed(&["app"]);
        let blocks = bytes.len() / 512;
        for (block, at, byte) in changes {
            let header = &mut bytes[block % blocks * 512..][..512];
            header[at] = byte;
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _either = host.staged(&bytes, &BundleLimits::default());
        fs::remove_file(host.path("archive")).unwrap();
        prop_assert_eq!(below(host.dir.path(), ""), outside);
    }
}
