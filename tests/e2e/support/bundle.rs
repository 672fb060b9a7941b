//! Applications for the tests: the examples, built, and some written on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::program;

/// An example's folder. The first to ask has the examples built.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let script = examples().join("build.sh");
        let built = program::run(&mut Command::new(script), Duration::from_secs(900));
        if built.code == Some(0) { Ok(()) } else { Err(built.stderr) }
    });
    if let Err(error) = built {
        panic!("examples/build.sh cannot build the examples:\n{error}");
    }
    examples().join(name)
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Writes an application's files into a folder, which is made. All are executable: a file that is none does not mind.
pub(crate) fn write(folder: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(folder).unwrap();
    for (name, contents) in files {
        let path = folder.join(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The manifest of an application of Python functions, all in one file, each with the handler of its name.
pub(crate) fn python_manifest(name: &str, functions: &[&str]) -> String {
    let mut manifest = format!("name = \"{name}\"\nentry = \"{}\"\n", functions[0]);
    for function in functions {
        manifest.push_str(&format!(
            "\n[functions.{function}]\nruntime = \"python3\"\ncode = \"functions.py\"\nhandler = \"{function}\"\n"
        ));
    }
    manifest
}
