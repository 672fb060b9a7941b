//! Root file systems and images for the tests, made of what the machine has: there is no network to fetch any from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{program, skipped};

const PATIENCE: Duration = Duration::from_secs(120);

/// What of a Python's library no function needs, and most of its size.
const LEFT_OUT: [&str; 7] =
    ["site-packages", "dist-packages", "test", "idlelib", "ensurepip", "__pycache__", "config-*"];

/// This machine's busybox; `None`, and the test is skipped, where there is none.
pub(crate) fn busybox() -> Option<PathBuf> {
    let found = program::find(&["busybox"]);
    if found.is_none() {
        skipped("there is no busybox");
    }
    found
}

/// Fills a folder with a shell and what it calls, and their libraries if they need any. Without links, so that it may be part of
/// a bundle.
pub(crate) fn fill_with_busybox(root: &Path, busybox: &Path) {
    fs::create_dir_all(root.join("bin")).unwrap();
    for name in ["sh", "cat", "ls", "stat", "id", "head"] {
        fs::copy(busybox, root.join("bin").join(name)).unwrap();
    }
    fill_with_libraries_of(root, busybox);
}

/// Fills a folder with the libraries that a program needs.
pub(crate) fn fill_with_libraries_of(root: &Path, program: &Path) {
    libraries(program).iter().for_each(|library| copy_to_same_place(root, library));
}

fn copy_to_same_place(root: &Path, file: &Path) {
    let place = root.join(file.strip_prefix("/").unwrap());
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(file, place).unwrap();
}

/// Fills a folder with this machine's Python and the libraries it loads, all where they are on this machine, and a link to the
/// interpreter in `/usr/local/bin`. False, and the test is skipped, where there is no Python.
pub(crate) fn fill_with_python(root: &Path) -> bool {
    let question =
        "import os, sys, sysconfig\nprint(os.path.realpath(sys.executable))\nprint(sysconfig.get_path('stdlib'))";
    let Some(python) = program::find(&["python3"]) else {
        skipped("there is no Python");
        return false;
    };
    let answer = program::run(Command::new(python).args(["-I", "-S", "-c", question]), PATIENCE).well().text();
    let lines: Vec<&Path> = answer.lines().map(Path::new).collect();
    let [interpreter, library] = lines[..] else { panic!("{answer}") };
    let within = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    fs::create_dir_all(within(library)).unwrap();
    let mut copy = Command::new("sh");
    copy.args(["-c", "tar -c \"$@\" -C \"$FROM\" . | tar -x -C \"$TO\"", "sh"]);
    copy.args(LEFT_OUT.map(|name| format!("--exclude={name}")));
    program::run(copy.env("FROM", library).env("TO", within(library)), PATIENCE).well();
    copy_to_same_place(root, interpreter);
    let extensions = fs::read_dir(library.join("lib-dynload")).unwrap().map(|entry| entry.unwrap().path());
    let programs = extensions.chain([interpreter.to_owned()]);
    // The function library's own needs as well: the compiler's.
    let mut needed: Vec<PathBuf> = programs.flat_map(|path| libraries(&path)).collect();
    needed.push(
        libraries(Path::new(env!("CARGO_BIN_EXE_sandbar")))
            .into_iter()
            .find(|library| is_the_compilers(library))
            .unwrap(),
    );
    needed.iter().for_each(|library| copy_to_same_place(root, library));
    fs::create_dir_all(root.join("usr/local/bin")).unwrap();
    symlink(interpreter, root.join("usr/local/bin/python3")).unwrap();
    true
}

/// Whether a library is the one that programs made by a compiler load, besides the C library.
fn is_the_compilers(library: &Path) -> bool {
    library.file_name().unwrap().to_string_lossy().starts_with("libgcc_s.so")
}

/// The libraries, and the loader, that a program asks for.
fn libraries(path: &Path) -> Vec<PathBuf> {
    let listed = program::run(Command::new("ldd").arg(path), PATIENCE).text();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// An archive of what is in a folder, packed as the layer of an image.
pub(crate) fn pack(folder: &Path) -> Vec<u8> {
    packed(folder, &["."])
}

/// As [`pack`], of files and links alone: the directories they are in are not mentioned.
pub(crate) fn pack_files(folder: &Path) -> Vec<u8> {
    let list = tempfile::NamedTempFile::new().unwrap();
    let mut find = Command::new("find");
    let found = program::run(find.arg(folder).args(["!", "-type", "d", "-printf", "%P\\n"]), PATIENCE).well();
    fs::write(list.path(), found.stdout).unwrap();
    packed(folder, &["--files-from", list.path().to_str().unwrap()])
}

fn packed(folder: &Path, what: &[&str]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "-C"]).arg(folder).args(what);
    program::run(&mut tar, PATIENCE).well().stdout
}

/// Writes an image layout with one image of these layers: archives, each compressed by the program (`gzip`, `zstd`, or none).
pub(crate) fn write_layout(layout: &Path, tag: &str, layers: &[(Vec<u8>, Option<&str>)]) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, contents: &[u8]| {
        let digest = sha256(contents);
        fs::write(blobs.join(&digest), contents).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": contents.len() })
    };
    let mut descriptors = Vec::new();
    let mut contents = Vec::new();
    for (archive, compressor) in layers {
        contents.push(format!("sha256:{}", sha256(archive)));
        let (suffix, packed) = match compressor {
            Some(compressor) => (format!("+{compressor}"), compress(archive, compressor)),
            None => (String::new(), archive.clone()),
        };
        descriptors.push(put(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"), &packed));
    }
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let rootfs = json!({ "type": "layers", "diff_ids": contents });
    let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs, "config": {} });
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": descriptors });
    let mut manifest: Value = put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn sha256(contents: &[u8]) -> String {
    let digested = filtered(contents, "sha256sum", &[]);
    String::from_utf8(digested).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn compress(contents: &[u8], compressor: &str) -> Vec<u8> {
    // Of the same contents they are to make the same layer, whenever and whatever file it was.
    filtered(contents, compressor, if compressor == "gzip" { &["-c", "-n"] } else { &["-c"] })
}

/// What a program makes of this input.
fn filtered(input: &[u8], program: &str, arguments: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), input).unwrap();
    program::run(Command::new(program).args(arguments).arg(file.path()), PATIENCE).well().stdout
}
