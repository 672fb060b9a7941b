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

/// Dependencies between crates of the workspace, but for those of tests alone.
fn edges() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut edges = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
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
