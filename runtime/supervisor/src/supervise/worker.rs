//! Workers: started, heard while they load their code, put to rest, started again when they die, and renewed now and then, so that calls do not
//! share one address layout for ever.
//!
//! ```text
//!            spawn            says READY              renewal is due
//!   Down ───────────▶ Loading ───────────▶ Running ──────────────────▶ Running, with a successor that loads
//!    ▲                   │                    │                              │ the successor says READY: the old one is killed
//!    └───────────────────┴────────────────────┘ died                        ▼
//!                                             ▲                       Running, with a successor that waits
//!                                             └────────────────────────────── │ the old one is reaped
//!                        something is under way            nothing was for long
//!   Resting ─────────────────────────────────▶ Loading      Running ──────────────────▶ Resting
//! ```
//!
//! A worker that has said READY forks nothing until the supervisor closes its end of the status socket: so a successor reserves no slot
//! while its predecessor may still hold one without a process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbar_bus::slot::Phase;

use super::loading::{Loading, Said};
use super::{Supervisor, TICK};
use crate::identity::{kill_user, worker_id};
use crate::protocol::Event;
use crate::spawn::{Spawned, spawn};

/// Pause before a worker that died is started again: doubles each time, from the first to the second.
pub(super) const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// A worker that lived this long has died of something new.
const LIVED_WELL: Duration = Duration::from_secs(30);

/// One function's worker.
#[derive(Debug)]
pub(super) enum Worker {
    Loading {
        process: Loading,
        pause: Duration,
    },
    Running {
        pid: Pid,
        since: Instant,
        pause: Duration,
        successor: Option<Successor>,
    },
    Down {
        until: Instant,
        pause: Duration,
    },
    /// It was ended as nothing is under way, and is started again when something is.
    Resting {
        /// The process, until it is reaped.
        ending: Option<Pid>,
    },
}

/// The process that is to take a worker's place.
#[derive(Debug)]
pub(super) enum Successor {
    Loading(Loading),
    /// It waits until the old one is gone and its own end of this socket is closed.
    Waiting {
        pid: Pid,
        status: Option<OwnedFd>,
    },
}

impl Worker {
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Whether the process is this function's worker, or its successor.
    pub(super) fn is(&self, process: Pid) -> bool {
        match self {
            Self::Loading { process: Loading { pid, .. }, .. } => *pid == Some(process),
            Self::Running { pid, successor, .. } => *pid == process || self::pid(successor.as_ref()) == Some(process),
            Self::Resting { ending } => *ending == Some(process),
            Self::Down { .. } => false,
        }
    }

    /// The process that loads code, if there is one.
    fn loading(&mut self) -> Option<&mut Loading> {
        match self {
            Self::Loading { process, .. } | Self::Running { successor: Some(Successor::Loading(process)), .. } => {
                Some(process)
            }
            Self::Running { .. } | Self::Down { .. } | Self::Resting { .. } => None,
        }
    }

    /// Where something of it may be heard.
    pub(super) fn status(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Loading { process, .. } | Self::Running { successor: Some(Successor::Loading(process)), .. } => {
                process.status.as_ref().map(AsFd::as_fd)
            }
            Self::Running { .. } | Self::Down { .. } | Self::Resting { .. } => None,
        }
    }

    /// When it is to be looked at again at the latest.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Loading { process, .. } | Self::Running { successor: Some(Successor::Loading(process)), .. } => {
                Some(process.until)
            }
            Self::Down { until, .. } => Some(*until),
            Self::Running { .. } | Self::Resting { .. } => None,
        }
    }
}

fn pid(successor: Option<&Successor>) -> Option<Pid> {
    match successor? {
        Successor::Loading(process) => process.pid,
        Successor::Waiting { pid, .. } => Some(*pid),
    }
}

impl Supervisor {
    /// Starts a worker's process, as another user than the one before it.
    pub(super) fn spawn_worker(&mut self, function: usize) -> io::Result<Loading> {
        let turn = self.turns[function] + 1;
        if kill_user(worker_id(function, turn)) {
            return Err(io::Error::other("something of an earlier worker is not dead yet"));
        }
        self.turns[function] = turn;
        let forked = self.templates.spawn(&self.outlets, (function, turn), &self.functions)?;
        forked.map_or_else(|| self.spawn_alone(function), Ok).map(Loading::new)
    }

    /// Starts a worker's process that no template forks.
    fn spawn_alone(&self, function: usize) -> io::Result<Spawned> {
        spawn(&self.outlets, function, self.turns[function], &self.functions[function])
    }

    /// A template has not forked the worker that it was asked for: it is started by itself.
    fn worker_unborn(&mut self, function: usize) {
        self.templates.give_up();
        match self.spawn_alone(function) {
            Ok(spawned) => {
                if let Some(process) = self.workers[function].loading() {
                    *process = Loading::new(spawned);
                }
            }
            Err(error) => self.worker_ended(function, None, &format!("the worker cannot be started: {error}")),
        }
    }

    /// Hears what workers that are loading their code have to say.
    pub(super) fn hear_workers(&mut self, functions: &[usize]) {
        for &function in functions {
            let Some(process) = self.workers[function].loading() else { continue };
            match process.hear() {
                Said::Nothing => {}
                Said::Unborn => self.worker_unborn(function),
                Said::Ready => self.worker_ready(function),
                Said::Reason => {
                    let pid = process.pid;
                    kill_if_known(pid);
                    self.worker_ended(function, pid, "the worker ended while it loaded its code");
                }
            }
        }
        if !self.was_ready && self.workers.iter().all(Worker::is_running) {
            self.was_ready = true;
            // Nothing goes to rest before it has come up.
            self.busy_at = Instant::now();
            self.tell(&Event::Ready);
        }
    }

    fn worker_ready(&mut self, function: usize) {
        match &mut self.workers[function] {
            Worker::Loading { process: Loading { pid: Some(pid), since, .. }, pause } => {
                // The status socket closes: it may fork.
                self.workers[function] = Worker::Running { pid: *pid, since: *since, pause: *pause, successor: None };
                self.served[function] = 0;
                // Its first instances are wanted now, and messages may wait already.
                self.bus.worker_bell(function).ring();
            }
            Worker::Running { pid: old, successor: Some(successor), .. } => {
                if let Successor::Loading(Loading { pid: Some(pid), status, .. }) = successor {
                    *successor = Successor::Waiting { pid: *pid, status: status.take() };
                    let _dead_already = kill(*old, Signal::SIGKILL);
                }
            }
            // A process that nobody knows has said nothing.
            Worker::Loading { .. }
            | Worker::Running { successor: None, .. }
            | Worker::Down { .. }
            | Worker::Resting { .. } => {}
        }
    }

    /// A worker is dead, or was killed as good for nothing: the function's own, or its successor.
    pub(super) fn worker_ended(&mut self, function: usize, pid: Option<Pid>, reason: &str) {
        let down = Worker::Down { until: Instant::now(), pause: AGAIN.0 };
        match std::mem::replace(&mut self.workers[function], down) {
            Worker::Running { pid: old, since: _, pause, successor: Some(successor) } if Some(old) != pid => {
                // The old one serves on, or, if it was killed already, is started anew when it is reaped.
                let running = Worker::Running { pid: old, since: Instant::now(), pause, successor: None };
                self.workers[function] = running;
                self.served[function] = 0;
                let said = match successor {
                    Successor::Loading(process) => process.last_words(),
                    Successor::Waiting { .. } => String::new(),
                };
                kill_user(worker_id(function, self.turns[function]));
                // The next one must not be the user that the old one is.
                self.turns[function] = self.turns[function].wrapping_sub(1);
                let reason = if said.is_empty() { reason.to_owned() } else { said };
                self.tell(&Event::WorkerKept { function, reason });
            }
            Worker::Running { pause, successor: Some(successor), .. } => {
                self.forget_worker(function, self.turns[function].wrapping_sub(1));
                self.succeed(function, pause, successor);
            }
            Worker::Running { since, pause, successor: None, .. } => {
                self.forget_worker(function, self.turns[function]);
                self.worker_down(function, since, pause, reason.to_owned());
            }
            Worker::Loading { process, pause } => {
                self.forget_worker(function, self.turns[function]);
                let since = process.since;
                let said = process.last_words();
                // What it said itself is better than how it ended.
                self.worker_down(function, since, pause, if said.is_empty() { reason.to_owned() } else { said });
            }
            Worker::Resting { .. } => {
                self.forget_worker(function, self.turns[function]);
                self.workers[function] = Worker::Resting { ending: None };
            }
            down @ Worker::Down { .. } => self.workers[function] = down,
        }
    }

    /// The old worker is gone: its successor takes its place.
    fn succeed(&mut self, function: usize, pause: Duration, successor: Successor) {
        self.workers[function] = match successor {
            Successor::Loading(process) => Worker::Loading { process, pause },
            Successor::Waiting { pid, status } => {
                drop(status);
                Worker::Running { pid, since: Instant::now(), pause: AGAIN.0, successor: None }
            }
        };
        self.served[function] = 0;
        self.bus.worker_bell(function).ring();
    }

    fn worker_down(&mut self, function: usize, since: Instant, pause: Duration, reason: String) {
        let pause = if since.elapsed() > LIVED_WELL { AGAIN.0 } else { pause };
        if self.was_ready {
            let again_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.tell(&Event::WorkerDied { function, reason, again_ms });
        } else {
            self.tell(&Event::WorkerFailed { function, reason });
        }
        self.workers[function] = Worker::Down { until: Instant::now() + pause, pause: (pause * 2).min(AGAIN.1) };
    }

    /// Nothing of a dead worker may stay: slots that it had reserved before it made a process for them, and what it started. A process
    /// of its that is to be an instance, but is not yet, ends as one that died.
    fn forget_worker(&self, function: usize, turn: u32) {
        for slot in self.bus.slots() {
            let reserved =
                slot.state().is_some_and(|state| state.phase == Phase::Forking && state.function == function);
            if reserved && slot.pid.load(Ordering::Acquire) == 0 {
                slot.release();
            }
        }
        kill_user(worker_id(function, turn));
    }

    /// Starts those workers again whose time has come, gives up those that load for too long, and has those renewed that have served long
    /// enough.
    pub(super) fn keep_workers(&mut self) {
        let now = Instant::now();
        self.recall_workers();
        for function in 0..self.workers.len() {
            let renewal_due = self.renewal_due(function);
            match &mut self.workers[function] {
                Worker::Down { until, pause } if *until <= now => {
                    let pause = *pause;
                    self.workers[function] = match self.spawn_worker(function) {
                        Ok(process) => Worker::Loading { process, pause },
                        Err(_) => Worker::Down { until: now + TICK.max(pause / 2), pause },
                    };
                }
                Worker::Running { successor: None, .. } if renewal_due => {
                    // Without room for another process now, there may be some later.
                    let successor = self.spawn_worker(function).ok().map(Successor::Loading);
                    self.set_successor(function, successor);
                }
                worker @ (Worker::Down { .. }
                | Worker::Loading { .. }
                | Worker::Running { .. }
                | Worker::Resting { .. }) => {
                    let Some(process) = worker.loading().filter(|process| process.until <= now) else { continue };
                    let (pid, seconds) = (process.pid, process.since.elapsed().as_secs());
                    kill_if_known(pid);
                    if pid.is_none() {
                        self.templates.give_up();
                    }
                    self.worker_ended(function, pid, &format!("the worker was not ready after {seconds} s"));
                }
            }
        }
    }

    fn renewal_due(&self, function: usize) -> bool {
        let Worker::Running { since, .. } = &self.workers[function] else { return false };
        let served = self.served[function];
        served >= self.renewal.calls || served > 0 && since.elapsed() >= Duration::from_secs(self.renewal.seconds)
    }

    fn set_successor(&mut self, function: usize, new: Option<Successor>) {
        if let Worker::Running { successor, .. } = &mut self.workers[function] {
            *successor = new;
        }
    }
}

/// A worker that no template has forked yet is not there to be killed; what is forked later ends when it finds its socket closed, or is
/// found by its user.
fn kill_if_known(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _dead_already = kill(pid, Signal::SIGKILL);
    }
}
