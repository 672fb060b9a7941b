//! A process that scribbles over its segment as fast as it can, while the agent works with it.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use sandbar_bus::agent::{Corrupt, PostError};
use sandbar_bus::clock::now_ns;
use sandbar_bus::layout::PAGE_BYTES;
use sandbar_bus::{Address, AgentSide, Bus, Destination, Envelope, Payload, Verdict};

use crate::application::{Application, F, deaf, request};
use crate::chart::Chart;
use crate::lies::{Liar, amends};
use crate::mapping::Mapping;
use crate::process::{End, Process};
use crate::random::Random;
use crate::{GEOMETRY, is_long};

const ROUNDS_SHORT: u64 = 500_000;
const ROUNDS_LONG: u64 = 10_000_000;
/// No operation may take longer. The bound of the loops is the real reason; this leaves room for a machine that is busy.
const OPERATION_MAX: Duration = Duration::from_secs(2);
/// A call of the healthy application is answered within this, on a machine that is busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// After so many lies the segment is made as new, or the agent would see nothing but states that do not exist.
const LIES_TO_AMENDS: u64 = 400;
const LIES_TO_A_HOLE: u64 = 20_000;

fn scribble(application: &Application, seed: u64) {
    let mapping = Mapping::of(&application.segment);
    let chart = Chart::of(GEOMETRY);
    let mut random = Random::new(seed);
    for turn in 1_u64.. {
        let lies = Liar { chart: &chart, random: &mut random, read: |at| mapping.read(at) }.lie();
        for (at, word) in lies {
            mapping.write(at, word);
        }
        if turn.is_multiple_of(LIES_TO_A_HOLE) {
            let pages = application.bus.layout().len / PAGE_BYTES;
            let from = usize::try_from(random.below(pages as u64)).unwrap();
            let few = usize::try_from(1 + random.below(8)).unwrap().min(pages - from);
            assert!(mapping.remove(from * PAGE_BYTES, few * PAGE_BYTES));
        }
        if turn.is_multiple_of(LIES_TO_AMENDS) {
            for (at, word) in amends(&chart) {
                mapping.write(at, word);
            }
            // Time for the agent to find it so.
            for _ in 0..random.below(2000) {
                std::hint::spin_loop();
            }
        }
    }
}

/// What the agent met.
#[derive(Debug, Default)]
struct Met {
    operations: u64,
    longest: Duration,
    outcomes: BTreeMap<&'static str, u64>,
}

impl Met {
    fn timed<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let began = now_ns();
        let value = operation();
        let took = Duration::from_nanos(now_ns() - began);
        self.operations += 1;
        self.longest = self.longest.max(took);
        assert!(took < OPERATION_MAX, "the agent was kept for {took:?}");
        value
    }

    fn outcome(&mut self, what: &'static str) {
        *self.outcomes.entry(what).or_default() += 1;
    }

    fn round(&mut self, agent: &AgentSide, random: &mut Random, payload: &[u8], round: u64) {
        let len =
            [0, 1, 1024, 1025, 20 << 10, GEOMETRY.payload_bytes_max][(random.below(64) as usize).saturating_sub(58)];
        let posted = self.timed(|| agent.post(&payload[..len], &request(round, F)));
        self.outcome(match posted {
            Ok(()) => "posted",
            Err(PostError::NoBuffer) => "no buffer for a post",
            Err(PostError::QueueFull) => "no room for a post",
            Err(PostError::Corrupt(_)) => "corrupt when posting",
        });
        for _ in 0..3 {
            match self.timed(|| agent.take()) {
                Ok(Some(received)) => {
                    assert!(received.payload.len() <= GEOMETRY.payload_bytes_max);
                    self.outcome("taken");
                }
                Ok(None) => self.outcome("nothing to take"),
                Err(Corrupt(why)) => self.outcome(why),
            }
        }
        let slot = usize::try_from(random.below(GEOMETRY.slots as u64 + 1)).unwrap();
        let reply_to = Address::Instance { slot, generation: random.below(4) as u32 };
        let replied = self.timed(|| agent.reply(b"reply", &Envelope { reply_to, ..request(round, F) }));
        self.outcome(if replied.is_ok() { "replied" } else { "not replied" });
        for asleep in [true, false] {
            self.timed(|| agent.sleeps(asleep));
        }
        let wake = self.timed(|| agent.supervisor_must_wake());
        self.outcome(if wake { "supervisor to be woken" } else { "supervisor awake" });
        let idle = self.timed(|| agent.is_idle());
        self.outcome(if idle { "idle" } else { "busy" });
    }
}

/// Serves f of the healthy application: hands each event back.
fn serve(bus: &Bus) {
    let (slot, _) = bus.reserve_slot(F).unwrap();
    loop {
        let taken = bus.wait_for_call(slot, F).expect("nobody is dismissed");
        bus.slots()[slot].serve(now_ns(), u64::MAX);
        let done = Envelope { verdict: Some(Verdict::Done), ..taken.envelope() };
        assert!(taken.forward(Payload::Unchanged, Destination::Out, &done).is_ok());
    }
}

/// A healthy application beside the hostile one, with a call under way at any time.
#[derive(Debug, Default)]
struct Neighbour {
    posted: u64,
    answered: u64,
    since: Option<Instant>,
    longest: Duration,
}

impl Neighbour {
    fn go_on(&mut self, agent: &AgentSide) {
        let Some(since) = self.since else {
            self.posted += 1;
            agent.post(&self.posted.to_le_bytes(), &request(self.posted, F)).unwrap();
            self.since = Some(Instant::now());
            return;
        };
        let Some(answer) = agent.take().unwrap() else {
            assert!(since.elapsed() < ANSWER_WITHIN, "the neighbour's call {} is not answered", self.posted);
            return;
        };
        assert_eq!((answer.envelope.call, answer.envelope.verdict), (self.posted, Some(Verdict::Done)));
        assert_eq!(answer.payload, self.posted.to_le_bytes());
        self.longest = self.longest.max(since.elapsed());
        self.answered += 1;
        self.since = None;
    }
}

#[test]
fn the_agent_works_on_while_a_process_scribbles_over_its_segment() {
    let rounds = if is_long() { ROUNDS_LONG } else { ROUNDS_SHORT };
    let application = Application::new(GEOMETRY, 0, &deaf());
    let healthy = Application::new(GEOMETRY, 0, &deaf());
    let seed: u64 = std::process::id().into();
    let mut scribbler = Process::fork(|| scribble(&application, seed));
    let mut server = Process::fork(|| serve(&healthy.bus));
    let (mut met, mut neighbour) = (Met::default(), Neighbour::default());
    let mut random = Random::new(seed + 1);
    let payload = vec![7; GEOMETRY.payload_bytes_max];
    let began = Instant::now();
    for round in 0..rounds {
        met.round(&application.agent, &mut random, &payload, round);
        neighbour.go_on(&healthy.agent);
    }
    while neighbour.since.is_some() {
        neighbour.go_on(&healthy.agent);
        std::thread::yield_now();
    }
    assert_eq!(scribbler.kill(), End::Signal(libc::SIGKILL), "the scribbler ended by itself");
    assert_eq!(server.kill(), End::Signal(libc::SIGKILL), "the neighbour's process ended by itself");
    let Met { operations, longest, outcomes } = met;
    let _told = writeln!(
        std::io::stdout(),
        "hostile: {rounds} rounds, {operations} operations in {:.1} s, the longest {longest:?}; {outcomes:?}; {} calls of a \
         neighbour answered meanwhile, the longest after {:?} (seed {seed})",
        began.elapsed().as_secs_f64(),
        neighbour.answered,
        neighbour.longest,
    );
    for what in
        ["posted", "corrupt when posting", "taken", "nothing to take", "no room for a post", "supervisor to be woken"]
    {
        assert!(outcomes.contains_key(what), "never met: {what}");
    }
    assert!(neighbour.answered > 0);
}
