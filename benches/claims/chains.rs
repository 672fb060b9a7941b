//! Hops between functions, and chains of them, at one pace whatever their length.
//!
//! A hop is the time from the moment at which an instance begins to hand its output over, the report of its trace being behind it, to the
//! moment at which the next function's instance, a process of its own, has it in hand. Hops are those of chains that are traced; times from
//! end to end those of chains that are not, in turns with them. The hop that is judged is that of a chain which is alone with the host; of
//! all others the processor has forgotten much when they come, as a chain of one is called between them.

use std::time::{Duration, Instant};

use claims_report::{Claim, Findings, Goal, Line, Plot, Rounds, median, percentile};
use sandbar_runtime::{Answer, Outcome, Request};

use crate::floors::{HALF_ROUND_TRIP, half_futex_round_trip};
use crate::running::{block_on, pause};
use crate::stage::{Host, Pinned, Place, Scale};

pub(crate) const LIMITS: &str = "[limits]\nmemory = \"512MiB\"\nprocesses = 512\npayload = \"64KiB\"";
const LENGTHS: [usize; 6] = [1, 2, 5, 10, 50, 100];
/// Those with a goal.
const JUDGED: [usize; 2] = [10, 100];
/// Where the chain is whose hop is judged.
const TWO: usize = 1;
/// The application of one function that is called as often as the chain.
const ONE: &str = "one";
const PYTHON: &str = "def handle(event, context):\n    return event\n";

/// A language, and how often functions of it are run: a chain of ten is called a tenth as often as one of one. It is as often as the
/// performance goals say, or as leaves the processor idle for most of the time, which forking ahead needs.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    name: &'static str,
    functions_per_s: u32,
}

const NATIVE: Kind = Kind { name: "native", functions_per_s: 1000 };
const PYTHON3: Kind = Kind { name: "Python", functions_per_s: 250 };

/// Of the chains of one length, all in microseconds; a figure for each round.
#[derive(Default)]
struct Chains {
    hop_p50: Rounds,
    hop_p99: Rounds,
    /// All hops of one chain.
    hops_sum_p50: Rounds,
    /// From the event in a function's hands to the hand-over of its output.
    inside_p50: Rounds,
    end_to_end_p50: Rounds,
    /// Of a chain of one, called as often as these.
    one_p50: Rounds,
}

pub(crate) fn measure(scale: Scale) -> Findings {
    let (one_core, both_cores) = (Host::start(Place::First, &[]), Host::start(Place::Any, &[]));
    let mut floor = Rounds::default();
    let [mut native, mut python] = [(); 2].map(|()| LENGTHS.map(|_| Chains::default()));
    let mut unpinned = LENGTHS.map(|_| Chains::default());
    let [mut alone, mut alone_unpinned] = [(); 2].map(|()| Chains::default());
    for _ in 0..scale.of(5, 2) {
        floor.push(half_futex_round_trip());
        let pinned = Pinned::to_first();
        alone.add_alone(&one_core, scale);
        drop(pinned);
        alone_unpinned.add_alone(&both_cores, scale);
        for (at, length) in LENGTHS.into_iter().enumerate() {
            let pinned = Pinned::to_first();
            native[at].add(&one_core, NATIVE, length, scale);
            python[at].add(&one_core, PYTHON3, length, scale);
            drop(pinned);
            unpinned[at].add(&both_cores, NATIVE, length, scale);
        }
    }
    let mut claims = hops([&alone, &alone_unpinned], &native, &floor);
    claims.extend(end_to_end(NATIVE, &native));
    claims.extend(end_to_end(PYTHON3, &python));
    let line = |chains: &[Chains; 6]| {
        let points = LENGTHS.iter().zip(chains).skip(TWO);
        points.map(|(length, chains)| (*length as f64, chains.hop_p50.median())).collect()
    };
    let plot = Plot {
        file: "hops.svg",
        title: "A hop between two functions, by the length of their chain",
        x: "functions in the chain",
        y: "hop, p50 (µs)",
        lines: vec![
            Line::ours("native, one core", line(&native)),
            Line::ours("native, both cores", line(&unpinned)),
            Line::ours("Python, one core", line(&python)),
            Line::beside("half a futex round trip, one core", [2.0, 100.0].map(|x| (x, floor.median())).to_vec()),
        ],
    };
    Findings { claims, plots: vec![plot] }
}

/// What one hop takes: in a chain of two that is alone, on one core and on both; in chains with another application's calls between them, the
/// longer the more rarely their functions are called.
fn hops(alone: [&Chains; 2], native: &[Chains; 6], floor: &Rounds) -> Vec<Claim> {
    let claim = |what: String, ours: &Rounds, goal| {
        Claim::new(format!("a hop, 64 bytes, {what}"), "µs", ours.clone(), HALF_ROUND_TRIP, floor.clone(), goal)
    };
    let [one_core, both_cores] = alone;
    let mut claims = vec![
        claim("one core, p50".to_owned(), &one_core.hop_p50, Goal::AtMost(2.5)),
        claim("one core, p99".to_owned(), &one_core.hop_p99, Goal::AtMost(30.0)),
    ];
    let (ours, beside) = (both_cores.hop_p50.clone(), "the same on one core");
    claims.push(Claim::new(
        "a hop, 64 bytes, both cores, p50",
        "µs",
        ours,
        beside,
        one_core.hop_p50.clone(),
        Goal::AtMost(1.5),
    ));
    for (length, chains) in LENGTHS.iter().zip(native).skip(TWO) {
        claims.push(claim(
            format!("one core, in a chain of {length} beside other calls, p50"),
            &chains.hop_p50,
            Goal::None,
        ));
    }
    // Where the time of a long chain goes: most hops are as fast as the one in the middle, or few are slow; or it is spent within.
    for (length, chains) in LENGTHS.iter().zip(native).filter(|(length, _)| JUDGED.contains(*length)) {
        let (what, theirs) = (format!("all hops of a chain of {length}, p50"), times(&chains.hop_p50, length - 1));
        let beside = format!("{} x p50 of a hop there", length - 1);
        claims.push(Claim::new(what, "µs", chains.hops_sum_p50.clone(), beside, theirs, Goal::None));
        let (what, theirs) = (format!("within a function of a chain of {length}, p50"), chains.hop_p50.clone());
        claims.push(Claim::new(what, "µs", chains.inside_p50.clone(), "p50 of a hop there", theirs, Goal::None));
    }
    claims
}

/// A chain beside one call and its hops: all three of the same rounds and at the same pace, for what is called rarely is slow.
fn end_to_end(kind: Kind, chains: &[Chains; 6]) -> Vec<Claim> {
    let often = &chains[0].end_to_end_p50;
    let what = |length| format!("chain of {length}, {}, end to end, p50", kind.name);
    let mut claims = vec![Claim::new(what(1), "µs", often.clone(), "itself", often.clone(), Goal::None)];
    for (length, chains) in LENGTHS.into_iter().zip(chains).skip(TWO) {
        let claim = |one: &Rounds, beside: &str, goal| {
            let expected = one.with(&times(&chains.hop_p50, length - 1), |one, hops| one + hops);
            let (ours, expected) = (chains.end_to_end_p50.clone(), expected.expect("both are of all rounds"));
            Claim::new(what(length), "µs", ours, beside, expected, goal)
        };
        let judged = JUDGED.contains(&length);
        let goal = if judged { Goal::AtMost(1.2) } else { Goal::None };
        claims.push(claim(&chains.one_p50, "a chain of one, called as often, and the hops", goal));
        if judged {
            let beside = format!("a chain of one, called {length} times as often, and the hops");
            claims.push(claim(often, &beside, Goal::None));
        }
    }
    claims
}

/// Microseconds of a hop in the shortest chain, p50 and p99: one round, on the first processor, where the host is.
pub(crate) fn hop(host: &Host, scale: Scale) -> (f64, f64) {
    let mut chains = Chains::default();
    let _pinned = Pinned::to_first();
    chains.add_alone(host, scale);
    (chains.hop_p50.median(), chains.hop_p99.median())
}

impl Kind {
    /// From one chain of so many functions to the next.
    fn pace(self, functions: usize) -> Duration {
        Duration::from_secs(1) * u32::try_from(functions).unwrap() / self.functions_per_s
    }
}

fn times(hop: &Rounds, hops: usize) -> Rounds {
    hop.map(|hop| hop * hops as f64)
}

impl Chains {
    /// One round, of an application that is deployed for it: others would only lie about meanwhile.
    fn add(&mut self, host: &Host, kind: Kind, length: usize, scale: Scale) {
        let name = format!("chain{length}");
        match kind {
            NATIVE => [(&*name, length), (ONE, 1)].map(|(name, length)| host.deploy_chain(name, length, LIMITS)),
            _ => [(&*name, length), (ONE, 1)].map(|(name, length)| host.deploy_python(name, length, LIMITS, PYTHON)),
        };
        pause(Duration::from_millis(300));
        let pace = kind.pace(length);
        // Short chains are called often, long ones for longer; each has hops enough for its p99.
        let time = Duration::from_secs_f64(scale.of(0.4, 0.2) * (1.0 + (length as f64).log10()));
        let calls = usize::try_from(time.as_nanos() / pace.as_nanos()).unwrap().max(scale.of(6, 4));
        let mut times = block_on(alternating(host, &name, Some(ONE), calls, pace));
        if length > 1 {
            self.add_hops(&mut times);
        }
        self.inside_p50.push(median(&mut times.inside));
        self.end_to_end_p50.push(median(&mut times.end_to_end));
        self.one_p50.push(median(&mut times.one));
        host.remove(&name);
        host.remove(ONE);
    }

    /// One round of hops: of native chains of two, with nothing between them.
    fn add_alone(&mut self, host: &Host, scale: Scale) {
        let (name, length) = ("alone", LENGTHS[TWO]);
        host.deploy_chain(name, length, LIMITS);
        pause(Duration::from_millis(300));
        self.add_hops(&mut block_on(alternating(host, name, None, scale.of(400, 200), NATIVE.pace(length))));
        host.remove(name);
    }

    fn add_hops(&mut self, times: &mut Times) {
        self.hop_p99.push(percentile(&mut times.hops, 99));
        self.hop_p50.push(median(&mut times.hops));
        self.hops_sum_p50.push(median(&mut times.hops_sums));
    }
}

/// Microseconds: of each hop, of all of each chain, within each function, and of each chain from end to end, over the management socket.
#[derive(Default)]
struct Times {
    hops: Vec<f64>,
    hops_sums: Vec<f64>,
    inside: Vec<f64>,
    end_to_end: Vec<f64>,
    /// Of the chain of one.
    one: Vec<f64>,
}

/// So many calls with a trace, as many without, each of these followed by one of the chain of one, if there is one, at the pace of all others. The
/// first are not counted: they find a pool that does not know the rate yet.
async fn alternating(host: &Host, name: &str, one: Option<&str>, calls: usize, pace: Duration) -> Times {
    let mut times = Times::default();
    let uncounted = (calls / 5).max(3);
    let mut due = Instant::now();
    for number in 0..uncounted + 2 * calls {
        let trace = number % 2 == 0;
        let counts = number >= uncounted;
        due = until(due + pace);
        let (answer, took) = called(host, request(name, trace)).await;
        if let Some(one) = one.filter(|_| !trace) {
            // Halfway between two chains.
            until(due + pace / 2);
            let (_, one) = called(host, request(one, false)).await;
            times.one.extend(counts.then_some(one));
        }
        if !counts {
            continue;
        }
        if trace {
            let us = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns) as f64 / 1000.0;
            let hops = answer.hops.iter().skip(1).map(|hop| us(hop.sent_ns, hop.taken_ns));
            times.hops_sums.push(hops.clone().sum());
            times.hops.extend(hops);
            times.inside.extend(answer.hops.iter().map(|hop| us(hop.taken_ns, hop.done_ns)));
        } else {
            times.end_to_end.push(took);
        }
    }
    times
}

/// Waits for a moment, to some microseconds: the timers of a runtime know milliseconds. The moment from which the next is to be counted: now, if
/// the other was missed.
fn until(due: Instant) -> Instant {
    let now = Instant::now();
    std::thread::sleep(due.saturating_duration_since(now));
    due.max(now)
}

/// The answer, and how many microseconds it took.
async fn called(host: &Host, request: Request) -> (Answer, f64) {
    let began = Instant::now();
    let answer = host.client.call(request).await.unwrap();
    let took = began.elapsed();
    assert_eq!(answer.outcome, Outcome::Done, "{}", answer.diagnostic);
    (answer, took.as_secs_f64() * 1e6)
}

pub(crate) fn request(name: &str, trace: bool) -> Request {
    Request { application: name.to_owned(), payload: vec![b'x'; 64].into(), trace, ..Request::default() }
}
