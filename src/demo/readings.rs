//! Readings of this very machine, as a SenML pack (RFC 8428).

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// One record of a pack.
#[derive(Debug, Serialize)]
struct Record {
    #[serde(rename = "bn", skip_serializing_if = "Option::is_none")]
    base_name: Option<&'static str>,
    /// Seconds since 1970.
    #[serde(rename = "bt", skip_serializing_if = "Option::is_none")]
    base_time: Option<u64>,
    #[serde(rename = "n")]
    name: &'static str,
    #[serde(rename = "u")]
    unit: &'static str,
    #[serde(rename = "v")]
    value: f64,
}

/// The device whose readings these are; 32473 is the enterprise number for examples.
const BASE_NAME: &str = "urn:dev:os:32473-host:";

/// What can be read here and now: load, memory in use, uptime and, where there is a sensor, the temperature.
pub(super) fn pack() -> Result<String, serde_json::Error> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let readings = [
        ("load", "/", load()),
        ("memory", "/", memory()),
        ("uptime", "s", uptime()),
        ("temperature", "Cel", temperature()),
    ];
    let readings = readings.into_iter().filter_map(|(name, unit, value)| Some((name, unit, value?)));
    let records = readings.enumerate().map(|(index, (name, unit, value))| {
        let first = index == 0;
        Record { base_name: first.then_some(BASE_NAME), base_time: first.then_some(now_s), name, unit, value }
    });
    serde_json::to_string(&records.collect::<Vec<_>>())
}

/// Processes that ran or wanted to, on average over the last minute.
fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// The part of the memory that is in use.
fn memory() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()
    };
    let part = 1.0 - kilobytes("MemAvailable")? / kilobytes("MemTotal")?;
    Some((part * 1000.0).round() / 1000.0)
}

/// Seconds since the machine was started.
fn uptime() -> Option<f64> {
    fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()
}

/// Degrees Celsius of the first sensor.
fn temperature() -> Option<f64> {
    let zones = (0..8).map(|zone| format!("/sys/class/thermal/thermal_zone{zone}/temp"));
    let sensors = (0..8).map(|sensor| format!("/sys/class/hwmon/hwmon{sensor}/temp1_input"));
    let text = zones.chain(sensors).find_map(|path| fs::read_to_string(path).ok())?;
    text.trim().parse::<f64>().ok().map(|thousandths| thousandths / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pack_has_a_base_name_once_and_numbers_throughout() {
        let pack: serde_json::Value = serde_json::from_str(&pack().unwrap()).unwrap();
        let records = pack.as_array().unwrap();
        assert!(records.len() >= 3);
        assert_eq!(records[0]["bn"], BASE_NAME);
        assert!(records[0]["bt"].as_u64().unwrap() > 1 << 28, "a time, not a span before now (RFC 8428, 4.5.3)");
        assert!(records[1..].iter().all(|record| record.get("bn").or(record.get("bt")).is_none()));
        assert!(records.iter().all(|record| record["v"].is_number()));
    }
}
