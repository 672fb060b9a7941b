//! Every stop of every scenario, and the count of them.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::check::{self, Outcome};
use crate::scenario::{self, Role, Scenario};
use crate::sweeps;
use crate::trace::{Path, Stray};

/// Failures of one scenario that are told before it is given up.
const FAILURES_MAX: usize = 10;
/// Processes that are tried for one stop.
const ATTEMPTS: usize = 50;
/// What a line of a process that covers a share begins with.
const TALLY: &str = "TALLY ";
const FAILED: &str = "FAILED ";

/// What happens while the process stands still, and to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// It is killed at once.
    Kill,
    /// Others act, and then it is killed.
    OthersThenKill,
    /// Others act, and then it goes on to its end.
    OthersThenOn,
}

/// Where the process stands: after so many steps, or asleep in the one that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stop {
    step: usize,
    asleep: bool,
}

/// What came of the scenarios of one name.
#[derive(Debug, Default)]
struct Tally {
    stops: usize,
    killed: usize,
    went_on: usize,
    /// Processes that came by another way than the path: others were tried in their place.
    strays: usize,
    /// How often each [`Outcome`] came out, in their order.
    outcomes: [usize; 4],
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.stops += other.stops;
        self.killed += other.killed;
        self.went_on += other.went_on;
        self.strays += other.strays;
        for (sum, count) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += count;
        }
    }

    /// As one process tells it another.
    fn to_line(&self, name: &str) -> String {
        let counts = [self.stops, self.killed, self.went_on, self.strays].into_iter().chain(self.outcomes);
        let counts: Vec<String> = counts.map(|count| count.to_string()).collect();
        format!("{TALLY}{name}: {}\n", counts.join(" "))
    }

    fn parse(line: &str) -> Option<(String, Self)> {
        let (name, counts) = line.strip_prefix(TALLY)?.split_once(": ")?;
        let counts: Vec<usize> = counts.split(' ').map(|count| count.parse().unwrap()).collect();
        let [stops, killed, went_on, strays, outcomes @ ..] = &counts[..] else { return None };
        let tally = Self {
            stops: *stops,
            killed: *killed,
            went_on: *went_on,
            strays: *strays,
            outcomes: outcomes.try_into().unwrap(),
            failures: Vec::new(),
        };
        Some((name.to_owned(), tally))
    }
}

/// In the environment of a process that covers a share: which of how many, as in `0/2`.
const SHARE: &str = "SANDBAR_KILL_TEST_SHARE";

/// Covers everything; panics if anything failed. The work is shared among processes, one for each processor: in one process they
/// would wait for each other at every fork.
pub(crate) fn all(test: &str, soak: bool) {
    if let Ok(share) = std::env::var(SHARE) {
        // Who covers a share ends with who handed it out, however that ends.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
        let (which, of) = share.split_once('/').unwrap();
        cover_share(which.parse().unwrap(), of.parse().unwrap(), soak);
        return;
    }
    let began = Instant::now();
    let processors = processors();
    let start = |(which, _): (usize, &usize)| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]).env(SHARE, format!("{which}/{}", processors.len()));
        // What is read for a backtrace stays in memory, and each fork from then on takes five times as long.
        command.env("RUST_BACKTRACE", "0");
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let shares: Vec<Child> = processors.iter().enumerate().map(start).collect();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut failed = 0;
    for share in shares {
        let output = share.wait_with_output().unwrap();
        failed += usize::from(!output.status.success());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some((name, tally)) = Tally::parse(line) {
                tallies.entry(name).or_default().add(&tally);
            } else if line.starts_with(FAILED) {
                std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        }
    }
    let mut total = Tally::default();
    let mut out = std::io::stdout().lock();
    for (name, tally) in tallies {
        let Tally { stops, killed, went_on, .. } = &tally;
        let [nothing, elsewhere, error, done] = tally.outcomes;
        write!(out, "{name}: {stops} kill points, {killed} killed, {went_on} went on; the call: ").unwrap();
        writeln!(out, "{done} done, {error} ended by an error, {elsewhere} served by others, {nothing} none").unwrap();
        total.add(&tally);
    }
    let Tally { stops, killed, went_on, strays, .. } = total;
    let seconds = began.elapsed().as_secs();
    writeln!(out, "kill points covered: {stops}, with {killed} processes killed and {went_on} that went on").unwrap();
    writeln!(out, "({strays} more went another way than the path, and others were tried; {seconds} s)").unwrap();
    drop(out);
    assert!(failed == 0 && stops > 0, "{failed} of the processes that cover a share failed");
}

/// Covers each `of`th scenario, and says what came of it.
fn cover_share(which: usize, of: usize, soak: bool) {
    let mut this = CpuSet::new();
    let processors = processors();
    this.set(processors[which % processors.len()]).unwrap();
    // Tracer and traced take turns: on two processors each would wait for the other's to wake up.
    sched_setaffinity(Pid::from_raw(0), &this).unwrap();
    let mut scenarios = scenario::all();
    scenarios.extend(sweeps::all(soak));
    let mut failures = Vec::new();
    for scenario in scenarios.into_iter().skip(which).step_by(of) {
        let tally = cover(&scenario, soak);
        let line = tally.to_line(scenario.name);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        failures.extend(tally.failures);
    }
    assert!(failures.is_empty(), "{} failures", failures.len());
}

fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap()).collect()
}

/// All stops of a scenario.
fn cover(scenario: &Scenario, soak: bool) -> Tally {
    let path = scenario.path(|_, _| {});
    let stops = stops(&path);
    let mut tally = Tally { stops: stops.len(), ..Tally::default() };
    let mut latest = Outcome::Nothing;
    for (n, stop) in stops.into_iter().enumerate() {
        for variant in variants(scenario, soak, n) {
            *(if variant == Variant::OthersThenOn { &mut tally.went_on } else { &mut tally.killed }) += 1;
            let slowly = soak && scenario.role != Role::Sweeper;
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let mut strays = Vec::new();
                while strays.len() < ATTEMPTS {
                    match run(scenario, &path, stop, variant, slowly || strays.len() % 2 == 1) {
                        Ok(outcome) => return outcome,
                        Err(stray) => strays.push(stray),
                    }
                    tally.strays += 1;
                }
                panic!("no process comes by the path, the last two of {ATTEMPTS}: {:x?}", &strays[ATTEMPTS - 2..])
            }));
            let failure = match ran {
                Err(panic) => Some(what_was_said(panic)),
                Ok(outcome) => {
                    tally.outcomes[outcome as usize] += 1;
                    // Each commit is one instruction: behind it there is no way back.
                    let ordered = scenario.role == Role::Instance && variant == Variant::Kill;
                    let was = latest;
                    latest = if ordered { outcome } else { latest };
                    (ordered && outcome < was).then(|| format!("{outcome:?}, and {was:?} a stop earlier"))
                }
            };
            if let Some(what) = failure {
                let failure = format!("{}, {stop:?} of {}, {variant:?}: {what}", scenario.name, path.len());
                std::io::stdout().write_all(format!("{FAILED}{failure}\n").as_bytes()).unwrap();
                tally.failures.push(failure);
            }
        }
        if tally.failures.len() >= FAILURES_MAX {
            break;
        }
    }
    tally
}

fn stops(path: &Path) -> Vec<Stop> {
    let mut stops: Vec<_> = (0..path.len()).map(|step| Stop { step, asleep: false }).collect();
    stops.extend(path.sleeps.iter().map(|step| Stop { step: *step, asleep: true }));
    stops.sort();
    stops
}

/// The kill at every stop, and the variants with others at some of them: there are several stops between two writes to the
/// segment. In a long test all of them.
fn variants(scenario: &Scenario, soak: bool, n: usize) -> Vec<Variant> {
    if scenario.role == Role::Agent {
        return vec![Variant::OthersThenOn];
    }
    if soak {
        return vec![Variant::Kill, Variant::OthersThenKill, Variant::OthersThenOn];
    }
    // The sweep is traced after several states, which share most of its way.
    let sparse = if scenario.is_one_of_many { 4 } else { 2 };
    let others = (n % sparse == 1).then_some(match n / sparse % 2 {
        0 => Variant::OthersThenKill,
        _ => Variant::OthersThenOn,
    });
    [Variant::Kill].into_iter().chain(others).collect()
}

/// One process, brought to a stop, and all that follows.
fn run(scenario: &Scenario, path: &Path, at: Stop, variant: Variant, slowly: bool) -> Result<Outcome, Stray> {
    let (world, company, mut traced) = scenario.begin();
    let wakes = || (scenario.wakes)(&world);
    traced.reach(path, at.step, slowly, &wakes)?;
    if at.asleep {
        traced.fall_asleep();
    }
    if variant != Variant::Kill {
        scenario.others_act(&world, company.is_none());
    }
    if variant == Variant::OthersThenOn {
        traced.run_to_end(&wakes);
    } else {
        traced.kill();
    }
    Ok(check::all(&world, company, scenario, variant != Variant::OthersThenOn))
}

fn what_was_said(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(said) => *said,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic", |said| *said).to_owned(),
    }
}
