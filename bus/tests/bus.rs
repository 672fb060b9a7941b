//! The bus as its users see it, and what is left of it when they die. Processes that really die: `soak`; a hostile one: `hostile`.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test says what it found, and ends when it is not what it should be"
)]

use std::os::fd::{AsFd, OwnedFd};

use sandbar_bus::clock::now_ns;
use sandbar_bus::properties::PROPERTIES_BYTES_MAX;
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
        ready: sandbar_bus::Ready::exactly(1),
        content_format: None,
    };
    let functions = [function("f", &[1]), function("g", &[])];
    let catalogue = Catalogue {
        application: "test".to_owned(),
        functions: functions.to_vec(),
        targets: vec!["/other/h".to_owned()],
        spin_ns: 0,
        lingering_bytes_max: 1 << 20,
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
    assert!(
        bus.draft(Actor::instance(0), Destination::Out, (1 << 20) + PROPERTIES_BYTES_MAX + 1).is_none(),
        "larger than any payload may be"
    );
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
