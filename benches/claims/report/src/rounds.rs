//! Figures of repeated rounds: which lies in the middle, and how far they lie apart.

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// One figure of each round, in the order of the rounds. One that is no measurement, such as a limit, is a single round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The figure in the middle.
    ///
    /// # Panics
    /// Without any round.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(&mut self.0.clone())
    }

    /// The least and the greatest; `None` of a single round.
    #[must_use]
    pub fn spread(&self) -> Option<(f64, f64)> {
        let least = self.0.iter().copied().reduce(f64::min)?;
        let greatest = self.0.iter().copied().reduce(f64::max)?;
        (self.0.len() > 1).then_some((least, greatest))
    }

    /// Round by round.
    #[must_use]
    pub fn map(&self, what: impl Fn(f64) -> f64) -> Self {
        self.0.iter().copied().map(what).collect()
    }

    /// Round by round; a single round stands beside each of the other. `None` where they are not of the same rounds.
    #[must_use]
    pub fn with(&self, other: &Self, what: impl Fn(f64, f64) -> f64) -> Option<Self> {
        let rounds = self.0.len().max(other.0.len());
        let of = |it: &Self| match it.0[..] {
            [single] => Some(vec![single; rounds]),
            _ => (it.0.len() == rounds).then(|| it.0.clone()),
        };
        Some(of(self)?.into_iter().zip(of(other)?).map(|(one, other)| what(one, other)).collect())
    }

    /// The figures, in the order of the rounds.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.0.iter().copied()
    }
}

impl From<f64> for Rounds {
    fn from(figure: f64) -> Self {
        Self(vec![figure])
    }
}

impl FromIterator<f64> for Rounds {
    fn from_iter<T: IntoIterator<Item = f64>>(figures: T) -> Self {
        Self(figures.into_iter().collect())
    }
}

impl Serialize for Rounds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (least, greatest) = self.spread().unwrap_or((self.median(), self.median()));
        let mut fields = serializer.serialize_struct("Rounds", 4)?;
        fields.serialize_field("median", &self.median())?;
        fields.serialize_field("least", &least)?;
        fields.serialize_field("greatest", &greatest)?;
        fields.serialize_field("rounds", &self.0)?;
        fields.end()
    }
}

/// The least value that so many hundredths of all are not above.
///
/// # Panics
/// Without any value.
pub fn percentile(values: &mut [f64], hundredths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * hundredths).div_ceil(100).max(1) - 1]
}

/// The value in the middle, or between the two there.
///
/// # Panics
/// Without any value.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(figures: &[f64]) -> Rounds {
        figures.iter().copied().collect()
    }

    #[test]
    fn the_median_lies_in_the_middle_or_between_the_two_there() {
        assert_eq!(rounds(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(rounds(&[4.0, 1.0, 3.0, 2.0]).median(), 2.5);
        assert_eq!(Rounds::from(7.0).median(), 7.0);
    }

    #[test]
    fn a_percentile_is_a_value_that_so_many_are_not_above() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([1, 50, 99, 100].map(|part| percentile(&mut hundred, part)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&mut [5.0], 99), 5.0);
        assert_eq!(percentile(&mut [2.0, 1.0], 99), 2.0);
    }

    #[test]
    fn the_spread_is_from_the_least_to_the_greatest() {
        assert_eq!(rounds(&[3.0, 1.0, 2.0]).spread(), Some((1.0, 3.0)));
        assert_eq!(Rounds::from(7.0).spread(), None, "one round has none");
    }

    #[test]
    fn rounds_stand_beside_rounds_and_a_limit_beside_all() {
        let quotient = |one: f64, other: f64| one / other;
        assert_eq!(rounds(&[2.0, 9.0]).with(&rounds(&[1.0, 3.0]), quotient), Some(rounds(&[2.0, 3.0])));
        assert_eq!(rounds(&[2.0, 9.0]).with(&Rounds::from(2.0), quotient), Some(rounds(&[1.0, 4.5])));
        assert_eq!(rounds(&[2.0, 9.0]).with(&rounds(&[1.0, 2.0, 3.0]), quotient), None);
    }

    #[test]
    fn machines_are_told_each_round() {
        let json = serde_json::to_value(rounds(&[3.0, 1.0, 2.0])).unwrap();
        assert_eq!(json, serde_json::json!({"median": 2.0, "least": 1.0, "greatest": 3.0, "rounds": [3.0, 1.0, 2.0]}));
    }
}
