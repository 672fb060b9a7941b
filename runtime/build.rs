//! Builds what runs inside sandboxes, so that the command carries it: the supervisor, linked statically so that it runs in any
//! root file system, and the library that Python workers load.
//!
//! They are programs of their own, not parts of the host agent, so that nothing of the agent is ever reachable from a
//! sandbox; and they are in the agent's executable, so that a host needs one file.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const WATCHED: [&str; 10] = [
    "../Cargo.lock",
    "../Cargo.toml",
    "../bus/Cargo.toml",
    "../bus/src",
    "function/Cargo.toml",
    "function/python",
    "function/src",
    "supervisor/Cargo.toml",
    "supervisor/src",
    "build.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    for watched in WATCHED {
        println!("cargo::rerun-if-changed={watched}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = env::var("TARGET")?;
    let built = out.join("inside").join(&target).join("inside");

    build(&out, &target, &["-p", "sandbar-supervisor", "--bin", "sandbar-supervisor"], "-Ctarget-feature=+crt-static")?;
    fs::copy(built.join("sandbar-supervisor"), out.join("sandbar-supervisor"))?;
    build(&out, &target, &["-p", "sandbar-function", "--lib"], "")?;
    fs::copy(built.join("libsandbar_function.so"), out.join("libsandbar_function.so"))?;
    Ok(())
}

fn build(out: &Path, target: &str, what: &[&str], flags: &str) -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..").join("Cargo.toml");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.arg("build").args(["--profile", "inside", "--target", target]).args(what);
    cargo.arg("--manifest-path").arg(workspace);
    // A directory of its own: the one of the build that this script is a part of is locked.
    cargo.arg("--target-dir").arg(out.join("inside"));
    // What the outer build was asked for (coverage, a linter in place of the compiler …) does not concern these.
    for variable in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("RUSTFLAGS", flags);
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("cargo build {} ended with {status}", what.join(" ")).into());
    }
    Ok(())
}
