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

#[cfg(test)]
#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::atomic::{AtomicU32, fence};
    use crate::bell::Bell;

    /// A queue that counts, two instances' bells, and the set of who waits.
    #[derive(Default)]
    struct Shared {
        messages: AtomicU32,
        waiters: Waiters,
        bells: [Bell; 2],
        /// Rings of the worker, by senders who found nobody.
        worker: Bell,
    }

    impl Shared {
        /// As `Bus::post` and `Bus::wake` do: publish, fence, choose, ring.
        fn send(&self) {
            self.messages.fetch_add(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            match self.waiters.choose() {
                Some(slot) => self.bells[slot].ring(),
                None => self.worker.ring(),
            }
        }

        fn take(&self) -> bool {
            let seen = self.messages.load(Ordering::Acquire);
            seen > 0 && self.messages.compare_exchange(seen, seen - 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        }

        /// As `Bus::wait_for_call` does up to its sleep: whether it took a message; if not, it sleeps as long as the bell is not
        /// rung, and what it heard is returned.
        fn wait(&self, slot: usize) -> Result<(), crate::bell::Heard> {
            let heard = self.bells[slot].listen();
            self.waiters.announce(slot);
            fence(Ordering::SeqCst);
            if self.take() {
                let chosen = !self.waiters.withdraw(slot);
                if chosen && self.messages.load(Ordering::Relaxed) > 0 {
                    fence(Ordering::SeqCst);
                    if let Some(other) = self.waiters.choose() {
                        self.bells[other].ring();
                    } else {
                        self.worker.ring();
                    }
                }
                return Ok(());
            }
            Err(heard)
        }

        /// As `wait`, and again as often as it is woken in vain.
        fn wait_on(&self, slot: usize) -> Result<(), crate::bell::Heard> {
            let mut end = self.wait(slot);
            for _ in 0..2 {
                match end {
                    Err(heard) if !self.sleeps_on(slot, heard) => {
                        self.waiters.withdraw(slot);
                        end = self.wait(slot);
                    }
                    _ => break,
                }
            }
            end
        }

        /// Whether this instance sleeps on although nobody has rung for it.
        fn sleeps_on(&self, slot: usize, heard: crate::bell::Heard) -> bool {
            self.bells[slot].listen() == heard
        }
    }

    /// Two messages, two who wait: when all is done, each message was taken, or somebody was woken for it: an instance that does not
    /// sleep on, or the worker.
    #[test]
    fn for_each_message_somebody_is_awake() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let shared = Arc::new(Shared::default());
            let worker = shared.worker.listen();
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.send();
                    shared.send();
                })
            };
            let second = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.wait_on(1))
            };
            let ends = [shared.wait(0), second.join().unwrap()];
            sender.join().unwrap();
            let left = shared.messages.load(Ordering::SeqCst);
            let awake = |slot: usize| ends[slot].is_err_and(|heard| !shared.sleeps_on(slot, heard));
            let woken = awake(0) || awake(1) || shared.worker.listen() != worker;
            assert!(left == 0 || woken, "{left} messages, and nobody awake");
        });
    }
}
