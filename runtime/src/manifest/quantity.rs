//! Sizes and times as people write them: a whole number and a unit, without a space.

use std::time::Duration;

/// Units of a size; binary alone, as memory is counted in pages.
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Units of a time, in microseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("us", 1), ("ms", 1000), ("s", 1_000_000), ("min", 60 * 1_000_000), ("h", 60 * 60 * 1_000_000)];

/// Reads a size such as `64MiB`, in bytes.
///
/// # Errors
/// What is wrong with it, and what a size looks like.
pub fn size(text: &str) -> Result<u64, String> {
    amount(text, &SIZE_UNITS, "a size is a whole number and B, KiB, MiB or GiB, such as \"64MiB\"")
}

/// Reads a time such as `500ms`.
///
/// # Errors
/// What is wrong with it, and what a time looks like.
pub fn time(text: &str) -> Result<Duration, String> {
    amount(text, &TIME_UNITS, "a time is a whole number and us, ms, s, min or h, such as \"500ms\"")
        .map(Duration::from_micros)
}

fn amount(text: &str, units: &[(&str, u64)], form: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let refused = |why: String| format!("`{text}` {why}; {form}");
    if number.is_empty() {
        return Err(refused("does not start with a digit".to_owned()));
    }
    let Some(&(_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(refused(match unit {
            "" => "has no unit".to_owned(),
            _ => format!("has the unknown unit `{unit}`"),
        }));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(|| refused("is too large a number".to_owned()))
}

/// Writes a size with the largest unit that takes it without a fraction.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}

/// Writes a time with the largest unit that takes it without a fraction. What is under a microsecond is left out.
pub(super) fn show_time(time: Duration) -> String {
    match u64::try_from(time.as_micros()).unwrap_or(u64::MAX) {
        0 => "0s".to_owned(),
        micros => show(micros, &TIME_UNITS),
    }
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, scale): &&(&str, u64)| amount >= *scale && amount.is_multiple_of(*scale);
    let (unit, scale) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{}{unit}", amount / scale)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{show_size, show_time, size, time};

    #[test]
    fn sizes_and_times_have_a_number_and_a_unit() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("0B"), Ok(0));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(time("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(time("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(time("20us"), Ok(Duration::from_micros(20)));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong_and_what_is_right() {
        for (text, part) in [
            ("", "does not start with a digit"),
            ("MiB", "does not start with a digit"),
            ("-1MiB", "does not start with a digit"),
            (" 1MiB", "does not start with a digit"),
            ("64", "has no unit"),
            ("64 MiB", "unknown unit ` MiB`"),
            ("64MB", "unknown unit `MB`"),
            ("64mib", "unknown unit `mib`"),
            ("1.5GiB", "unknown unit `.5GiB`"),
            ("99999999999999999999B", "too large"),
            ("18446744073709551615GiB", "too large"),
        ] {
            let refused = size(text).unwrap_err();
            assert!(refused.contains(part) && refused.contains("64MiB"), "{text:?}: {refused}");
        }
        assert!(time("2 s").unwrap_err().contains("500ms"));
        assert!(time("2ns").unwrap_err().contains("unknown unit `ns`"));
        assert!(time("18446744073709551615ms").unwrap_err().contains("too large"));
    }

    #[test]
    fn sizes_and_times_are_shown_as_they_would_be_written() {
        for text in ["1B", "1025B", "1KiB", "1500KiB", "64MiB", "1GiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        assert_eq!(show_size(0), "0B");
        for text in ["1us", "1001us", "1ms", "90s", "2min", "1h"] {
            assert_eq!(show_time(time(text).unwrap()), text);
        }
        assert_eq!(show_time(Duration::ZERO), "0s");
    }
}
