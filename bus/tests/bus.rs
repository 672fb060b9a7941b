//! The bus as its users see it, and what is left of it when they die.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test says what it found, and ends when it is not what it should be"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sandbar_bus::clock::now_ns;
use sandbar_bus::slot::Phase;
use sandbar_bus::{
    Actor, Address, AgentSide, Bus, Catalogue, Destination, Envelope, Function, Geometry, Layout, Segment, Verdict,
};

const GEOMETRY: Geometry = Geometry {
    functions: 2,
    targets: 1,
    slots: 8,
    queue_capacity: 8,
    payload_bytes_max: 1 << 20,
    assured: [2, 1, 0, 0],
    common: [10, 1, 2, 2],
};

/// A bus of two functions, "f" and then "g": as a process of the sandbox holds it, as the agent does, and the segment's descriptor.
fn bus(geometry: Geometry) -> (Bus, AgentSide, OwnedFd) {
    let function = |name: &str, next: &[usize]| Function {
        name: name.to_owned(),
        timeout_ns: 1_000_000_000,
        next: next.to_vec(),
        ready: 1,
        content_format: None,
    };
    let functions = [function("f", &[1]), function("g", &[])];
    let catalogue = Catalogue {
        application: "test".to_owned(),
        functions: functions.to_vec(),
        targets: vec!["/other/h".to_owned()],
        spin_ns: 0,
    };
    let (segment, fd) = Segment::create(Layout::new(geometry).unwrap(), &catalogue).unwrap();
    (Bus::attach(fd.as_fd(), event()).unwrap(), AgentSide::new(segment, event()), fd)
}

fn event() -> OwnedFd {
    std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap().into()
}

fn request(call: u64) -> Envelope {
    Envelope {
        call,
        deadline_ns: now_ns() + 60_000_000_000,
        sent_ns: now_ns(),
        reply_to: Address::Caller,
        content_format: Some(50),
        verdict: None,
        function: 0,
        traced: false,
        hops: 0,
    }
}

fn send(agent: &AgentSide, call: u64, payload: &[u8]) -> bool {
    agent.post(payload, &request(call)).is_ok()
}

fn free_messages(bus: &Bus) -> usize {
    let max = bus.layout().geometry.payload_bytes_max;
    let mut drafts = Vec::new();
    for len in [0, 2 << 10, 20 << 10, max] {
        for to in [Destination::Function(0), Destination::Function(1), Destination::Out] {
            while let Some(draft) = bus.draft(Actor::SUPERVISOR, to, len) {
                drafts.push(draft);
            }
        }
    }
    drafts.len()
}

#[test]
fn a_message_arrives_as_it_was_sent_and_is_free_afterwards() {
    let (bus, agent, _fd) = bus(GEOMETRY);
    for (call, len) in [0, 1, 1024, 1025, 16 << 10, 300_000, 1 << 20].into_iter().enumerate() {
        let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        assert!(send(&agent, call as u64, &payload));
        let taken = bus.take(Actor::instance(0), Destination::Function(0)).unwrap();
        assert_eq!(taken.bytes(), &payload[..]);
        assert_eq!((taken.envelope().call, taken.envelope().content_format), (call as u64, Some(50)));
    }
    assert_eq!(free_messages(&bus), GEOMETRY.messages());
    assert!(bus.draft(Actor::instance(0), Destination::Out, (1 << 20) + 1).is_none(), "larger than any payload may be");
}

#[test]
fn messages_leave_in_the_order_in_which_they_came_and_a_full_queue_refuses() {
    let (bus, agent, _fd) = bus(GEOMETRY);
    for lap in 0..10 {
        for call in 0..8 {
            assert!(send(&agent, lap * 8 + call, b"x"));
        }
        assert!(!send(&agent, 999, b"one too many"));
        for call in 0..8 {
            let taken = bus.take(Actor::instance(1), Destination::Function(0)).unwrap();
            assert_eq!(taken.envelope().call, lap * 8 + call);
        }
        assert!(bus.take(Actor::instance(1), Destination::Function(0)).is_none());
    }
    assert_eq!(free_messages(&bus), GEOMETRY.messages());
}

#[test]
fn a_small_payload_takes_a_larger_buffer_when_its_own_class_is_used_up() {
    let (bus, _agent, _fd) = bus(GEOMETRY);
    let mut drafts = Vec::new();
    for to in [Destination::Function(0), Destination::Function(1), Destination::Out] {
        while let Some(draft) = bus.draft(Actor::instance(2), to, 10) {
            drafts.push(draft);
        }
    }
    assert_eq!(drafts.len(), GEOMETRY.messages());
    drop(drafts);
    assert_eq!(free_messages(&bus), GEOMETRY.messages());
}

#[test]
fn a_process_of_the_sandbox_finds_the_catalogue_and_refuses_what_is_no_segment() {
    let (_bus, _agent, fd) = bus(GEOMETRY);
    let joined = Bus::attach(fd.as_fd(), event()).unwrap();
    assert_eq!((joined.application().as_str(), joined.function_index("g")), ("test", Some(1)));
    assert_eq!(joined.function(0).unwrap().next, [1]);
    assert_eq!((joined.target_index("/other/h"), joined.target_index("/other")), (Some(0), None));
    assert_eq!(joined.layout().geometry, GEOMETRY);
    assert!(joined.function(2).is_none());
    assert!(Bus::attach(event().as_fd(), event()).is_err());
}

#[test]
fn the_segment_can_neither_shrink_nor_grow() {
    let (_bus, _agent, fd) = bus(GEOMETRY);
    let file = std::fs::File::from(fd);
    let len = file.metadata().unwrap().len();
    assert!(file.set_len(0).is_err());
    assert!(file.set_len(len * 2).is_err());
}

/// As an instance in `slot` that has taken its call.
fn take_as(bus: &Bus, slot: usize) -> sandbar_bus::Taken<'_> {
    let taken = bus.take(Actor::instance(slot), Destination::Function(0)).unwrap();
    bus.slots()[slot].ready();
    bus.slots()[slot].serve(now_ns(), now_ns() + 1);
    taken
}

fn answer(agent: &AgentSide) -> Option<(u64, Option<Verdict>, Vec<u8>)> {
    let received = agent.take().unwrap()?;
    Some((received.envelope.call, received.envelope.verdict, received.payload))
}

#[test]
fn the_caller_of_a_dead_instance_gets_an_error_and_nothing_of_it_is_left() {
    let (bus, agent, _fd) = bus(GEOMETRY);
    assert!(send(&agent, 7, b"fatal"));
    std::mem::forget(take_as(&bus, 3));
    // What it was writing when it died.
    std::mem::forget(bus.draft(Actor::instance(3), Destination::Out, 100).unwrap());
    std::mem::forget(bus.draft(Actor::instance(3), Destination::Function(1), 100_000).unwrap());
    assert!(bus.sweep(3, Verdict::Crashed, "killed by signal 9"));
    assert_eq!(answer(&agent).unwrap(), (7, Some(Verdict::Crashed), b"killed by signal 9".to_vec()));
    assert!(!bus.sweep(3, Verdict::Crashed, "again"), "a second sweep finds nothing");
    assert!(answer(&agent).is_none());
    assert_eq!(free_messages(&bus), GEOMETRY.messages());
    assert_eq!(bus.slots()[3].state().unwrap().phase, Phase::Free);
}

#[test]
fn a_result_that_was_handed_over_stands_even_if_its_sender_died_at_once() {
    let (bus, agent, _fd) = bus(GEOMETRY);
    assert!(send(&agent, 8, b"event"));
    let taken = take_as(&bus, 4);
    let mut draft = bus.draft(Actor::instance(4), Destination::Out, 6).unwrap();
    draft.write(b"result");
    let done = Envelope { verdict: Some(Verdict::Done), ..taken.envelope() };
    taken.answer_with(draft, Destination::Out, &done).unwrap();
    assert!(!bus.sweep(4, Verdict::Crashed, "died"));
    assert_eq!(answer(&agent).unwrap(), (8, Some(Verdict::Done), b"result".to_vec()));
    assert!(answer(&agent).is_none(), "one call, one answer");
    assert_eq!(free_messages(&bus), GEOMETRY.messages());
}

#[test]
fn a_reply_to_an_instance_that_is_gone_goes_nowhere() {
    let (bus, _agent, _fd) = bus(GEOMETRY);
    let generation = bus.slots()[5].state().unwrap().generation;
    let gone = Address::Instance { slot: 5, generation };
    assert_eq!(bus.way_back(gone), Some(Destination::Mailbox(5)));
    bus.slots()[5].release();
    assert_eq!(bus.way_back(gone), None);
    assert_eq!(bus.way_back(Address::Instance { slot: 999, generation: 0 }), None);
}

#[test]
fn memory_of_free_buffers_is_given_back() {
    let (bus, agent, fd) = bus(Geometry::usual(2, 8, 16 << 20));
    let payload = vec![1; 8 << 20];
    assert!(send(&agent, 1, &payload));
    drop(bus.take(Actor::instance(0), Destination::Function(0)));
    let held = || {
        use std::os::unix::fs::MetadataExt;
        std::fs::File::from(fd.try_clone().unwrap()).metadata().unwrap().blocks() * 512
    };
    assert!(held() >= 8 << 20);
    bus.give_memory_back();
    assert!(held() <= 256 << 10, "{} bytes are held", held());
    assert!(send(&agent, 2, &payload));
    assert_eq!(bus.take(Actor::instance(0), Destination::Function(0)).unwrap().bytes(), payload);
}

/// Whatever stands in the segment, the agent's side comes back, and with nothing out of bounds.
#[test]
fn a_scribbled_segment_harms_nobody_but_its_application() {
    let (bus, agent, fd) = bus(GEOMETRY);
    let file = std::fs::File::from(fd);
    let len = bus.layout().len as u64;
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..3_000 {
        use std::os::unix::fs::FileExt;
        // Small values and all ones make more believable lies than noise does.
        for _ in 0..20 {
            let word = match next() % 4 {
                0 => next() % 32,
                1 => u64::MAX,
                2 => next() & 0x7000_0000_FFFF_FFFF,
                _ => next(),
            };
            // The first pages hold everything but payloads.
            let at = next() % (len.min(16 << 10) / 8) * 8;
            file.write_all_at(&word.to_ne_bytes(), at).unwrap();
        }
        let _sent = send(&agent, round, b"payload");
        for _ in 0..4 {
            if let Ok(Some(received)) = agent.take() {
                assert!(received.payload.len() <= 1 << 20);
            }
        }
        let lost = Address::Instance { slot: next() as usize, generation: next() as u32 };
        let _replied = agent.reply(b"reply", &Envelope { reply_to: lost, ..request(round) });
        agent.sleeps(round % 2 == 0);
        let _busy = (agent.is_idle(), agent.supervisor_must_wake());
    }
    drop(bus);
}

const SERVE: &str = "SANDBAR_BUS_TEST_SERVES";

/// Not a test of its own: what the processes of the next one do. Serves calls in a slot, as an instance that never ends.
#[test]
fn serving_process() {
    let Ok(arguments) = std::env::var(SERVE) else { return };
    let mut arguments = arguments.split(' ').map(|word| word.parse::<usize>().unwrap());
    let (pid, fd, slot) = (arguments.next().unwrap(), arguments.next().unwrap(), arguments.next().unwrap());
    let segment = std::fs::OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/fd/{fd}")).unwrap();
    let bus = Bus::attach(segment.as_fd(), event()).unwrap();
    println!("serving");
    loop {
        bus.slots()[slot].ready();
        let taken = bus.wait_for_call(slot, 0);
        bus.slots()[slot].serve(now_ns(), u64::MAX);
        let was = taken.envelope();
        // Long enough that a kill often comes in the middle of a call.
        let began = now_ns();
        while now_ns() < began + 200_000 {}
        let output = [taken.bytes(), b"!"].concat();
        let Some(mut draft) = bus.draft(Actor::instance(slot), Destination::Out, output.len()) else {
            panic!("no message is free")
        };
        draft.write(&output);
        let done = Envelope { verdict: Some(Verdict::Done), ..was };
        assert!(taken.answer_with(draft, Destination::Out, &done).is_ok());
    }
}

fn serve_in(slot: usize, fd: &OwnedFd) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["serving_process", "--exact", "--nocapture"]);
    command.env(SERVE, format!("{} {} {slot}", std::process::id(), fd.as_raw_fd()));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = Vec::new();
    let output = child.stdout.as_mut().unwrap();
    while !said.ends_with(b"serving\n") {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the process did not come up");
        said.push(byte[0]);
    }
    child
}

/// Processes are killed at random moments while they serve; every call is answered exactly once, with its result or with an
/// error, and every message is free in the end.
#[test]
fn processes_killed_at_any_moment_lose_no_call_and_leak_no_message() {
    const CALLS: u64 = 20_000;
    const KILLS: u64 = 60;
    let (bus, agent, fd) = bus(GEOMETRY);
    let mut children: Vec<Child> = (0..3).map(|slot| serve_in(slot, &fd)).collect();
    let mut answers: BTreeMap<u64, Verdict> = BTreeMap::new();
    let (mut sent, mut kills, mut random) = (0, 0, 12_345_u64);
    let started = Instant::now();
    while (answers.len() as u64) < CALLS {
        assert!(started.elapsed() < Duration::from_secs(120), "{} of {CALLS} calls answered", answers.len());
        // Few enough that no process ever finds the message buffers used up.
        while sent < CALLS && sent < answers.len() as u64 + 12 && send(&agent, sent, &sent.to_le_bytes()) {
            sent += 1;
        }
        while let Some((call, verdict, payload)) = answer(&agent) {
            if verdict == Some(Verdict::Done) {
                assert_eq!(payload, [&call.to_le_bytes()[..], b"!"].concat());
            }
            assert!(answers.insert(call, verdict.unwrap()).is_none(), "call {call} was answered twice");
        }
        if (answers.len() as u64) > (kills + 1) * CALLS / (KILLS + 2) && kills < KILLS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let slot = (random >> 33) as usize % children.len();
            std::thread::sleep(Duration::from_micros(random >> 40 & 0x3F));
            children[slot].kill().unwrap();
            children[slot].wait().unwrap();
            bus.sweep(slot, Verdict::Crashed, "killed");
            children[slot] = serve_in(slot, &fd);
            kills += 1;
        }
    }
    for (slot, child) in children.iter_mut().enumerate() {
        child.kill().unwrap();
        child.wait().unwrap();
        bus.sweep(slot, Verdict::Crashed, "killed");
    }
    let crashed = answers.values().filter(|verdict| **verdict == Verdict::Crashed).count();
    assert!(crashed > 0, "no kill came in the middle of a call");
    println!("{CALLS} calls, {kills} kills, {crashed} calls ended by a kill, none lost");
    assert!(answer(&agent).is_none());
    assert_eq!(free_messages(&bus), GEOMETRY.messages());
    assert!(bus.slots().iter().all(|slot| slot.pid.load(Ordering::Relaxed) == 0));
}
