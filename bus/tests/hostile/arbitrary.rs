//! Whatever stands in a segment: every operation of either side comes back, without a panic.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sandbar_bus::{Actor, Address, Destination, Envelope, Payload, Verdict};

use crate::application::{Application, F, G, deaf, request};
use crate::chart::Chart;
use crate::lies::Liar;
use crate::random::Random;
use crate::{GEOMETRY, is_long};

const CASES_SHORT: u32 = 4_000;
const CASES_LONG: u32 = 100_000;

/// What is written before the operations: words anywhere in the control part, and lies, each by its seed.
#[derive(Clone, Debug)]
enum Written {
    Word { at: usize, word: u64 },
    Lies { seed: u64 },
}

fn written() -> impl Strategy<Value = Written> {
    let words = Chart::of(GEOMETRY).payloads / 8;
    let word = prop_oneof![Just(0), Just(u64::MAX), 0_u64..64, any::<u64>()];
    prop_oneof![
        1 => (0..words, word).prop_map(|(at, word)| Written::Word { at: at * 8, word }),
        3 => any::<u64>().prop_map(|seed| Written::Lies { seed }),
    ]
}

fn write_all(application: &Application, written: &[Written]) {
    let chart = Chart::of(GEOMETRY);
    let put = |at: usize, word: u64| application.segment.write_all_at(&word.to_ne_bytes(), at as u64).unwrap();
    for one in written {
        match one {
            Written::Word { at, word } => put(*at, *word),
            Written::Lies { seed } => {
                let read = |at: usize| {
                    let mut word = [0; 8];
                    application.segment.read_exact_at(&mut word, at as u64).unwrap();
                    u64::from_ne_bytes(word)
                };
                let lies = Liar { chart: &chart, random: &mut Random::new(*seed), read }.lie();
                lies.into_iter().for_each(|(at, word)| put(at, word));
            }
        }
    }
}

fn as_agent(application: &Application) {
    let agent = &application.agent;
    for (function, len) in [(F, 0), (G, 5_000), (F, GEOMETRY.payload_bytes_max), (G, GEOMETRY.payload_bytes_max + 1)] {
        let _posted = agent.post(&vec![1; len], &request(1, function));
    }
    for _ in 0..40 {
        if let Ok(Some(received)) = agent.take() {
            assert!(received.payload.len() <= GEOMETRY.payload_bytes_max);
        }
    }
    for slot in 0..=GEOMETRY.slots {
        for generation in 0..3 {
            let reply_to = Address::Instance { slot, generation };
            let _replied = agent.reply(b"reply", &Envelope { reply_to, ..request(2, F) });
        }
    }
    agent.sleeps(true);
    agent.sleeps(false);
    let _said = (agent.supervisor_must_wake(), agent.is_idle());
}

fn as_supervisor(application: &Application) {
    let bus = &application.bus;
    let _catalogue = (bus.application(), bus.function_index("g"), bus.target_index("/other"), bus.function(F));
    for (slot, entry) in bus.slots().iter().enumerate() {
        let _deadline = (entry.state(), entry.deadline_ns(), entry.ran_for_ms(0));
        for function in [F, G] {
            let _asked = (bus.waiting(function), bus.idle_instances(function), bus.is_waiting_for_call(slot, function));
        }
        bus.sweep(slot, Verdict::Crashed, "killed");
    }
    bus.give_memory_back();
    let _idle = bus.is_idle();
    bus.supervisor_sleeps(true);
}

/// What an honest process runs into beside a hostile one. It may get anything, but no panic of its own.
fn as_instance(application: &Application) {
    let bus = &application.bus;
    let Some((slot, generation)) = bus.reserve_slot(F) else { return };
    while let Some(taken) = bus.take(Actor::instance(slot), Destination::Function(F)) {
        let envelope = taken.envelope();
        let _read = taken.bytes().len();
        let Some(to) = bus.way_back(envelope.reply_to) else { continue };
        if envelope.call % 2 == 0 {
            let _handed_on = taken.forward(Payload::Part(1..2), to, &envelope);
            continue;
        }
        if let Some(mut draft) = bus.draft(Actor::instance(slot), to, 3) {
            draft.write(b"abc");
            let _answered = taken.answer_with(draft, to, &envelope);
        }
    }
    let _reply = bus.wait_for_reply(slot, generation, 0);
}

#[test]
fn whatever_stands_in_a_segment_every_operation_comes_back() {
    let cases = if is_long() { CASES_LONG } else { CASES_SHORT };
    let words = Cell::new(0);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&prop::collection::vec(written(), 1..60), |written| {
        let application = Application::new(GEOMETRY, 0, &deaf());
        let agent = &application.agent;
        // Something under way, so that there is something to lie about.
        let _posted = (agent.post(b"1", &request(1, F)), agent.post(b"2", &request(2, G)));
        write_all(&application, &written);
        as_agent(&application);
        as_instance(&application);
        write_all(&application, &written);
        as_supervisor(&application);
        as_agent(&application);
        words.set(words.get() + written.len());
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    let _told = writeln!(std::io::stdout(), "hostile: {cases} arbitrary segments, with {} lies", words.get());
}
