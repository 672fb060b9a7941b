//! Layers that reach out of the root, contradict themselves, or are too much.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::made::{Entry, Made, archive, device, directory, file, hard_link, link, root_of, zstd_bomb};
use super::{ImageLimits, names, text};

/// Why an image of these layers is not taken.
#[track_caller]
fn refused(layers: &[&[Entry]]) -> String {
    let mut made = Made::new();
    layers.iter().for_each(|layer| made.layer(layer));
    made.refused()
}

#[test]
fn entries_that_lead_out_of_the_root_are_refused() {
    let (out, missing, wrong) =
        ("leads out of the root", "a hard link to what is not in the image", "takes away what cannot be");
    for (entry, why) in [
        (file("../out", "x"), out),
        (file("a/../../out", "x"), out),
        (file("/etc/out", "x"), out),
        (file("..", "x"), out),
        (directory(".."), out),
        (directory("/"), out),
        (file(".", "x"), "is the root, and not a directory"),
        (link("up", "../out"), "a symbolic link out of the root"),
        (link("a/b/up", "../../../out"), "a symbolic link out of the root"),
        (link("up", "a/../../out"), "a symbolic link out of the root"),
        (link("up", "/../out"), "a symbolic link out of the root"),
        (link("up", ""), "a link leads nowhere"),
        (hard_link("up", "../../etc/passwd"), out),
        (hard_link("up", "/etc/passwd"), missing),
        (hard_link("up", "up"), missing),
        (hard_link("up", ""), "a link leads nowhere"),
        (hard_link("up", "/"), missing),
        (hard_link("up", "a/b"), "a hard link to a directory"),
        (hard_link("a/b/c", "a/b/c"), "a hard link to itself"),
        (file(".wh...", ""), wrong),
        (file("a/.wh..", ""), wrong),
        (file(".wh.", ""), wrong),
        (file("a/.wh..wh.plnk", ""), wrong),
        (file(".wh.a/x", ""), "is in what takes something away"),
    ] {
        let refused = refused(&[&[file("a/b/c", "x")], &[entry]]);
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

#[test]
fn nothing_is_written_through_a_link_to_the_host() {
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    let victim = host.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let through = |to: &str| {
        [
            vec![file("etc/victim", "x")],
            vec![directory("etc/made")],
            vec![file("etc/.wh.victim", "")],
            vec![file("etc/.wh..wh..opq", "")],
            vec![hard_link("mine", "etc/victim"), file("mine", "x")],
            vec![link("etc/victim", "/x")],
        ]
        .into_iter()
        .map(move |layer| (vec![link("etc", to)], layer))
        .collect::<Vec<_>>()
    };
    for (lower, upper) in through(target).into_iter().chain(through(&format!("/proc/self/root/{target}"))) {
        let mut made = Made::new();
        made.layer(&lower);
        made.layer(&upper);
        // A whiteout of what is not there is no error; all else is.
        if let Ok(image) = made.obtain() {
            assert_eq!(names(&root_of(&image)), ["etc"]);
        }
        let mut in_one = Made::new();
        in_one.layer(&[lower, upper].concat());
        if let Ok(image) = in_one.obtain() {
            assert_eq!(names(&root_of(&image)), ["etc"]);
        }
        assert_eq!(names(host.path()), ["victim"]);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    }
}

#[test]
fn a_link_to_a_path_that_the_image_has_as_well_stays_inside() {
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    let mut made = Made::new();
    made.layer(&[directory(&target[1..]), link("etc", target)]);
    made.layer(&[file("etc/mine", "inside")]);
    let root = root_of(&made.obtain().unwrap());
    assert_eq!(text(&root.join(&target[1..]), "mine"), "inside");
    assert_eq!(names(host.path()), Vec::<String>::new());
}

#[test]
fn special_files_are_refused_outside_dev() {
    for kind in [b'3', b'4', b'6'] {
        for path in ["etc/null", "null", "devices/null", "a/dev/null"] {
            let why = refused(&[&[device(path, kind)]]);
            assert!(why.contains("device or named pipe"), "{why}");
        }
    }
    for kind in [b'7', b'S', b'M', b'Z'] {
        let why = refused(&[&[Entry::new("odd", kind, "", 0o644, b"x")]]);
        assert!(why.contains("which is not supported"), "{why}");
    }
}

#[test]
fn a_layer_does_not_contradict_itself() {
    for layer in [
        vec![file("a", "1"), file("a", "2")],
        vec![file("a", "1"), file("./a", "2")],
        vec![file("a", "1"), link("a", "b")],
        vec![directory("a"), file("a", "1")],
        vec![file("a/b", "1"), file("a", "2")],
        vec![file("a/b", "1"), link("a", "c")],
        vec![file("a", "1"), file(".wh.a", "")],
        vec![file("a/b", "1"), file(".wh.a", "")],
        vec![directory("d"), link("l", "d"), file("d/x", "1"), file("l/x", "2")],
        vec![link("a", "b"), file("a", "1")],
        vec![file("a/b", "1"), file("a/.wh..wh..opq", ""), file("a/.wh..wh..opq", "")],
        vec![file("a/b", "1"), link("l", "a"), file("a/.wh..wh..opq", ""), file("l/.wh..wh..opq", "")],
    ] {
        let why = refused(&[&layer]);
        assert!(why.contains("comes twice in one layer"), "{why}");
    }
    let why = refused(&[&[file("a", "1"), file("a/b", "2")]]);
    assert!(why.contains("is no directory"), "{why}");
}

#[test]
fn an_image_has_limits() {
    let small = ImageLimits { entries: 10, depth: 4, file_bytes: 1000, total_bytes: 2500, ..ImageLimits::default() };
    let many: Vec<_> = (0..11).map(|number| file(&number.to_string(), "")).collect();
    let implied: Vec<_> = (0..6).map(|number| file(&format!("{number}/{number}"), "")).collect();
    let hidden: Vec<_> = (0..11).map(|number| file(&format!(".wh.{number}"), "")).collect();
    let again = vec![directory("a"); 11];
    let (full, too_full) = ("x".repeat(1000), "x".repeat(1001));
    let all = [file("a", &full), file("b", &full), file("c", &full)];
    for (layer, why) in [
        (many, "up to 10 files and directories"),
        (implied, "up to 10 files and directories"),
        (hidden, "up to 10 files and directories"),
        (again, "up to 10 files and directories"),
        (vec![file("1/2/3/4/5", "")], "up to 4 directories inside each other"),
        (vec![directory("1/2"), link("l", "1/2"), file("l/3/4/5", "")], "up to 4 directories inside each other"),
        (vec![file("a", &too_full)], "up to 1000 bytes of one file"),
        (all.to_vec(), "up to 2500 bytes in all"),
    ] {
        let mut made = Made::with_layer(&layer);
        made.limits = small;
        let refused = made.refused();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    let mut over_layers = Made::new();
    all.iter().for_each(|file| over_layers.layer(std::slice::from_ref(file)));
    over_layers.limits = small;
    assert!(over_layers.refused().contains("up to 2500 bytes in all"));
    // Each of the three layers is an archive of 2.5 KiB.
    over_layers.limits = ImageLimits { archive_bytes: 5 << 10, ..ImageLimits::default() };
    assert!(over_layers.refused().contains("swells to far more"));
    over_layers.limits = ImageLimits { archive_bytes: 3 * 2560, ..ImageLimits::default() };
    over_layers.obtain().unwrap();
}

/// Anything that a layer may say, about a few names that meet again and again; `HOST` stands for a directory of the host.
fn anything() -> impl Strategy<Value = Entry> {
    const PLAIN: [&str; 4] = ["a", "b", "l", "dev"];
    const WHITEOUTS: [&str; 4] = [".wh.a", ".wh.l", ".wh..wh..opq", ".wh..."];
    const ODD: [&str; 4] = ["..", ".", "HOST", "/HOST"];
    const TARGETS: [&str; 9] = ["a", "b/a", "..", "../a", "../../..", "/", "/HOST", "l", "/proc/self/root/HOST"];
    let plain = prop_oneof![20 => select(&PLAIN[..]), 1 => select(&ODD[..])];
    let last = prop_oneof![20 => select(&PLAIN[..]), 4 => select(&WHITEOUTS[..]), 1 => select(&ODD[..])];
    let path = (vec(plain, 0..3), last).prop_map(|(names, last)| [names, vec![last]].concat().join("/"));
    let target = select(&TARGETS[..]);
    let kind = prop_oneof![9 => 0..3, 1 => 3..5];
    (kind, path, target).prop_map(|(kind, path, target)| match kind {
        0 => file(&path, "hostile"),
        1 => directory(&path),
        2 => link(&path, target),
        3 => hard_link(&path, target),
        _ => device(&path, b'3'),
    })
}

/// All that is below a directory is a plain file, a plain directory, or a link.
fn assert_plain(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o755, "{entry:?}");
            assert_plain(&entry.path());
        } else {
            assert!(metadata.is_symlink() || metadata.is_file() && mode == 0o644, "{entry:?} {metadata:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn whatever_layers_say_the_host_is_left_alone(layers in vec(vec(anything(), 1..8), 1..4)) {
        let host = tempfile::tempdir().unwrap();
        let target = host.path().to_str().unwrap();
        for name in ["a", "l"] {
            fs::write(host.path().join(name), "untouched").unwrap();
        }
        let mut made = Made::new();
        for layer in layers {
            let there = |text: String| text.replace("/HOST", target).replace("HOST", &target[1..]);
            made.layer(&layer.into_iter().map(|entry| entry.with_names(there)).collect::<Vec<_>>());
        }
        match made.obtain() {
            Ok(image) => assert_plain(&root_of(&image)),
            Err(_) => assert_eq!(names(&made.images_path()), Vec::<String>::new()),
        }
        assert_eq!(names(host.path()), ["a", "l"]);
        for name in ["a", "l"] {
            assert_eq!(text(host.path(), name), "untouched");
        }
        assert_eq!(fs::metadata(host.path().join("a")).unwrap().nlink(), 1);
    }
}

#[test]
fn a_layer_that_swells_is_given_up_early() {
    // A file of 256 MiB of zeros, out of 8 KiB; and as much behind the end of the archive.
    let zeros = 2048;
    let mut head = archive(&[Entry::new("zeros", b'0', "", 0o644, b"")]);
    head.truncate(512);
    head[124..135].copy_from_slice(format!("{:011o}", zeros << 17).as_bytes());
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for head in [head, archive(&[file("a", "a")])] {
        let mut made = Made::new();
        made.packed_layer("+zstd", zstd_bomb(&head, zeros), Vec::new());
        let refused = made.refused();
        assert!(refused.contains("swells to far more than real files would"), "{refused}");
    }
}
