//! The table of peers: printed, and written to `target/bench/peers.md` and `peers.json`.

use std::fs;
use std::path::Path;

use claims_report::Rounds;
use serde::Serialize;
use serde_json::json;

use super::Peer;
use super::hand_over::HandOver;

/// A peer's figures: medians of its turns.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    isolation: &'static str,
    rate_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    p50_us_since_sent: f64,
    p99_us_since_sent: f64,
    calls_per_s: f64,
    pss_mib: Option<f64>,
}

impl Row {
    pub(crate) fn of(peer: &Peer) -> Self {
        let measured = |rounds: &Rounds| (rounds.iter().len() > 0).then(|| rounds.median());
        Self {
            name: peer.name.clone(),
            isolation: peer.isolation,
            rate_per_s: peer.calls_per_s_paced,
            p50_us: peer.p50.due.median(),
            p99_us: peer.p99.due.median(),
            p50_us_since_sent: peer.p50.sent.median(),
            p99_us_since_sent: peer.p99.sent.median(),
            calls_per_s: peer.calls_per_s.median(),
            pss_mib: measured(&peer.pss_mib),
        }
    }

    fn cells(&self) -> [String; 7] {
        let Self { name, isolation, rate_per_s, p50_us, p99_us, p50_us_since_sent, p99_us_since_sent, .. } = self;
        [
            name.clone(),
            (*isolation).to_owned(),
            format!("{rate_per_s:.0}"),
            format!("{p50_us:.0} / {p99_us:.0}"),
            format!("{p50_us_since_sent:.0} / {p99_us_since_sent:.0}"),
            format!("{:.0}", self.calls_per_s),
            self.pss_mib.map_or_else(|| "–".to_owned(), |mib| format!("{mib:.1}")),
        ]
    }
}

pub(crate) fn write(rows: &[Row], hop: &HandOver, others: &[HandOver], skipped: &[(String, String)]) {
    let hops = if others.is_empty() { Vec::new() } else { std::iter::once(hop).chain(others).collect() };
    let text = format!("{}{}{}", calls(rows), hand_overs(&hops), reasons(skipped));
    println!("{text}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("peers.md"), text).unwrap();
    let hops = hops.iter().map(|hop| {
        let HandOver { name, isolation, p50_us, p99_us } = hop;
        json!({ "name": name, "isolation": isolation, "p50_us": p50_us.median(), "p99_us": p99_us.median() })
    });
    let skipped = skipped.iter().map(|(name, reason)| json!({ "name": name, "reason": reason }));
    let json = json!({
        "calls": rows, "hand_overs": hops.collect::<Vec<_>>(), "skipped": skipped.collect::<Vec<_>>(),
    });
    fs::write(folder.join("peers.json"), serde_json::to_vec_pretty(&json).unwrap()).unwrap();
}

fn calls(rows: &[Row]) -> String {
    let head = "| 64-byte echo, one core | made for each call | at calls/s | µs since due, p50 / p99 | since sent | calls/s | PSS MiB |";
    let rows = rows.iter().map(|row| format!("| {} |\n", row.cells().join(" | ")));
    format!("{head}\n|---|---|---|---|---|---|---|\n{}", rows.collect::<String>())
}

fn hand_overs(hops: &[&HandOver]) -> String {
    if hops.is_empty() {
        return String::new();
    }
    let head = "| 64 bytes from process to process, one core | made for each | p50 µs | p99 µs |";
    let row = |HandOver { name, isolation, p50_us, p99_us }: &HandOver| {
        format!("| {name} | {isolation} | {:.1} | {:.1} |\n", p50_us.median(), p99_us.median())
    };
    format!("\n{head}\n|---|---|---|---|\n{}", hops.iter().map(|hop| row(hop)).collect::<String>())
}

fn reasons(skipped: &[(String, String)]) -> String {
    let lines = skipped.iter().map(|(name, reason)| format!("- {name}: {reason}\n"));
    if skipped.is_empty() { String::new() } else { format!("\nSkipped:\n\n{}", lines.collect::<String>()) }
}
