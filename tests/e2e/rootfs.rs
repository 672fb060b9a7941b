//! Applications that bring a root file system of their own, or name one of the host's: directories; images are in [`images`](crate::images).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag};

use crate::support::host::Host;
use crate::support::{bundle, image, until};

/// Tells what is at the path in the event, and what became of writing there.
const LOOK: &str = r#"#!/bin/sh
path=$(cat)
stat -c "is %i" "$path" 2>/dev/null || echo "is missing"
[ -d "$path" ] && path="$path/sandbar-was-here"
(: >>"$path") 2>/dev/null && echo written || echo refused
"#;

const LIST: &str = "#!/bin/sh\nls -a \"$(cat)\"\n";

pub(crate) fn manifest(name: &str, rootfs: &str) -> String {
    format!(
        "name = \"{name}\"\nentry = \"look\"\nrootfs = {rootfs:?}\n\n[functions.look]\nruntime = \"executable\"\ncode = \"look\"\n\n\
         [functions.list]\nruntime = \"executable\"\ncode = \"list\"\n"
    )
}

/// Writes an application of shell functions with this root file system.
pub(crate) fn write_application(host: &Host, name: &str, rootfs: &str) -> PathBuf {
    let folder = host.folder().join(name);
    bundle::write(&folder, &[("sandbar.toml", &manifest(name, rootfs)), ("look", LOOK), ("list", LIST)]);
    folder
}

#[test]
fn a_root_in_the_bundle_is_all_that_functions_see() {
    let (Some(busybox), Some(host)) = (image::busybox(), Host::start()) else { return };
    let folder = write_application(&host, "own", "root");
    image::fill_with_busybox(&folder.join("root"), &busybox);
    fs::create_dir(folder.join("root/etc")).unwrap();
    fs::write(folder.join("root/etc/passwd"), "postgres:x:1000:1000::/:/bin/sh\n").unwrap();
    fs::write(folder.join("root/etc/own"), "").unwrap();
    host.sandbar(&["check", folder.to_str().unwrap()]).well();
    host.deploy(&folder);
    let listed = |path: &str| {
        let mut names: Vec<_> = host.call("own/list", path.as_bytes()).done().lines().map(str::to_owned).collect();
        // A busybox that is not static comes with libraries.
        names.retain(|name| !name.starts_with('.') && !name.starts_with("lib") && name != "usr");
        names
    };
    assert_eq!(listed("/"), ["app", "bin", "dev", "etc", "proc", "sandbar", "tmp"]);
    assert_eq!(listed("/etc"), ["group", "hosts", "nsswitch.conf", "own", "passwd"]);
    assert_eq!(listed("/dev"), ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]);
    for path in ["/", "/bin", "/bin/sh", "/etc", "/etc/passwd", "/app", "/dev", "/sandbar", "/proc"] {
        let looked = host.call("own", path.as_bytes()).done();
        assert!(!looked.contains("missing") && looked.ends_with("refused\n"), "{path}: {looked}");
    }
    for path in ["/tmp", "/dev/shm", "/dev/null"] {
        assert!(host.call("own", path.as_bytes()).done().ends_with("written\n"), "{path}");
    }
    // A sandbox that is made again has the same root.
    let first = host.first_process("own");
    first.signal(Signal::SIGKILL);
    until("the sandbox is made again", || (host.first_process("own") != first).then_some(()));
    assert!(host.call("own", b"/etc/own").done().ends_with("refused\n"));
    // Where a sandbox was built, and from what, is nothing that its functions are told.
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", host.first_process("own").pid)).unwrap();
    let root = mounts.lines().find(|line| line.contains(" - overlay ")).unwrap();
    assert!(!root.contains(host.state().to_str().unwrap()), "{root}");
    assert!(root.contains(" / / ro,nosuid,nodev") && root.contains("lowerdir=tree:image,"), "{root}");
}

#[test]
fn the_users_of_a_root_lend_their_names_to_nobody() {
    let (Some(busybox), Some(host)) = (image::busybox(), Host::start()) else { return };
    let folder = write_application(&host, "own", "root");
    image::fill_with_busybox(&folder.join("root"), &busybox);
    fs::create_dir(folder.join("root/etc")).unwrap();
    let users: String = (0..3000).map(|user| format!("postgres:x:{user}:{user}::/:/bin/sh\n")).collect();
    fs::write(folder.join("root/etc/passwd"), &users).unwrap();
    bundle::write(&folder, &[("look", "#!/bin/sh\nid\nhead -n 1 /etc/passwd\n")]);
    host.deploy(&folder);
    let answer = host.call("own", b"").done();
    assert!(answer.contains("uid=2") && !answer.contains("postgres"), "{answer}");
    assert!(answer.ends_with("root:x:0:0::/:/bin/false\n"), "{answer}");
}

#[test]
fn a_directory_of_the_host_is_used_only_if_the_host_allows_it() {
    let Some(busybox) = image::busybox() else { return };
    let elsewhere = tempfile::Builder::new().prefix("roots-").tempdir().unwrap();
    // As the host allows it, and with all that has a meaning among mount options.
    let allowed = elsewhere.path().join("allowed:a,b\\c");
    let root = allowed.join("x,y:z\\");
    image::fill_with_busybox(&root, &busybox);
    fs::create_dir(elsewhere.path().join("other")).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&root.join("device"), SFlag::S_IFCHR, Mode::all(), null).unwrap();
    fs::set_permissions(root.join("device"), fs::Permissions::from_mode(0o666)).unwrap();
    symlink(elsewhere.path().join("other"), allowed.join("out")).unwrap();
    let Some(host) = Host::start_with(&["--allow-rootfs", allowed.to_str().unwrap()]) else { return };
    let folder = write_application(&host, "named", root.to_str().unwrap());
    host.deploy(&folder);
    assert!(host.call("named", b"/device").done().ends_with("refused\n"), "a device is none inside");
    let inode = fs::metadata(root.join("bin/sh")).unwrap().ino();
    assert_eq!(host.call("named", b"/bin/sh").done(), format!("is {inode}\nrefused\n"));
    assert_eq!(host.call("named", b"/usr").done(), "is missing\nrefused\n");
    for path in [elsewhere.path().join("other"), allowed.join("out"), PathBuf::from("/usr")] {
        let folder = write_application(&host, "greedy", path.to_str().unwrap());
        host.sandbar(&["check", folder.to_str().unwrap()]).well();
        let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("sandbar serve --allow-rootfs"), "{}", refused.stderr);
    }
    let missing = write_application(&host, "greedy", allowed.join("missing").to_str().unwrap());
    let refused = host.sandbar(&["deploy", missing.to_str().unwrap()]);
    assert!(refused.stderr.contains("cannot open") && refused.stderr.contains("missing"), "{}", refused.stderr);
    assert_eq!(host.applications().len(), 1);
}

#[test]
fn a_program_whose_loader_is_not_in_the_root_says_so() {
    let (Some(busybox), Some(host)) = (image::busybox(), Host::start()) else { return };
    let folder = write_application(&host, "own", "root");
    image::fill_with_busybox(&folder.join("root"), &busybox);
    fs::copy("/bin/true", folder.join("look")).unwrap();
    host.deploy(&folder);
    let called = host.call("own", b"");
    assert_eq!(called.outcome, "failed");
    assert!(called.diagnostic.contains("loader or interpreter"), "{}", called.diagnostic);
    let python = "name = \"own\"\nrootfs = \"root\"\n[functions.f]\nruntime = \"python3\"\ncode = \"f.py\"\n";
    bundle::write(&folder, &[("sandbar.toml", python), ("f.py", "def handle(event, context):\n    return event\n")]);
    let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it has no Python"), "{}", refused.stderr);
}

#[test]
fn native_functions_run_on_the_libraries_of_their_root() {
    let Some(host) = Host::start() else { return };
    let folder = host.folder().join("chain");
    let example = bundle::example("chain");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::create_dir(folder.join("root")).unwrap();
    fs::copy(example.join("bin/chain"), folder.join("bin/chain")).unwrap();
    let manifest = fs::read_to_string(example.join("sandbar.toml")).unwrap();
    fs::write(folder.join("sandbar.toml"), format!("rootfs = \"root\"\n{manifest}")).unwrap();
    let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot run /app/bin/chain: the loader or interpreter"), "{}", refused.stderr);
    image::fill_with_libraries_of(&folder.join("root"), &folder.join("bin/chain"));
    host.deploy(&folder);
    assert_eq!(host.call("chain", b"x").done(), "x>first>second>third");
}
