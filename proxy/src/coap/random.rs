//! Numbers that others cannot guess, from the keyed hash of the standard library.

use std::hash::{BuildHasher, RandomState};

/// A counter hashed under a random key: enough for message ids and retransmission jitter, which have to be
/// spread and hard to guess, not secret.
#[derive(Debug, Default)]
pub(super) struct Random {
    key: RandomState,
    drawn: u64,
}

impl Random {
    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        self.key.hash_one(self.drawn)
    }

    /// The next message id to start counting from.
    pub(super) fn message_id(&mut self) -> u16 {
        let [low, high, ..] = self.bits().to_ne_bytes();
        u16::from_ne_bytes([low, high])
    }

    /// The next number in `0.0..1.0`.
    pub(super) fn fraction(&mut self) -> f64 {
        let [a, b, c, d, ..] = self.bits().to_ne_bytes();
        f64::from(u32::from_ne_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_spread_over_their_range() {
        let mut random = Random::default();
        let drawn: Vec<f64> = (0..1000).map(|_| random.fraction()).collect();
        assert!(drawn.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(drawn.iter().any(|value| *value < 0.1));
        assert!(drawn.iter().any(|value| *value > 0.9));
    }
}
