//! Applications whose root file system is an image: unpacked once, shared, taken from whoever wrote it, and gone with the last of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::rootfs::{manifest, write_application};
use crate::support::host::Host;
use crate::support::{PATIENCE, bundle, image, program, skipped, until};

/// The images that a host has unpacked, and what it has half unpacked.
fn images(host: &Host) -> Vec<PathBuf> {
    fs::read_dir(host.state().join("images")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Tells what a process of this image shares with others.
const SHARED: &str = r#"
import ctypes, json, os, sys

def look(event, context):
    library = next(line.split()[-1] for line in open("/proc/self/maps") if "libc.so" in line)
    return json.dumps({
        "inode": os.stat(library).st_ino,
        "library": library,
        "python": os.path.realpath(sys.executable),
        "said": event.decode(),
        "host": [path for path in json.loads(event) if os.path.exists(path)],
    })

def write(event, context):
    outcomes = {}
    for path in json.loads(event):
        for how, act in (("open", lambda: open(path, "r+b")), ("chmod", lambda: os.chmod(path, 0o777)),
                         ("remove", lambda: os.remove(path)), ("make", lambda: os.mkdir(path + ".new"))):
            try:
                act()
                outcomes[path] = how
            except OSError:
                pass
    return json.dumps(outcomes)
"#;

/// A layout with an image of Python in two layers, the upper of which puts libraries through links of the lower one.
fn write_python_layout(host: &Host, busybox: &Path) -> Option<PathBuf> {
    let lower = host.folder().join("lower");
    image::fill_with_busybox(&lower, busybox);
    for name in ["lib", "lib64"] {
        fs::create_dir_all(lower.join("usr").join(name)).unwrap();
        symlink(format!("usr/{name}"), lower.join(name)).unwrap();
    }
    fs::write(lower.join("bin/left-over"), "taken away by the upper layer").unwrap();
    let upper = host.folder().join("upper");
    image::fill_with_python(&upper).then_some(())?;
    fs::create_dir_all(upper.join("bin")).unwrap();
    fs::write(upper.join("bin/.wh.left-over"), "").unwrap();
    let layout = host.folder().join("layout");
    let zstd = program::find(&["zstd"]).map_or("gzip", |_| "zstd");
    // With a directory `lib` of its own the upper layer would replace the link, as it should.
    let upper = image::pack_files(&upper);
    image::write_layout(&layout, "python", &[(image::pack(&lower), Some(zstd)), (upper, Some("gzip"))]);
    Some(layout)
}

fn write_python_application(host: &Host, name: &str, rootfs: &str) -> PathBuf {
    let folder = host.folder().join(name);
    let manifest =
        bundle::python_manifest(name, &["look", "write"]).replacen('\n', &format!("\nrootfs = {rootfs:?}\n"), 1);
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", SHARED)]);
    folder
}

#[test]
fn applications_share_an_image_and_none_can_change_it() {
    let Some(busybox) = image::busybox() else { return };
    let elsewhere = tempfile::Builder::new().prefix("roots-").tempdir().unwrap();
    let Some(host) = Host::start_with(&["--allow-rootfs", elsewhere.path().to_str().unwrap()]) else { return };
    let Some(layout) = write_python_layout(&host, &busybox) else { return };
    // One brings the image along, the other names it where the host keeps it.
    let named = elsewhere.path().join("python");
    program::run(Command::new("cp").arg("-r").args([&layout, &named]), PATIENCE).well();
    let one = write_python_application(&host, "one", "oci:image");
    program::run(Command::new("cp").arg("-r").args([layout, one.join("image")]), PATIENCE).well();
    let other = write_python_application(&host, "other", &format!("oci:{}:python", named.display()));
    let checked = host.sandbar(&["check", one.to_str().unwrap()]).well().text();
    assert!(checked.contains("root file system: oci:image\n"), "{checked}");
    host.deploy(&one);
    host.deploy(&other);
    let unpacked = images(&host);
    assert_eq!(unpacked.len(), 1, "{unpacked:?}");
    let of_host = serde_json::json!([
        "/usr/share",
        "/usr/include",
        "/var",
        "/root/.bashrc",
        "/bin/left-over",
        "/etc/ssl",
        "/bin/sh"
    ]);
    for name in ["one", "other"] {
        let answer = host.call(&format!("{name}/look"), of_host.to_string().as_bytes()).done();
        let seen: BTreeMap<String, serde_json::Value> = serde_json::from_str(&answer).unwrap();
        assert_eq!(seen["host"], serde_json::json!(["/bin/sh"]), "{name} sees the image alone");
        let library = seen["library"].as_str().unwrap();
        let file = unpacked[0].join(library.strip_prefix('/').unwrap());
        assert_eq!(seen["inode"], fs::metadata(file).unwrap().ino(), "{name} has loaded the one copy there is");
        let python = seen["python"].as_str().unwrap();
        let paths = serde_json::json!([library, python, "/bin/sh", "/usr/local/bin/python3", "/usr/local/bin"]);
        assert_eq!(host.call(&format!("{name}/write"), paths.to_string().as_bytes()).done(), "{}", "{name}");
    }
    let mode = fs::metadata(unpacked[0].join("bin/sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn an_image_goes_with_the_last_application_that_has_it() {
    let (Some(busybox), Some(mut host)) = (image::busybox(), Host::start()) else { return };
    let root = host.folder().join("root");
    image::fill_with_busybox(&root, &busybox);
    let layers = [(image::pack(&root), Some("gzip"))];
    let deploy = |host: &Host, name: &str| {
        let folder = write_application(host, name, "oci:image:busy");
        image::write_layout(&folder.join("image"), "busy", &layers);
        host.deploy(&folder);
        folder
    };
    deploy(&host, "one");
    let other = deploy(&host, "other");
    let shared = images(&host);
    assert_eq!(shared.len(), 1);
    host.sandbar(&["remove", "one"]).well();
    assert_eq!(images(&host), shared);
    assert!(host.call("other", b"/bin").done().starts_with("is "));
    // The agent's end keeps it, and the next start takes it as it is.
    let inode = fs::metadata(shared[0].join("bin/sh")).unwrap().ino();
    assert_eq!(host.end(Signal::SIGTERM), Some(0));
    host.serve();
    assert_eq!(host.call("other", b"/bin/sh").done(), format!("is {inode}\nrefused\n"));
    // A version with another image; what the old one had goes when its calls are over.
    fs::write(root.join("bin/new"), "").unwrap();
    fs::remove_dir_all(other.join("image")).unwrap();
    image::write_layout(&other.join("image"), "busy", &[(image::pack(&root), None)]);
    host.deploy(&other);
    assert!(host.call("other", b"/bin/new").done().starts_with("is "));
    until("the old image is gone", || (images(&host).len() == 1 && !shared[0].exists()).then_some(()));
    // One that does not start leaves none.
    bundle::write(&host.folder().join("broken"), &[]);
    let broken = write_python_application(&host, "broken", "oci:image");
    image::write_layout(&broken.join("image"), "busy", &layers);
    let refused = host.sandbar(&["deploy", broken.to_str().unwrap()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it has no Python"), "{}", refused.stderr);
    assert_eq!(images(&host).len(), 1);
    host.sandbar(&["remove", "other"]).well();
    assert_eq!(images(&host), Vec::<PathBuf>::new());
}

#[test]
fn an_agent_that_is_killed_while_it_unpacks_leaves_nothing() {
    let (Some(busybox), Some(mut host)) = (image::busybox(), Host::start()) else { return };
    let root = host.folder().join("root");
    image::fill_with_busybox(&root, &busybox);
    for number in 0..5_000 {
        let directory = root.join(format!("many/{}", number / 100));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(number.to_string()), "x").unwrap();
    }
    let folder = write_application(&host, "large", "oci:image");
    image::write_layout(&folder.join("image"), "large", &[(image::pack(&root), Some("gzip"))]);
    let mut deploying = host.command(&["deploy", folder.to_str().unwrap()]).stderr(Stdio::null()).spawn().unwrap();
    until("the image is half unpacked", || images(&host).iter().find(|path| path.join("many").is_dir()).map(drop));
    host.end(Signal::SIGKILL);
    assert_ne!(program::wait(&mut deploying, PATIENCE), Some(Some(0)));
    let left = images(&host);
    assert!(left.len() == 1 && !left[0].join("many/49/4999").exists(), "it was killed on the way: {left:?}");
    host.serve();
    assert_eq!(images(&host), Vec::<PathBuf>::new());
    assert!(host.applications().is_empty());
    host.deploy(&folder);
    assert!(host.call("large", b"/many/49/4999").done().starts_with("is "));
}

#[test]
fn layouts_that_other_tools_write_are_taken() {
    let (Some(skopeo), Some(umoci)) = (program::find(&["skopeo"]), program::find(&["umoci"])) else {
        return skipped("there is no skopeo, or no umoci");
    };
    let (Some(busybox), Some(host)) = (image::busybox(), Host::start()) else { return };
    let run = |command: &Path, arguments: &[&str]| {
        program::run(Command::new(command).args(arguments).current_dir(host.folder()), PATIENCE).well();
    };
    // An image of two layers by one tool, the second of which takes something away …
    run(&umoci, &["init", "--layout", "made"]);
    run(&umoci, &["new", "--image", "made:base"]);
    run(&umoci, &["unpack", "--image", "made:base", "work"]);
    image::fill_with_busybox(&host.folder().join("work/rootfs"), &busybox);
    fs::write(host.folder().join("work/rootfs/bin/old"), "").unwrap();
    run(&umoci, &["repack", "--image", "made:first", "work"]);
    fs::remove_dir_all(host.folder().join("work")).unwrap();
    run(&umoci, &["unpack", "--image", "made:first", "work"]);
    fs::remove_file(host.folder().join("work/rootfs/bin/old")).unwrap();
    fs::write(host.folder().join("work/rootfs/bin/new"), "").unwrap();
    run(&umoci, &["repack", "--image", "made:second", "work"]);
    // … and copied by another, by way of the format that Docker saves.
    let copy = ["--insecure-policy", "copy", "--quiet"];
    let folder = write_application(&host, "taken", "oci:image:latest");
    run(&skopeo, &[&copy[..], &["oci:made:second", "docker-archive:saved.tar:test/image:latest"]].concat());
    run(&skopeo, &[&copy[..], &["docker-archive:saved.tar", "oci:taken/image:latest"]].concat());
    host.deploy(&folder);
    assert!(host.call("taken", b"/bin/new").done().starts_with("is "));
    assert!(host.call("taken", b"/bin/old").done().starts_with("is missing"));
    // As it is, with several tags in one layout.
    let folder = write_application(&host, "direct", "oci:image:second");
    fs::rename(host.folder().join("made"), folder.join("image")).unwrap();
    host.deploy(&folder);
    assert!(host.call("direct", b"/bin/new").done().starts_with("is "));
    bundle::write(&folder, &[("sandbar.toml", &manifest("direct", "oci:image:secnd"))]);
    let refused = host.sandbar(&["check", folder.to_str().unwrap()]);
    assert!(
        refused.stderr.contains("sandbar.toml:3:10: rootfs `oci:image:secnd` cannot be used"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("did you mean `second`?"), "{}", refused.stderr);
}

#[test]
fn a_library_that_does_not_fit_is_told_by_its_worker() {
    let (Some(busybox), Some(host)) = (image::busybox(), Host::start()) else { return };
    let root = host.folder().join("root");
    image::fill_with_busybox(&root, &busybox);
    if !image::fill_with_python(&root) {
        return;
    }
    // An image with a C library, but not all that a compiler's programs need.
    let found =
        program::run(Command::new("find").arg(&root).args(["-name", "libgcc_s.so*", "-delete", "-print"]), PATIENCE);
    assert_ne!(found.well().text(), "");
    let folder = write_python_application(&host, "unfit", "oci:image");
    image::write_layout(&folder.join("image"), "unfit", &[(image::pack(&root), Some("gzip"))]);
    let refused = host.sandbar(&["deploy", folder.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    for word in ["function ", "libsandbar_function.so", "needs the GNU C library", "libgcc_s.so"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    assert_eq!(images(&host), Vec::<PathBuf>::new());
}

#[test]
fn an_image_whose_interpreter_is_no_template_has_workers_started_by_themselves() {
    let (Some(busybox), Some(host)) = (image::busybox(), Host::start()) else { return };
    let root = host.folder().join("root");
    image::fill_with_busybox(&root, &busybox);
    if !image::fill_with_python(&root) {
        return;
    }
    let found = program::run(Command::new("find").arg(&root).args(["-name", "site.py"]), PATIENCE).well().text();
    // A template is started without arguments, a worker with two.
    let code = "import os, sys\nif len(sys.argv) == 1:\n    os._exit(1)\n";
    let site = Path::new(found.lines().next().unwrap()).with_file_name("sitecustomize.py");
    fs::write(&site, code).unwrap();
    let folder = write_python_application(&host, "alone", "oci:image");
    image::write_layout(&folder.join("image"), "alone", &[(image::pack(&root), Some("gzip"))]);
    host.deploy(&folder);
    for function in ["look", "write"] {
        host.call(&format!("alone/{function}"), b"[]").done();
    }
}
