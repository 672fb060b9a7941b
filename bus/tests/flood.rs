//! A flood to one function leaves the others, the answers and the mailboxes what is theirs, in every size class.
//!
//! ```text
//!   flood ═════════▶ f  (refused, refused, refused …)
//!                     │ one call out of the flood
//!                     ▼
//!                     g ──▶ Out         goes on, with the messages that g and the answers have to themselves
//! ```
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends when it finds what should not be")]

#[path = "cast/application.rs"]
mod application;

use std::io::Write;

use sandbar_bus::agent::PostError;
use sandbar_bus::clock::now_ns;
use sandbar_bus::layout::CLASSES;
use sandbar_bus::{Actor, Address, Destination, Draft, Envelope, Geometry, Taken, Verdict};

use application::{Application, F, G, deaf, request};

const CHAINS: u64 = 200;

/// More room in each queue than there are messages: the buffers are what runs out.
const FEW_BUFFERS: Geometry = Geometry {
    functions: 2,
    targets: 0,
    slots: 4,
    queue_capacity: 64,
    payload_bytes_max: 1 << 20,
    assured: [3, 2, 2, 1],
    common: [4, 3, 2, 2],
};

/// The other way round.
const SHORT_QUEUES: Geometry = Geometry { queue_capacity: 4, common: [64, 32, 16, 8], ..FEW_BUFFERS };

/// An application, and a payload that fills a buffer of one size class.
struct Flooded {
    application: Application,
    class: usize,
    payload: Vec<u8>,
    accepted: u64,
    refused: u64,
}

impl Flooded {
    fn new(geometry: Geometry, class: usize) -> Self {
        let application = Application::new(geometry, 0, &deaf());
        let layout = application.bus.layout();
        let payload = vec![7; layout.class_bytes(class).min(layout.geometry.payload_bytes_max)];
        let mut flooded = Self { application, class, payload, accepted: 0, refused: 0 };
        flooded.flood();
        flooded
    }

    /// Messages of this class and the larger ones that each party has to itself.
    fn assured(&self) -> usize {
        self.application.bus.layout().geometry.assured[self.class..].iter().sum()
    }

    /// Sends to f until it is refused, from outside and from inside.
    fn flood(&mut self) {
        let Application { bus, agent, .. } = &self.application;
        loop {
            match agent.post(&self.payload, &request(0, F)) {
                Ok(()) => self.accepted += 1,
                Err(PostError::NoBuffer | PostError::QueueFull) => break,
                Err(PostError::Corrupt(corrupt)) => panic!("{corrupt}"),
            }
        }
        let to = Destination::Function(F);
        let inside = bus.draft(Actor::instance(3), to, self.payload.len());
        assert!(inside.is_none_or(|draft| draft.send(to, &request(0, F)).is_err()), "the flood was accepted after all");
        self.refused += 2;
    }

    fn draft(&self, actor: Actor, to: Destination) -> Draft<'_> {
        let draft = self.application.bus.draft(actor, to, self.payload.len());
        let mut draft = draft.unwrap_or_else(|| panic!("class {}: no message for {to:?}", self.class));
        draft.write(&self.payload);
        draft
    }

    fn take(&self, slot: usize, function: usize) -> Taken<'_> {
        self.application.bus.take(Actor::instance(slot), Destination::Function(function)).unwrap()
    }
}

/// A draft for each message that is left for this destination.
fn left_for(flooded: &Flooded, to: Destination) -> usize {
    let Flooded { application, payload, .. } = flooded;
    std::iter::from_fn(|| application.bus.draft(Actor::instance(0), to, payload.len())).collect::<Vec<_>>().len()
}

#[test]
fn when_f_has_used_up_the_common_buffers_each_other_party_has_its_own() {
    for class in 0..CLASSES {
        let flooded = Flooded::new(FEW_BUFFERS, class);
        let own = flooded.assured();
        for to in [Destination::Function(G), Destination::Out, Destination::Mailbox(0), Destination::Mailbox(3)] {
            assert_eq!(left_for(&flooded, to), own, "class {class}, {to:?}");
        }
        assert_eq!(left_for(&flooded, Destination::Function(F)), 0);
        // Those are sent, too, and not only drafted; the agent's as well as an instance's.
        for sent in 0..own {
            let posted = flooded.application.agent.post(&flooded.payload, &request(1, G));
            assert_eq!(posted, Ok(()), "class {class}, message {sent} of {own} to g");
        }
        assert_eq!(flooded.application.agent.post(&flooded.payload, &request(1, G)), Err(PostError::NoBuffer));
    }
}

#[test]
fn when_the_queue_of_f_is_full_that_of_g_is_not() {
    for class in 0..CLASSES {
        let flooded = Flooded::new(SHORT_QUEUES, class);
        for sent in 0..SHORT_QUEUES.queue_capacity {
            let posted = flooded.application.agent.post(&flooded.payload, &request(1, G));
            assert_eq!(posted, Ok(()), "class {class}, message {sent}");
        }
        assert_eq!(flooded.application.agent.post(&flooded.payload, &request(1, G)), Err(PostError::QueueFull));
        assert!(left_for(&flooded, Destination::Out) >= flooded.assured());
    }
}

/// Every step makes a new message of the flood's size, and the flood takes whatever a step has given back.
#[test]
fn chains_complete_while_f_is_flooded() {
    let (mut chains, mut accepted, mut refused) = (0, 0, 0);
    for geometry in [FEW_BUFFERS, SHORT_QUEUES] {
        for class in 0..CLASSES {
            let mut flooded = Flooded::new(geometry, class);
            for _ in 0..CHAINS {
                chain(&flooded);
                flooded.flood();
                nested(&flooded);
                flooded.flood();
                chains += 1;
            }
            accepted += flooded.accepted;
            refused += flooded.refused;
        }
    }
    let _told = writeln!(
        std::io::stdout(),
        "flood: {chains} chains and as many nested calls completed beside {accepted} messages of a flood, which was refused \
         {refused} times"
    );
}

/// f → g → Out, with the flood between the steps.
fn chain(flooded: &Flooded) {
    let event = flooded.take(0, F);
    let again = || flooded.application.agent.post(&flooded.payload, &request(0, F)).is_ok();
    // f's own event is still in its message: there is room in its queue, and never for more than that.
    let mut refilled = usize::from(again());
    assert!(!again());
    let middle = flooded.draft(Actor::instance(0), Destination::Function(G));
    event.answer_with(middle, Destination::Function(G), &request(5, G)).unwrap();
    refilled += usize::from(again());
    assert!(!again());
    assert_eq!(refilled, 1, "the flood was accepted once for what was taken of it");
    let event = flooded.take(1, G);
    assert_eq!(event.bytes(), flooded.payload);
    let answer = flooded.draft(Actor::instance(1), Destination::Out);
    let done = Envelope { verdict: Some(Verdict::Done), ..event.envelope() };
    event.answer_with(answer, Destination::Out, &done).unwrap();
    assert!(!again());
    let received = flooded.application.agent.take().unwrap().unwrap();
    assert_eq!((received.envelope.call, received.envelope.verdict), (5, Some(Verdict::Done)));
    assert_eq!(received.payload, flooded.payload);
}

/// f, which is flooded, calls g and gets its reply; and one from the agent.
fn nested(flooded: &Flooded) {
    let bus = &flooded.application.bus;
    let event = flooded.take(2, F);
    let entry = &bus.slots()[2];
    entry.serve(now_ns(), u64::MAX);
    let generation = entry.state().unwrap().generation;
    let here = Address::Instance { slot: 2, generation };
    let _refilled = flooded.application.agent.post(&flooded.payload, &request(0, F));

    let question = flooded.draft(Actor::instance(2), Destination::Function(G));
    question.send(Destination::Function(G), &Envelope { reply_to: here, ..request(6, G) }).unwrap();
    let asked = flooded.take(1, G);
    let to = bus.way_back(asked.envelope().reply_to).unwrap();
    let reply = flooded.draft(Actor::instance(1), to);
    let done = Envelope { verdict: Some(Verdict::Done), ..asked.envelope() };
    asked.answer_with(reply, to, &done).unwrap();
    let reply = bus.wait_for_reply(2, generation, now_ns() + 1_000_000_000).unwrap();
    assert_eq!((reply.envelope().call, reply.bytes()), (6, &flooded.payload[..]));
    drop(reply);

    flooded.application.agent.reply(&flooded.payload, &Envelope { call: 7, ..done }).unwrap();
    let reply = bus.wait_for_reply(2, generation, now_ns() + 1_000_000_000).unwrap();
    assert_eq!((reply.envelope().call, reply.bytes()), (7, &flooded.payload[..]));
    drop((reply, event));
}
