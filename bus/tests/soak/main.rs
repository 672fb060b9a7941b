//! The soak: millions of messages over processes that are killed at random moments, and every message accounted for.
//!
//! ```text
//!               post                    next                     answer
//!   caller ───────────▶ f, f, f, f ──────────────▶ g, g, g, g ───────────▶ caller
//!   (a thread)              │   ◀──── reply ────────   ▲                  (accounts for each call)
//!                           └──── a call of its own ───┘
//!
//!   supervisor (this thread): SIGKILL one of the eight, reap, sweep, fork another; over and over. Now and then: give the memory of
//!   free messages back
//! ```
//!
//! The short form is a part of the tests. The full form, `make soak`, is the same for `SANDBAR_SOAK_MESSAGES` messages (100 million
//! when only `SANDBAR_SOAK` is set).
//!
//! 1. Each call is answered exactly once: with a payload that is right to the last byte, or with the error of a kill.
//! 2. No more calls end with that error than instances were killed in a call.
//! 3. Nobody sleeps on beside a message: the replies to f would show it, and the calls that are made when nothing else is under way.
//! 4. In the end all messages are free and all queues empty.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends when it finds what should not be")]

#[path = "../cast/application.rs"]
mod application;
mod caller;
mod census;
#[path = "../cast/chart.rs"]
mod chart;
#[path = "../cast/event.rs"]
mod event;
mod payload;
#[path = "../cast/process.rs"]
mod process;
#[path = "../cast/random.rs"]
mod random;
mod serving;
#[path = "../cast/shared.rs"]
mod shared;

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sandbar_bus::{Geometry, Verdict};

use application::{Application, F, G};
use caller::{Caller, Progress};
use event::Event;
use process::{End, Process};
use random::Random;
use serving::{Count, Counts, Serving};
use shared::Shared;

/// Serving processes; as many slots.
const PROCESSES: usize = 8;
/// Messages of the short form and, unless told otherwise, of the full one.
const MESSAGES_SHORT: u64 = 2_000_000;
const MESSAGES_FULL: u64 = 100_000_000;
/// Pauses between kills are up to twice as long as this.
const KILL_EVERY_US: u64 = 2_000;
/// After so many kills the memory of free messages is given back to the system.
const KILLS_TO_GIVING_BACK: u64 = 50;
/// Nothing answered for so long is a stall.
const STALL: Duration = Duration::from_secs(20);
/// The place of one that was killed stays empty until so many calls are answered.
const ANSWERS_TO_A_FORK: u64 = 3;
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// What the caller of a call is told whose instance was killed.
const DIAGNOSTIC: &str = "killed by the soak";

/// More messages of each class than the calls under way can use, so that a free one is hardly ever missing.
const GEOMETRY: Geometry = Geometry {
    functions: 2,
    targets: 0,
    slots: PROCESSES,
    queue_capacity: 256,
    payload_bytes_max: 1 << 20,
    assured: [16, 4, 2, 1],
    common: [768, 128, 24, 8],
};

/// How many messages this run is to deliver, and whether it tells how it goes.
fn goal() -> (u64, bool) {
    let messages = std::env::var("SANDBAR_SOAK_MESSAGES").ok().map(|n| n.replace('_', "").parse().expect("a number"));
    let full = messages.is_some() || std::env::var_os("SANDBAR_SOAK").is_some();
    (messages.unwrap_or(if full { MESSAGES_FULL } else { MESSAGES_SHORT }), full)
}

/// The supervisor, and what it counts.
struct Supervisor<'a> {
    application: &'a Application,
    counts: &'a Shared<[Counts; PROCESSES]>,
    processes: Vec<Process>,
    random: Random,
    kills: u64,
    /// Kills in the middle of a call.
    cut_off: u64,
}

impl Supervisor<'_> {
    /// Forks a process for the only slot that is free. The first half of them serve f, the others g.
    fn fork(&mut self, expected: usize) -> Process {
        let function = if expected < PROCESSES / 2 { F } else { G };
        let bus = &self.application.bus;
        let (slot, generation) = bus.reserve_slot(function).expect("a free slot");
        assert_eq!(slot, expected);
        let random = Random::new(self.random.next());
        let counts = &self.counts[slot];
        Process::fork(|| Serving { bus, slot, generation, function, counts, random }.run())
    }

    fn kill(&mut self, slot: usize) {
        assert_eq!(
            self.processes[slot].kill(),
            End::Signal(libc::SIGKILL),
            "the process in slot {slot} ended by itself"
        );
        self.kills += 1;
    }

    fn sweep(&mut self, slot: usize) {
        self.cut_off += u64::from(self.application.bus.sweep(slot, Verdict::Crashed, DIAGNOSTIC));
    }

    /// Kills one and makes another, in a while: until then those that are left are all there is to answer. One that comes new
    /// looks for messages that nobody was woken for, and would hide that. False when nothing is answered meanwhile.
    fn kill_one(&mut self, progress: &Progress) -> bool {
        let slot = usize::try_from(self.random.below(PROCESSES as u64)).unwrap();
        self.kill(slot);
        self.sweep(slot);
        let moves = await_answers(progress);
        self.processes[slot] = self.fork(slot);
        if self.kills.is_multiple_of(KILLS_TO_GIVING_BACK) {
            self.application.bus.give_memory_back();
        }
        moves
    }

    fn count(&self, what: Count) -> u64 {
        self.counts.iter().map(|counts| counts[what as usize].load(Ordering::Relaxed)).sum()
    }

    /// Messages that were sent and taken: calls, replies and answers.
    fn delivered(&self, progress: &Progress) -> u64 {
        self.count(Count::Taken) + progress.answers()
    }

    /// Kills until so many messages are delivered and every call is answered; false when nothing moves any more.
    fn rage(&mut self, messages: u64, progress: &Progress, tell: bool) -> bool {
        let began = Instant::now();
        let mut reported = began;
        while !progress.finished.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_micros(self.random.below(2 * KILL_EVERY_US)));
            if !self.kill_one(progress) {
                return false;
            }
            let delivered = self.delivered(progress);
            if delivered >= messages {
                progress.enough.store(true, Ordering::Relaxed);
            }
            if tell && reported.elapsed() > REPORT_EVERY {
                reported = Instant::now();
                self.report(progress, began);
            }
        }
        self.report(progress, began);
        true
    }

    fn report(&self, progress: &Progress, began: Instant) {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let delivered = self.delivered(progress);
        let seconds = began.elapsed().as_secs_f64();
        let _told = writeln!(
            std::io::stdout(),
            "soak: {delivered} messages in {seconds:.1} s ({:.2} million a second); {} calls: {} done, {} ended by a \
             kill; {} kills, {} in a call; {} replies, {} of them ended by a kill, {} too late, {} to nobody; {} calls \
             when nothing else was under way, {} sleeps of the agent; {} times no buffer, {} posts refused",
            delivered as f64 / seconds / 1e6,
            load(&progress.posted),
            load(&progress.done),
            load(&progress.crashed),
            self.kills,
            self.cut_off,
            self.count(Count::Replies),
            self.count(Count::CrashedReplies),
            self.count(Count::LateReplies),
            self.count(Count::RepliesToNobody),
            load(&progress.trickled),
            load(&progress.slept),
            self.count(Count::NoBuffer),
            load(&progress.refused),
        );
    }
}

#[test]
fn every_message_is_accounted_for_while_processes_are_killed_at_random_moments() {
    let (messages, tell) = goal();
    let event = Event::new();
    let application = Application::new(GEOMETRY, 0, &event.0);
    let counts = Shared::<[Counts; PROCESSES]>::new();
    let progress = Progress::default();
    let seed = std::process::id().into();
    let mut supervisor = Supervisor {
        application: &application,
        counts: &counts,
        processes: Vec::new(),
        random: Random::new(seed),
        kills: 0,
        cut_off: 0,
    };
    for slot in 0..PROCESSES {
        let process = supervisor.fork(slot);
        supervisor.processes.push(process);
    }
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let _finish = Finish(&progress);
            Caller::new(&application.agent, &event, &progress).run();
        });
        let moves = supervisor.rage(messages, &progress, tell);
        progress.give_up.store(true, Ordering::Relaxed);
        assert!(moves, "nothing was answered for {STALL:?}:\n{}", census::dump(&application));
        assert!(caller.join().is_ok(), "the caller found what should not be, see above (seed {seed})");
    });
    // First all of them, or one that still lives could send a reply to the mailbox of one that is swept.
    (0..PROCESSES).for_each(|slot| supervisor.kill(slot));
    (0..PROCESSES).for_each(|slot| supervisor.sweep(slot));
    check_the_end(&supervisor, &progress);
}

/// Waits until some calls are answered, or all; false when nothing moves.
fn await_answers(progress: &Progress) -> bool {
    let (began, before) = (Instant::now(), progress.answers());
    while progress.answers() < before + ANSWERS_TO_A_FORK && !progress.finished.load(Ordering::Acquire) {
        if began.elapsed() > STALL {
            return false;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    true
}

/// The supervisor need not wait for a caller that has panicked.
struct Finish<'a>(&'a Progress);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.finished.store(true, Ordering::Release);
    }
}

fn check_the_end(supervisor: &Supervisor<'_>, progress: &Progress) {
    let application = supervisor.application;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let [posted, done, crashed] = [&progress.posted, &progress.done, &progress.crashed].map(load);
    assert_eq!(posted, done + crashed, "each call has one answer");
    let crashed_replies = supervisor.count(Count::CrashedReplies);
    let cut_off = supervisor.cut_off;
    assert!(
        crashed + crashed_replies <= cut_off,
        "{crashed} and {crashed_replies} errors of {cut_off} kills in a call"
    );
    assert!(crashed > 0, "no kill came in the middle of a call");
    assert_eq!(supervisor.count(Count::LateReplies), 0, "a reply was lost");
    assert!(application.agent.take().unwrap().is_none());
    let free = census::free_messages(application);
    assert_eq!(free, GEOMETRY.messages(), "not all messages are free:\n{}", census::dump(application));
    assert!(census::queued(application).iter().all(|(_, entries)| *entries == 0), "{}", census::dump(application));
    assert!(application.agent.is_idle());
}
