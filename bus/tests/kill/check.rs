//! What must hold after a kill, or after everybody has come to their end.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sandbar_bus::slot::Phase;
use sandbar_bus::{Actor, Destination, Envelope, Payload, Verdict};

use crate::scenario::{Role, Scenario};
use crate::trace::PATIENCE;
use crate::world::{CALL, CAPACITY, Company, F, FRESH, G, GEOMETRY, SUBJECT, World, request};

/// What became of the call of the traced process; in the order in which it comes the later it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It was never sent.
    Nothing,
    /// Another served it in its place.
    Elsewhere,
    /// The caller got an error, as its instance was dead.
    Error,
    /// It did what it was about to do.
    Done,
}

/// What the supervisor does about the dead, and whether it says that it died in a call.
fn recover(world: &World, role: Role) -> bool {
    match role {
        Role::Instance | Role::Sweeper | Role::Supervisor => world.bus.sweep(SUBJECT, Verdict::Crashed, "killed"),
        Role::Worker => {
            for slot in world.bus.slots() {
                let reserved = slot.state().is_some_and(|state| state.phase == Phase::Forking && state.function == 1);
                if reserved && slot.pid.load(Ordering::Acquire) == 0 {
                    slot.release();
                }
            }
            false
        }
        Role::Agent => panic!("an agent that is killed takes its sandboxes with it"),
    }
}

/// Recovers, if the traced process was killed, and checks everything.
pub(crate) fn all(world: &World, company: Option<Company>, scenario: &Scenario, killed: bool) -> Outcome {
    let died_in_a_call = killed && recover(world, scenario.role);
    if let Some(company) = company {
        nobody_sleeps_beside_a_message(world, company);
    }
    serve_the_rest(world);
    if !killed {
        // A reply that nobody waits for any more.
        while world.bus.take(Actor::SUPERVISOR, Destination::Mailbox(SUBJECT)).is_some() {}
    }
    every_message_is_free(world);
    if !killed && scenario.role == Role::Instance {
        assert!(!world.bus.sweep(SUBJECT, Verdict::Crashed, "killed"), "it had done all before it ended");
        every_message_is_free(world);
    }
    if scenario.role == Role::Worker {
        recover(world, scenario.role);
    }
    if killed || !matches!(scenario.role, Role::Agent | Role::Supervisor) {
        assert_eq!(world.bus.slots()[SUBJECT].state().unwrap().phase, Phase::Free, "its slot");
    }
    service_goes_on(world);
    let (outcome, errors) = account(world);
    if world.dismissed.load(Ordering::Relaxed) {
        assert_eq!(outcome, Outcome::Elsewhere, "it was dismissed, and took the call");
    }
    if scenario.role == Role::Instance {
        assert_eq!(usize::from(died_in_a_call), errors, "what the sweep says, beside the errors there were");
    }
    outcome
}

/// Whoever waits either gets its message by itself, or there is none.
fn nobody_sleeps_beside_a_message(world: &World, company: Company) {
    let since = Instant::now();
    while !company.is_done() && !company.sleeps() {
        assert!(since.elapsed() < PATIENCE, "one that waits comes to no end");
        std::thread::yield_now();
    }
    if company.is_done() {
        company.must_end();
        return;
    }
    let found = world.serve_all(FRESH, 0);
    assert!(!company.waits_for_call || found.is_empty(), "one that waits sleeps beside the calls {found:?}");
    if company.waits_for_call {
        world.post_another(0).expect("room in an empty queue");
    } else {
        world.serve_all(FRESH, 1);
    }
    company.must_end();
}

fn serve_the_rest(world: &World) {
    world.collect();
    for function in [0, 1] {
        world.serve_all(FRESH, function);
    }
    world.collect();
    let mailboxes = (0..GEOMETRY.slots).filter(|slot| *slot != SUBJECT).map(Destination::Mailbox);
    for queue in [F, G, Destination::Out].into_iter().chain(mailboxes) {
        assert!(world.bus.take(Actor::instance(FRESH), queue).is_none(), "something is left in {queue:?}");
    }
}

fn every_message_is_free(world: &World) {
    let mut drafts = Vec::new();
    for to in [F, G, Destination::Out] {
        while let Some(draft) = world.bus.draft(Actor::instance(FRESH), to, 0) {
            drafts.push(draft);
        }
    }
    assert_eq!(drafts.len(), GEOMETRY.messages(), "free messages");
}

/// Two laps and more of each queue, all in their order; a queue has room for all it should have room for.
fn service_goes_on(world: &World) {
    let actor = Actor::instance(FRESH);
    for _ in 0..2 * GEOMETRY.messages().next_power_of_two() / CAPACITY {
        let sent: Vec<u64> = (0..CAPACITY).map(|_| world.post_another(0).expect("room for service")).collect();
        assert_eq!(world.post_another(0), None, "a full queue");
        let mut passed = Vec::new();
        while let Some(taken) = world.bus.take(actor, F) {
            let envelope = taken.envelope();
            passed.push(envelope.call);
            assert!(taken.forward(Payload::Unchanged, G, &Envelope { function: 1, ..envelope }).is_ok());
        }
        assert_eq!(passed, sent, "calls pass in order");
        assert_eq!(world.serve_all(FRESH, 1), sent, "calls are served in order");
    }
    for slot in 0..GEOMETRY.slots {
        let mailbox = Destination::Mailbox(slot);
        let mut sent = VecDeque::new();
        for call in 0..2 * 4 + 2 {
            let draft = world.bus.draft(actor, mailbox, 0).expect("a message for a reply");
            assert!(draft.send(mailbox, &request(call, 0)).is_ok());
            sent.push_back(call);
            if sent.len() == 4 {
                let taken = world.bus.take(Actor::instance(slot), mailbox);
                assert_eq!(taken.map(|taken| taken.envelope().call), sent.pop_front(), "replies in order");
            }
        }
        while let Some(taken) = world.bus.take(Actor::instance(slot), mailbox) {
            assert_eq!(Some(taken.envelope().call), sent.pop_front(), "replies in order");
        }
        assert!(sent.is_empty());
    }
    every_message_is_free(world);
}

/// Each call that was accepted has one answer, the right one; what was never accepted has none. What became of the call, and how
/// many calls ended with an error.
fn account(world: &World) -> (Outcome, usize) {
    let answers = world.answers.lock().unwrap();
    let accepted = world.accepted.lock().unwrap();
    for call in accepted.iter() {
        assert!(answers.contains_key(call), "call {call} was lost");
    }
    let (mut outcome, mut errors) = (Outcome::Nothing, 0);
    for (call, answers) in answers.iter() {
        let [(verdict, payload)] = &answers[..] else { panic!("call {call} was answered by {answers:?}") };
        let payload = std::str::from_utf8(payload).unwrap_or("noise");
        let known = match (verdict, payload) {
            (Some(Verdict::Done), "f:request" | "g:request") => Outcome::Elsewhere,
            (Some(Verdict::Crashed), "killed") => Outcome::Error,
            (Some(Verdict::Done), "f:sent" | "traced" | "g:traced" | "quest" | "g:quest")
            | (Some(Verdict::Failed), "traced")
            | (Some(Verdict::Overloaded), "full") => Outcome::Done,
            other => panic!("call {call} was answered by {other:?}"),
        };
        if *call == CALL {
            outcome = known;
        } else {
            assert!(accepted.contains(call), "nobody sent call {call}");
        }
        errors += usize::from(known == Outcome::Error);
    }
    assert!(errors <= 1, "{errors} calls ended with one process");
    (outcome, errors)
}
