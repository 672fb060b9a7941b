//! What the system itself takes.
#![allow(unsafe_code, reason = "two processes share a word")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use sandbar_bus::futex;

const ROUND_TRIPS: u32 = 20_000;

/// Microseconds of each round trip of a word between two processes on one processor: each sleeps until the other has written.
pub(crate) fn futex_round_trips() -> Vec<f64> {
    let len = std::num::NonZeroUsize::new(4096).unwrap();
    let (rights, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { mmap_anonymous(None, len, rights, shared) }.unwrap();
    // SAFETY: it is zeroed, large and aligned enough for two words, and is never unmapped.
    let words: &[AtomicU32; 2] = unsafe { page.cast().as_ref() };
    let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
    pin(0);
    // SAFETY: the child uses nothing but these words, and ends without destructors.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            for turn in 0..ROUND_TRIPS {
                wait_past(&words[0], turn);
                pass(&words[1]);
            }
            // SAFETY: it ends here.
            unsafe { libc::_exit(0) }
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
    sched_setaffinity(Pid::from_raw(0), &before).unwrap();
    times
}

fn pin(processor: usize) {
    let mut only = CpuSet::new();
    only.set(processor).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only).unwrap();
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
