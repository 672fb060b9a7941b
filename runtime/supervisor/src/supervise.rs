//! The supervisor's loop: it sleeps until a process has ended, a deadline has passed, a worker is to be started again, or the
//! agent is gone.

mod audit;
mod ending;
mod loading;
mod rest;
mod worker;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use sandbar_bus::clock::now_ns;
use sandbar_bus::{Bus, Function, Ready};

use crate::protocol::{Event, FunctionPlan, Renewal, RestPlan, send};
use crate::reaping::reap_one;
use crate::spawn::Outlets;
use crate::template::Templates;
use crate::temporary::TemporaryFiles;
use audit::Audit;
use ending::{Dying, Overdue};
use rest::Rest;
use worker::{AGAIN, Worker};

/// How often the supervisor looks for deadlines while calls are under way. A call is cut off this much after its deadline,
/// at most.
const TICK: Duration = Duration::from_millis(20);
/// For how long it goes on looking when nothing is under way, before it sleeps until it is woken.
const LINGER: Duration = Duration::from_secs(1);
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
    /// By function, how many workers it has had: each is another user than the one before.
    turns: Vec<u32>,
    /// By function, how many instances stand ready.
    ready: Vec<Ready>,
    /// By function, where its output goes.
    next: Vec<Vec<usize>>,
    /// By function, how many instances of its worker have ended, but for those that were sent away.
    served: Vec<u64>,
    renewal: Renewal,
    rest: Rest,
    /// Whether all workers have been ready at some time.
    was_ready: bool,
    templates: Templates,
    temporary: TemporaryFiles,
    /// Instances that are dead and not buried yet.
    dying: Vec<Dying>,
    overdue: Overdue,
    /// Slots whose instance was sent away before it had a call.
    dismissed: BTreeSet<usize>,
    audit: Audit,
    /// The longest time-out of any function.
    timeout_max: Duration,
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
        (renewal, rest): (Renewal, RestPlan),
    ) -> io::Result<Self> {
        let mut child_ended = SigSet::empty();
        child_ended.add(Signal::SIGCHLD);
        child_ended.thread_block()?;
        let ended = SignalFd::with_flags(&child_ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let busy_at = Instant::now();
        // Read before any code of the application runs.
        let catalogue: Vec<Function> = (0..functions.len()).filter_map(|function| bus.function(function)).collect();
        let mut supervisor = Self {
            bus,
            agent,
            wake,
            ended,
            outlets,
            workers: Vec::with_capacity(functions.len()),
            turns: vec![0; functions.len()],
            ready: catalogue.iter().map(|function| function.ready).collect(),
            next: catalogue.into_iter().map(|function| function.next).collect(),
            served: vec![0; functions.len()],
            renewal,
            rest: Rest::new(rest),
            was_ready: false,
            templates: Templates::default(),
            temporary,
            dying: Vec::new(),
            overdue: Overdue::new(),
            dismissed: BTreeSet::new(),
            audit: Audit::new(bus, functions.len()),
            timeout_max: functions.iter().map(|function| function.timeout).max().unwrap_or_default(),
            busy_at,
            gave_back: true,
            functions,
        };
        for function in 0..supervisor.functions.len() {
            let process = supervisor.spawn_worker(function)?;
            supervisor.workers.push(Worker::Loading { process, pause: AGAIN.0 });
        }
        Ok(supervisor)
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
            if self.audit()
                && let Some(damage) = self.damage()
            {
                return Err(io::Error::other(damage));
            }
            self.keep_workers();
        }
    }

    /// How long to sleep; `None` until woken.
    fn timeout(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let worker = self.workers.iter().filter_map(Worker::until).min();
        let worker = worker.map(|at| at.saturating_duration_since(now));
        self.calls_timeout(now).into_iter().chain(worker).chain(self.dying_timeout()).min()
    }

    fn calls_timeout(&mut self, now: Instant) -> Option<Duration> {
        if !self.bus.is_idle() {
            self.is_busy(now);
            let deadlines = self.bus.slots().iter().filter_map(|slot| slot.deadline_ns());
            let next = deadlines.min().map(|at| Duration::from_nanos(at.saturating_sub(now_ns())));
            return Some(next.map_or(TICK, |next| next.clamp(Duration::from_millis(1), TICK)));
        }
        self.rest_if_due(now);
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
        if !self.bus.is_idle() {
            return Some(TICK);
        }
        self.rest_timeout(now).into_iter().chain(self.trim_timeout()).min()
    }

    /// Something is under way, or was until just now.
    fn is_busy(&mut self, now: Instant) {
        self.busy_at = now;
        self.gave_back = false;
        self.wake_up();
    }

    /// Sleeps; `None` when the agent is gone.
    fn sleep(&self, timeout: Option<Duration>) -> io::Result<Option<Woken>> {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<PollFd<'_>> =
            vec![readable(self.agent.as_fd()), readable(self.wake.as_fd()), readable(self.ended.as_fd())];
        let loading: Vec<(usize, BorrowedFd<'_>)> =
            self.workers.iter().enumerate().filter_map(|(index, worker)| Some((index, worker.status()?))).collect();
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

    fn tell(&self, event: &Event) {
        // An agent that cannot be told is gone, which the loop sees next.
        let _gone = send(self.agent.as_fd(), event, &[]);
    }

    /// A kill for want of memory that nobody was told of was none of a call's own process.
    fn forget_kills(&self) {
        self.outlets.kills.forget();
        self.outlets.groups.iter().flatten().for_each(|group| group.kills.forget());
    }

    /// Takes note of every process that has ended.
    fn reap(&mut self) {
        while let Ok(Some(_)) = self.ended.read_signal() {}
        while let Some((pid, end)) = reap_one() {
            if let Some(function) = self.workers.iter().position(|worker| worker.is(pid)) {
                let reason = self.out_of_memory(end, Some(function));
                self.worker_ended(function, Some(pid), &reason.unwrap_or_else(|| format!("the worker {end}")));
            } else if let Some(slot) = self.slot_of(pid).filter(|slot| !self.is_dying(*slot)) {
                self.instance_ended(slot, end);
            }
        }
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

fn drain(event: &OwnedFd) {
    let mut count = [0; 8];
    // Whether it was there or not: it is not now.
    let _count = nix::unistd::read(event, &mut count);
}
