//! The set of instances that wait for a queue.

use crate::atomic::{AtomicU64, Ordering};
use crate::layout::SLOTS_MAX;

/// Words of the set.
const WORDS: usize = SLOTS_MAX / 64;

/// One bit for each instance slot: set by the instance before it sleeps, cleared by whoever decides to wake it. Who clears the bit,
/// by one atomic operation, has chosen that instance, so that no two senders wake the same one.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Waiters([AtomicU64; WORDS]);

impl Waiters {
    /// Announces that this slot is about to sleep.
    pub(crate) fn announce(&self, slot: usize) {
        self.0[slot / 64].fetch_or(1 << (slot % 64), Ordering::SeqCst);
    }

    /// Withdraws the announcement; false if somebody has already chosen this slot.
    pub(crate) fn withdraw(&self, slot: usize) -> bool {
        let bit = 1 << (slot % 64);
        self.0[slot / 64].fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Chooses one waiter, who is then no longer announced. Exactly one caller gets each.
    pub(crate) fn choose(&self) -> Option<usize> {
        for (at, word) in self.0.iter().enumerate() {
            // As many turns as there are bits: others may choose the ones seen here first.
            for _ in 0..64 {
                let bits = word.load(Ordering::SeqCst);
                if bits == 0 {
                    break;
                }
                let slot = at * 64 + bits.trailing_zeros() as usize;
                if self.withdraw(slot) {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Whether this slot waits and nobody has chosen it.
    pub(crate) fn contains(&self, slot: usize) -> bool {
        self.0[slot / 64].load(Ordering::SeqCst) >> (slot % 64) & 1 == 1
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.0.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn each_waiter_is_chosen_once() {
        let waiters = Waiters::default();
        for slot in [0, 63, 64, 255] {
            waiters.announce(slot);
        }
        assert_eq!(waiters.count(), 4);
        assert!(waiters.contains(64) && !waiters.contains(65));
        let chosen: Vec<_> = std::iter::from_fn(|| waiters.choose()).collect();
        assert_eq!(chosen, [0, 63, 64, 255]);
        assert!(!waiters.withdraw(63));
    }
}
