//! Who is woken for a message: exactly one, and always.
//!
//! What a thread does is read off the kernel's account of it: each sleep is one voluntary context switch.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends when it finds what should not be")]

#[path = "cast/application.rs"]
mod application;
#[path = "cast/event.rs"]
mod event;
#[path = "cast/random.rs"]
mod random;

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, OnceLock};
use std::time::{Duration, Instant};

use sandbar_bus::clock::now_ns;
use sandbar_bus::{Actor, Bus, Destination, Envelope, Geometry, Payload, Verdict};

use application::{Application, F, deaf, request};
use event::Event;
use random::Random;

const GEOMETRY: Geometry = Geometry {
    functions: 2,
    targets: 0,
    slots: 80,
    queue_capacity: 256,
    payload_bytes_max: 1 << 10,
    assured: [16, 0, 0, 1],
    common: [512, 0, 0, 0],
};
/// Says to a waiter that it is the last.
const END: &[u8] = b"end";
/// Longer than any honest delay on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the kernel knows a thread of this process by.
fn this_thread() -> String {
    std::fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_string_lossy().into_owned()
}

/// Times that the thread has gone to sleep, and whether it sleeps now.
fn sleep(thread: &str) -> (u64, bool) {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    (field("voluntary_ctxt_switches:").parse().unwrap(), field("State:").starts_with('S'))
}

fn sleeps(thread: &str) -> u64 {
    sleep(thread).0
}

/// Time that the thread has had a processor.
fn cpu_time(thread: &str) -> Duration {
    let account = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    Duration::from_nanos(account.split(' ').next().unwrap().parse().unwrap())
}

/// Whether it came true within `PATIENCE`.
fn comes_true(mut it: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !it() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn send(bus: &Bus, actor: Actor, payload: &[u8]) {
    let to = Destination::Function(F);
    let mut draft = bus.draft(actor, to, payload.len()).unwrap();
    draft.write(payload);
    assert!(draft.send(to, &request(1, F)).is_ok());
}

/// Takes messages to f until the last, and counts them.
fn take_all(bus: &Bus, slot: usize, taken: &AtomicU64, mut after_each: impl FnMut()) {
    loop {
        let message = bus.wait_for_call(slot, F).unwrap();
        bus.slots()[slot].serve(now_ns(), u64::MAX);
        let last = message.bytes() == END;
        drop(message);
        if last {
            return;
        }
        taken.fetch_add(1, Ordering::SeqCst);
        after_each();
    }
}

/// Waiters that all sleep when nothing is to be done.
struct Waiters<'a> {
    bus: &'a Bus,
    threads: Vec<String>,
}

impl Waiters<'_> {
    /// Waits until all of them wait and sleep, and have gone to sleep so many times in all since `before`.
    fn settle(&self, before: &[u64], at_least: u64) -> Option<Vec<u64>> {
        let mut now = Vec::new();
        let settled = comes_true(|| {
            let asleep: Vec<bool>;
            (now, asleep) = self.threads.iter().map(|thread| sleep(thread)).unzip();
            let all_wait = self.bus.idle_instances(F) == self.threads.len() && asleep.iter().all(|asleep| *asleep);
            all_wait && woken(before, &now).sum::<u64>() >= at_least
        });
        settled.then_some(now)
    }
}

/// How many times each has gone to sleep in between.
fn woken<'a>(before: &'a [u64], after: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
    before.iter().zip(after).map(|(before, after)| after - before)
}

/// Runs `test` beside so many waiters, and ends them: a test that fails must not wait for them for ever.
fn beside_waiters<T>(
    bus: &Bus,
    count: usize,
    taken: &AtomicU64,
    after_each: impl Fn(usize) + Sync,
    test: impl FnOnce(&Waiters<'_>) -> T,
) -> T {
    let threads = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for slot in 0..count {
            let (threads, after_each) = (&threads, &after_each);
            scope.spawn(move || {
                threads.lock().unwrap().push(this_thread());
                take_all(bus, slot, taken, || after_each(slot));
            });
        }
        let all_wait = comes_true(|| bus.idle_instances(F) == count);
        let waiters = Waiters { bus, threads: threads.lock().unwrap().clone() };
        let value = all_wait.then(|| test(&waiters));
        (0..count).for_each(|_| send(bus, Actor::AGENT, END));
        value.expect("not all of them came to wait")
    })
}

/// 64 sleep; each message wakes one of them, and a burst no more than it has messages.
#[test]
fn a_message_wakes_exactly_one() {
    const WAITERS: usize = 64;
    const MESSAGES: u64 = 1_000;
    const BURSTS: u64 = 100;
    let application = Application::new(GEOMETRY, 0, &deaf());
    let taken = AtomicU64::new(0);
    let (single, bursts) = beside_waiters(
        &application.bus,
        WAITERS,
        &taken,
        |_| (),
        |waiters| {
            // First, all of them have touched the memory that they use: a page that is not there may cost a sleep.
            (0..4 * WAITERS).for_each(|_| send(&application.bus, Actor::AGENT, b"first"));
            let _first = comes_true(|| taken.load(Ordering::SeqCst) == 4 * WAITERS as u64);
            let mut before = waiters.settle(&[0; WAITERS], 1)?;
            let mut more_than_one = 0;
            let first = before.clone();
            for _ in 0..MESSAGES {
                send(&application.bus, Actor::AGENT, b"one");
                let after = waiters.settle(&before, 1)?;
                more_than_one += u64::from(woken(&before, &after).filter(|times| *times > 0).count() > 1);
                before = after;
            }
            let single = (woken(&first, &before).sum::<u64>(), more_than_one);
            let mut random = Random::new(1);
            let (first, mut sent) = (before.clone(), 0);
            for _ in 0..BURSTS {
                let burst = 2 + random.below(WAITERS as u64);
                sent += burst;
                (0..burst).for_each(|_| send(&application.bus, Actor::AGENT, b"many"));
                before = waiters.settle(&before, 1)?;
            }
            let all_taken = comes_true(|| taken.load(Ordering::SeqCst) == 4 * WAITERS as u64 + MESSAGES + sent);
            let after = waiters.settle(&before, 0)?;
            all_taken.then(|| (single, (woken(&first, &after).sum::<u64>(), sent)))
        },
    )
    .expect("a message was not taken while 64 waited, or nobody went back to sleep");
    let ((wakes, more_than_one), (burst_wakes, burst_messages)) = (single, bursts);
    let _told = writeln!(
        std::io::stdout(),
        "waking: {MESSAGES} messages, one at a time, to {WAITERS} who sleep: {wakes} wake-ups, {more_than_one} times of more than \
         one; {burst_messages} messages in {BURSTS} bursts: {burst_wakes} wake-ups"
    );
    // The kernel may let a thread sleep for reasons of its own (a lock of the address space that 64 threads share): one in a
    // hundred is let pass. A wake-up of all, or of two, would be told by a hundred times that.
    let tolerance = MESSAGES / 100;
    assert!((MESSAGES..=MESSAGES + tolerance).contains(&wakes), "{wakes} wake-ups for {MESSAGES} messages");
    assert!(more_than_one <= tolerance, "{more_than_one} messages woke more than one");
    assert!(burst_wakes <= burst_messages + burst_messages / 100, "{burst_wakes} for {burst_messages} messages");
}

/// Any number of senders and waiters: in every round each message is taken, though nothing comes after it.
#[test]
fn no_message_lies_there_while_anybody_waits() {
    const CROWDS: u64 = 40;
    const ROUNDS: u64 = 250;
    let mut random = Random::new(std::process::id().into());
    let mut messages = 0;
    for crowd in 0..CROWDS {
        let application = Application::new(GEOMETRY, 0, &deaf());
        let (senders, waiters) = (1 + random.below(4), 1 + random.below(8));
        let seed = random.next();
        let (sent, taken) = (AtomicU64::new(0), AtomicU64::new(0));
        let pause = |slot: usize| {
            let turns = now_ns() % (50 * (slot as u64 + 1));
            (0..turns).for_each(|_| std::hint::spin_loop());
        };
        let count = usize::try_from(waiters).unwrap();
        let lost = beside_waiters(&application.bus, count, &taken, pause, |_| {
            rounds(&application.bus, senders, ROUNDS, seed, &sent, &taken)
        });
        assert_eq!(lost, None, "crowd {crowd}: {senders} senders, {waiters} waiters, seed {seed}: lost in round");
        messages += sent.load(Ordering::SeqCst);
    }
    let _told = writeln!(
        std::io::stdout(),
        "waking: {messages} messages in {CROWDS} crowds of {ROUNDS} rounds, each taken while nothing came after it"
    );
}

/// Lets the senders send, round by round; the round in which a message was not taken.
fn rounds(bus: &Bus, senders: u64, rounds: u64, seed: u64, sent: &AtomicU64, taken: &AtomicU64) -> Option<u64> {
    let parties = usize::try_from(senders).unwrap() + 1;
    let (start, end) = (Barrier::new(parties), Barrier::new(parties));
    std::thread::scope(|scope| {
        for sender in 0..senders {
            let (start, end) = (&start, &end);
            let actor = Actor::instance(GEOMETRY.slots - 1 - usize::try_from(sender).unwrap());
            let mut random = Random::new(seed ^ sender);
            scope.spawn(move || {
                for _ in 0..rounds {
                    start.wait();
                    for _ in 0..1 + random.below(4) {
                        send(bus, actor, b"one");
                        sent.fetch_add(1, Ordering::SeqCst);
                        (0..random.below(300)).for_each(|_| std::hint::spin_loop());
                    }
                    end.wait();
                }
            });
        }
        let mut lost = None;
        for round in 0..rounds {
            start.wait();
            end.wait();
            let all = || taken.load(Ordering::SeqCst) == sent.load(Ordering::SeqCst);
            if lost.is_none() && !comes_true(all) {
                lost = Some(round);
            }
        }
        lost
    })
}

/// Hands each event back, a moment after it has come, until the last.
fn echo(bus: &Bus) {
    loop {
        let taken = bus.wait_for_call(0, F).unwrap();
        bus.slots()[0].serve(now_ns(), u64::MAX);
        if taken.bytes() == END {
            return;
        }
        (0..now_ns() % 2_000).for_each(|_| std::hint::spin_loop());
        let done = Envelope { verdict: Some(Verdict::Done), ..taken.envelope() };
        assert!(taken.forward(Payload::Unchanged, Destination::Out, &done).is_ok());
    }
}

/// With nobody else about who would wake it.
#[test]
fn the_agent_is_woken_for_each_answer_and_only_while_it_sleeps() {
    const CALLS: u64 = 3_000;
    let event = Event::new();
    let Application { bus, agent, .. } = Application::new(GEOMETRY, 0, &event.0);
    let mut lost = None;
    let mut slept = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&bus));
        for call in 0..CALLS {
            agent.post(b"one", &request(call, F)).unwrap();
            (0..now_ns() % 3_000).for_each(|_| std::hint::spin_loop());
            agent.sleeps(true);
            // It may have been written to for the last answer, which was found without it.
            let mut found = agent.take().unwrap();
            while found.is_none() && lost.is_none() {
                slept += 1;
                lost = (!event.wait(PATIENCE)).then_some(call);
                found = agent.take().unwrap();
            }
            agent.sleeps(false);
        }
        // Nobody is about to write for one of those any more: who answers does so before it waits again.
        let settled = comes_true(|| bus.idle_instances(F) == 1);
        while event.wait(Duration::ZERO) {}
        let mut answered = settled;
        for call in 0..CALLS {
            agent.post(b"one", &request(call, F)).unwrap();
            answered = answered && comes_true(|| agent.take().unwrap().is_some());
        }
        send(&bus, Actor::AGENT, END);
        assert!(answered, "a call was not answered");
    });
    let _told =
        writeln!(std::io::stdout(), "waking: {CALLS} answers to an agent that sleeps, {slept} sleeps, none too long");
    assert_eq!(lost, None, "the agent was not woken for the answer to this call");
    assert!(slept > 0, "every answer came before the agent slept");
    assert!(!event.wait(Duration::ZERO), "the event was written to while the agent did not sleep");
}

/// Sleeps of a waiter that gets `messages`, each when it waits and `is_time`, of which it is told which thread waits.
fn sleeps_of_a_waiter(spin_ns: u64, messages: u64, is_time: impl Fn(&str) -> bool) -> u64 {
    let application = Application::new(GEOMETRY, spin_ns, &deaf());
    let bus = &application.bus;
    let slept = AtomicU64::new(0);
    let thread = OnceLock::new();
    let mut waited = true;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let this = thread.get_or_init(this_thread);
            for _ in 0..messages {
                let before = sleeps(this);
                drop(bus.wait_for_call(0, F).unwrap());
                slept.fetch_add(sleeps(this) - before, Ordering::SeqCst);
            }
        });
        for _ in 0..messages {
            waited = waited && comes_true(|| bus.idle_instances(F) == 1 && thread.get().is_some_and(|it| is_time(it)));
            send(bus, Actor::AGENT, b"one");
        }
    });
    assert!(waited, "nobody waits");
    slept.into_inner()
}

#[test]
fn a_message_within_the_spin_is_taken_without_a_sleep_and_one_after_it_with_one() {
    const MESSAGES: u64 = 50;
    let within = sleeps_of_a_waiter(3_600_000_000_000, MESSAGES, |_| {
        std::thread::sleep(Duration::from_millis(1));
        true
    });
    let after = sleeps_of_a_waiter(100_000, MESSAGES, |thread| sleep(thread).1);
    let _told = writeln!(
        std::io::stdout(),
        "waking: {MESSAGES} messages within the spin, {within} sleeps; {MESSAGES} after it, {after} sleeps"
    );
    // One is let pass, as above.
    assert!(within <= 1, "{within} sleeps beside a spin of an hour");
    // Who is about to sleep is shown as asleep, and may hear of the message just then.
    assert!((MESSAGES / 2..=MESSAGES + 1).contains(&after), "{after} sleeps for {MESSAGES} messages");
}

#[test]
fn who_waits_has_no_processor_unless_it_is_told_to_spin() {
    let used = |spin_ns: u64| {
        let application = Application::new(GEOMETRY, spin_ns, &deaf());
        let taken = AtomicU64::new(0);
        beside_waiters(
            &application.bus,
            1,
            &taken,
            |_| (),
            |waiters| {
                // Who spins does not come to sleep.
                assert!(spin_ns > 0 || waiters.settle(&[0], 0).is_some(), "it does not go to sleep");
                let before = cpu_time(&waiters.threads[0]);
                std::thread::sleep(Duration::from_millis(500));
                cpu_time(&waiters.threads[0]) - before
            },
        )
    };
    let (asleep, spinning) = (used(0), used(3_600_000_000_000));
    let _told =
        writeln!(std::io::stdout(), "waking: in half a second a waiter uses {asleep:?}, one that spins {spinning:?}");
    assert!(asleep < Duration::from_millis(1), "a waiter that does not spin used {asleep:?}");
    assert!(spinning > asleep + Duration::from_millis(1), "a waiter that spins used {spinning:?}");
}
