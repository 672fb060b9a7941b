//! Archives that are deployed: made by the programs that people make them with, and called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kinds::{self, CODE, MANIFEST};
use crate::support::host::Host;
use crate::support::{bundle, program, skipped};
use crate::{deployed, tar, zip};

/// How each format is made of the folder `guest`, in its place or from inside.
const WAYS: [(&str, &str); 12] = [
    ("folder.tar", "tar -cf OUT guest"),
    ("inside.tar", "tar -cf OUT -C guest ."),
    ("names.tar", "tar -cf OUT -C guest sandbar.toml functions.py lib"),
    ("ustar.tar", "tar -H ustar -cf OUT guest"),
    ("posix.tar", "tar -H posix -cf OUT guest"),
    ("folder.tar.gz", "tar -czf OUT guest"),
    ("inside.tgz", "tar -czf OUT -C guest ."),
    ("folder.tar.zst", "tar -c guest | zstd -q -o OUT"),
    ("hard.tar.zst", "tar -c guest | zstd -q -19 -o OUT"),
    ("folder.zip", "zip -q -r OUT guest"),
    ("inside.zip", "cd guest && zip -q -r OUT ."),
    ("python.zip", "python3 -m zipfile -c OUT guest/sandbar.toml guest/functions.py guest/lib"),
];

/// An application with files of several modes, and things that are left out.
fn guest(folder: &Path) {
    let guest = folder.join("guest");
    bundle::write(&guest, &[("sandbar.toml", MANIFEST), ("functions.py", CODE)]);
    bundle::write(&guest.join("lib/inner"), &[("run", "#!/bin/sh\n"), ("Grüße", "hello")]);
    bundle::write(&guest.join("target/debug"), &[("large", "not deployed")]);
    bundle::write(&guest.join(".git"), &[("HEAD", "not deployed")]);
    std::os::unix::fs::symlink("/etc/passwd", guest.join("target/link")).unwrap();
    fs::set_permissions(guest.join("lib/inner/run"), fs::Permissions::from_mode(0o6711)).unwrap();
    fs::set_permissions(guest.join("lib/inner/Grüße"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(guest.join("lib/inner"), fs::Permissions::from_mode(0o3700)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// That what is deployed is the guest, and answers.
#[track_caller]
fn answers(host: &Host, what: &str) {
    assert_eq!(host.call("guest", what.as_bytes()).done(), what);
    assert_eq!(deployed(host), ["guest"], "{what}");
}

fn in_state(host: &Host, path: &str) -> PathBuf {
    host.state().join("applications/guest").join(path)
}

#[test]
fn archives_of_every_format_are_deployed_and_answer() {
    let Some(host) = Host::start() else { return };
    for needed in ["zip", "zstd", "tar", "python3"] {
        if program::find(&[needed]).is_none() {
            return skipped(&format!("there is no {needed}"));
        }
    }
    guest(host.folder());
    for (name, how) in WAYS {
        // The name tells nothing of what is inside.
        let path = host.folder().join("archive");
        let script = how.replace("OUT", &format!("{}.zip", path.display()));
        let made = Command::new("sh").args(["-ec", &script]).current_dir(host.folder()).output().unwrap();
        assert!(made.status.success(), "{name}: {}", String::from_utf8_lossy(&made.stderr));
        fs::rename(path.with_extension("zip"), &path).unwrap();
        let checked = host.sandbar(&["check", path.to_str().unwrap()]).well();
        assert!(checked.text().starts_with("guest: calls start at echo"), "{name}: {}", checked.text());
        let done = host.sandbar(&["deploy", path.to_str().unwrap()]).well();
        assert!(done.text().contains("deployed guest: echo"), "{name}: {}", done.text());
        crate::support::until(&format!("the version before {name} is gone"), || {
            (deployed(&host) == ["guest"]).then_some(())
        });
        answers(&host, name);
        let modes = ["lib/inner/run", "lib/inner/Grüße", "lib/inner", ""].map(|path| mode(&in_state(&host, path)));
        // Python's module does not keep modes.
        let run = if name == "python.zip" { modes[0] } else { 0o755 };
        assert_eq!(modes, [run, 0o644, 0o755, 0o755], "{name}");
        assert!(!in_state(&host, "target").exists() && !in_state(&host, ".git").exists(), "{name}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn modes_are_masked_and_what_is_left_out_may_be_anything() {
    let Some(host) = Host::start() else { return };
    let set_uid = tar::changed("run", b'0', |block| block[100..107].copy_from_slice(b"0006755"));
    let set_gid = tar::changed("d", b'5', |block| block[100..107].copy_from_slice(b"0002777"));
    let left_out = [tar::link("target/link", b'2', "/etc"), tar::changed(".git/pipe", b'6', |_| ())].concat();
    let bytes = [kinds::application(), set_uid, set_gid, left_out, tar::end()].concat();
    let zipped = [("sandbar.toml", MANIFEST), ("functions.py", CODE), ("run", "")]
        .map(|(name, contents)| zip::changed(name, contents.as_bytes(), |entry| entry.mode = 0o106_755));
    for (what, bytes) in [("tar", bytes), ("zip", zip::zip(&zipped, |_| ()))] {
        let path = host.folder().join(what);
        fs::write(&path, bytes).unwrap();
        host.deploy(&path);
        assert_eq!(mode(&in_state(&host, "run")), 0o755, "{what}");
        assert!(what == "zip" || mode(&in_state(&host, "d")) == 0o755);
        assert!(!in_state(&host, "target").exists() && !in_state(&host, ".git").exists(), "{what}");
        crate::support::until("the version before is gone", || (deployed(&host) == ["guest"]).then_some(()));
        answers(&host, what);
    }
}
