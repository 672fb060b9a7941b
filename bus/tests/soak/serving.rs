//! What a serving process does: an instance that serves one call after another until it is killed.

use std::sync::atomic::{AtomicU64, Ordering};

use sandbar_bus::clock::now_ns;
use sandbar_bus::{Actor, Address, Bus, Destination, Envelope, Payload, Taken, Verdict};

use crate::application::{F, G};
use crate::payload::{self, Stage};
use crate::random::Random;

/// How long f waits for a reply of g: far longer than any honest delay, so that no reply may come later.
const REPLY_WITHIN_NS: u64 = 10_000_000_000;
/// One in so many calls of f calls g in between.
const NESTED_ONCE_IN: u64 = 8;

/// What the processes of a slot have counted, one after another; in memory that outlives them. Each counts after the
/// fact, so that a kill may keep one event from being counted, and never adds one.
#[repr(usize)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// Messages taken: calls and replies.
    Taken = 0,
    /// Replies that f got.
    Replies = 1,
    /// Replies among them that say that the g which was to give it was killed.
    CrashedReplies = 2,
    /// Replies that f waited for in vain.
    LateReplies = 3,
    /// Replies of g to an f that was no more.
    RepliesToNobody = 4,
    /// Outputs for which no buffer was free, so that the event's own message went on.
    NoBuffer = 5,
}

/// The counts of one slot, on a cache line of their own.
pub(crate) type Counts = [AtomicU64; 8];

/// One process in one slot.
#[derive(Debug)]
pub(crate) struct Serving<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) slot: usize,
    pub(crate) generation: u32,
    pub(crate) function: usize,
    pub(crate) counts: &'a Counts,
    pub(crate) random: Random,
}

impl Serving<'_> {
    /// Serves until it is killed.
    pub(crate) fn run(&mut self) {
        let mut output = Vec::new();
        for turn in 0_u64.. {
            let taken = self.bus.wait_for_call(self.slot, self.function).expect("nobody is dismissed");
            self.count(Count::Taken);
            self.bus.slots()[self.slot].serve(now_ns(), u64::MAX);
            let was = taken.envelope();
            let stage = check(&taken);
            assert_eq!(was.function, self.function, "a call of another function");
            match self.function {
                F => self.serve_f(taken, was, turn.is_multiple_of(2), &mut output),
                _ => self.serve_g(taken, was, stage, turn.is_multiple_of(2), &mut output),
            }
        }
    }

    /// The counter has this process as its only writer.
    fn count(&self, what: Count) {
        let counter = &self.counts[what as usize];
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn draft_with(&self, to: Destination, output: &[u8]) -> Option<sandbar_bus::Draft<'_>> {
        let mut draft = self.bus.draft(Actor::instance(self.slot), to, output.len())?;
        draft.write(output);
        Some(draft)
    }

    /// Hands the event to g as it is, or a message of its own.
    fn serve_f(&mut self, taken: Taken<'_>, was: Envelope, as_it_is: bool, output: &mut Vec<u8>) {
        if self.random.below(NESTED_ONCE_IN) == 0 {
            self.ask_g(was, output);
        }
        let to = Destination::Function(G);
        let onward = Envelope { function: G, hops: was.hops + 1, sent_ns: now_ns(), ..was };
        if !as_it_is {
            payload::write(output, was.call, Stage::Middle, payload::len(&mut self.random));
            if let Some(draft) = self.draft_with(to, output) {
                let onward = Envelope { content_format: Some(Stage::Middle as u16), ..onward };
                assert!(taken.answer_with(draft, to, &onward).is_ok(), "the queue of g is full");
                return;
            }
            self.count(Count::NoBuffer);
        }
        assert!(taken.forward(Payload::Unchanged, to, &onward).is_ok(), "the queue of g is full");
    }

    /// A call of f's own, whose reply it waits for.
    fn ask_g(&mut self, was: Envelope, question: &mut Vec<u8>) {
        payload::write(question, was.call, Stage::Question, payload::len(&mut self.random));
        let to = Destination::Function(G);
        let Some(draft) = self.draft_with(to, question) else { return self.count(Count::NoBuffer) };
        let deadline_ns = now_ns() + REPLY_WITHIN_NS;
        let envelope = Envelope {
            function: G,
            deadline_ns,
            reply_to: Address::Instance { slot: self.slot, generation: self.generation },
            content_format: Some(Stage::Question as u16),
            ..was
        };
        assert!(draft.send(to, &envelope).is_ok(), "the queue of g is full");
        let Some(reply) = self.bus.wait_for_reply(self.slot, self.generation, deadline_ns) else {
            return self.count(Count::LateReplies);
        };
        self.count(Count::Taken);
        self.count(Count::Replies);
        let said = reply.envelope();
        assert_eq!(said.call, was.call, "a reply to another call");
        match said.verdict {
            Some(Verdict::Done) => {
                let stage = check(&reply);
                assert!(matches!(stage, Stage::Question | Stage::Reply), "a reply of stage {stage:?}");
            }
            Some(Verdict::Crashed) => self.count(Count::CrashedReplies),
            verdict => panic!("a reply with verdict {verdict:?}"),
        }
    }

    /// Answers in the event's own message, or in one of its own.
    fn serve_g(&mut self, taken: Taken<'_>, was: Envelope, stage: Stage, in_place: bool, output: &mut Vec<u8>) {
        let Some(to) = self.bus.way_back(was.reply_to) else { return self.count(Count::RepliesToNobody) };
        let answers = if stage == Stage::Question { Stage::Reply } else { Stage::Output };
        let done = Envelope { verdict: Some(Verdict::Done), function: G, sent_ns: now_ns(), ..was };
        let answered = Envelope { content_format: Some(answers as u16), ..done };
        if !in_place {
            payload::write(output, was.call, answers, payload::len(&mut self.random));
            if let Some(draft) = self.draft_with(to, output) {
                assert!(taken.answer_with(draft, to, &answered).is_ok(), "no room for an answer");
                return;
            }
            self.count(Count::NoBuffer);
        }
        // In place, as it came or replaced by something no longer.
        let sent = if self.random.below(2) == 0 {
            let room = taken.bytes().len() as u64;
            payload::write(output, was.call, answers, usize::try_from(self.random.below(room + 1)).unwrap());
            taken.forward(Payload::Instead(output), to, &answered)
        } else {
            taken.forward(Payload::Unchanged, to, &done)
        };
        assert!(sent.is_ok(), "no room for an answer");
    }
}

/// Which message it is; and it is that, to the last byte.
fn check(taken: &Taken<'_>) -> Stage {
    let envelope = taken.envelope();
    let stage = Stage::from_format(envelope.content_format).expect("a stage that was never sent");
    let bytes = taken.bytes();
    let right = payload::is_right(bytes, envelope.call, stage);
    assert!(right, "call {}, {stage:?}: a wrong payload of {} bytes", envelope.call, bytes.len());
    stage
}
