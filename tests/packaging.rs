//! The service for systemd is as tight as it says.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Output};

fn unit() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/sandbar.service")
}

/// What systemd-analyze finds; `None`, and the test is skipped, where there is none.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: systemd-analyze is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The exposure that the unit's comment claims, as systemd-analyze takes it: in tenths.
fn claimed() -> String {
    let text = std::fs::read_to_string(unit()).unwrap();
    let (_, after) = text.split_once("--offline=true` says ").unwrap();
    let number: f64 = after.split(' ').next().unwrap().parse().unwrap();
    format!("{:.0}", number * 10.0)
}

#[test]
fn the_services_exposure_is_no_more_than_its_comment_says() {
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager", &format!("--threshold={}", claimed())])
    else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn systemd_understands_every_line_of_the_service() {
    let Some(output) = analyze(&["verify"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    let not_installed = |line: &&str| !line.contains("sandbar is not executable");
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("sandbar")).filter(not_installed).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
