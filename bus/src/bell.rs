//! A bell: the word that one process sleeps on, and that others ring.
//!
//! ```text
//!  31                              1   0
//! ┌─────────────────────────────────┬───┐
//! │              rings              │ Z │   Z: somebody sleeps on the word, or is about to
//! └─────────────────────────────────┴───┘
//! ```
//!
//! Who waits:  *listen* (note the rings) → announce → fence → look → *sleep* unless it has rung since it was noted.
//! Who brings: publish → fence → look who waits → *ring*: count up, and the system call only if Z is set.
//!
//! 1. A ring after `listen` keeps `sleep` from sleeping, or ends it: both are changes of one word.
//! 2. Z is set by the sleeper alone, by the compare-and-swap that fails if it has rung. A sleeper that is killed leaves Z set, which costs
//!    a system call for nothing, until the next who listens.
//! 3. A bell has one listener at a time: the instance of a slot, the worker of a function.

use std::time::Duration;

use crate::atomic::{AtomicU32, Ordering};
use crate::clock::now_ns;
use crate::futex;

const ASLEEP: u32 = 1;
const RING: u32 = 2;
/// Looks at the word between two looks at the clock, while spinning.
const LOOKS: u32 = 64;

/// See the module.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Bell(AtomicU32);

/// How often the bell had rung when its listener began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard(u32);

impl Bell {
    /// To be called before the look at what there is to do.
    pub fn listen(&self) -> Heard {
        Heard(self.0.fetch_and(!ASLEEP, Ordering::AcqRel) & !ASLEEP)
    }

    /// Wakes the listener, or keeps it from falling asleep.
    pub fn ring(&self) {
        if self.0.fetch_add(RING, Ordering::SeqCst) & ASLEEP != 0 {
            futex::wake_one(&self.0);
        }
    }

    /// Sleeps until the bell rings, or has rung since it was heard, or for `timeout` at most; looks for `spin_ns` nanoseconds before.
    /// May return at any time: the caller looks again.
    pub fn sleep(&self, heard: Heard, spin_ns: u64, timeout: Option<Duration>) {
        if spin_ns > 0 && self.spin(heard, spin_ns) {
            return;
        }
        if self.fall_asleep(heard) {
            futex::wait(&self.0, heard.0 | ASLEEP, timeout);
            self.0.fetch_and(!ASLEEP, Ordering::Relaxed);
        }
    }

    /// Says that its listener sleeps; false if it has rung.
    fn fall_asleep(&self, heard: Heard) -> bool {
        let asleep = heard.0 | ASLEEP;
        self.0.compare_exchange(heard.0, asleep, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// True as soon as it has rung.
    fn spin(&self, heard: Heard, spin_ns: u64) -> bool {
        let until = now_ns().saturating_add(spin_ns);
        loop {
            for _ in 0..LOOKS {
                if self.0.load(Ordering::Relaxed) != heard.0 {
                    return true;
                }
                std::hint::spin_loop();
            }
            if now_ns() >= until {
                return false;
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_ring_since_it_was_heard_keeps_from_sleeping() {
        let bell = Bell::default();
        let heard = bell.listen();
        bell.ring();
        bell.sleep(heard, 0, None);
        assert_eq!(bell.0.load(Ordering::Relaxed), RING);
    }

    #[test]
    fn who_was_killed_asleep_keeps_nobody_awake() {
        let bell = Bell::default();
        assert!(bell.fall_asleep(bell.listen()));
        assert_eq!(bell.0.load(Ordering::Relaxed), ASLEEP);
        let heard = bell.listen();
        assert_eq!(bell.0.load(Ordering::Relaxed), 0);
        bell.sleep(heard, 0, Some(Duration::from_millis(1)));
        assert_eq!(bell.listen(), heard);
    }

    #[test]
    fn a_sleeper_is_woken_and_one_that_spins_is_not_slept_for() {
        for spin_ns in [0, 1_000_000_000] {
            let bell = Bell::default();
            std::thread::scope(|scope| {
                let heard = bell.listen();
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(5));
                    bell.ring();
                });
                while bell.listen() == heard {
                    bell.sleep(heard, spin_ns, None);
                }
            });
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::atomic::fence;

    /// Publish → fence → look who waits → ring, beside listen → announce → fence → look → sleep: in no interleaving does a
    /// message lie there while who waits for it sleeps on.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let (bell, message, waits) =
                (Arc::new(Bell::default()), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let sender = {
                let (bell, message, waits) = (Arc::clone(&bell), Arc::clone(&message), Arc::clone(&waits));
                thread::spawn(move || {
                    message.store(1, Ordering::Release);
                    fence(Ordering::SeqCst);
                    if waits.swap(0, Ordering::SeqCst) == 1 {
                        bell.ring();
                    }
                })
            };
            let heard = bell.listen();
            waits.store(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let sleeps = message.load(Ordering::Acquire) == 0 && bell.fall_asleep(heard);
            sender.join().unwrap();
            // The futex compares the word with what the sleeper set: any other value ends the sleep.
            let stays_asleep = sleeps && bell.0.load(Ordering::SeqCst) == heard.0 | ASLEEP;
            assert!(!stays_asleep, "asleep beside a message");
        });
    }
}
