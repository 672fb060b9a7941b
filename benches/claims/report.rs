//! Claims, and whether they hold.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// One figure of ours beside what it is measured by.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    /// The floor, the peer, or the limit.
    pub(crate) beside: String,
    pub(crate) theirs: f64,
    /// Of ours to theirs.
    pub(crate) goal: Goal,
}

/// What the ratio should be.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// It is told beside the others, and no goal was set.
    None,
}

impl Claim {
    pub(crate) fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    pub(crate) fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::AtMost(most) => Some(self.ratio() <= most),
            Goal::AtLeast(least) => Some(self.ratio() >= least),
            Goal::None => None,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::AtMost(most) => format!("≤ {most}"),
            Goal::AtLeast(least) => format!("≥ {least}"),
            Goal::None => "–".to_owned(),
        }
    }

    fn met_text(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "–",
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, ours, beside, theirs, .. } = self;
        let (ratio, goal, met) = (self.ratio(), self.goal_text(), self.met_text());
        write!(f, "{what}: {ours:.1} {unit} beside {theirs:.1} ({beside}): {ratio:.2}, goal {goal}: {met}")
    }
}

/// Writes all figures, for machines and as a table.
pub(crate) fn write(claims: &[Claim]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).unwrap();
    let rows: Vec<_> = claims
        .iter()
        .map(|claim| {
            let mut row = serde_json::to_value(claim).unwrap();
            row["ratio"] = claim.ratio().into();
            row["met"] = claim.met().into();
            row
        })
        .collect();
    let machine = machine();
    let json = serde_json::json!({ "machine": machine, "claims": rows });
    fs::write(folder.join("claims.json"), serde_json::to_vec_pretty(&json).unwrap()).unwrap();
    let mut table =
        format!("{machine}\n\n| what | ours | beside | | ratio | goal | |\n|---|---|---|---|---|---|---|\n");
    for claim in claims {
        let Claim { what, unit, ours, beside, theirs, .. } = claim;
        let (ratio, goal, met) = (claim.ratio(), claim.goal_text(), claim.met_text());
        table.push_str(&format!(
            "| {what} | {ours:.1} {unit} | {beside} | {theirs:.1} | {ratio:.2} | {goal} | {met} |\n"
        ));
    }
    fs::write(folder.join("claims.md"), table).unwrap();
    println!("written to {}", folder.join("claims.json").display());
}

/// What it was measured on, and when.
fn machine() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    format!("{}, {} × {model}, Linux {}", said("date", &["+%F"]), said("nproc", &[]), said("uname", &["-r"]))
}

/// The value that so many hundredths of all are not above.
pub(crate) fn percentile(values: &mut [f64], hundredths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * hundredths / 100).min(values.len() - 1)]
}

/// The value in the middle.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}
