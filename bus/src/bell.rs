//! A bell: the word that one process sleeps on, and that others ring.
//!
//! ```text
//!  31            17 16            1   0
//! ┌────────────────┬────────────────┬───┐
//! │     rings      │     sleeps     │ Z │   Z: somebody sleeps on the word, or is about to
//! └────────────────┴────────────────┴───┘
//! ```
//!
//! Who waits:  *listen* (note the rings) → announce → fence → look → *sleep* unless it has rung since it was noted.
//! Who brings: publish → fence → look who waits → *ring*: count up; if Z is set, wake, and then clear Z.
//!
//! 1. A ring after `listen` keeps `sleep` from sleeping, or ends it: both are changes of one word.
//! 2. Z stays set until who sleeps has been woken, so that a ringer that is stopped or killed before it wakes keeps no other ringer from
//!    doing so. It is cleared by a compare-and-swap that fails if somebody has fallen asleep since, which the sleeps tell. A sleeper
//!    that is killed leaves Z set, which costs one system call for nothing.
//! 3. All who sleep are woken. There is one, the instance of a slot or the worker of a function, unless it has forked.

use std::time::Duration;

use crate::atomic::{AtomicU32, Ordering};
use crate::clock::now_ns;
use crate::futex;

const ASLEEP: u32 = 1;
const SLEEP: u32 = 2;
const SLEEPS: u32 = 0x1_FFFE;
const RING: u32 = 0x2_0000;
/// Tries to fall asleep on a bell that others sleep on, or scribble over, at the same time.
const TRIES: usize = 64;
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
        Heard(rings(self.0.load(Ordering::Acquire)))
    }

    /// Wakes the listener, or keeps it from falling asleep.
    pub fn ring(&self) {
        let was = self.0.fetch_add(RING, Ordering::SeqCst);
        if was & ASLEEP == 0 {
            return;
        }
        futex::wake(&self.0);
        let rung = was.wrapping_add(RING);
        // A failure means that somebody has fallen asleep since, or rung: who rings next, or has, sees to it.
        let _awake = self.0.compare_exchange(rung, rung & !ASLEEP, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Sleeps until the bell rings, or has rung since it was heard, or for `timeout` at most; looks for `spin_ns` nanoseconds before.
    /// May return at any time: the caller looks again.
    pub fn sleep(&self, heard: Heard, spin_ns: u64, timeout: Option<Duration>) {
        if spin_ns > 0 && self.spin(heard, spin_ns) {
            return;
        }
        if let Some(asleep) = self.fall_asleep(heard) {
            futex::wait(&self.0, asleep, timeout);
        }
    }

    /// Says that somebody sleeps: the word to sleep on; `None` if it has rung.
    fn fall_asleep(&self, heard: Heard) -> Option<u32> {
        let mut seen = self.0.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            if rings(seen) != heard.0 {
                return None;
            }
            let asleep = seen & !SLEEPS | seen.wrapping_add(SLEEP) & SLEEPS | ASLEEP;
            match self.0.compare_exchange(seen, asleep, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some(asleep),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// True as soon as it has rung.
    fn spin(&self, heard: Heard, spin_ns: u64) -> bool {
        let until = now_ns().saturating_add(spin_ns);
        loop {
            for _ in 0..LOOKS {
                if rings(self.0.load(Ordering::Relaxed)) != heard.0 {
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

fn rings(word: u32) -> u32 {
    word / RING
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_ring_since_it_was_heard_keeps_from_sleeping() {
        for rings in [0, 1, u32::MAX / RING] {
            let bell = Bell(AtomicU32::new(rings * RING));
            let heard = bell.listen();
            bell.ring();
            bell.sleep(heard, 0, None);
            assert_eq!(bell.0.load(Ordering::Relaxed) & ASLEEP, 0);
        }
    }

    #[test]
    fn who_was_killed_asleep_keeps_nobody_awake() {
        let bell = Bell::default();
        let heard = bell.listen();
        let dead = bell.fall_asleep(heard).unwrap();
        // The next one falls asleep as well, and is woken.
        let next = bell.fall_asleep(heard).unwrap();
        assert!(dead != next && next & ASLEEP != 0);
        bell.ring();
        assert_eq!(bell.0.load(Ordering::Relaxed) & ASLEEP, 0);
        assert_eq!(bell.fall_asleep(heard), None);
    }

    #[test]
    fn two_that_came_of_a_fork_are_both_woken() {
        let bell = Bell::default();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let heard = Heard(0);
                    while bell.listen() == heard {
                        bell.sleep(heard, 0, None);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(5));
            bell.ring();
        });
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
            let nothing = message.load(Ordering::Acquire) == 0;
            let sleeps_on = nothing.then(|| bell.fall_asleep(heard)).flatten();
            sender.join().unwrap();
            // The futex compares the word with what the sleeper set: any other value ends the sleep.
            let stays_asleep = sleeps_on.is_some_and(|asleep| bell.0.load(Ordering::SeqCst) == asleep);
            assert!(!stays_asleep, "asleep beside a message");
        });
    }
}
