//! A sandbox, from the host's side: made, watched and ended.
//!
//! ```text
//!   start:  segment, pipes ─▶ supervisor's process ─▶ Plan ─▶ Created ─▶ control groups, id maps ─▶ Go ─▶ Ready
//!   end:    kill PID 1 (the kernel kills all others with it) ─▶ reap ─▶ remove the control groups
//! ```
//!
//! A [`Sandbox`] that is dropped is killed; only its control groups then stay until [`Sandbox::end`] or the next start's
//! sweep.

mod phases;
mod plan;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use sandbar_bus::{AgentSide, Catalogue, Function, Geometry, Layout, Segment};
use sandbar_supervisor::protocol::{self, Event, FunctionGroup, Go, Plan, ReceiveError, Received, Renewal};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::cgroup::{Cgroup, CgroupError, CgroupLimits, Hierarchy};
use crate::inside::Inside;
use crate::manifest::{Application, Runtime};
use crate::python::Python;
use crate::rootfs::Rootfs;
use crate::watch::watch;
use phases::Phases;

/// How long the supervisor may take to build the sandbox.
const BUILD_MAX: Duration = Duration::from_secs(20);
/// How long the workers may take to load their code; the supervisor gives up before.
const LOAD_MAX: Duration = Duration::from_secs(70);
/// How long the processes of a killed sandbox may take to be gone before their control groups are told to kill them, which
/// thaws the frozen.
const END_MAX: Duration = Duration::from_secs(2);
/// Users of one application: as many as the kernel's own default for a container.
pub(crate) const USERS_PER_APPLICATION: u32 = 65_536;
/// Instances that each function keeps ready, where that leaves as many again for calls under way; else it keeps one.
const READY_PER_FUNCTION: usize = 2;

/// What of the host goes into every sandbox.
#[derive(Debug)]
pub(crate) struct Grounds {
    pub(crate) hierarchy: Hierarchy,
    /// Name of this host's control groups.
    pub(crate) host_name: String,
    pub(crate) inside: Inside,
    /// An empty directory.
    pub(crate) mount_point: PathBuf,
    /// When workers are renewed.
    pub(crate) renewal: Renewal,
}

/// What one sandbox is made of.
#[derive(Clone, Debug)]
pub(crate) struct Specification {
    pub(crate) application: Arc<Application>,
    /// The application's files.
    pub(crate) directory: PathBuf,
    /// Name of its control groups; no other sandbox of this host has it.
    pub(crate) sandbox_name: String,
    /// The first user id of the host that it may use.
    pub(crate) first_user: u32,
    /// Needed when a function is in Python.
    pub(crate) python: Option<Python>,
    /// In place of the host's system directories.
    pub(crate) rootfs: Option<Arc<Rootfs>>,
}

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A step on the host's side.
    #[error("cannot {step}")]
    Host {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The segment cannot be laid out.
    #[error("the limits do not fit a segment")]
    Geometry(#[from] sandbar_bus::layout::GeometryError),
    /// The segment cannot be made.
    #[error("cannot make the application's segment")]
    Segment(#[from] sandbar_bus::segment::SegmentError),
    /// The control groups cannot be made.
    #[error("cannot limit the sandbox")]
    ControlGroups(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A step inside.
    #[error("the sandbox cannot be built: {0}")]
    Inside(String),
    /// A worker does not come up.
    #[error("function {function}: {reason}")]
    Worker {
        /// The function.
        function: String,
        /// What its worker said, or how it ended.
        reason: String,
    },
    /// Who was to start the supervisor was killed.
    #[error("the sandbox's launch was ended by {0}")]
    Launch(Signal),
    /// The supervisor ended, or said what makes no sense.
    #[error("the sandbox ended while it was made")]
    Ended(#[source] ReceiveError),
    /// Nobody wants it any longer.
    #[error("the application was removed, or the host stops, while its sandbox was made")]
    Unwanted,
    /// It took too long.
    #[error("the sandbox was not ready after {} s", .0.as_secs())]
    Slow(Duration),
}

impl From<CgroupError> for SandboxError {
    fn from(error: CgroupError) -> Self {
        Self::ControlGroups(Box::new(error))
    }
}

fn host(step: &'static str) -> impl FnOnce(nix::errno::Errno) -> SandboxError {
    move |errno| SandboxError::Host { step, source: errno.into() }
}

/// A running sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    process: Process,
    /// Until it is removed.
    cgroup: Mutex<Option<Cgroup>>,
    control: AsyncFd<OwnedFd>,
    /// The application bus.
    pub(crate) bus: AgentSide,
    /// Readable when something has come out of the bus.
    pub(crate) out_event: AsyncFd<OwnedFd>,
    /// Reports of traced calls.
    pub(crate) trace: OwnedFd,
    wake: EventFd,
}

/// The reading ends of a sandbox's log pipes: the sandbox's own, then one for each function.
pub(crate) type LogPipes = Vec<OwnedFd>;

/// The first process of a sandbox. Dropped, it is killed and, with it, everything in its process id namespace.
#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

/// What is left at the supervisor's side once the sandbox has begun.
struct Ends {
    descriptors: Vec<OwnedFd>,
}

impl Sandbox {
    /// Makes a sandbox, and returns when all its workers have loaded their code, which may take a while. Whoever does not want it
    /// any longer lets `unwanted` complete.
    ///
    /// # Errors
    /// The step that failed; nothing is left of it.
    pub(crate) async fn start(
        grounds: &Grounds,
        specification: &Specification,
        read_logs: impl FnOnce(LogPipes),
        unwanted: impl Future<Output = ()>,
    ) -> Result<Self, SandboxError> {
        let mut phases = Phases::begin();
        let application = &specification.application;
        let (segment, segment_fd) = make_segment(application)?;
        let (logs, log_ends) = log_pipes(application.functions.len())?;
        // From the start: code that prints while it is loaded must not wait for somebody to read it.
        read_logs(logs);
        let out_event =
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(host("make an eventfd"))?;
        let wake =
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).map_err(host("make an eventfd"))?;
        let (trace, trace_end) = credential_pair(SockType::Stream)?;
        let copy = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|source| SandboxError::Host { step: "copy a descriptor", source })
        };
        let own_root = specification.rootfs.as_ref().map(|rootfs| rootfs.detached_mount()).transpose();
        let own_root = own_root.map_err(|source| SandboxError::Host { step: "mount the root file system", source })?;
        let mut descriptors: Vec<OwnedFd> = own_root.into_iter().collect();
        descriptors.extend([segment_fd, copy(out_event.as_fd())?, trace_end, copy(wake.as_fd())?]);
        let bus = AgentSide::new(segment, copy(out_event.as_fd())?);
        let out_event = watched(out_event)?;

        let cgroup = make_cgroup(grounds, specification)?;
        phases.limited();
        let made = match cgroup.memory_kills() {
            Ok(kills) => {
                descriptors.push(kills);
                descriptors.extend(log_ends);
                make_process(grounds, specification, &cgroup, Ends { descriptors }, &mut phases).await
            }
            Err(error) => Err(error.into()),
        };
        let (process, control) = match made {
            Ok(made) => made,
            Err(error) => {
                remove_cgroup(cgroup).await;
                return Err(error);
            }
        };
        let sandbox = Self { process, cgroup: Mutex::new(Some(cgroup)), control, bus, out_event, trace, wake };
        let ready = async {
            tokio::select! {
                ready = sandbox.until_ready(application) => ready,
                () = unwanted => Err(SandboxError::Unwanted),
            }
        };
        match timeout(LOAD_MAX, ready).await {
            Ok(Ok(())) => {
                phases.ready(&specification.sandbox_name);
                Ok(sandbox)
            }
            Ok(Err(error)) => {
                sandbox.end().await;
                Err(error)
            }
            Err(_) => {
                sandbox.end().await;
                Err(SandboxError::Slow(LOAD_MAX))
            }
        }
    }

    async fn until_ready(&self, application: &Application) -> Result<(), SandboxError> {
        loop {
            match next_event(&self.control).await.map_err(SandboxError::Ended)?.record {
                Event::Ready => return Ok(()),
                Event::Failed { reason } => return Err(SandboxError::Inside(reason)),
                Event::WorkerFailed { function, reason } => {
                    let function = application.functions.get(function).map_or("?", |function| function.name.as_str());
                    return Err(SandboxError::Worker { function: function.to_owned(), reason });
                }
                Event::Forked { .. } | Event::Created | Event::WorkerDied { .. } | Event::WorkerKept { .. } => {}
            }
        }
    }

    /// What the supervisor tells next; an error means that the sandbox is no more.
    pub(crate) async fn next_event(&self) -> Result<Event, ReceiveError> {
        Ok(next_event(&self.control).await?.record)
    }

    /// The supervisor's process id on the host.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid.as_raw().cast_unsigned()
    }

    /// What the control groups count; `None` once they are gone.
    pub(crate) fn usage(&self, count: impl FnOnce(&Cgroup) -> Result<u64, CgroupError>) -> Option<u64> {
        let cgroup = self.cgroup.lock().unwrap_or_else(PoisonError::into_inner);
        cgroup.as_ref().and_then(|cgroup| count(cgroup).ok())
    }

    /// To be called after a message was put on the bus: the supervisor, which keeps the deadlines, may sleep.
    pub(crate) fn wake_supervisor(&self) {
        if self.bus.supervisor_must_wake() {
            // A full counter wakes it as well.
            let _awake = self.wake.write(1);
        }
    }

    /// Kills everything in the sandbox and removes what the host had for it.
    pub(crate) async fn end(&self) {
        self.process.end().await;
        let cgroup = self.cgroup.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cgroup) = cgroup {
            remove_cgroup(cgroup).await;
        }
    }
}

impl Process {
    /// The process of this id, which is a child of ours that nobody has reaped: the id cannot be another's yet.
    fn watch(pid: Pid) -> Result<Self, SandboxError> {
        let pidfd = pidfd_open(pid).map_err(|source| SandboxError::Host { step: "watch the supervisor", source })?;
        Ok(Self { pid, pidfd: watched(pidfd)? })
    }

    fn kill(&self) {
        // SIGKILL to the first process of a process id namespace: the kernel kills all others before it lets it go.
        let _gone = pidfd_kill(self.pidfd.get_ref().as_fd());
    }

    async fn end(&self) {
        self.kill();
        if timeout(END_MAX, self.pidfd.readable()).await.is_err() {
            tracing::warn!(pid = self.pid.as_raw(), "a sandbox's first process does not end by itself");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // Not waited for here: killed, it becomes a zombie at worst until it is reaped.
        let reaped = waitid(Id::PIDFd(self.pidfd.get_ref().as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        if let Ok(WaitStatus::StillAlive) = reaped
            && let Ok(pidfd) = self.pidfd.get_ref().try_clone()
        {
            let reaper = std::thread::Builder::new().name("reaper".to_owned());
            let reap = move || waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED);
            if let Err(error) = reaper.spawn(reap) {
                tracing::warn!(pid = self.pid.as_raw(), %error, "a sandbox's first process stays unreaped");
            }
        }
    }
}

/// The control groups, those of functions with limits of their own included. Nothing is left of them if that fails.
fn make_cgroup(grounds: &Grounds, specification: &Specification) -> Result<Cgroup, CgroupError> {
    let application = &specification.application;
    let limits = &application.limits;
    let whole = CgroupLimits {
        memory_bytes: Some(limits.memory_bytes),
        processes: Some(limits.processes),
        cpus: Some(limits.cpus),
    };
    let own: Vec<(usize, CgroupLimits)> = application
        .functions
        .iter()
        .map(|function| CgroupLimits {
            memory_bytes: function.limits.memory_bytes,
            processes: function.limits.processes,
            cpus: function.limits.cpus,
        })
        .enumerate()
        .filter(|(_, limits)| !limits.is_empty())
        .collect();
    let mut cgroup = grounds.hierarchy.make(&grounds.host_name, &specification.sandbox_name, &whole)?;
    if let Err(error) = cgroup.divide(&own) {
        if let Err(left) = cgroup.remove() {
            tracing::warn!(sandbox = specification.sandbox_name, error = %left, "a half-made control group could not be removed");
        }
        return Err(error);
    }
    Ok(cgroup)
}

async fn remove_cgroup(cgroup: Cgroup) {
    match tokio::task::spawn_blocking(move || cgroup.remove()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = &error as &dyn std::error::Error, "a control group is left behind"),
        Err(error) => tracing::error!(%error, "a control group is left behind"),
    }
}

fn make_segment(application: &Application) -> Result<(Segment, OwnedFd), SandboxError> {
    let slots = slots(application);
    let ready = if slots >= 2 * READY_PER_FUNCTION * application.functions.len() { READY_PER_FUNCTION } else { 1 };
    let functions: Vec<Function> = application
        .functions
        .iter()
        .map(|function| Function {
            name: function.name.as_str().to_owned(),
            timeout_ns: u64::try_from(function.timeout.as_nanos()).unwrap_or(u64::MAX),
            next: function.next.clone(),
            ready,
            content_format: function.content_format,
        })
        .collect();
    let usual = Geometry::usual(functions.len(), slots, application.limits.payload_bytes);
    let targets: Vec<String> = application.calls.iter().map(ToString::to_string).collect();
    let queue_capacity = application.limits.queue;
    let layout = Layout::new(Geometry { targets: targets.len(), queue_capacity, ..usual })?;
    let catalogue = Catalogue {
        application: application.name.as_str().to_owned(),
        functions,
        targets,
        spin_ns: u64::try_from(application.limits.spin.as_nanos()).unwrap_or(0),
    };
    Ok(Segment::create(layout, &catalogue)?)
}

/// How many instances may exist at a time: every process that is neither the supervisor nor a worker may be one, but an instance
/// of an executable needs room for the program it runs, and for one that this runs.
fn slots(application: &Application) -> usize {
    let functions = application.functions.len();
    let processes = usize::try_from(application.limits.processes).unwrap_or(usize::MAX);
    let executable = application.functions.iter().any(|function| function.runtime == Runtime::Executable);
    let processes_each = if executable { 3 } else { 1 };
    let slots = processes.saturating_sub(1 + functions) / processes_each;
    slots.clamp(functions, sandbar_bus::layout::SLOTS_MAX)
}

/// One pipe for the sandbox and one for each function: the reading ends, which do not block, and the writing ends.
fn log_pipes(functions: usize) -> Result<(LogPipes, Vec<OwnedFd>), SandboxError> {
    let mut readers = Vec::with_capacity(functions + 1);
    let mut writers = Vec::with_capacity(functions + 1);
    for _ in 0..=functions {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(host("make a log pipe"))?;
        readers.push(reader);
        writers.push(writer);
    }
    Ok((readers, writers))
}

/// A pair of connected sockets; what comes from the second to the first carries its sender's process id.
fn credential_pair(kind: SockType) -> Result<(OwnedFd, OwnedFd), SandboxError> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).map_err(host("make a socket pair"))?;
    setsockopt(&ours, sockopt::PassCred, &true).map_err(host("ask for credentials"))?;
    Ok((ours, theirs))
}

fn watched(fd: impl Into<OwnedFd>) -> Result<AsyncFd<OwnedFd>, SandboxError> {
    watch(fd.into()).map_err(|source| SandboxError::Host { step: "watch a descriptor", source })
}

/// Starts the supervisor and brings it to the point where it starts the workers.
async fn make_process(
    grounds: &Grounds,
    specification: &Specification,
    cgroup: &Cgroup,
    ends: Ends,
    phases: &mut Phases,
) -> Result<(Process, AsyncFd<OwnedFd>), SandboxError> {
    let (control, theirs) = credential_pair(SockType::SeqPacket)?;
    let plan = plan::plan(specification, grounds);
    send_plan(control.as_fd(), &plan, cgroup, &ends)?;
    let program = grounds.inside.supervisor();
    let control = tokio::task::spawn_blocking(move || launch(&program, control, theirs)).await;
    let control =
        control.map_err(|error| SandboxError::Host { step: "start the supervisor", source: error.into() })??;
    let control = watched(control)?;
    let created = timeout(BUILD_MAX, until_created(&control)).await.map_err(|_| SandboxError::Slow(BUILD_MAX));
    let process = created.and_then(|created| created)?;
    phases.built();
    let pid = process.pid;
    let entries = cgroup.admit(pid)?;
    let entry_fds: Vec<_> = entries.iter().map(AsRawFd::as_raw_fd).collect();
    map_users(pid, specification.first_user).map_err(|source| SandboxError::Host { step: "map users", source })?;
    protocol::send(control.get_ref().as_fd(), &Go {}, &entry_fds)
        .map_err(|source| SandboxError::Host { step: "let the supervisor go on", source })?;
    phases.entered();
    Ok((process, control))
}

/// Hears of the first process, from its launcher, and then of its progress, from itself. The two may come in any order. An
/// error on the way ends the process if it is known; the launcher tells of it before anything else can go wrong.
async fn until_created(control: &AsyncFd<OwnedFd>) -> Result<Process, SandboxError> {
    let mut process = None;
    let mut outcome = None;
    loop {
        match next_event(control).await.map_err(SandboxError::Ended)?.record {
            Event::Forked { pid } => process = Some(Process::watch(Pid::from_raw(pid))?),
            Event::Created => outcome = Some(Ok(())),
            Event::Failed { reason } => outcome = Some(Err(SandboxError::Inside(reason))),
            event @ (Event::Ready
            | Event::WorkerFailed { .. }
            | Event::WorkerDied { .. }
            | Event::WorkerKept { .. }) => {
                return Err(SandboxError::Inside(format!("the supervisor began with {event:?}")));
            }
        }
        match (process.take(), outcome.take()) {
            (Some(process), Some(Ok(()))) => return Ok(process),
            (Some(_), Some(Err(error))) => return Err(error),
            (None, Some(Err(error))) => return Err(launch_error(control, error).await),
            (pending, other) => (process, outcome) = (pending, other),
        }
    }
}

/// A failure that came before the word of the first process: from the launcher, and then the socket is closed; or from the
/// first process itself, and then that word comes yet, and the process is reaped by it.
async fn launch_error(control: &AsyncFd<OwnedFd>, error: SandboxError) -> SandboxError {
    if let Ok(Received { record: Event::Forked { pid }, .. }) = next_event(control).await {
        drop(Process::watch(Pid::from_raw(pid)));
    }
    error
}

/// Sends the plan, and the control groups of functions, to where the supervisor will find them.
fn send_plan(control: BorrowedFd<'_>, plan: &Plan, cgroup: &Cgroup, ends: &Ends) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Host { step: "send the plan", source };
    let descriptors: Vec<_> = ends.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    protocol::send(control, plan, &descriptors).map_err(failed)?;
    for function in plan.functions.iter().enumerate().filter(|(_, plan)| plan.own_group).map(|(index, _)| index) {
        if let Some(entry) = cgroup.function(function)? {
            let descriptors: Vec<_> =
                [&entry.memory_kills].into_iter().chain(&entry.entries).map(AsRawFd::as_raw_fd).collect();
            protocol::send(control, &FunctionGroup { function }, &descriptors).map_err(failed)?;
        }
    }
    Ok(())
}

/// Starts the supervisor's program, which forks the sandbox's first process as our child and ends.
fn launch(program: &Path, control: OwnedFd, theirs: OwnedFd) -> Result<OwnedFd, SandboxError> {
    let step = |step| move |source| SandboxError::Host { step, source };
    let mut command = Command::new(program);
    command.arg0("sandbar-supervisor").env_clear().current_dir("/");
    command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own, which all of the sandbox inherits: what a terminal sends to the agent's is for the agent alone.
    command.process_group(0);
    let child = command.spawn().map_err(step("start the supervisor"))?;
    // Our copy of its end goes with the command: only then do we see the socket close with the supervisor.
    drop(command);
    launched(Pid::from_raw(child.id().cast_signed()))?;
    nix::fcntl::fcntl(&control, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .map_err(host("set up the control socket"))?;
    Ok(control)
}

/// Waits for the end of a launcher. One that was killed may have forked the sandbox's first process and not told of it:
/// whatever is in its process group is then killed and reaped here, as nobody else knows of it.
fn launched(launcher: Pid) -> Result<(), SandboxError> {
    let failed = || host("wait for the supervisor's launch");
    // Not reaped yet: its id, and so the group's, cannot be another's.
    let ended = waitid(Id::Pid(launcher), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).map_err(failed())?;
    let WaitStatus::Signaled(_, signal, _) = ended else {
        // If it failed by itself, it has told why.
        return waitpid(launcher, None).map(|_| ()).map_err(failed());
    };
    // No group: it was killed before it had one.
    let _none = killpg(launcher, Signal::SIGKILL);
    waitpid(launcher, None).map_err(failed())?;
    while waitpid(Pid::from_raw(-launcher.as_raw()), None).is_ok() {}
    Err(SandboxError::Launch(signal))
}

/// Maps the sandbox's users to a range of the host's that no one else has.
fn map_users(pid: Pid, first_user: u32) -> io::Result<()> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let map = format!("0 {first_user} {USERS_PER_APPLICATION}\n");
    std::fs::write(process.join("setgroups"), "deny")?;
    std::fs::write(process.join("uid_map"), &map)?;
    std::fs::write(process.join("gid_map"), &map)
}

async fn next_event(control: &AsyncFd<OwnedFd>) -> Result<Received<Event>, ReceiveError> {
    loop {
        let mut ready = control.readable().await.map_err(ReceiveError::System)?;
        match protocol::receive::<Event>(control.get_ref().as_fd()) {
            Err(ReceiveError::Nothing) => ready.clear_ready(),
            result => return result,
        }
    }
}

#[allow(unsafe_code, reason = "pidfd_open(2) has no wrapper")]
fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(unsafe_code, reason = "pidfd_send_signal(2) has no wrapper")]
fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo stands for the one that kill(2) makes.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), Signal::SIGKILL as i32, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
