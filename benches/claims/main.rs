//! What is claimed of Sandbar, each claim beside its floor or a peer in the same run, in turns: ratios hold where times do not.
//!
//! `cargo bench --bench claims -- [--quick] [--strict] [--peer NAME=URL] [PART …]`; the parts are those of [`PARTS`]. Loads come from
//! `sandbar bench`, for us and for peers alike. Needs root, and `target/release/claims-functions`; its part `peers` measures what
//! `make bench` builds and installs for it, and the servers that are named. Prints all figures, and writes `target/bench/claims.json`, `claims.md` and plots. A goal that is missed is
//! told, and fails nothing but a run with `--strict`; a part that cannot be measured is told, fails the run, and keeps no other from its
//! turn. Ctrl-C ends it with what it started.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a bench prints, and ends at any error")]

mod calls;
mod chains;
mod cold;
mod fan_out;
mod floors;
mod idle;
mod load;
mod many;
mod memory;
mod overload;
mod peers;
mod python;
mod running;
mod stage;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use claims_report::{Findings, Measured, Summary};
use running::Interrupted;
use stage::Scale;

/// A part of the bench, by its name: the claims that it looks at.
type Part = (&'static str, fn(Scale) -> Findings);

const PARTS: [Part; 10] = [
    ("chain", chains::measure),
    ("fan-out", |scale| fan_out::measure(scale).into()),
    ("call", |scale| calls::measure(scale).into()),
    ("throughput", |scale| calls::measure_throughput(scale).into()),
    ("python", |scale| python::measure(scale).into()),
    ("cold", |scale| cold::measure(scale).into()),
    ("overload", overload::measure),
    ("idle", |scale| idle::measure(scale).into()),
    ("many", many::measure),
    ("peers", |scale| peers::measure(scale).into()),
];

const MISSED: u8 = 1;
const MISUSED: u8 = 2;
/// As a shell tells of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// What was asked for.
struct Asked {
    scale: Scale,
    strict: bool,
    parts: Vec<Part>,
}

impl Asked {
    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self { scale: Scale::Whole, strict: false, parts: Vec::new() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => asked.scale = Scale::Quick,
                "--strict" => asked.strict = true,
                "--peer" => peers::name(&arguments.next().unwrap_or_default())?,
                // Cargo says so to every bench.
                "--bench" => {}
                name => match PARTS.iter().find(|(part, _)| *part == name) {
                    Some(part) => asked.parts.push(*part),
                    None => {
                        let parts = PARTS.map(|(part, _)| part).join(", ");
                        return Err(format!(
                            "`{name}`: give --quick, --strict, --peer NAME=URL, or of the parts {parts}"
                        ));
                    }
                },
            }
        }
        if asked.parts.is_empty() {
            asked.parts = PARTS.to_vec();
        }
        Ok(asked)
    }
}

fn main() -> ExitCode {
    let asked = match Asked::of(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            println!("{why}");
            return MISUSED.into();
        }
    };
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: sandboxes are made by root");
        return ExitCode::SUCCESS;
    }
    let machine = claims_report::machine(asked.scale.of("whole", "quick")).unwrap();
    println!("{machine}");
    let mut parts: Vec<Measured> = Vec::new();
    for (name, measure) in asked.parts {
        println!("{name}");
        let Some(found) = measured(|| measure(asked.scale)) else {
            println!("interrupted: nothing is written");
            return INTERRUPTED.into();
        };
        match &found {
            Ok(findings) => findings.claims.iter().for_each(|claim| println!("  {claim}")),
            Err(why) => println!("  could not be measured: {why}"),
        }
        parts.push((name, found));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    claims_report::write(&folder, &machine, &parts).unwrap();
    let Summary { met, missed, failed } = Summary::of(&parts);
    println!("{met} goals met, {missed} missed, {failed} parts not measured; written to {}", folder.display());
    if failed > 0 || (asked.strict && missed > 0) { MISSED.into() } else { ExitCode::SUCCESS }
}

/// What a part found, or why it could not; `None` when the bench was told to end.
fn measured(measure: impl FnOnce() -> Findings) -> Option<Result<Findings, String>> {
    // What unwinds takes all that the part had with it.
    match catch_unwind(AssertUnwindSafe(measure)) {
        Ok(findings) => Some(Ok(findings)),
        Err(why) if why.is::<Interrupted>() => None,
        Err(why) => Some(Err(said(&*why))),
    }
}

/// What a panic said.
fn said(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "?".to_owned())
}
