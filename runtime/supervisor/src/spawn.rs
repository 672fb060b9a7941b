//! Starting a worker's process.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{ForkResult, Pid, execve, fork};
use sandbar_function::process::enter_rules;
use sandbar_function::template::NAME_TO_COME;
use sandbar_function::worker::{FUNCTION_VARIABLE, descriptors, give_up};

use crate::landlock::Rules;
use crate::memory::MemoryKills;
use crate::protocol::{FunctionPlan, Program};
use crate::{executable, identity, seccomp};

/// The descriptors that workers get.
#[derive(Debug)]
pub struct Outlets {
    /// The segment.
    pub segment: OwnedFd,
    /// The eventfd that wakes the agent.
    pub out_event: OwnedFd,
    /// The socket for reports of traced calls.
    pub trace: OwnedFd,
    /// `/dev/null`.
    pub null: OwnedFd,
    /// The second wall, where the kernel has it.
    pub rules: Option<Rules>,
    /// Kills for want of memory in the sandbox's own control group.
    pub kills: MemoryKills,
    /// By function, the control groups of those that have some of their own.
    pub groups: Vec<Option<OwnGroup>>,
    /// One log pipe for each function.
    pub logs: Vec<OwnedFd>,
}

/// The control groups of one function.
#[derive(Debug)]
pub struct OwnGroup {
    /// Kills for want of memory there.
    pub kills: MemoryKills,
    /// For each group, the file to which a process writes to enter it.
    pub entries: Vec<OwnedFd>,
}

impl Outlets {
    /// Where kills of a function's processes for want of memory are counted.
    #[must_use]
    pub fn memory_kills(&self, function: usize) -> &MemoryKills {
        self.groups.get(function).and_then(Option::as_ref).map_or(&self.kills, |group| &group.kills)
    }
}

/// A worker's process, just started, and the socket on which it says that it is ready.
#[derive(Debug)]
pub struct Spawned {
    /// The process, in the sandbox; `None` until it has said so, if a template forks it.
    pub pid: Option<Pid>,
    /// Ends without a word when the process ends without one. It forks nothing before this is closed.
    pub status: OwnedFd,
}

/// Forks and becomes the worker of a function, in this turn of its workers.
///
/// # Errors
/// When there is no room for a process or a socket.
#[allow(unsafe_code, reason = "fork")]
pub fn spawn(outlets: &Outlets, index: usize, turn: u32, plan: &FunctionPlan) -> io::Result<Spawned> {
    let (status, report) = status_pair()?;
    // SAFETY: the supervisor has one thread, so the child may do whatever the supervisor may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Spawned { pid: Some(child), status }),
        ForkResult::Child => {
            drop(status);
            match become_worker_of(outlets, (index, turn), plan, report) {
                Ok(never) => match never {},
                Err(error) => give_up(&Chain(error.as_ref())),
            }
        }
    }
}

/// The two ends of a status socket: the supervisor's and the worker's.
pub(crate) fn status_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (status, report) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    // Whoever holds the other end open must not hold up the supervisor.
    fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((status, report))
}

/// Forks and becomes a template of Python workers, which hears of them on this socket. What it prints is in the log of the function for
/// which it is started.
#[allow(unsafe_code, reason = "fork")]
pub(crate) fn spawn_template(
    outlets: &Outlets,
    index: usize,
    control: OwnedFd,
    interpreter: &Path,
    worker: &Path,
) -> io::Result<()> {
    // SAFETY: the supervisor has one thread, so the child may do whatever the supervisor may.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => {
            let became = || -> Result<Infallible, Box<dyn std::error::Error>> {
                let kills = take_places(outlets, index, control)?;
                drop(kills);
                identity::become_worker(identity::TEMPLATE_ID)?;
                enter_rules(OWN_RULES)?;
                seccomp::confine_template()?;
                Ok(execute(&[interpreter, Path::new("-B"), Path::new("-s"), worker], NAME_TO_COME)?)
            };
            match became() {
                Ok(never) => match never {},
                Err(error) => give_up(&Chain(error.as_ref())),
            }
        }
    }
}

struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn become_worker_of(
    outlets: &Outlets,
    (index, turn): (usize, u32),
    plan: &FunctionPlan,
    report: OwnedFd,
) -> Result<Infallible, Box<dyn std::error::Error>> {
    // Before any code of the application runs.
    identity::enter_groups(outlets.groups.get(index).and_then(Option::as_ref).map_or(&[][..], |own| &own.entries))?;
    let kills = take_places(outlets, index, report)?;
    identity::become_worker(identity::worker_id(index, turn))?;
    enter_rules(OWN_RULES)?;
    seccomp::confine_worker()?;
    match &plan.program {
        Program::Executable { path } => executable::serve(plan, path, &kills),
        Program::Native { path } => Ok(execute(&[path.as_path()], &plan.name)?),
        Program::Python { interpreter, worker, code, handler } => {
            let arguments = [interpreter, Path::new("-B"), Path::new("-s"), worker, code, Path::new(handler)];
            Ok(execute(&arguments, &plan.name)?)
        }
    }
}

/// Puts all that a worker of this function is to have in its places, and closes everything else; what is left is the count of kills.
fn take_places(outlets: &Outlets, index: usize, report: OwnedFd) -> Result<MemoryKills, Box<dyn std::error::Error>> {
    let log = outlets.logs.get(index).ok_or("the plan has no log for this function")?;
    let log = log.as_fd();
    let places = [
        (outlets.null.as_fd(), 0),
        (log, 1),
        (log, 2),
        (outlets.segment.as_fd(), descriptors::SEGMENT),
        (outlets.out_event.as_fd(), descriptors::OUT_EVENT),
        (outlets.trace.as_fd(), descriptors::TRACE),
        (report.as_fd(), descriptors::STATUS),
        (outlets.rules.as_ref().map_or(outlets.null.as_fd(), |rules| rules.instance.as_fd()), descriptors::RULES),
        (outlets.rules.as_ref().map_or(outlets.null.as_fd(), |rules| rules.worker.as_fd()), OWN_RULES),
        (outlets.memory_kills(index).file(), KILLS),
    ];
    place(&places)?;
    std::mem::forget(report);
    let kills = memory_kills()?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(kills)
}

/// Where the worker's own rules are, until it has entered them.
const OWN_RULES: RawFd = descriptors::END;
/// Where the count of kills for want of memory is. It closes when a program is executed.
const KILLS: RawFd = descriptors::END + 1;

#[allow(unsafe_code, reason = "descriptors by number")]
fn memory_kills() -> io::Result<MemoryKills> {
    // SAFETY: it was put into this place just now, and nobody else takes it.
    let file = unsafe { OwnedFd::from_raw_fd(KILLS) };
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(MemoryKills::new(file))
}

/// Puts descriptors in their places and closes all others.
#[allow(unsafe_code, reason = "descriptors by number")]
fn place(places: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<()> {
    const CLEAR_OF_ALL_PLACES: RawFd = 64;
    let mut lifted = Vec::with_capacity(places.len());
    for (fd, place) in places {
        // SAFETY: no memory is involved.
        let high = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, CLEAR_OF_ALL_PLACES) };
        if high < 0 {
            return Err(io::Error::last_os_error());
        }
        lifted.push((high, *place));
    }
    for (high, place) in lifted {
        // SAFETY: whatever was in this place belongs to the supervisor this process was forked from; nothing of it is used
        // any more.
        if unsafe { libc::dup2(high, place) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: as above, for all the others.
    if unsafe { libc::close_range(KILLS.cast_unsigned() + 1, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The environment of every process of the application, but for the variables of its call.
pub fn environment(function: &str) -> Vec<(&'static str, String)> {
    vec![
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("HOME", "/tmp".to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        // Packages in the home directory, which calls can write to, must not be loaded by the next worker.
        ("PYTHONNOUSERSITE", "1".to_owned()),
        // Libraries that start a thread for each processor when they are loaded would make forks of them impossible.
        ("OMP_NUM_THREADS", "1".to_owned()),
        ("OPENBLAS_NUM_THREADS", "1".to_owned()),
        (FUNCTION_VARIABLE, function.to_owned()),
    ]
}

/// This program ignores SIGPIPE, as Rust programs do; others expect to find it as the system has it.
#[allow(unsafe_code, reason = "signal dispositions")]
fn restore_broken_pipe_signal() -> io::Result<()> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

fn execute(arguments: &[&Path], function: &str) -> io::Result<Infallible> {
    let text = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes());
    let arguments = arguments.iter().map(|argument| text(argument)).collect::<Result<Vec<_>, _>>()?;
    let environment = environment(function).into_iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    let environment = environment.collect::<Result<Vec<_>, _>>()?;
    std::env::set_current_dir("/app")?;
    restore_broken_pipe_signal()?;
    let program = arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
    execve(program, &arguments, &environment).map_err(|errno| {
        let path = Path::new(OsStr::from_bytes(program.as_bytes()));
        io::Error::other(format!("cannot run {}: {}", path.display(), why_not_run(path, &errno.into())))
    })
}

/// The kernel's word for a missing interpreter is the same as for a missing program.
pub(crate) fn why_not_run(program: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound && program.exists() {
        return "the loader or interpreter that it names is not in the sandbox's root file system".to_owned();
    }
    error.to_string()
}
