//! What a pack says about each of its sensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::smoothing::smoothed_last;

/// Why a pack could not be summed up.
#[derive(Debug, Error)]
pub(crate) enum SummaryError {
    /// The event is not what `ingest` hands on.
    #[error("not a resolved SenML pack: {0}")]
    NotAPack(serde_json::Error),
    /// Booleans, texts and data have no average.
    #[error("no record of the pack has a numeric value")]
    NothingNumeric,
    /// The summary could not be written as JSON.
    #[error("the summary cannot be written: {0}")]
    Unwritable(serde_json::Error),
}

/// The fields of a resolved SenML record (RFC 8428, 4.6) that a summary is made from; records
/// without `v` carry booleans, texts, data or sums and are left out.
#[derive(Debug, Deserialize)]
struct Record {
    n: String,
    u: Option<String>,
    v: Option<f64>,
}

/// One sensor's readings in one unit, in the order of their times. Fields are in that unit.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// The sensor's full SenML name.
    n: String,
    /// The SenML unit, if the device gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    u: Option<String>,
    /// How many readings there were.
    count: usize,
    min: f64,
    max: f64,
    mean: f64,
    /// The last reading with noise and single false readings taken out; what alarms are judged by.
    smoothed: f64,
}

/// Reads a resolved pack (JSON) and writes its summary (JSON, sensors in order of name and unit).
pub(crate) fn summarise(pack: &[u8]) -> Result<Vec<u8>, SummaryError> {
    let records: Vec<Record> = serde_json::from_slice(pack).map_err(SummaryError::NotAPack)?;
    let summaries = sum_up(records);
    if summaries.is_empty() {
        return Err(SummaryError::NothingNumeric);
    }
    serde_json::to_vec(&summaries).map_err(SummaryError::Unwritable)
}

fn sum_up(records: Vec<Record>) -> Vec<Summary> {
    // The unit belongs to the key: readings of one name in two units have no common average.
    let mut readings: BTreeMap<(String, Option<String>), Vec<f64>> = BTreeMap::new();
    for record in records {
        if let Some(value) = record.v {
            readings.entry((record.n, record.u)).or_default().push(value);
        }
    }
    readings.into_iter().filter_map(|((name, unit), values)| sum_up_sensor(name, unit, &values)).collect()
}

/// `None` where there are no values.
fn sum_up_sensor(name: String, unit: Option<String>, values: &[f64]) -> Option<Summary> {
    let smoothed = smoothed_last(values)?;
    Some(Summary {
        n: name,
        u: unit,
        count: values.len(),
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        mean: mean(values),
        smoothed,
    })
}

/// The mean of finite `values`, finite even where their sum is not.
fn mean(values: &[f64]) -> f64 {
    let mut mean = 0.0;
    let mut count = 0.0;
    for value in values {
        count += 1.0;
        mean += value / count - mean / count;
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(pack: &str) -> Vec<serde_json::Value> {
        serde_json::from_slice(&summarise(pack.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn each_sensor_is_summed_up_by_itself() {
        let sensors = summary(
            r#"[{"n":"b","u":"Cel","v":1.0,"t":1.0},{"n":"a","u":"%RH","v":40,"t":1.0},
                {"n":"b","u":"Cel","v":3.0,"t":2.0}]"#,
        );
        assert_eq!(sensors.len(), 2);
        assert_eq!(sensors[0]["n"], "a");
        assert_eq!(sensors[0]["count"], 1);
        assert_eq!(sensors[1]["n"], "b");
        assert_eq!(sensors[1]["count"], 2);
        assert_eq!(sensors[1]["min"], 1.0);
        assert_eq!(sensors[1]["max"], 3.0);
        assert_eq!(sensors[1]["mean"], 2.0);
        assert_eq!(sensors[1]["smoothed"], 2.0);
    }

    #[test]
    fn one_name_in_two_units_is_two_sensors() {
        let sensors = summary(r#"[{"n":"a","u":"Cel","v":20},{"n":"a","v":1}]"#);
        assert_eq!(sensors.len(), 2);
        assert!(sensors[0].get("u").is_none());
        assert_eq!(sensors[1]["u"], "Cel");
    }

    #[test]
    fn records_without_a_number_are_left_out() {
        let sensors = summary(r#"[{"n":"door","vb":true},{"n":"a","v":1},{"n":"sum","s":7}]"#);
        assert_eq!(sensors.len(), 1);
        assert_eq!(sensors[0]["n"], "a");
    }

    #[test]
    fn a_pack_without_numbers_is_refused() {
        let refused = summarise(br#"[{"n":"door","vb":true}]"#);
        assert!(matches!(refused, Err(SummaryError::NothingNumeric)));
    }

    #[test]
    fn what_is_no_pack_is_refused() {
        for event in [&b""[..], b"{}", b"[1]", br#"[{"v":1}]"#, br#"[{"n":"a","v":"1"}]"#, b"\xff"] {
            assert!(matches!(summarise(event), Err(SummaryError::NotAPack(_))), "{event:?}");
        }
    }

    #[test]
    fn extreme_readings_keep_every_number_finite() {
        let values = [f64::MAX, f64::MAX, f64::MIN, f64::MAX];
        let summary = sum_up_sensor("a".into(), None, &values).unwrap();
        assert!(summary.mean.is_finite() && summary.smoothed.is_finite());
        assert_eq!((summary.min, summary.max), (f64::MIN, f64::MAX));
    }
}
