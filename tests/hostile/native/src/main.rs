//! Native functions that attack the sandbox they run in, for `tests/hostile`. The first line of an event names the attack.
//!
//! They refuse to run anywhere else: see [`inside`].

#![allow(unsafe_code, reason = "attacks are system calls and memory that no wrapper would touch")]

mod exhaustion;
mod kernel;
mod life;
mod privileges;
mod segment;
mod tried;

use std::convert::Infallible;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use sandbar_function::{Context, Functions};

use crate::tried::{Attack, Tried};

/// Whether this is a sandbox: a user that no host has, a root without `/sys`, and the application's own manifest.
fn inside() -> bool {
    // SAFETY: no memory is involved.
    let user = unsafe { libc::getuid() };
    user >= 2000
        && !Path::new("/sys").exists()
        && !Path::new("/etc/shadow").exists()
        && Path::new("/app/sandbar.toml").exists()
}

fn echo(event: &[u8], _context: &Context<'_>) -> Result<Vec<u8>, Infallible> {
    Ok(event.to_vec())
}

/// What lies in the directories of temporary files, a line each.
fn look(_event: &[u8], _context: &Context<'_>) -> Result<String, std::io::Error> {
    let mut found = String::new();
    for place in ["/tmp", "/dev/shm"] {
        for entry in fs::read_dir(place)? {
            // A text can always be written to.
            let _written = writeln!(found, "{place}/{:?}", entry?.file_name());
        }
    }
    Ok(found)
}

fn find(name: &str) -> Option<Attack> {
    let tables = [kernel::ATTACKS, privileges::ATTACKS, exhaustion::ATTACKS, life::ATTACKS, segment::ATTACKS];
    tables.into_iter().flatten().find(|(known, _)| *known == name).map(|(_, attack)| *attack)
}

fn attack(event: &[u8], context: &Context<'_>) -> Result<String, String> {
    if !inside() {
        return Ok("this is no sandbox".to_owned());
    }
    let text = String::from_utf8_lossy(event);
    let name = text.lines().next().unwrap_or_default();
    if let Some(signal) = name.strip_prefix("signal-").and_then(|number| number.parse().ok()) {
        return life::die_by(signal);
    }
    let Some(attack) = find(name) else { return Ok(format!("there is no probe {name}")) };
    let mut tried = Tried::new(context);
    attack(&mut tried);
    Ok(tried.answer())
}

fn main() {
    segment::keep_descriptors();
    Functions::new().add("echo", echo).add("look", look).add("native", attack).serve()
}
