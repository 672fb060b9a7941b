//! The structure that ARCHITECTURE.md describes is the structure there is.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Each crate, and the crates of the workspace it may depend on.
const EDGES: [(&str, &[&str]); 9] = [
    ("sandbar-bus", &[]),
    ("sandbar-function", &["sandbar-bus"]),
    ("sandbar-supervisor", &["sandbar-bus", "sandbar-function"]),
    ("sandbar-runtime", &["sandbar-bus", "sandbar-supervisor"]),
    ("sandbar-proxy", &["sandbar-runtime"]),
    ("sandbar", &["sandbar-proxy", "sandbar-runtime"]),
    ("claims-functions", &["sandbar-function"]),
    ("claims-report", &[]),
    ("hostile", &["sandbar-bus", "sandbar-function"]),
];

/// The crates of the workspace, as cargo describes them.
fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Dependencies between crates of the workspace, but for those of tests alone.
fn edges() -> BTreeMap<String, Vec<String>> {
    let mut edges = BTreeMap::new();
    for package in packages() {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let ours = dependencies.filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev");
        let mut names: Vec<_> = ours.map(|dependency| dependency["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        edges.insert(package["name"].as_str().unwrap().to_owned(), names);
    }
    edges
}

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    let edges = edges();
    for (name, expected) in EDGES {
        assert_eq!(edges[name], expected, "what {name} depends on");
    }
    let known: Vec<_> = EDGES.iter().map(|(name, _)| *name).collect();
    for (name, dependencies) in edges.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        assert!(
            dependencies.iter().all(|dependency| dependency == "sandbar-function"),
            "example {name}: {dependencies:?}"
        );
    }
}

/// What a lock file says that a package depends on; `None` if it is not there.
fn locked(lock: &str, package: &str) -> Option<Vec<String>> {
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("\nname = \"{package}\"\n")))?;
    let lines = entry.lines().map(|line| line.trim().trim_matches([',', '"']));
    // One of which there are several versions stands there with its own.
    Some(lines.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect())
}

/// They are built with `--locked`, by what no test runs.
#[test]
fn lock_files_of_other_workspaces_have_what_our_crates_depend_on() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut looked_at = Vec::new();
    for file in ["fuzz/Cargo.lock", "benches/bus/Cargo.lock"] {
        let lock = std::fs::read_to_string(root.join(file)).unwrap();
        for package in packages() {
            let name = package["name"].as_str().unwrap();
            let Some(known) = locked(&lock, name) else { continue };
            looked_at.push((file, name.to_owned()));
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            for dependency in dependencies.filter(|it| it["kind"] != "dev" && it["optional"] != true) {
                let needed = dependency["name"].as_str().unwrap();
                assert!(known.iter().any(|it| it == needed), "{file}: {name} depends on {needed}, which is not locked");
            }
        }
    }
    for (file, name) in [("fuzz/Cargo.lock", "sandbar-proxy"), ("benches/bus/Cargo.lock", "sandbar-bus")] {
        assert!(looked_at.contains(&(file, name.to_owned())), "{looked_at:?}");
    }
}

#[test]
fn the_code_map_names_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    for folder in ["bus/src", "runtime/src", "runtime/function/src", "runtime/supervisor/src", "proxy/src"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|extension| extension == "rs") && name != "lib" && name != "main" {
                assert!(map.contains(&format!("`{name}`")), "{folder}/{name}.rs is not in ARCHITECTURE.md");
            }
        }
    }
}
