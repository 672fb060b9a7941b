//! Attacks on the application's message memory, and on the descriptors that its processes share with each other and with the agent.

use std::fs;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sandbar_bus::clock::now_ns;
use sandbar_bus::{Actor, Address, Bus, Destination, Envelope, Verdict};

use crate::tried::{Attacks, Tried, call, stay};

pub(crate) const ATTACKS: Attacks = &[
    ("scribble-noise", scribble_noise),
    ("scribble-ones", |tried| scribble_all(tried, u64::MAX)),
    ("scribble-zeros", |tried| scribble_all(tried, 0)),
    ("shift-words", shift_words),
    ("forge-messages", forge_messages),
    ("ring-bells", ring_bells),
    ("grab-messages", grab_messages),
    ("resize", resize),
    ("punch-holes", punch_holes),
    ("remove-pages", remove_pages),
    ("fill-the-event", fill_the_event),
    ("change-flags", change_flags),
    ("shut-the-trace", shut_the_trace),
    ("flood-the-trace", flood_the_trace),
    ("outlive-the-deadline", outlive_the_deadline),
    ("hide-its-process", hide_its_process),
    ("hide-and-outlive", hide_and_outlive),
];

/// Where the supervisor puts them.
const SEGMENT: usize = 3;
const EVENT: usize = 4;
const TRACE: usize = 5;

/// The segment and the event, kept from the worker's start: the segment's descriptor is closed once it is mapped.
static KEPT: OnceLock<(usize, usize)> = OnceLock::new();

/// To be called before the worker serves.
pub(crate) fn keep_descriptors() {
    let keep = |fd| call(libc::SYS_fcntl, &[fd, libc::F_DUPFD_CLOEXEC.cast_unsigned() as usize, 200]);
    if let (Ok(segment), Ok(event)) = (keep(SEGMENT), keep(EVENT)) {
        let number = |fd| usize::try_from(fd).unwrap_or(0);
        KEPT.get_or_init(|| (number(segment), number(event)));
    }
}

fn segment() -> usize {
    KEPT.get().map_or(0, |kept| kept.0)
}

/// The bus, joined once more.
fn bus() -> Option<Bus> {
    let (segment, event) = KEPT.get()?;
    // SAFETY: it is open for as long as the process lives.
    let segment = unsafe { BorrowedFd::borrow_raw(i32::try_from(*segment).ok()?) };
    // SAFETY: as above; that there are two owners does no harm, as the process ends without dropping any.
    let event = unsafe { OwnedFd::from_raw_fd(i32::try_from(*event).ok()?) };
    Bus::attach(segment, event).ok()
}

/// The slot that this instance is in.
fn own_slot() -> usize {
    call(libc::SYS_getuid, &[]).map_or(0, |user| usize::try_from(user).unwrap_or(2000)) - 2000
}

/// Where the segment is mapped.
fn mapping() -> Option<std::ops::Range<usize>> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.contains("/memfd:") && line.contains("rw-s"))?;
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

fn put(at: usize, word: u64) {
    // SAFETY: `at` is a word in the mapping of the segment, where others write at the same time: that is the attack.
    unsafe { std::ptr::without_provenance_mut::<u64>(at).write_volatile(word) };
}

fn get(at: usize) -> u64 {
    // SAFETY: as above.
    unsafe { std::ptr::without_provenance::<u64>(at).read_volatile() }
}

/// Numbers that look random enough.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }
}

fn random() -> Random {
    Random(now_ns() | 1)
}

fn scribble_noise(tried: &mut Tried<'_>) {
    let Some(mapped) = mapping() else { return tried.check("the segment is not mapped", false) };
    let mut random = random();
    loop {
        let word = match random.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => random.next() % 64,
            _ => random.next(),
        };
        put(mapped.start + random.below(mapped.len() / 8) * 8, word);
    }
}

fn scribble_all(tried: &mut Tried<'_>, word: u64) {
    let Some(mapped) = mapping() else { return tried.check("the segment is not mapped", false) };
    for at in mapped.step_by(8) {
        put(at, word);
    }
    stay()
}

/// Heads, tails, states and indices in the first pages, a little off.
fn shift_words(tried: &mut Tried<'_>) {
    let Some(mapped) = mapping() else { return tried.check("the segment is not mapped", false) };
    let mut random = random();
    loop {
        let at = mapped.start + random.below(mapped.len().min(256 << 10) / 8) * 8;
        put(at, get(at).wrapping_add(random.next() % 3).wrapping_sub(1));
    }
}

fn envelope(call: u64, function: usize, verdict: Option<Verdict>, reply_to: Address) -> Envelope {
    let now = now_ns();
    let deadline_ns = now + 1_000_000_000;
    Envelope {
        call,
        deadline_ns,
        sent_ns: now,
        reply_to,
        content_format: Some(0),
        verdict,
        function,
        traced: true,
        hops: 0,
    }
}

/// Requests to every function, answers to calls of others, and replies to instances, all of them made up.
fn forge_messages(tried: &mut Tried<'_>) {
    let Some(bus) = bus() else { return tried.check("there is no bus", false) };
    let (actor, mut random) = (Actor::instance(own_slot()), random());
    let functions = bus.layout().geometry.functions;
    let own = tried.context.call_id();
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < Duration::from_millis(600) {
        let (function, slot) = (random.below(functions + 1), random.below(bus.slots().len() + 1));
        let call =
            if random.below(2) == 0 { random.next() } else { own.wrapping_add(random.next() % 64).wrapping_sub(32) };
        let instance = Address::Instance { slot, generation: u32::try_from(random.below(20)).unwrap_or(0) };
        let (to, envelope) = match random.below(4) {
            0 => (Destination::Function(function), envelope(call, function, None, Address::Caller)),
            1 => (Destination::Out, envelope(call, function, Some(Verdict::Done), Address::Caller)),
            2 => (Destination::Out, envelope(call, function, None, instance)),
            _ => (Destination::Mailbox(slot), envelope(call, function, Some(Verdict::Done), instance)),
        };
        // The call's own answer is given in the end.
        if envelope.call == own && to == Destination::Out {
            continue;
        }
        if let Some(mut draft) = bus.draft(actor, to, 6) {
            draft.write(b"forged");
            sent += usize::from(draft.send(to, &envelope).is_ok());
        }
    }
    tried.check("nothing could be sent", sent > 0);
}

fn ring_bells(tried: &mut Tried<'_>) {
    let Some(bus) = bus() else { return tried.check("there is no bus", false) };
    loop {
        for function in 0..bus.layout().geometry.functions {
            bus.worker_bell(function).ring();
        }
        bus.supervisor_sleeps(true);
        let one = 1_u64;
        let _woken = call(libc::SYS_write, &[EVENT, std::ptr::from_ref(&one) as usize, 8]);
    }
}

/// Holds all messages there are, and dies with them.
fn grab_messages(tried: &mut Tried<'_>) {
    let Some(bus) = bus() else { return tried.check("there is no bus", false) };
    let actor = Actor::instance(own_slot());
    let mut held = 0;
    for destination in (0..bus.layout().geometry.functions).map(Destination::Function).chain([Destination::Out]) {
        for bytes in [16, 4 << 10, 64 << 10, 1 << 20] {
            while let Some(draft) = bus.draft(actor, destination, bytes) {
                std::mem::forget(draft);
                held += 1;
            }
        }
    }
    if held == 0 {
        return tried.check("no message could be had", false);
    }
    std::thread::sleep(Duration::from_millis(100));
    crate::tried::exit(3)
}

fn resize(tried: &mut Tried<'_>) {
    let segment = segment();
    // What is beyond the largest file is asked for as an error.
    // SAFETY: the disposition runs no code.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    for bytes in [0, 1, 4096, 64 << 20, 1 << 30] {
        let resized = call(libc::SYS_ftruncate, &[segment, bytes]);
        tried.check(format_args!("a segment of {bytes} bytes: {resized:?}"), resized.is_err());
    }
    let byte = [0_u8];
    for at in [1 << 30, 1 << 40] {
        let result = call(libc::SYS_pwrite64, &[segment, byte.as_ptr() as usize, 1, at]);
        tried.check(format_args!("a byte beyond the end: {result:?}"), result.is_err());
    }
    let allocate = call(libc::SYS_fallocate, &[segment, 0, 0, 1 << 30]);
    tried.check(format_args!("more room: {allocate:?}"), allocate.is_err());
    for seal in [libc::F_SEAL_WRITE, libc::F_SEAL_FUTURE_WRITE, libc::F_SEAL_GROW | libc::F_SEAL_WRITE] {
        let arguments = [segment, libc::F_ADD_SEALS.cast_unsigned() as usize, seal.cast_unsigned() as usize];
        tried.refused(format_args!("seal {seal}"), libc::SYS_fcntl, &arguments);
    }
    let (protection, shared) =
        ((libc::PROT_READ | libc::PROT_EXEC).cast_unsigned() as usize, libc::MAP_SHARED.cast_unsigned() as usize);
    let mapped = call(libc::SYS_mmap, &[0, 4096, protection, shared, segment, 0]);
    // Who can write to memory that it may execute has gained nothing: it can map memory of its own so.
    tried.check(format_args!("a mapping to execute: {mapped:?}"), true);
    let none = [std::ptr::null::<libc::c_char>()];
    let at = none.as_ptr() as usize;
    let executed = call(libc::SYS_execveat, &[segment, c"".as_ptr() as usize, at, at, 0x1000]);
    tried.check(format_args!("it can be executed: {executed:?}"), executed.is_err());
}

fn punch_holes(_tried: &mut Tried<'_>) {
    // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(300) {
        let _punched = call(libc::SYS_fallocate, &[segment(), 3, 0, 1 << 30]);
    }
    stay()
}

fn remove_pages(tried: &mut Tried<'_>) {
    let Some(mapped) = mapping() else { return tried.check("the segment is not mapped", false) };
    for advice in [libc::MADV_REMOVE, libc::MADV_DONTNEED, libc::MADV_HWPOISON, libc::MADV_PAGEOUT] {
        let _advised = call(libc::SYS_madvise, &[mapped.start, mapped.len(), advice.cast_unsigned() as usize]);
    }
    let _gone = call(libc::SYS_munmap, &[mapped.start, mapped.len()]);
    stay()
}

/// Brings the event that wakes the agent to where a write to it waits, and lets writes wait.
fn fill_the_event(tried: &mut Tried<'_>) {
    let set_flags = |flags: i32| {
        call(libc::SYS_fcntl, &[EVENT, libc::F_SETFL.cast_unsigned() as usize, flags.cast_unsigned() as usize])
    };
    let _quick = set_flags(libc::O_NONBLOCK);
    for bits in (0..64).rev() {
        let value = 1_u64 << bits;
        while call(libc::SYS_write, &[EVENT, std::ptr::from_ref(&value) as usize, 8]).is_ok() {}
    }
    let _waits = set_flags(0);
    tried.check("filled", true);
}

/// Flags of what is shared with the worker, with other instances and with the agent.
fn change_flags(tried: &mut Tried<'_>) {
    for fd in 0..7 {
        for flags in [libc::O_NONBLOCK, libc::O_APPEND, libc::O_ASYNC, libc::O_DIRECT, 0] {
            let _set =
                call(libc::SYS_fcntl, &[fd, libc::F_SETFL.cast_unsigned() as usize, flags.cast_unsigned() as usize]);
        }
        for bytes in [1, 4096, 1 << 20, 1 << 30] {
            let _sized = call(libc::SYS_fcntl, &[fd, libc::F_SETPIPE_SZ.cast_unsigned() as usize, bytes]);
        }
        for pid in [1, 2, 3] {
            let _owned = call(libc::SYS_fcntl, &[fd, libc::F_SETOWN.cast_unsigned() as usize, pid]);
        }
        let _locked = call(libc::SYS_flock, &[fd, libc::LOCK_EX.cast_unsigned() as usize]);
        let _leased = call(libc::SYS_fcntl, &[fd, libc::F_SETLEASE.cast_unsigned() as usize, 1]);
        tried.check("a descriptor", true);
    }
    // The log is not to be read, whatever it is opened as.
    let path = c"/proc/self/fd/2".as_ptr() as usize;
    tried.refused("the log opened to be read", libc::SYS_openat, &[(-100_isize).cast_unsigned(), path, 0]);
}

fn shut_the_trace(tried: &mut Tried<'_>) {
    for how in 0..3 {
        let _shut = call(libc::SYS_shutdown, &[TRACE, how]);
        tried.check("a way", true);
    }
}

/// Junk, empty messages and descriptors for the agent, as much as its socket takes.
fn flood_the_trace(tried: &mut Tried<'_>) {
    let bytes = [0xFF_u8; 4096];
    let begin = Instant::now();
    let mut control = [0_u64; 4];
    // One message of rights, with a descriptor.
    control[0] = 20;
    control[1] = libc::SCM_RIGHTS.cast_unsigned() as u64 * (1 << 32) + libc::SOL_SOCKET.cast_unsigned() as u64;
    let vector = [bytes.as_ptr() as usize, 40];
    let header = [0, 0, vector.as_ptr() as usize, 1, control.as_ptr() as usize, 24, 0];
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).cast_unsigned() as usize;
    while begin.elapsed() < Duration::from_millis(400) {
        for len in [0, 1, 39, 40, 41, 4096] {
            let _sent = call(libc::SYS_sendto, &[TRACE, bytes.as_ptr() as usize, len, flags, 0, 0]);
        }
        let _sent = call(libc::SYS_sendmsg, &[TRACE, header.as_ptr() as usize, flags]);
    }
    tried.check("sent", true);
}

/// Says that it may run for ever, and does.
fn outlive_the_deadline(tried: &mut Tried<'_>) {
    let Some(bus) = bus() else { return tried.check("there is no bus", false) };
    bus.slots()[own_slot()].serve(now_ns(), u64::MAX);
    stay()
}

/// Says that its slot has no process, and stays.
fn hide_its_process(tried: &mut Tried<'_>) {
    let Some(bus) = bus() else { return tried.check("there is no bus", false) };
    bus.slots()[own_slot()].pid.store(0, std::sync::atomic::Ordering::SeqCst);
    stay()
}

fn hide_and_outlive(tried: &mut Tried<'_>) {
    let Some(bus) = bus() else { return tried.check("there is no bus", false) };
    bus.slots()[own_slot()].finish();
    bus.slots()[own_slot()].pid.store(u32::MAX, std::sync::atomic::Ordering::SeqCst);
    stay()
}
