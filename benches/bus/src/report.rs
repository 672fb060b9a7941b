//! The figures of a run: as a table for people, as JSON for programs.

use std::path::Path;

use serde_json::{Value, json};

use crate::copying::Rates;
use crate::flow::Shape;
use crate::goals::{Goal, goals};
use crate::idle::Memory;
use crate::pinning::Placement;
use crate::plan::{AMOUNTS, Channel, Distribution, Measured, Way};

/// What the goals and tables are made of.
#[derive(Debug)]
pub(crate) struct Figures<'a>(&'a Measured);

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Figures<'_> {
    fn distribution(&self, placement: Placement, payload_bytes: usize, way: Way) -> Option<&Distribution> {
        self.0.round_trips.get(&(placement, payload_bytes, way))
    }

    /// Nanoseconds; not a number if it was not measured.
    pub(crate) fn round_trip_p50(&self, placement: Placement, payload_bytes: usize, way: Way) -> f64 {
        let distribution = self.distribution(placement, payload_bytes, way);
        distribution.map_or(f64::NAN, |all| all.round_trip.value_at_quantile(0.5) as f64)
    }

    /// Messages a second: the median of the rounds.
    pub(crate) fn stream(&self, placement: Placement, shape: Shape, channel: Channel) -> f64 {
        let rates = self.0.streams.get(&(placement, shape, channel));
        median(rates.into_iter().flatten().copied())
    }

    /// Bytes a second: the medians of all turns.
    pub(crate) fn copies(&self, placement: Placement) -> Rates {
        let of = |rate: fn(&Rates) -> f64| median(self.0.copies.get(&placement).into_iter().flatten().map(rate));
        Rates {
            bus: of(|rates| rates.bus),
            copies: of(|rates| rates.copies),
            copies_in_cache: of(|rates| rates.copies_in_cache),
        }
    }
}

fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Prints everything, and writes it to `target/bench/bus.json`.
pub(crate) fn report(measured: &Measured, rounds: u32, trickle: Memory, bursts: Memory) {
    let figures = Figures(measured);
    let mut json = json!({ "rounds": rounds });
    json["round_trips"] = round_trips(&figures);
    json["streams"] = streams(&figures);
    json["copies_1_mib"] = copies(&figures);
    json["idle_memory"] = idle(trickle, bursts);
    json["goals"] = reached(&goals(&figures, trickle, bursts));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.canonicalize().unwrap().join("bus.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&json).unwrap()).unwrap();
    println!("\nwritten to {}", path.display());
}

fn round_trips(figures: &Figures) -> Value {
    let mut rows = Vec::new();
    for placement in [Placement::OneCore, Placement::TwoCores] {
        if !placement.is_possible() {
            println!("\nSKIPPED: two cores, as this host gives us one");
            continue;
        }
        for amount in AMOUNTS.into_iter().filter(|_| !figures.0.round_trips.is_empty()) {
            let bytes = amount.payload_bytes;
            let title = format!("{}, payload of {bytes} B, both ways", placement.name());
            println!("\n{title:44} round trip µs          one way µs            round trip p50");
            println!("{:44}     p50       p99       p50       p99   count   / floor", "");
            for way in crate::plan::WAYS {
                if let Some(all) = figures.distribution(placement, bytes, way) {
                    rows.push(round_trip_row(figures, (placement, bytes, way), all));
                }
            }
            let bus = figures.round_trip_p50(placement, bytes, Way::Bus);
            for way in [Way::IceoryxEvent, Way::IceoryxSample].into_iter().filter(|way| way.takes(bytes)) {
                let ratio = bus / figures.round_trip_p50(placement, bytes, way);
                println!("  application bus / {:60}{ratio:19.2}", way.name());
            }
        }
    }
    Value::Array(rows)
}

fn round_trip_row(figures: &Figures, (placement, bytes, way): (Placement, usize, Way), all: &Distribution) -> Value {
    let p50 = all.round_trip.value_at_quantile(0.5);
    let p99 = all.round_trip.value_at_quantile(0.99);
    let (one_way_p50, one_way_p99) = (all.one_way.value_at_quantile(0.5), all.one_way.value_at_quantile(0.99));
    let ratio = p50 as f64 / figures.round_trip_p50(placement, bytes, Way::Futex);
    let [a, b, c, d] = [p50, p99, one_way_p50, one_way_p99].map(micros);
    println!("  {:42}{a:8.2}  {b:8.2}  {c:8.2}  {d:8.2}{:8}{ratio:10.2}", way.name(), all.round_trip.len());
    json!({
        "placement": placement.name(), "payload_bytes": bytes, "way": way.name(), "count": all.round_trip.len(),
        "round_trip_p50_ns": p50, "round_trip_p99_ns": p99, "one_way_p50_ns": one_way_p50, "one_way_p99_ns": one_way_p99,
        "round_trip_p50_over_floor": ratio,
    })
}

/// The smallest round trips on one core.
pub(crate) fn peers(measured: &Measured) -> Value {
    let rows = measured.round_trips.iter().map(|((_, _, way), all)| {
        let at = |quantile: f64| all.round_trip.value_at_quantile(quantile);
        json!({ "way": way.name(), "round_trip_p50_ns": at(0.5), "round_trip_p99_ns": at(0.99) })
    });
    rows.collect()
}

fn streams(figures: &Figures) -> Value {
    let mut rows = Vec::new();
    println!("\n{:54} thousand messages/s of 64 B", "producers : consumers, each a process");
    println!("{:54}     median       least        most", "");
    for ((placement, shape, channel), rates) in &figures.0.streams {
        let middle = figures.stream(*placement, *shape, *channel);
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        let who = format!("{}:{}", shape.producers, shape.consumers);
        let [a, b, c] = [middle, least, most].map(|rate| rate / 1000.0);
        println!("  {:12}{who:8}{:32}{a:11.1} {b:11.1} {c:11.1}", placement.name(), channel.name());
        rows.push(json!({
            "placement": placement.name(), "producers": shape.producers, "consumers": shape.consumers,
            "channel": channel.name(), "messages_per_s_median": middle, "messages_per_s_least": least,
            "messages_per_s_most": most, "rounds": rates.len(),
        }));
    }
    Value::Array(rows)
}

fn copies(figures: &Figures) -> Value {
    let mut rows = Vec::new();
    println!("\npayloads of 1 MiB, written once, read in place (length, first and last byte)             GB/s");
    for placement in figures.0.copies.keys() {
        let Rates { bus, copies, copies_in_cache } = figures.copies(*placement);
        let name = placement.name();
        for (what, rate) in [
            ("application bus", bus),
            ("bare copies into 16 buffers in turn, as the bus has", copies),
            ("bare copies into one buffer", copies_in_cache),
        ] {
            println!("  {name:12}{what:68}{:12.2}", rate / 1e9);
        }
        println!("  {name:12}{:68}{:12.2}", "application bus / bare copies into 16 buffers", bus / copies);
        rows.push(json!({
            "placement": name, "bus_bytes_per_s": bus, "copies_bytes_per_s": copies,
            "copies_one_buffer_bytes_per_s": copies_in_cache, "bus_over_copies": bus / copies,
        }));
    }
    Value::Array(rows)
}

fn idle(trickle: Memory, bursts: Memory) -> Value {
    println!("\nmemory of a segment (1 function, 32 slots)           fresh KiB   after traffic KiB   idle KiB");
    for (what, memory) in [("messages of all sizes, one at a time", trickle), ("bursts of all sizes", bursts)] {
        let [a, b, c] = [memory.fresh, memory.after_traffic, memory.idle].map(|bytes| bytes / 1024);
        println!("  {what:52}{a:8}{b:20}{c:11}");
    }
    let row = |memory: Memory| json!({ "fresh_bytes": memory.fresh, "after_traffic_bytes": memory.after_traffic, "idle_bytes": memory.idle });
    json!({ "trickle": row(trickle), "bursts": row(bursts) })
}

fn reached(goals: &[Goal]) -> Value {
    println!("\n{:64}        goal    measured", "goals");
    let mut rows = Vec::new();
    for goal in goals {
        let Goal { what, goal: wanted, measured, at_least } = goal;
        let sign = if *at_least { "≥" } else { "≤" };
        let digits = if *wanted < 100.0 { 2 } else { 0 };
        let verdict = goal.met().map_or("not measured", |met| if met { "met" } else { "NOT MET" });
        println!("  {what:62}{sign}{wanted:11.digits$} {measured:11.digits$}   {verdict}");
        rows.push(
            json!({ "what": what, "goal": wanted, "at_least": at_least, "measured": measured, "met": goal.met() }),
        );
    }
    Value::Array(rows)
}
