//! Smooths the readings of one sensor: a running median of three, then an exponential average.
//!
//! The median comes first because cheap sensors now and then report one value that was never there
//! (a DS18B20 answers 85 °C when its supply dipped), and an average alone would carry that value
//! along for many readings. The exponential average then takes out the noise and forgets old
//! readings without keeping any. Weights count readings, not seconds: a device is taken to sample
//! at a steady interval.

/// The weight of a new reading against all before it: three readings make up 78 % of the result.
const WEIGHT: f64 = 0.4;

/// The smoothed value at the last of `readings`, or `None` where there are none.
pub(crate) fn smoothed_last(readings: &[f64]) -> Option<f64> {
    let mut medians = (0..readings.len()).map(|last| running_median(readings, last));
    let first = medians.next()?;
    Some(medians.fold(first, |smoothed, median| {
        // As a weighted sum, not as `smoothed + WEIGHT * (median - smoothed)`: the difference of
        // two large readings may overflow.
        (1.0 - WEIGHT) * smoothed + WEIGHT * median
    }))
}

/// The median of the readings `last - 2 ..= last`. The first two readings have too few before them
/// and look ahead instead, so that a false first value does not become the start of the average.
fn running_median(readings: &[f64], last: usize) -> f64 {
    let window_start = last.saturating_sub(2);
    let window_end = (window_start + 3).min(readings.len());
    match readings[window_start..window_end] {
        [only] => only,
        [one, other] => 0.5 * one + 0.5 * other,
        [a, b, c] => a.min(b).max(a.max(b).min(c)),
        _ => readings[last],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_readings_have_no_smoothed_value() {
        assert_eq!(smoothed_last(&[]), None);
    }

    #[test]
    fn one_reading_is_its_own_smoothed_value() {
        assert_eq!(smoothed_last(&[21.5]), Some(21.5));
    }

    #[test]
    fn a_steady_reading_stays_what_it_is() {
        let smoothed = smoothed_last(&[21.5; 50]).unwrap();
        assert!((smoothed - 21.5).abs() < 1e-9);
    }

    #[test]
    fn one_false_reading_leaves_no_trace_wherever_it_is() {
        for position in 0..7 {
            let mut readings = [20.0; 7];
            readings[position] = 85.0;
            let smoothed = smoothed_last(&readings).unwrap();
            assert!((smoothed - 20.0).abs() < 1e-9, "position {position}: {smoothed}");
        }
    }

    #[test]
    fn a_step_is_followed_within_a_few_readings() {
        let mut readings = vec![20.0; 5];
        readings.extend([30.0; 6]);
        let smoothed = smoothed_last(&readings).unwrap();
        assert!(smoothed > 29.0 && smoothed < 30.0, "{smoothed}");
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        for readings in
            [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0]]
        {
            assert_eq!(running_median(&readings, 2), 2.0);
        }
    }

    #[test]
    fn extreme_readings_stay_finite() {
        let smoothed = smoothed_last(&[f64::MAX, f64::MIN, f64::MAX, f64::MIN]).unwrap();
        assert!(smoothed.is_finite());
    }
}
