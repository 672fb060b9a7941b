//! The supervisor's loop: it sleeps until a process has ended, a deadline has passed, a worker is to be started again, or the
//! agent is gone.

mod ending;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use sandbar_bus::Bus;
use sandbar_bus::clock::now_ns;
use sandbar_bus::slot::Phase;
use sandbar_function::worker::READY;

use crate::identity::{kill_user, worker_id};
use crate::protocol::{Event, FunctionPlan, send};
use crate::spawn::{Outlets, Spawned, spawn};
use crate::temporary::TemporaryFiles;
use ending::{Dying, Overdue};

/// How often the supervisor looks for deadlines while calls are under way. A call is cut off this much after its deadline,
/// at most.
const TICK: Duration = Duration::from_millis(20);
/// For how long it goes on looking when nothing is under way, before it sleeps until it is woken.
const LINGER: Duration = Duration::from_secs(1);
/// How long a worker may take to load its code.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// How long a worker that has closed its status pipe without a word may take to end.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Pause before a worker that died is started again: doubles each time, from the first to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// Bytes that a worker may say of why it cannot load its code.
const REASON_BYTES_MAX: usize = 8 << 10;
/// A worker that lived this long has died of something new.
const LIVED_WELL: Duration = Duration::from_secs(30);

/// One function's worker.
#[derive(Debug)]
enum Worker {
    /// Its process loads the code.
    Loading { pid: Pid, status: Option<OwnedFd>, said: Vec<u8>, since: Instant, until: Instant, pause: Duration },
    /// Its process forks instances.
    Running { pid: Pid, since: Instant, pause: Duration },
    /// It died, and is started again at some time.
    Down { until: Instant, pause: Duration },
}

impl Worker {
    /// How long it is not started again, should it die.
    fn pause(&self) -> Duration {
        match self {
            Self::Loading { pause, .. } | Self::Running { pause, .. } | Self::Down { pause, .. } => *pause,
        }
    }

    fn loading(spawned: Spawned, pause: Duration) -> Self {
        let since = Instant::now();
        let Spawned { pid, status } = spawned;
        Self::Loading { pid, status: Some(status), said: Vec::new(), since, until: since + LOAD_MAX, pause }
    }
}

/// The sandbox, once it runs.
#[derive(Debug)]
pub struct Supervisor {
    bus: &'static Bus,
    agent: OwnedFd,
    wake: OwnedFd,
    ended: SignalFd,
    outlets: Outlets,
    functions: Vec<FunctionPlan>,
    workers: Vec<Worker>,
    /// Whether all workers have been ready at some time.
    was_ready: bool,
    temporary: TemporaryFiles,
    /// Instances that are dead and not buried yet.
    dying: Vec<Dying>,
    overdue: Overdue,
    /// When something was last under way.
    busy_at: Instant,
    gave_back: bool,
}

impl Supervisor {
    /// Starts the workers. `ended` must be blocked already, so that no end of a process is missed.
    ///
    /// # Errors
    /// When no process can be made.
    pub(crate) fn start(
        bus: &'static Bus,
        agent: OwnedFd,
        wake: OwnedFd,
        outlets: Outlets,
        temporary: TemporaryFiles,
        functions: Vec<FunctionPlan>,
    ) -> io::Result<Self> {
        let mut child_ended = SigSet::empty();
        child_ended.add(Signal::SIGCHLD);
        child_ended.thread_block()?;
        let ended = SignalFd::with_flags(&child_ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut workers = Vec::with_capacity(functions.len());
        for (index, function) in functions.iter().enumerate() {
            let spawned = spawn(&outlets, index, function)?;
            workers.push(Worker::loading(spawned, AGAIN.0));
        }
        let busy_at = Instant::now();
        Ok(Self {
            bus,
            agent,
            wake,
            ended,
            outlets,
            functions,
            workers,
            was_ready: false,
            temporary,
            dying: Vec::new(),
            overdue: Overdue::new(),
            busy_at,
            gave_back: true,
        })
    }

    /// Runs the sandbox until the agent is gone.
    ///
    /// # Errors
    /// When the loop's own system calls fail: the sandbox cannot go on.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let timeout = self.timeout();
            let Some(woken) = self.sleep(timeout)? else { return Ok(()) };
            self.bus.supervisor_sleeps(false);
            self.hear_workers(&woken.statuses);
            self.reap();
            self.bury();
            self.enforce_deadlines();
            self.restart_workers();
        }
    }

    /// How long to sleep; `None` until woken.
    fn timeout(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let workers = self.workers.iter().filter_map(|worker| match worker {
            Worker::Loading { until, .. } => Some(*until),
            Worker::Down { until, .. } => Some(*until),
            Worker::Running { .. } => None,
        });
        let worker = workers.min().map(|at| at.saturating_duration_since(now));
        self.calls_timeout(now).into_iter().chain(worker).chain(self.dying_timeout()).min()
    }

    fn calls_timeout(&mut self, now: Instant) -> Option<Duration> {
        if !self.bus.is_idle() {
            self.busy_at = now;
            self.gave_back = false;
            let deadlines = self.bus.slots().iter().filter_map(|slot| slot.deadline_ns());
            let next = deadlines.min().map(|at| Duration::from_nanos(at.saturating_sub(now_ns())));
            return Some(next.map_or(TICK, |next| next.clamp(Duration::from_millis(1), TICK)));
        }
        if now.saturating_duration_since(self.busy_at) < LINGER {
            return Some(TICK);
        }
        if !self.gave_back {
            self.bus.give_memory_back();
            self.forget_kills();
            self.gave_back = true;
        }
        self.bus.supervisor_sleeps(true);
        // Announced, then looked again: a message that came before the announcement is seen here, one that comes after wakes.
        (!self.bus.is_idle()).then_some(TICK)
    }

    /// Sleeps; `None` when the agent is gone.
    fn sleep(&self, timeout: Option<Duration>) -> io::Result<Option<Woken>> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<PollFd<'_>> =
            vec![readable(self.agent.as_fd()), readable(self.wake.as_fd()), readable(self.ended.as_fd())];
        let loading: Vec<(usize, BorrowedFd<'_>)> = self.loading().collect();
        fds.extend(loading.iter().map(|(_, status)| readable(*status)));
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up, lest the loop turn until the last fraction of a millisecond has passed.
            let ms = timeout.as_micros().div_ceil(1000);
            PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
        });
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Some(Woken { statuses: Vec::new() })),
            Err(errno) => return Err(errno.into()),
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        if ready(0) {
            return Ok(None);
        }
        if ready(1) {
            drain(&self.wake);
        }
        let statuses = loading.iter().enumerate().filter(|(at, _)| ready(at + 3)).map(|(_, (function, _))| *function);
        Ok(Some(Woken { statuses: statuses.collect() }))
    }

    fn loading(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.workers.iter().enumerate().filter_map(|(index, worker)| match worker {
            Worker::Loading { status, .. } => Some((index, status.as_ref()?.as_fd())),
            Worker::Running { .. } | Worker::Down { .. } => None,
        })
    }

    fn tell(&self, event: &Event) {
        // An agent that cannot be told is gone, which the loop sees next.
        let _gone = send(self.agent.as_fd(), event, &[]);
    }

    /// Hears what workers that are loading their code have to say.
    fn hear_workers(&mut self, functions: &[usize]) {
        for function in functions {
            let Worker::Loading { pid, status, said, since, until, pause } = &mut self.workers[*function] else {
                continue;
            };
            let Some(pipe) = status else { continue };
            let ended = hear(pipe, said);
            if said == READY.as_bytes() {
                self.workers[*function] = Worker::Running { pid: *pid, since: *since, pause: *pause };
                // Its first instances are wanted now, and messages may wait already.
                self.bus.worker_bell(*function).ring();
            } else if ended && said.is_empty() {
                // It will say nothing more. How it ended is seen when it is reaped; one that does not end is ended soon.
                let soon = Instant::now() + LAST_WORD;
                *until = soon.min(*until);
                *status = None;
            } else if ended {
                let _dead_already = kill(*pid, Signal::SIGKILL);
                self.worker_ended(*function, "the worker ended while it loaded its code");
            }
        }
        if !self.was_ready && self.workers.iter().all(|worker| matches!(worker, Worker::Running { .. })) {
            self.was_ready = true;
            self.tell(&Event::Ready);
        }
    }

    /// A worker is dead, or was killed as good for nothing.
    fn worker_ended(&mut self, function: usize, reason: &str) {
        let (since, pause, said) = match &mut self.workers[function] {
            Worker::Loading { status, said, since, pause, .. } => {
                if let Some(pipe) = status {
                    hear(pipe, said);
                }
                (*since, *pause, String::from_utf8_lossy(said).trim().to_owned())
            }
            Worker::Running { since, pause, .. } => (*since, *pause, String::new()),
            Worker::Down { .. } => return,
        };
        self.free_slots_without_process(function);
        // What it started ends with it. A process of its that is to be an instance, but is not yet, ends as one that died.
        kill_user(worker_id(function));
        let pause = if since.elapsed() > LIVED_WELL { AGAIN.0 } else { pause };
        // What it said itself is better than how it ended.
        let reason = if said.is_empty() { reason.to_owned() } else { said };
        if self.was_ready {
            let again_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            self.tell(&Event::WorkerDied { function, reason, again_ms });
        } else {
            self.tell(&Event::WorkerFailed { function, reason });
        }
        self.workers[function] = Worker::Down { until: Instant::now() + pause, pause: (pause * 2).min(AGAIN.1) };
    }

    /// Slots that the worker had reserved when it died, before it made a process for them.
    fn free_slots_without_process(&self, function: usize) {
        for slot in self.bus.slots() {
            let reserved =
                slot.state().is_some_and(|state| state.phase == Phase::Forking && state.function == function);
            if reserved && slot.pid.load(std::sync::atomic::Ordering::Acquire) == 0 {
                slot.release();
            }
        }
    }

    /// A kill for want of memory that nobody was told of was none of a call's own process.
    fn forget_kills(&self) {
        self.outlets.kills.forget();
        self.outlets.groups.iter().flatten().for_each(|group| group.kills.forget());
    }

    fn restart_workers(&mut self) {
        let now = Instant::now();
        for index in 0..self.workers.len() {
            match &self.workers[index] {
                // Nothing of the one before it may be left.
                Worker::Down { until, .. } if *until <= now && kill_user(worker_id(index)) => {
                    let again = Worker::Down { until: now + TICK, pause: self.workers[index].pause() };
                    self.workers[index] = again;
                }
                Worker::Down { until, pause } if *until <= now => {
                    let pause = *pause;
                    self.workers[index] = match spawn(&self.outlets, index, &self.functions[index]) {
                        Ok(spawned) => Worker::loading(spawned, pause),
                        Err(_) => Worker::Down { until: now + pause, pause },
                    };
                }
                Worker::Loading { pid, since, until, .. } if *until <= now => {
                    let _dead_already = kill(*pid, Signal::SIGKILL);
                    let reason = format!("the worker was not ready after {} s", since.elapsed().as_secs());
                    self.worker_ended(index, &reason);
                }
                Worker::Down { .. } | Worker::Loading { .. } | Worker::Running { .. } => {}
            }
        }
    }

    /// Takes note of every process that has ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.ended.read_signal() {}
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => status,
            };
            let Some(pid) = status.pid() else { continue };
            if let Some(function) = self.worker_of(pid) {
                let reason = self.out_of_memory(status, Some(function));
                self.worker_ended(function, &reason.unwrap_or_else(|| format!("the worker {}", how_it_ended(status))));
            } else if let Some(slot) = self.slot_of(pid).filter(|slot| !self.is_dying(*slot)) {
                self.instance_ended(slot, pid, status);
            }
        }
    }

    fn worker_of(&self, pid: Pid) -> Option<usize> {
        self.workers.iter().position(|worker| match worker {
            Worker::Loading { pid: of, .. } | Worker::Running { pid: of, .. } => *of == pid,
            Worker::Down { .. } => false,
        })
    }

    fn slot_of(&self, pid: Pid) -> Option<usize> {
        let pid = u32::try_from(pid.as_raw()).ok()?;
        self.bus.slots().iter().position(|slot| slot.pid.load(std::sync::atomic::Ordering::Acquire) == pid)
    }
}

struct Woken {
    /// Functions whose worker has said something.
    statuses: Vec<usize>,
}

fn how_it_ended(status: WaitStatus) -> String {
    if let WaitStatus::Exited(_, code) = status {
        format!("exited with status {code}")
    } else if let WaitStatus::Signaled(_, signal, _) = status {
        format!("was killed by signal {} ({signal})", signal as i32)
    } else {
        format!("ended ({status:?})")
    }
}

/// Reads what has come on a status pipe; true when nothing more will.
fn hear(status: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match nix::unistd::read(status, &mut bytes) {
            Ok(0) => return true,
            Ok(count) => said.extend_from_slice(&bytes[..count]),
            Err(errno) => return errno != nix::errno::Errno::EAGAIN,
        }
        if said.len() > REASON_BYTES_MAX {
            said.truncate(REASON_BYTES_MAX);
            return true;
        }
    }
}

fn drain(event: &OwnedFd) {
    let mut count = [0; 8];
    // Whether it was there or not: it is not now.
    let _count = nix::unistd::read(event, &mut count);
}
