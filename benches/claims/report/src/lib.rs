//! What the bench `claims` found: each figure beside what it is measured by, whether the claim holds, and all of it written for machines and
//! for people, with plots. Measures nothing.

mod claim;
mod plot;
mod rounds;

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

pub use crate::claim::{Claim, Goal, Verdict};
pub use crate::plot::{Line, Plot};
pub use crate::rounds::{Rounds, median, percentile};

const INTRODUCTION: &str = "\
Each figure is the median of its rounds, with the least and the greatest in brackets; figures that are compared were taken in turns. A ratio
is that of the medians, and its brackets hold the ratios of single rounds. Goals are for the ratio, or say what they are for.

Latencies under load count from the time at which a call was due, for us and for peers alike, and goals are judged by them: they hold what
our work after an answer costs the next call (no coordinated omission). They hold the load generator's own lateness as well, which is the
same for all and flatters who is slower; so the last column has ours, theirs and the ratio since the calls were sent, and a verdict that
would be another there says so.
";

/// What a part of the bench found.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order in which they are shown.
    pub claims: Vec<Claim>,
    /// Each a file of its own.
    pub plots: Vec<Plot>,
}

impl From<Vec<Claim>> for Findings {
    fn from(claims: Vec<Claim>) -> Self {
        Self { claims, plots: Vec::new() }
    }
}

/// A part by its name, with what it found or why it could not.
pub type Measured = (&'static str, Result<Findings, String>);

/// What the whole run comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Goals that are met.
    pub met: usize,
    /// Goals that are not.
    pub missed: usize,
    /// Parts that were not measured.
    pub failed: usize,
}

impl Summary {
    /// Counts.
    #[must_use]
    pub fn of(parts: &[Measured]) -> Self {
        let mut summary = Self::default();
        for (_, found) in parts {
            match found {
                Err(_) => summary.failed += 1,
                Ok(findings) => {
                    for verdict in findings.claims.iter().filter_map(Claim::verdict) {
                        *(if verdict.met { &mut summary.met } else { &mut summary.missed }) += 1;
                    }
                }
            }
        }
        summary
    }
}

/// Writes `claims.json`, `claims.md` and the plots.
///
/// # Errors
/// When one cannot be written.
pub fn write(folder: &Path, machine: &str, parts: &[Measured]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("claims.json"), serde_json::to_vec_pretty(&json(machine, parts))?)?;
    fs::write(folder.join("claims.md"), markdown(machine, parts))?;
    let plots = parts.iter().filter_map(|(_, found)| found.as_ref().ok()).flat_map(|findings| &findings.plots);
    for plot in plots {
        fs::write(folder.join(plot.file), plot.svg(machine).map_err(io::Error::other)?)?;
    }
    Ok(())
}

fn json(machine: &str, parts: &[Measured]) -> serde_json::Value {
    let row = |part: &str, claim: &Claim| {
        let mut row = serde_json::json!({ "part": part, "claim": claim });
        row["ratio"] = claim.ratio().map(|(ratio, _)| ratio).into();
        row["verdict"] = serde_json::json!(claim.verdict());
        row
    };
    let found = |(part, found): &Measured| {
        let claims = found.iter().flat_map(|findings| &findings.claims);
        claims.map(|claim| row(part, claim)).collect::<Vec<_>>()
    };
    let failed = parts.iter().filter_map(|(part, found)| Some((part, found.as_ref().err()?)));
    let failed: Vec<_> = failed.map(|(part, why)| serde_json::json!({ "part": part, "why": why })).collect();
    let rows: Vec<_> = parts.iter().flat_map(found).collect();
    serde_json::json!({ "machine": machine, "claims": rows, "not_measured": failed })
}

fn markdown(machine: &str, parts: &[Measured]) -> String {
    let Summary { met, missed, failed } = Summary::of(parts);
    let mut text = format!("{machine}\n\n{met} goals met, {missed} missed.\n\n{INTRODUCTION}");
    let mut line = |it: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        writeln!(text, "{it}").unwrap_or(());
    };
    if failed > 0 {
        line(format_args!("\n**{failed} of {} parts could not be measured.**", parts.len()));
    }
    for (part, found) in parts {
        line(format_args!("\n## {part}\n"));
        let findings = match found {
            Ok(findings) => findings,
            Err(why) => {
                line(format_args!("**Not measured:** {why}"));
                continue;
            }
        };
        for plot in &findings.plots {
            line(format_args!("![{}]({})\n", plot.title, plot.file));
        }
        line(format_args!("| what | ours | beside | theirs | ratio | goal | | since sent |"));
        line(format_args!("|---|---|---|---|---|---|---|---|"));
        for claim in &findings.claims {
            let since_sent = claim.since_sent_cell().unwrap_or_else(|| "–".to_owned());
            line(format_args!("| {} | {since_sent} |", claim.cells().join(" | ")));
        }
    }
    text
}

/// What it is measured on, when, how thoroughly, and what else was going on there.
///
/// # Errors
/// When the system does not say.
pub fn machine(form: &str) -> io::Result<String> {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output()?;
        io::Result::Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    let load = fs::read_to_string("/proc/loadavg")?;
    let (date, count, kernel) = (said("date", &["-u", "+%F %R UTC"])?, said("nproc", &[])?, said("uname", &["-r"])?);
    let load = load.split(' ').next().unwrap_or("?");
    Ok(format!("{date}, {count} × {model}, Linux {kernel}, {form} form, load average {load} before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Measured> {
        let claims = vec![
            Claim::new("a hop", "µs", 4.0, "a floor", 2.0, Goal::AtMost(2.5)),
            Claim::new("a call", "µs", 9.0, "a peer", 3.0, Goal::AtMost(2.5)).since_sent(8.0, 4.0),
            Claim::new("a burst", "ms", 9.0, "another", 3.0, Goal::None),
        ];
        vec![("chain", Ok(claims.into())), ("memory", Err("no host".to_owned()))]
    }

    #[test]
    fn what_is_met_missed_and_not_measured_is_counted() {
        assert_eq!(Summary::of(&parts()), Summary { met: 1, missed: 1, failed: 1 });
    }

    #[test]
    fn people_are_shown_a_table_for_each_part() {
        let text = markdown("a machine", &parts());
        assert!(text.starts_with("a machine\n\n1 goals met, 1 missed.\n"), "{text}");
        assert!(text.contains("\n**1 of 2 parts could not be measured.**\n"), "{text}");
        assert!(text.contains("\n## chain\n\n| what | ours |"), "{text}");
        assert!(text.contains("\n| a hop | 4.00 µs | a floor | 2.00 | 2.00 | ≤ 2.5 | met | – |\n"), "{text}");
        let missed = "| a call | 9.00 µs | a peer | 3.00 | 3.00 | ≤ 2.5 | MISSED; met since sent | 8.00 / 4.00: 2.00 |";
        assert!(text.contains(missed), "{text}");
        assert!(text.contains("| a burst | 9.00 ms | another | 3.00 | 3.00 | – | – | – |"), "{text}");
        assert!(text.ends_with("\n## memory\n\n**Not measured:** no host\n"), "{text}");
        let columns: Vec<_> =
            text.lines().filter(|line| line.starts_with('|')).map(|it| it.matches('|').count()).collect();
        assert_eq!(columns, [9; 5]);
    }

    #[test]
    fn machines_are_told_the_same() {
        let json = json("a machine", &parts());
        assert_eq!((&json["machine"], json["claims"].as_array().unwrap().len()), (&"a machine".into(), 3));
        let call = &json["claims"][1];
        assert_eq!((call["part"].as_str(), call["ratio"].as_f64()), (Some("chain"), Some(3.0)));
        assert_eq!(call["verdict"], serde_json::json!({ "met": false, "rounds": [0, 1], "since_sent": true }));
        assert_eq!(call["claim"]["ours"]["median"], 9.0);
        assert!(json["claims"][2]["verdict"].is_null());
        assert_eq!(json["not_measured"], serde_json::json!([{ "part": "memory", "why": "no host" }]));
    }

    #[test]
    fn all_files_are_written_and_the_machine_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine("quick").unwrap();
        assert!(machine.starts_with("20") && machine.contains("Linux") && machine.contains("quick form"), "{machine}");
        write(folder.path(), &machine, &parts()).unwrap();
        for file in ["claims.md", "claims.json"] {
            assert!(fs::read_to_string(folder.path().join(file)).unwrap().contains(&machine), "{file}");
        }
    }
}
