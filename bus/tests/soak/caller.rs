//! The agent's part: calls in, answers out, and an account of each.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sandbar_bus::agent::{PostError, Received};
use sandbar_bus::{AgentSide, Envelope, Verdict};

use crate::DIAGNOSTIC;
use crate::application::{F, request};
use crate::event::Event;
use crate::payload::{self, Stage};
use crate::random::Random;

/// Calls that are under way at a time: fewer than a queue has room for.
pub(crate) const CALLS_MAX: usize = 192;
/// Of so many calls the first ones trickle: each is made when nothing else is under way. A wake-up that is lost then has nothing
/// later to hide behind.
const CALLS_TO_A_TRICKLE: u64 = 20_000;
const TRICKLE: u64 = 100;
/// Longer than any honest delay of a wake-up.
const WAKE_WITHIN: Duration = Duration::from_secs(10);

/// What the agent tells while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) posted: AtomicU64,
    /// Answers with a right payload.
    pub(crate) done: AtomicU64,
    /// Answers that say that the instance was killed.
    pub(crate) crashed: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Calls that were made when nothing else was under way.
    pub(crate) trickled: AtomicU64,
    /// Times that the agent slept until its event.
    pub(crate) slept: AtomicU64,
    /// Set by the supervisor: no more calls.
    pub(crate) enough: AtomicBool,
    /// Set by the supervisor: come back at once.
    pub(crate) give_up: AtomicBool,
    pub(crate) finished: AtomicBool,
}

impl Progress {
    pub(crate) fn answers(&self) -> u64 {
        self.done.load(Ordering::Relaxed) + self.crashed.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    agent: &'a AgentSide,
    event: &'a Event,
    progress: &'a Progress,
    /// The call that each place has, while it is under way.
    under_way: Vec<Option<u64>>,
    free: Vec<usize>,
    sequence: u64,
    random: Random,
    payload: Vec<u8>,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(agent: &'a AgentSide, event: &'a Event, progress: &'a Progress) -> Self {
        Self {
            agent,
            event,
            progress,
            under_way: vec![None; CALLS_MAX],
            free: (0..CALLS_MAX).collect(),
            sequence: 0,
            random: Random::new(1),
            payload: Vec::new(),
        }
    }

    /// Calls until told that it is enough, and until each call is answered.
    pub(crate) fn run(&mut self) {
        while !self.progress.give_up.load(Ordering::Relaxed) {
            let enough = self.progress.enough.load(Ordering::Relaxed);
            if enough && self.is_idle() {
                break;
            }
            let mut moved = false;
            while !enough && self.may_post() && self.post() {
                moved = true;
            }
            while let Some(received) = self.agent.take().expect("no process scribbles") {
                self.account(&received);
                moved = true;
            }
            if !moved {
                self.sleep();
            }
        }
        self.progress.finished.store(true, Ordering::Release);
    }

    fn is_idle(&self) -> bool {
        self.free.len() == CALLS_MAX
    }

    fn trickles(&self) -> bool {
        self.sequence % CALLS_TO_A_TRICKLE < TRICKLE
    }

    fn may_post(&self) -> bool {
        !self.trickles() || self.is_idle()
    }

    fn post(&mut self) -> bool {
        let Some(place) = self.free.pop() else { return false };
        let call = self.sequence * CALLS_MAX as u64 + place as u64;
        payload::write(&mut self.payload, call, Stage::Event, payload::len(&mut self.random));
        let envelope = Envelope { content_format: Some(Stage::Event as u16), ..request(call, F) };
        match self.agent.post(&self.payload, &envelope) {
            Ok(()) => {
                self.progress.trickled.fetch_add(self.trickles().into(), Ordering::Relaxed);
                self.sequence += 1;
                self.under_way[place] = Some(call);
                self.progress.posted.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(PostError::NoBuffer | PostError::QueueFull) => {
                self.free.push(place);
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(PostError::Corrupt(corrupt)) => panic!("{corrupt}"),
        }
    }

    /// Each call is answered once, with its payload or with the error of a kill.
    fn account(&mut self, received: &Received) {
        let Received { envelope, payload, .. } = received;
        let place = usize::try_from(envelope.call % CALLS_MAX as u64).unwrap();
        let was = self.under_way[place].take();
        assert_eq!(was, Some(envelope.call), "call {} was answered twice, or never made", envelope.call);
        self.free.push(place);
        match envelope.verdict {
            Some(Verdict::Done) => {
                let stage = Stage::from_format(envelope.content_format).expect("a stage that was never sent");
                assert!(matches!(stage, Stage::Event | Stage::Middle | Stage::Output), "an answer of stage {stage:?}");
                let right = payload::is_right(payload, envelope.call, stage);
                assert!(right, "call {}, {stage:?}: a wrong payload of {} bytes", envelope.call, payload.len());
                self.progress.done.fetch_add(1, Ordering::Relaxed);
            }
            Some(Verdict::Crashed) => {
                assert_eq!(payload, DIAGNOSTIC.as_bytes(), "call {}", envelope.call);
                self.progress.crashed.fetch_add(1, Ordering::Relaxed);
            }
            verdict => panic!("call {} ended with {verdict:?}", envelope.call),
        }
    }

    /// Sleeps until its event says that something came out; that nothing came out while it said nothing is checked.
    fn sleep(&mut self) {
        self.agent.sleeps(true);
        let found = self.agent.take().expect("no process scribbles");
        let woken = found.is_some() || self.event.wait(WAKE_WITHIN);
        self.agent.sleeps(false);
        let found = found.or_else(|| self.agent.take().expect("no process scribbles"));
        if let Some(received) = found {
            assert!(woken, "call {} was answered and the agent was not woken", received.envelope.call);
            self.account(&received);
        }
        self.progress.slept.fetch_add(1, Ordering::Relaxed);
    }
}
