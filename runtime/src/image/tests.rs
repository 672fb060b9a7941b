//! Image layouts that are as they should be, and all ways in which they are not.

mod hostile;
mod layouts;
mod made;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use made::{Made, device, directory, file, hard_link, link, program, root_of};

use super::{Image, ImageLimits, Images};

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_and_links_are_where_the_layers_put_them() {
    let mut made = Made::new();
    made.layer(&[directory("bin"), program("bin/tool", "tool"), file("etc/settings", "old"), file("etc/kept", "kept")]);
    made.layer(&[
        file("etc/settings", "new"),
        link("lib", "usr/lib"),
        directory("usr/lib"),
        hard_link("bin/same", "bin/tool"),
        hard_link("bin/same-again", "/bin/same"),
    ]);
    // Through a link of a lower layer.
    made.layer(&[file("lib/libc.so", "library"), link("usr/lib/up", "../../bin/tool"), link("absolute", "/etc/kept")]);
    let root = root_of(&made.obtain().unwrap());
    assert_eq!(text(&root, "etc/settings"), "new");
    assert_eq!(text(&root, "etc/kept"), "kept");
    assert_eq!(text(&root, "usr/lib/libc.so"), "library");
    assert_eq!(text(&root, "bin/same-again"), "tool");
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(inode("bin/same-again"), inode("bin/tool"));
    for (path, to) in [("lib", "usr/lib"), ("usr/lib/up", "../../bin/tool"), ("absolute", "/etc/kept")] {
        assert_eq!(fs::read_link(root.join(path)).unwrap(), Path::new(to));
    }
}

#[test]
fn modes_are_plain_and_times_are_kept() {
    let mut made = Made::new();
    made.layer(&[
        directory("closed").with_mode(0o1700),
        program("set-uid", "x").with_mode(0o6755),
        file("secret", "x").with_mode(0o600),
    ]);
    let root = root_of(&made.obtain().unwrap());
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("."), mode("closed"), mode("set-uid"), mode("secret")], [0o755, 0o755, 0o755, 0o644]);
    let metadata = fs::metadata(root.join("secret")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), nix_ids());
    assert_eq!(metadata.mtime(), i64::from(made::MODIFIED));
}

/// Who runs the tests: root, if they run where Sandbar does.
fn nix_ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

#[test]
fn whiteouts_take_away_what_lower_layers_brought() {
    let mut made = Made::new();
    made.layer(&[
        file("a/one", "1"),
        file("a/two", "2"),
        file("b/one", "1"),
        file("b/deep/er", "1"),
        file("c", "c"),
        file("d/one", "1"),
    ]);
    made.layer(&[
        file("a/.wh.one", ""),
        file(".wh.c", ""),
        file("nowhere/.wh.x", ""),
        file(".wh.nothing", ""),
        // What comes with the layer itself stays, whether it comes before or after.
        file("b/deep/new", "new"),
        file("b/.wh..wh..opq", ""),
        file("b/late", "late"),
        file(".wh.d", ""),
        file("d", "a file now"),
    ]);
    let root = root_of(&made.obtain().unwrap());
    assert_eq!(names(&root), ["a", "b", "d"]);
    assert_eq!(names(&root.join("a")), ["two"]);
    assert_eq!(names(&root.join("b")), ["deep", "late"]);
    assert_eq!(names(&root.join("b/deep")), ["new"]);
    assert_eq!(text(&root, "d"), "a file now");
}

#[test]
fn what_replaces_something_else_is_made_anew() {
    let mut made = Made::new();
    made.layer(&[
        file("was-directory/in/it", "x"),
        file("was-file", "x"),
        link("was-link", "target"),
        link("to-directory", "target"),
        file("target/kept", "kept"),
        file("shared", "shared"),
        hard_link("other-name", "shared"),
    ]);
    made.layer(&[
        file("was-directory", "a file"),
        file("was-file/in/it", "x").with_parents(),
        file("was-link", "a file"),
        directory("to-directory"),
        file("shared", "another"),
    ]);
    let root = root_of(&made.obtain().unwrap());
    assert_eq!(text(&root, "was-directory"), "a file");
    assert_eq!(text(&root, "was-file/in/it"), "x");
    assert!(fs::symlink_metadata(root.join("was-link")).unwrap().is_file());
    assert!(fs::symlink_metadata(root.join("to-directory")).unwrap().is_dir());
    assert_eq!(names(&root.join("to-directory")), Vec::<String>::new());
    assert_eq!(text(&root, "target/kept"), "kept", "what a link led to is not touched");
    assert_eq!(text(&root, "other-name"), "shared", "what another name shared is not written to");
}

#[test]
fn devices_are_passed_over_in_dev_alone() {
    let mut made = Made::new();
    made.layer(&[device("dev/null", b'3'), device("dev/initctl", b'6'), directory("dev/pts"), file("etc/x", "x")]);
    let root = root_of(&made.obtain().unwrap());
    assert_eq!(names(&root.join("dev")), ["pts"]);
}

#[test]
fn an_image_is_unpacked_once_and_deleted_when_nobody_has_it() {
    let mut made = Made::new();
    made.layer(&[file("a", "a")]);
    let layout = made.write();
    let images = made.images();
    let Image { digest, directory } = images.obtain(made::open(&layout), Some("latest")).unwrap();
    let again = images.obtain(made::open(&layout), None).unwrap();
    let inode = |image: &std::os::fd::OwnedFd| nix::sys::stat::fstat(image).unwrap().st_ino;
    assert_eq!(inode(&directory), inode(&again.directory));
    assert_eq!(names(&made.images_path()).len(), 1);
    images.keep_only(&BTreeSet::from([digest.clone()])).unwrap();
    assert_eq!(names(&made.images_path()), [digest.directory_name()]);
    images.keep_only(&BTreeSet::new()).unwrap();
    assert_eq!(names(&made.images_path()), Vec::<String>::new());
    images.obtain(made::open(&layout), None).unwrap();
}

#[test]
fn what_an_interruption_left_is_deleted_at_the_start() {
    let made = Made::new();
    let half = made.images_path().join(".staging-1-1/usr/bin");
    fs::create_dir_all(&half).unwrap();
    std::os::unix::fs::symlink(made.folder(), half.join("link")).unwrap();
    Images::open(made.images_path(), ImageLimits::default()).unwrap();
    assert_eq!(names(&made.images_path()), Vec::<String>::new());
    assert!(made.folder().exists());
}
