//! A claim: a figure of ours beside what it is measured by, and whether it holds.

use std::fmt;

use serde::Serialize;

use crate::rounds::Rounds;

/// One figure of ours beside a floor, a peer or a limit.
#[derive(Debug, Serialize)]
pub struct Claim {
    /// Of what the figure is.
    pub what: String,
    /// Of ours and theirs.
    pub unit: &'static str,
    /// Our figure.
    pub ours: Rounds,
    /// The floor, the peer, or the limit.
    pub beside: String,
    /// In the same unit, and in the same rounds where it was measured in turns with ours.
    pub theirs: Rounds,
    /// Of the ratio of ours to theirs.
    pub goal: Goal,
    /// Of latencies, which count from the time at which a call was due: ours and theirs since the calls were sent.
    pub since_sent: Option<[Rounds; 2]>,
}

/// What ours should be beside theirs: of their ratio, unless it is said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Goal {
    /// So much, or less.
    AtMost(f64),
    /// Theirs and so much in the claim's unit, or less: where a ratio would ask more of a quick peer than of a slow one.
    AtMostAbove(f64),
    /// So much, or more.
    AtLeast(f64),
    /// Ours should be zero in every round; there is no ratio.
    Zero,
    /// It is told beside the others, and no goal was set.
    None,
}

/// Whether a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// By the medians.
    pub met: bool,
    /// In so many rounds, of so many, each looked at by itself.
    pub rounds: Option<(usize, usize)>,
    /// Whether it holds by the medians since the calls were sent, where those are known.
    pub since_sent: Option<bool>,
}

impl Goal {
    fn holds(self, ours: f64, theirs: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(ours / theirs <= most),
            Self::AtMostAbove(more) => Some(ours - theirs <= more),
            Self::AtLeast(least) => Some(ours / theirs >= least),
            Self::Zero => Some(ours == 0.0),
            Self::None => None,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtMostAbove(more) => write!(f, "≤ theirs + {more}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::Zero => f.write_str("0"),
            Self::None => f.write_str("–"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |met| if met { "met" } else { "MISSED" };
        f.write_str(word(self.met))?;
        if let Some((met, all)) = self.rounds.filter(|(met, all)| *met != if self.met { *all } else { 0 }) {
            write!(f, " (met in {met} of {all} rounds)")?;
        }
        match self.since_sent {
            Some(met) if met != self.met => write!(f, "; {} since sent", word(met)),
            Some(_) | None => Ok(()),
        }
    }
}

impl Claim {
    /// One without times since calls were sent.
    pub fn new(
        what: impl Into<String>,
        unit: &'static str,
        ours: impl Into<Rounds>,
        beside: impl Into<String>,
        theirs: impl Into<Rounds>,
        goal: Goal,
    ) -> Self {
        let (what, beside) = (what.into(), beside.into());
        Self { what, unit, ours: ours.into(), beside, theirs: theirs.into(), goal, since_sent: None }
    }

    /// Ours and theirs since the calls were sent.
    #[must_use]
    pub fn since_sent(self, ours: impl Into<Rounds>, theirs: impl Into<Rounds>) -> Self {
        Self { since_sent: Some([ours.into(), theirs.into()]), ..self }
    }

    /// Of the medians, with the least and the greatest of the rounds; `None` where there is nothing to divide by.
    #[must_use]
    pub fn ratio(&self) -> Option<(f64, Option<(f64, f64)>)> {
        ratio(&self.ours, &self.theirs)
    }

    /// `None` where no goal was set.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let met = match self.goal {
            Goal::Zero => self.ours.iter().all(|ours| ours == 0.0),
            Goal::AtMost(_) | Goal::AtMostAbove(_) | Goal::AtLeast(_) | Goal::None => {
                self.holds(&self.ours, &self.theirs)?
            }
        };
        let holds = |ours, theirs| if self.goal.holds(ours, theirs) == Some(true) { 1.0 } else { 0.0 };
        let each = self.ours.with(&self.theirs, holds);
        let rounds = each.map(|each| (each.iter().filter(|met| *met > 0.0).count(), each.iter().len()));
        let since_sent = self.since_sent.as_ref().and_then(|[ours, theirs]| self.holds(ours, theirs));
        Some(Verdict { met, rounds, since_sent })
    }

    fn holds(&self, ours: &Rounds, theirs: &Rounds) -> Option<bool> {
        self.goal.holds(ours.median(), theirs.median())
    }

    /// The cells of its row, but for the last: what, ours, beside, theirs, ratio, goal, verdict.
    pub(crate) fn cells(&self) -> [String; 7] {
        let verdict = self.verdict().map_or_else(|| "–".to_owned(), |verdict| verdict.to_string());
        [
            self.what.clone(),
            format!("{} {}", shown(&self.ours), self.unit),
            self.beside.clone(),
            shown(&self.theirs),
            shown_ratio(&self.ours, &self.theirs, self.goal),
            self.goal.to_string(),
            verdict,
        ]
    }

    /// The last: ours, theirs and their ratio since the calls were sent.
    pub(crate) fn since_sent_cell(&self) -> Option<String> {
        let [ours, theirs] = self.since_sent.as_ref()?;
        Some(format!("{} / {}: {}", shown(ours), shown(theirs), shown_ratio(ours, theirs, self.goal)))
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, ours, beside, theirs, ratio, goal, verdict] = self.cells();
        write!(f, "{what}: {ours} beside {theirs} ({beside}): {ratio}, goal {goal}: {verdict}")?;
        self.since_sent_cell().map_or(Ok(()), |cell| write!(f, "; since sent {cell}"))
    }
}

fn ratio(ours: &Rounds, theirs: &Rounds) -> Option<(f64, Option<(f64, f64)>)> {
    let of_medians = ours.median() / theirs.median();
    let each = ours.with(theirs, |ours, theirs| ours / theirs);
    let spread = each.and_then(|each| each.spread());
    of_medians.is_finite().then_some((of_medians, spread))
}

/// The median, and the spread where there is one.
fn shown(rounds: &Rounds) -> String {
    let median = digits(rounds.median());
    rounds
        .spread()
        .map_or(median.clone(), |(least, greatest)| format!("{median} ({}–{})", digits(least), digits(greatest)))
}

fn shown_ratio(ours: &Rounds, theirs: &Rounds, goal: Goal) -> String {
    match ratio(ours, theirs).filter(|_| goal != Goal::Zero) {
        Some((ratio, Some((least, greatest)))) => format!("{ratio:.2} ({least:.2}–{greatest:.2})"),
        Some((ratio, None)) => format!("{ratio:.2}"),
        None => "–".to_owned(),
    }
}

/// As many digits as say something.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(ours: &[f64], theirs: &[f64], goal: Goal) -> Claim {
        let rounds = |figures: &[f64]| figures.iter().copied().collect::<Rounds>();
        Claim::new("a call", "µs", rounds(ours), "a floor", rounds(theirs), goal)
    }

    fn verdict(ours: &[f64], theirs: &[f64], goal: Goal) -> String {
        claim(ours, theirs, goal).verdict().map_or_else(String::new, |verdict| verdict.to_string())
    }

    #[test]
    fn the_medians_decide_and_the_bound_itself_is_met() {
        assert_eq!(verdict(&[5.0], &[2.0], Goal::AtMost(2.5)), "met");
        assert_eq!(verdict(&[5.1], &[2.0], Goal::AtMost(2.5)), "MISSED");
        assert_eq!(verdict(&[8.0], &[10.0], Goal::AtLeast(0.8)), "met");
        assert_eq!(verdict(&[7.9], &[10.0], Goal::AtLeast(0.8)), "MISSED");
        assert_eq!(verdict(&[7.9], &[10.0], Goal::None), "");
        assert_eq!(verdict(&[15.0], &[10.0], Goal::AtMostAbove(5.0)), "met");
        assert_eq!(verdict(&[15.1], &[10.0], Goal::AtMostAbove(5.0)), "MISSED");
        assert_eq!(Goal::AtMostAbove(5.0).to_string(), "≤ theirs + 5");
    }

    #[test]
    fn rounds_that_do_not_agree_with_the_medians_are_told() {
        let goal = Goal::AtMost(1.0);
        assert_eq!(verdict(&[1.0, 1.0, 3.0], &[2.0, 2.0, 2.0], goal), "met (met in 2 of 3 rounds)");
        assert_eq!(verdict(&[1.0, 3.0, 3.0], &[2.0, 2.0, 2.0], goal), "MISSED (met in 1 of 3 rounds)");
        assert_eq!(verdict(&[3.0, 3.0], &[2.0, 2.0], goal), "MISSED");
        assert_eq!(verdict(&[1.0, 3.0], &[2.0], Goal::AtMost(1.0)), "met (met in 1 of 2 rounds)", "beside a limit");
    }

    #[test]
    fn a_verdict_that_would_be_another_since_the_calls_were_sent_says_so() {
        let met = claim(&[90.0], &[60.0], Goal::AtMost(1.5));
        assert_eq!(met.since_sent(60.0, 30.0).verdict().unwrap().to_string(), "met; MISSED since sent");
        let met = claim(&[90.0], &[60.0], Goal::AtMost(1.5));
        assert_eq!(met.since_sent(45.0, 30.0).verdict().unwrap().to_string(), "met");
        let missed = claim(&[91.0], &[60.0], Goal::AtMost(1.5));
        assert_eq!(missed.since_sent(45.0, 30.0).verdict().unwrap().to_string(), "MISSED; met since sent");
    }

    #[test]
    fn what_should_be_none_is_none_in_every_round() {
        assert_eq!(verdict(&[0.0, 0.0, 0.0], &[0.0], Goal::Zero), "met");
        assert_eq!(verdict(&[0.0, 0.0, 1.0], &[0.0], Goal::Zero), "MISSED (met in 2 of 3 rounds)");
        assert_eq!(claim(&[0.0, 1.0], &[0.0], Goal::Zero).cells()[4], "–", "nothing is divided by nothing");
    }

    #[test]
    fn a_row_has_medians_and_spreads() {
        let claim = claim(&[4.0, 5.0, 6.0], &[2.0, 2.0, 1.5], Goal::AtMost(2.0));
        let cells = claim.cells();
        let cells = cells.each_ref().map(String::as_str);
        let expected = ["a call", "5.00 (4.00–6.00) µs", "a floor", "2.00 (1.50–2.00)", "2.50 (2.00–4.00)", "≤ 2"];
        assert_eq!(cells[..6], expected);
        assert_eq!(cells[6], "MISSED (met in 1 of 3 rounds)");
        assert_eq!(claim.since_sent_cell(), None);
        let claim = claim.since_sent(12.34, 6.17);
        assert_eq!(claim.since_sent_cell().unwrap(), "12.3 / 6.17: 2.00");
        assert!(claim.to_string().ends_with("; since sent 12.3 / 6.17: 2.00"), "{claim}");
    }

    #[test]
    fn figures_have_the_digits_that_say_something() {
        assert_eq!([0.0, 0.041, 4.7, 61.71, 5332.6].map(digits), ["0", "0.04", "4.70", "61.7", "5333"]);
    }
}
