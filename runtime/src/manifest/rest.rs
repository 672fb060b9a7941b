//! When an application without calls is put to rest, step by step.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::document::PlainRest;
use super::problem::Problems;
use super::quantity::{show_time, time};

/// Sooner, and what was put away would have to be made again between one call and the next.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(365 * 24 * 3600);

/// How long nothing happens before a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestAfter {
    /// So long.
    Time(Duration),
    /// The step is never taken.
    Never,
}

/// When an application without calls is put to rest. `None`: when the host says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Instances that stand ready are ended; workers stay, and a call waits for a fork.
    pub ready: Option<RestAfter>,
    /// Workers are ended, and instances with them; a call waits until one is started again. The sandbox stays.
    pub workers: Option<RestAfter>,
    /// The sandbox is ended; a call waits until another is made.
    pub sandbox: Option<RestAfter>,
}

impl RestAfter {
    /// How long; `None` for never.
    #[must_use]
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time) => Some(time),
            Self::Never => None,
        }
    }
}

impl FromStr for RestAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let after = time(text).map_err(|why| format!("{why}, or \"never\""))?;
        if !TIMES.contains(&after) {
            let (least, most) = (show_time(*TIMES.start()), show_time(*TIMES.end()));
            return Err(format!(
                "{} is out of range: a rest begins after {least} to {most}, or \"never\"",
                show_time(after)
            ));
        }
        Ok(Self::Time(after))
    }
}

impl fmt::Display for RestAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => f.write_str(&show_time(*time)),
            Self::Never => f.write_str("never"),
        }
    }
}

/// Checks the table `[rest]`.
pub(super) fn rest(plain: &PlainRest, problems: &mut Problems<'_>) -> Rest {
    let mut checked = |written: &Option<super::document::At<String>>| {
        let written = written.as_ref()?;
        written.value.parse::<RestAfter>().map_err(|why| problems.at(&written.span, why)).ok()
    };
    Rest { ready: checked(&plain.ready), workers: checked(&plain.workers), sandbox: checked(&plain.sandbox) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_taken_after_a_time_or_never() {
        let parse = |text: &str| text.parse::<RestAfter>();
        assert_eq!(parse("30s"), Ok(RestAfter::Time(Duration::from_secs(30))));
        assert_eq!(parse("never").map(RestAfter::time), Ok(None));
        for wrong in ["", "soon", "0s", "50ms", "never "] {
            let why = parse(wrong).expect_err(wrong);
            assert!(why.contains("never"), "{why}");
        }
        for text in ["100ms", "10min", "never"] {
            assert_eq!(parse(text).map(|after| after.to_string()).as_deref(), Ok(text));
        }
    }
}
