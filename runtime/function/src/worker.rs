//! The worker: the long-lived process of one function. It holds the function's code, loaded, and forks an instance whenever
//! fewer stand ready than should.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use sandbar_bus::clock::now_ns;
use sandbar_bus::layout::FUNCTIONS_MAX;
use sandbar_bus::slot::Phase;
use sandbar_bus::{Bus, Function};

use crate::heap;
use crate::instance::Instance;
use crate::pool::Pool;
use crate::process::{self, Side, Standing};

/// Descriptors that the supervisor hands a worker.
pub mod descriptors {
    use std::os::fd::RawFd;

    /// The application's segment.
    pub const SEGMENT: RawFd = 3;
    /// The eventfd that wakes the host agent.
    pub const OUT_EVENT: RawFd = 4;
    /// The socket for reports of traced calls.
    pub const TRACE: RawFd = 5;
    /// The socket on which the worker says that it is ready, or why it never will be.
    pub const STATUS: RawFd = 6;
    /// The rules that instances enter: a Landlock rule set, or anything else where the kernel has none.
    pub const RULES: RawFd = 7;
    /// The first number beyond.
    pub const END: RawFd = 8;
}

/// The environment variable that names a worker's function.
pub const FUNCTION_VARIABLE: &str = "SANDBAR_FUNCTION";
/// What a worker writes to its status socket when it is ready. Anything else is the reason why it is not.
pub const READY: &str = "ready\n";
/// Instances that a worker makes for waiting messages before any of them has started, at most.
const AHEAD_MAX: usize = 8;
/// How long messages wait for instances that are being made before these are taken for lost.
const STUCK: Duration = Duration::from_millis(50);
/// Slots that each function can count on, where there are as many, so that a flood of one cannot keep those after it in a chain
/// from running.
const SLOTS_ASSURED: usize = 2;

/// A worker, attached to its application's bus.
#[derive(Debug)]
pub struct Worker {
    bus: &'static Bus,
    index: usize,
    function: Function,
    standing: Standing,
    pool: Cell<Pool>,
}

/// Why a process cannot be a worker.
#[derive(Debug)]
pub enum WorkerError {
    /// It was not started by a sandbox's supervisor.
    NotInASandbox(&'static str),
    /// The segment could not be mapped.
    Segment(sandbar_bus::segment::SegmentError),
    /// The application has no such function.
    NoSuchFunction(String),
    /// Forks of a process with several threads are not whole.
    Threads(usize),
}

impl std::fmt::Display for WorkerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotInASandbox(missing) => {
                write!(
                    f,
                    "{missing}: this program is a function of an application, and runs when `sandbar deploy` has put it on a host"
                )
            }
            Self::Segment(error) => write!(f, "{error}"),
            Self::NoSuchFunction(name) => write!(f, "this program has no function {name:?}"),
            Self::Threads(count) => write!(
                f,
                "the worker has {count} threads when it is to fork: start threads in the handler, not when the code is loaded"
            ),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Segment(error) => error.source(),
            Self::NotInASandbox(_) | Self::NoSuchFunction(_) | Self::Threads(_) => None,
        }
    }
}

impl Worker {
    /// Joins the bus as the supervisor's descriptors and environment say. To be called once in a process.
    ///
    /// # Errors
    /// When this is not a process that a supervisor started as a worker.
    pub fn join() -> Result<Self, WorkerError> {
        let name = std::env::var(FUNCTION_VARIABLE);
        Self::join_as(&name.map_err(|_| WorkerError::NotInASandbox("SANDBAR_FUNCTION is not set"))?)
    }

    /// As [`join`](Self::join), for a process that knows whose worker it is.
    ///
    /// # Errors
    /// When the supervisor's descriptors are not there, or the application has no such function.
    pub fn join_as(name: &str) -> Result<Self, WorkerError> {
        let segment = inherited(descriptors::SEGMENT)?;
        let out_event = inherited(descriptors::OUT_EVENT)?;
        close_on_exec(descriptors::TRACE)?;
        close_on_exec(descriptors::RULES)?;
        let bus: &Bus = Box::leak(Box::new(Bus::attach(segment.as_fd(), out_event).map_err(WorkerError::Segment)?));
        let none = || WorkerError::NoSuchFunction(name.to_owned());
        let index = bus.function_index(name).ok_or_else(none)?;
        let function = bus.function(index).ok_or_else(none)?;
        let standing = Standing::open().map_err(|_| WorkerError::NotInASandbox("a worker's /proc is not there"))?;
        let pool = Cell::new(Pool::new(function.ready, now_ns()));
        Ok(Self { bus, index, function, standing, pool })
    }

    /// The function this is the worker of.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Says on the status socket that the code is loaded, and waits until the supervisor closes that: another worker of the function may
    /// be at work until then.
    ///
    /// # Errors
    /// When the process has threads by now, which a fork would leave behind.
    pub fn ready(&self) -> Result<(), WorkerError> {
        let threads = process::threads();
        if threads > 1 {
            return Err(WorkerError::Threads(threads));
        }
        heap::settle();
        if let Some(mut status) = report(READY) {
            // Whatever ends the wait, it is over.
            let _closed = status.read(&mut [0]);
        }
        Ok(())
    }

    /// Sleeps until another instance is wanted, and forks it: returns in the new instance, never in the worker.
    #[must_use]
    pub fn next_instance(&self) -> Instance {
        loop {
            let slot = self.next_slot();
            if let Ok(Some(instance)) = self.fork_into(slot) {
                return instance;
            }
        }
    }

    /// Sleeps until another instance is wanted, and reserves its slot.
    #[must_use]
    pub fn next_slot(&self) -> usize {
        let bell = self.bus.worker_bell(self.index);
        let mut stuck = false;
        loop {
            let heard = bell.listen();
            if let Some(slot) = self.wanted_slot(stuck) {
                return slot;
            }
            // Messages that wait are on their way to instances that are. Should those be stopped, or lie, others are made.
            let patience = (self.bus.waiting(self.index) > 0).then_some(STUCK);
            let began_ns = now_ns();
            bell.sleep(heard, 0, patience);
            stuck =
                patience.is_some_and(|patience| u128::from(now_ns().saturating_sub(began_ns)) >= patience.as_nanos());
        }
    }

    /// Forks an instance into a reserved slot. `None` in the worker.
    ///
    /// # Errors
    /// When there is no room for another process: the slot is free again, after a pause that lets others end.
    pub fn fork_into(&self, slot: usize) -> std::io::Result<Option<Instance>> {
        let began_ns = now_ns();
        match self.standing.fork(&self.bus.slots()[slot].pid) {
            Ok(Side::Parent) => {
                let mut pool = self.pool.get();
                pool.made(now_ns().saturating_sub(began_ns));
                self.pool.set(pool);
                // One at a time: whoever has a call to serve goes first.
                std::thread::yield_now();
                Ok(None)
            }
            Ok(Side::Child) => Ok(Some(Instance::begin(self.bus, self.index, self.function.clone(), slot))),
            Err(error) => {
                self.bus.slots()[slot].release();
                std::thread::sleep(Duration::from_millis(5));
                Err(error)
            }
        }
    }

    /// Whether the instance in a slot is there for a message that comes now. One that has been chosen to take a message is not,
    /// even if it has not woken up yet: whoever finds nobody to choose wakes the worker, which must not count on that one then.
    /// Nor, when messages are stuck, is one that should have been ready by now.
    fn can_take(&self, slot: usize, phase: Phase, stuck: bool) -> bool {
        match phase {
            Phase::Forking => !stuck,
            Phase::Ready => self.bus.is_waiting_for_call(slot, self.index),
            Phase::Free | Phase::Running | Phase::Done => false,
        }
    }

    /// A slot, if fewer instances stand ready (or are on their way) than wanted, and if the function may have another.
    fn wanted_slot(&self, stuck: bool) -> Option<usize> {
        let functions = self.bus.layout().geometry.functions;
        let mut held = [0usize; FUNCTIONS_MAX];
        let held = &mut held[..functions];
        let (mut free, mut ahead) = (0usize, 0usize);
        for (index, slot) in self.bus.slots().iter().enumerate() {
            let Some(state) = slot.state() else { continue };
            if state.phase == Phase::Free {
                free += 1;
            } else if state.function < functions {
                held[state.function] += 1;
                ahead += usize::from(state.function == self.index && self.can_take(index, state.phase, stuck));
            }
        }
        let waiting = self.bus.waiting(self.index);
        let mut pool = self.pool.get();
        let ready = pool.look(now_ns(), ahead, waiting);
        let ready = if self.bus.keeps_none_ready(self.index) { 0 } else { ready };
        let wanted = ready.max(waiting.min(AHEAD_MAX));
        self.pool.set(pool);
        if ahead >= wanted {
            return None;
        }
        let assured_each = SLOTS_ASSURED.min(self.bus.slots().len() / functions);
        let others = held.iter().enumerate().filter(|(function, _)| *function != self.index);
        let assured: usize = others.map(|(_, held)| assured_each.saturating_sub(*held)).sum();
        if held[self.index] >= assured_each && free <= assured {
            return None;
        }
        self.bus.reserve_slot(self.index).map(|(slot, _)| slot)
    }
}

/// Writes to the status socket, if there is one, and returns it.
fn report(status: &str) -> Option<File> {
    let mut socket = File::from(inherited(descriptors::STATUS).ok()?);
    // Nobody else is left to be told that the supervisor is not there.
    let _gone = socket.write_all(status.as_bytes());
    Some(socket)
}

/// Says why this process will never be a worker, and ends it.
pub fn give_up(reason: &dyn std::fmt::Display) -> ! {
    let reason = reason.to_string();
    // A process that was started by hand has a person at its standard error.
    let _nobody = writeln!(std::io::stderr(), "{reason}");
    drop(report(&reason));
    process::exit_now(1)
}

/// Keeps a descriptor that the supervisor promised from programs that the function runs.
#[allow(unsafe_code, reason = "descriptors that were inherited by number")]
fn close_on_exec(fd: RawFd) -> Result<(), WorkerError> {
    // SAFETY: the call sets the descriptor's flags, if it exists.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(WorkerError::NotInASandbox("the descriptors of a sandbox are not open"));
    }
    Ok(())
}

/// Takes a descriptor that the supervisor promised.
#[allow(unsafe_code, reason = "descriptors that were inherited by number")]
fn inherited(fd: RawFd) -> Result<OwnedFd, WorkerError> {
    close_on_exec(fd)?;
    // SAFETY: it is open, it is the supervisor's promise, and each is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
