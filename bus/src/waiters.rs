//! The set of instances that wait for a queue, and how one of them is sent away.
//!
//! ```text
//!             announce                  choose: a sender                come off: nobody had cleared the bit, or a sender
//!   (looks) ───────────▶ waits ─────────────────────────────▶ chosen ──────────────────────────────────────────────▶ may take
//!                          │     dismiss: the supervisor               come off: the bit is clear, and it is dismissed
//!                          └────────────────────────────────▶ dismissed ─────────────────────────────────────────▶ leaves
//! ```
//!
//! 1. Who clears a slot's bit, by one atomic operation, has decided: a sender, that it takes a message; the supervisor, that it takes
//!    none; itself, that it looks again.
//! 2. An instance that has announced itself takes nothing before it has come off. So one that was dismissed holds no message and never
//!    will, whatever instruction it stands at, and may be killed.
//! 3. That it is to go is said before the bit is cleared for it: who finds its bit cleared by the supervisor finds that, too. It may find it
//!    although a sender was faster; then it leaves as well, and wakes another for the message that it was chosen for.

use crate::atomic::{AtomicU64, Ordering};
use crate::layout::SLOTS_MAX;

/// Words of the set.
const WORDS: usize = SLOTS_MAX / 64;

/// One bit for each instance slot: set by the instance before it sleeps, cleared by whoever decides to wake it. Who clears the bit,
/// by one atomic operation, has chosen that instance, so that no two senders wake the same one.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: [AtomicU64; WORDS],
    /// Those that the supervisor sends away, or tries to.
    dismissed: [AtomicU64; WORDS],
}

const _: () = assert!(cfg!(loom) || size_of::<Waiters>() == 64);

impl Waiters {
    /// Announces that this slot is about to sleep.
    pub(crate) fn announce(&self, slot: usize) {
        self.waiting[slot / 64].fetch_or(1 << (slot % 64), Ordering::SeqCst);
    }

    /// Takes this slot off the set, by its own instance, which looks for a message next; false if it must not, as it has been dismissed.
    pub(crate) fn come_off(&self, slot: usize) -> bool {
        self.clear(slot) || self.dismissed[slot / 64].load(Ordering::SeqCst) >> (slot % 64) & 1 == 0
    }

    /// Sends the instance of this slot away, if it waits; false if it does not, or somebody has chosen it. To be called by the supervisor,
    /// which takes turns with nobody.
    pub(crate) fn dismiss(&self, slot: usize) -> bool {
        if !self.contains(slot) {
            return false;
        }
        let bit = 1 << (slot % 64);
        self.dismissed[slot / 64].fetch_or(bit, Ordering::SeqCst);
        let dismissed = self.clear(slot);
        if !dismissed {
            self.dismissed[slot / 64].fetch_and(!bit, Ordering::SeqCst);
        }
        dismissed
    }

    /// Forgets all that is known of a slot, whose instance is dead.
    pub(crate) fn forget(&self, slot: usize) {
        self.clear(slot);
        self.dismissed[slot / 64].fetch_and(!(1 << (slot % 64)), Ordering::SeqCst);
    }

    /// Clears the bit that says that this slot waits; false if it was clear.
    pub(crate) fn clear(&self, slot: usize) -> bool {
        let bit = 1 << (slot % 64);
        self.waiting[slot / 64].fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Chooses one waiter, who is then no longer announced. Exactly one caller gets each.
    pub(crate) fn choose(&self) -> Option<usize> {
        for (at, word) in self.waiting.iter().enumerate() {
            // As many turns as there are bits: others may choose the ones seen here first.
            for _ in 0..64 {
                let bits = word.load(Ordering::SeqCst);
                if bits == 0 {
                    break;
                }
                let slot = at * 64 + bits.trailing_zeros() as usize;
                if self.clear(slot) {
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Whether this slot waits and nobody has chosen it.
    pub(crate) fn contains(&self, slot: usize) -> bool {
        self.waiting[slot / 64].load(Ordering::SeqCst) >> (slot % 64) & 1 == 1
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
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
        assert!(!waiters.clear(63));
    }

    #[test]
    fn one_that_is_dismissed_is_not_chosen_and_takes_nothing_until_its_slot_is_anothers() {
        let waiters = Waiters::default();
        assert!(!waiters.dismiss(70), "it does not wait");
        waiters.announce(70);
        assert!(waiters.dismiss(70) && !waiters.dismiss(70));
        assert_eq!(waiters.choose(), None);
        assert!(!waiters.come_off(70));
        waiters.forget(70);
        waiters.announce(70);
        assert!(waiters.come_off(70));
    }

    #[test]
    fn one_that_was_chosen_is_not_dismissed() {
        let waiters = Waiters::default();
        waiters.announce(5);
        assert_eq!(waiters.choose(), Some(5));
        assert!(!waiters.dismiss(5));
        assert!(waiters.come_off(5));
    }
}

#[cfg(test)]
#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::atomic::{AtomicU32, fence};
    use crate::bell::{Bell, Heard};

    /// A queue that counts, two instances' bells, and the set of who waits.
    #[derive(Default)]
    struct Shared {
        messages: AtomicU32,
        waiters: Waiters,
        bells: [Bell; 2],
        /// Rings of the worker, by senders who found nobody.
        worker: Bell,
    }

    /// What came of an instance that waited.
    #[derive(Clone, Copy, PartialEq)]
    enum End {
        Took,
        /// It sleeps as long as its bell is not rung.
        Sleeps(Heard),
        /// It was dismissed.
        Left,
    }

    impl Shared {
        /// As `Bus::post` and `Bus::wake` do: publish, fence, choose, ring.
        fn send(&self) {
            self.messages.fetch_add(1, Ordering::AcqRel);
            self.wake();
        }

        fn wake(&self) {
            fence(Ordering::SeqCst);
            match self.waiters.choose() {
                Some(slot) => self.bells[slot].ring(),
                None => self.worker.ring(),
            }
        }

        /// As `Bus::take`, which finds nothing only where nothing is: who was chosen and has found nothing owes nobody a look.
        fn take(&self) -> bool {
            loop {
                let seen = self.messages.load(Ordering::Acquire);
                if seen == 0 {
                    return false;
                }
                if self.messages.compare_exchange(seen, seen - 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    return true;
                }
            }
        }

        /// As `Bus::wait_for_call` does up to its sleep. Each turn but the last is for a message that another took.
        fn wait(&self, slot: usize) -> End {
            loop {
                if self.take() {
                    return End::Took;
                }
                let heard = self.bells[slot].listen();
                self.waiters.announce(slot);
                fence(Ordering::SeqCst);
                if self.messages.load(Ordering::Acquire) == 0 {
                    return End::Sleeps(heard);
                }
                if let Some(left) = self.come_off(slot) {
                    return left;
                }
            }
        }

        fn come_off(&self, slot: usize) -> Option<End> {
            if self.waiters.come_off(slot) {
                return None;
            }
            if self.messages.load(Ordering::Acquire) > 0 {
                self.wake();
            }
            Some(End::Left)
        }

        /// As `wait`, and again as often as it is woken in vain.
        fn wait_on(&self, slot: usize) -> End {
            let mut end = self.wait(slot);
            for _ in 0..2 {
                match end {
                    End::Sleeps(heard) if !self.sleeps_on(slot, heard) => {
                        end = self.come_off(slot).unwrap_or_else(|| self.wait(slot));
                    }
                    _ => break,
                }
            }
            end
        }

        /// Whether this instance sleeps on although nobody has rung for it.
        fn sleeps_on(&self, slot: usize, heard: Heard) -> bool {
            self.bells[slot].listen() == heard
        }

        fn is_awake(&self, slot: usize, end: End) -> bool {
            matches!(end, End::Sleeps(heard) if !self.sleeps_on(slot, heard))
        }
    }

    fn bounded(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// Two messages, two who wait: when all is done, each message was taken, or somebody was woken for it: an instance that does not
    /// sleep on, or the worker.
    #[test]
    fn for_each_message_somebody_is_awake() {
        bounded(|| {
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
            let woken = shared.is_awake(0, ends[0]) || shared.is_awake(1, ends[1]) || shared.worker.listen() != worker;
            assert!(left == 0 || woken, "{left} messages, and nobody awake");
        });
    }

    /// One waits, is woken at any time, perhaps for nothing, and is dismissed at any time: if it was, it has taken no message, and whatever
    /// message is left has somebody awake for it who was not.
    #[test]
    fn one_that_is_dismissed_takes_nothing() {
        bounded(|| {
            let shared = Arc::new(Shared::default());
            let worker = shared.worker.listen();
            let sender = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.bells[0].ring();
                    shared.send();
                })
            };
            let supervisor = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.waiters.dismiss(0))
            };
            let end = shared.wait_on(0);
            sender.join().unwrap();
            let dismissed = supervisor.join().unwrap();
            assert!(!dismissed || end != End::Took, "it is killed with the message that it took");
            let left = shared.messages.load(Ordering::SeqCst);
            let woken = !dismissed && shared.is_awake(0, end) || shared.worker.listen() != worker;
            assert!(left == 0 || woken, "{left} messages, and nobody awake");
        });
    }
}
