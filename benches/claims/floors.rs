//! What the system itself takes.
#![allow(unsafe_code, reason = "two processes share a word")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use claims_report::median;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use sandbar_bus::futex;

use crate::stage::Pinned;

/// What a hop is measured by, wherever it is.
pub(crate) const HALF_ROUND_TRIP: &str = "half a futex round trip between two processes, one core";

const ROUND_TRIPS: u32 = 4_000;
const PAGE: std::num::NonZeroUsize = std::num::NonZeroUsize::new(4096).unwrap();

/// Microseconds that a word takes from one process to another on one processor, p50 of a few thousand: half a round trip, in which each
/// sleeps until the other has written.
pub(crate) fn half_futex_round_trip() -> f64 {
    let (rights, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { mmap_anonymous(None, PAGE, rights, shared) }.unwrap();
    let p50 = {
        // SAFETY: it is zeroed, large and aligned enough for two words, and is unmapped only below.
        let words: &[AtomicU32; 2] = unsafe { page.cast().as_ref() };
        let _pinned = Pinned::to_first();
        median(&mut round_trips(words))
    };
    // SAFETY: nothing refers to it any more.
    unsafe { munmap(page, PAGE.get()) }.unwrap();
    p50 / 2.0
}

fn round_trips(words: &[AtomicU32; 2]) -> Vec<f64> {
    // SAFETY: the child uses nothing but these words, and ends without destructors.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let killed_with_us = set_pdeathsig(Signal::SIGKILL).is_ok();
            for turn in 0..ROUND_TRIPS {
                wait_past(&words[0], turn);
                pass(&words[1]);
            }
            // SAFETY: it ends here.
            unsafe { libc::_exit(i32::from(!killed_with_us)) }
        }
        ForkResult::Parent { child } => child,
    };
    let times = (0..ROUND_TRIPS).map(|turn| {
        let began = Instant::now();
        pass(&words[0]);
        wait_past(&words[1], turn);
        began.elapsed().as_secs_f64() * 1e6
    });
    let times = times.collect();
    waitpid(child, None).unwrap();
    times
}

fn pass(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    futex::wake(word);
}

fn wait_past(word: &AtomicU32, turn: u32) {
    while word.load(Ordering::SeqCst) == turn {
        futex::wait(word, turn, None);
    }
}
