//! Kills at random moments, under load.
//!
//! After each: whoever called was answered (see [`load`](crate::load)), what is to come back has come back and answers, and what was
//! being deployed or removed is there whole, in its old or in its new version, or not at all. After the agent's: its sandboxes are
//! dead at once, its next start clears all away that it left, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::random::Random;
use crate::stage::{Change, GUEST, LAMP, STANDING, Stage};
use crate::support::process::{self, Process, Role};
use crate::support::{PATIENCE, program, until_within};
use crate::{census, is_soak, seed, turn};

const KILLS_SHORT: u64 = 210;
const KILLS_SOAK: u64 = 3_000;
/// Moments lie between a microsecond and this long after what is to be hit has begun.
const DELAY_US_BITS: u64 = 16;
/// Longer than any launch takes to appear.
const LAUNCH_MAX: Duration = Duration::from_secs(2);

/// Whom a kill is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Supervisor,
    Worker,
    Instance,
    /// The process that makes a sandbox, or the sandbox's first while it is made.
    Launch,
    /// The command that asked for a deployment.
    Client,
    Agent(During),
}

/// What an agent is killed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum During {
    Service,
    Deployment,
    Replacement,
    FailingDeployment,
    Removal,
    Start,
}

/// How often each comes in a round.
const ROUND: [Victim; 20] = [
    Victim::Supervisor,
    Victim::Worker,
    Victim::Instance,
    Victim::Launch,
    Victim::Agent(During::Service),
    Victim::Instance,
    Victim::Agent(During::Deployment),
    Victim::Worker,
    Victim::Supervisor,
    Victim::Client,
    Victim::Agent(During::Replacement),
    Victim::Launch,
    Victim::Instance,
    Victim::Agent(During::FailingDeployment),
    Victim::Worker,
    Victim::Launch,
    Victim::Agent(During::Removal),
    Victim::Client,
    Victim::Supervisor,
    Victim::Agent(During::Start),
];

#[test]
fn whatever_is_killed_and_whenever_callers_are_answered_and_nothing_is_left() {
    let _turn = turn();
    let Some(mut stage) = Stage::set() else { return };
    let mut drill = Drill { random: Random::new(seed()), counts: BTreeMap::new() };
    stage.assert_tidy();
    stage.assert_all_answer();
    let before = census::taken_at_rest(&stage.host);
    stage.load_begins();
    let (kills, began) = (if is_soak() { KILLS_SOAK } else { KILLS_SHORT }, Instant::now());
    let mut done = 0;
    while done < kills {
        for victim in ROUND {
            done += drill.kill(&mut stage, victim);
        }
        stage.assert_others_untouched();
        stage.assert_tidy();
    }
    println!("{done} kills in {:.1?}: {:.1?}", began.elapsed(), drill.counts);
    stage.load_ends();
    if stage.deployed().contains(GUEST) {
        stage.begin_removal().finish().well();
    }
    stage.assert_tidy();
    census::assert_no_more_than(before, &stage.host);
    stage.strike();
}

struct Drill {
    random: Random,
    /// How many of each were killed, and how long it took until all was well again.
    counts: BTreeMap<Victim, (u64, Duration)>,
}

impl Drill {
    /// Kills one, sees that all is well after it, and returns how many were killed.
    fn kill(&mut self, stage: &mut Stage, victim: Victim) -> u64 {
        let began = Instant::now();
        let killed = match victim {
            Victim::Supervisor => self.kill_supervisor(stage),
            Victim::Worker => self.kill_in_sandbox(stage, Role::Worker),
            Victim::Instance => self.kill_in_sandbox(stage, Role::Instance),
            Victim::Launch => self.kill_launch(stage),
            Victim::Client => self.kill_client(stage),
            Victim::Agent(During::Start) => self.kill_agent_twice(stage),
            Victim::Agent(during) => self.kill_agent(stage, during),
        };
        let (count, took) = self.counts.entry(victim).or_default();
        (*count, *took) = (*count + killed, *took + began.elapsed());
        killed
    }

    /// Waits for a random time, short ones being as likely as long ones.
    fn wait(&mut self) {
        let most = 1 << self.random.below(DELAY_US_BITS);
        let delay = Duration::from_micros(1 + self.random.below(most));
        let began = Instant::now();
        if delay > Duration::from_millis(1) {
            std::thread::sleep(delay);
        }
        while began.elapsed() < delay {
            std::hint::spin_loop();
        }
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.random.below(from.len() as u64)).unwrap()]
    }

    fn kill_supervisor(&mut self, stage: &Stage) -> u64 {
        let application = *self.choose(&[STANDING[0], STANDING[1], STANDING[2], LAMP]);
        let first = stage.first_process(application);
        let inhabitants = process::of_sandbox(first.pid);
        self.wait();
        let killed = is_hit(&first);
        until_within(PATIENCE, "the dead sandbox is gone", || {
            (!inhabitants.iter().any(|(process, _)| process.exists())).then_some(())
        });
        stage.assert_answers(application);
        assert_ne!(stage.first_process(application), first);
        killed
    }

    fn kill_in_sandbox(&mut self, stage: &Stage, role: Role) -> u64 {
        let application = *self.choose(&STANDING);
        let first = stage.first_process(application);
        let processes = process::of_sandbox(first.pid);
        let of_role: Vec<_> = processes.iter().filter(|(_, of)| *of == role).map(|(process, _)| process).collect();
        if of_role.is_empty() {
            return 0;
        }
        let victim = *self.choose(&of_role);
        self.wait();
        let killed = is_hit(victim);
        until_within(PATIENCE, "the dead process is reaped", || (!victim.exists()).then_some(()));
        stage.assert_answers(application);
        assert_eq!(stage.first_process(application), first, "the sandbox itself lives on");
        killed
    }

    fn kill_launch(&mut self, stage: &mut Stage) -> u64 {
        let agent = stage.host.agent().pid;
        let mut last = last_pid();
        let (change, version) = stage.begin_lamp();
        let began = Instant::now();
        let launch = loop {
            let now = last_pid();
            let new = (last..=now).filter(|pid| Process::new(*pid).is_some_and(|it| it.parent() == Some(agent)));
            // Not a thread of the agent: those are no processes.
            if let Some(launch) = new.filter_map(Process::new).find(|it| it.threads().len() == 1) {
                break Some(launch);
            }
            last = now.max(last);
            if began.elapsed() > LAUNCH_MAX {
                break None;
            }
        };
        let most = self.random.below(4_000);
        let (delay, seen) = (Duration::from_micros(self.random.below(most + 1)), Instant::now());
        while seen.elapsed() < delay {}
        let killed = launch.as_ref().map_or(0, is_hit);
        let finished = change.finish();
        match finished.code {
            Some(0) => stage.lamp = std::collections::BTreeSet::from([version]),
            Some(1) => {
                stage.lamp.remove(&version);
                assert!(finished.stderr.contains("does not start"), "no reason is told: {:?}", finished.stderr);
            }
            code => panic!("{code:?}: {}", finished.stderr),
        }
        stage.assert_answers(LAMP);
        if let Some(launch) = launch.filter(|_| finished.code == Some(1)) {
            until_within(PATIENCE, "the launch is reaped", || (!launch.exists()).then_some(()));
        }
        killed
    }

    fn kill_client(&mut self, stage: &mut Stage) -> u64 {
        let (mut change, version) = stage.begin_lamp();
        self.wait();
        change.kill();
        let finished = change.finish();
        // Deployed or not: the next deployment comes after it.
        stage.assert_answers(LAMP);
        if finished.code == Some(0) {
            stage.lamp = std::collections::BTreeSet::from([version]);
        } else {
            stage.replace_lamp();
        }
        stage.assert_answers(LAMP);
        stage.assert_tidy();
        u64::from(finished.code.is_none())
    }

    /// Begins what the agent is to be killed at.
    fn begin(stage: &mut Stage, during: During) -> Option<Change> {
        let is_there = stage.deployed().contains(GUEST);
        match during {
            During::Service | During::Start => None,
            During::Deployment => {
                if is_there {
                    stage.begin_removal().finish().well();
                }
                Some(stage.begin_guest())
            }
            During::Replacement => Some(stage.begin_lamp().0),
            During::FailingDeployment => Some(stage.begin_broken()),
            During::Removal => {
                if !is_there {
                    stage.begin_guest().finish().well();
                }
                Some(stage.begin_removal())
            }
        }
    }

    fn kill_agent(&mut self, stage: &mut Stage, during: During) -> u64 {
        let change = Self::begin(stage, during);
        if change.is_some() {
            // The command takes this long to begin.
            std::thread::sleep(Duration::from_millis(self.random.below(12)));
        }
        self.wait();
        stage.kill_agent();
        let done = change.is_some_and(|change| change.finish().code == Some(0));
        stage.start_again();
        if done && during == During::Deployment {
            assert!(stage.deployed().contains(GUEST), "what was told to be deployed is not there");
        }
        if done && during == During::Removal {
            assert!(!stage.deployed().contains(GUEST), "what was told to be removed is there");
        }
        stage.replace_lamp();
        1
    }

    /// Kills the agent, and the next one while it starts.
    fn kill_agent_twice(&mut self, stage: &mut Stage) -> u64 {
        stage.kill_agent();
        let mut starting = stage.host.serve_command();
        let null = || std::process::Stdio::null();
        let mut starting = starting.stdout(null()).stderr(null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(self.random.below(400)));
        let descendants = process::descendants(starting.id());
        starting.kill().unwrap();
        assert!(program::wait(&mut starting, PATIENCE).is_some());
        census::assert_dead(&stage.host, &descendants);
        stage.start_again();
        2
    }
}

/// Kills a process, if it is still there: 1 if it was.
fn is_hit(process: &Process) -> u64 {
    let pid = Pid::from_raw(process.pid.cast_signed());
    u64::from(process.exists() && kill(pid, Signal::SIGKILL).is_ok())
}

/// The process id that the kernel gave last.
fn last_pid() -> u32 {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    load.trim().rsplit(' ').next().unwrap().parse().unwrap()
}
