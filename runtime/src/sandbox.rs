//! A sandbox, from the host's side: made, watched and ended.
//!
//! ```text
//!   start:  segment, pipes ─▶ supervisor's process ─▶ Plan ─▶ Created ─▶ control groups, id maps ─▶ Go ─▶ Ready
//!   end:    kill PID 1 (the kernel kills all others with it) ─▶ reap ─▶ remove the control groups
//! ```
//!
//! A [`Sandbox`] that is dropped is killed; only its control groups then stay until [`Sandbox::end`] or the next start's
//! sweep.

mod error;
mod launch;
mod phases;
mod plan;
mod process;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use sandbar_bus::{AgentSide, Catalogue, Function, Geometry, Layout, Segment};
use sandbar_supervisor::protocol::{self, Event, ReceiveError, Received, Renewal};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::cgroup::{Cgroup, CgroupError, CgroupLimits, Hierarchy};
use crate::inside::Inside;
use crate::manifest::{Application, Ready, RestAfter, Runtime};
use crate::python::Python;
use crate::rootfs::Rootfs;
use crate::watch::watch;
pub use error::SandboxError;
use error::host;
pub(crate) use launch::USERS_PER_APPLICATION;
use launch::{Ends, make_process};
use phases::Phases;
use process::Process;

/// How long the workers may take to load their code; the supervisor gives up before.
const LOAD_MAX: Duration = Duration::from_secs(70);
/// Instances that a function keeps ready at most, unless its manifest or the host says otherwise.
const READY_AUTO_MAX: usize = 8;
/// This part of an application's memory may instances of one chain hold that have served.
const LINGERING_SHARE: u64 = 2;

/// When applications are put to rest, unless their manifests say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRest {
    /// As [`Rest::ready`](crate::manifest::Rest::ready).
    pub ready: RestAfter,
    /// As [`Rest::workers`](crate::manifest::Rest::workers).
    pub workers: RestAfter,
    /// As [`Rest::sandbox`](crate::manifest::Rest::sandbox).
    pub sandbox: RestAfter,
}

impl Default for HostRest {
    /// So that a host of 1 GiB holds a hundred applications. What a step saves, and what the next call waits for, with five functions: instances
    /// 0.5 MiB and a fork (Python 4 MiB); workers 1.5 MiB and 6 ms (Python 6 MiB and 10 ms); the sandbox all of the rest, 0.9 MiB and 10 ms (Python
    /// 12 MiB and an interpreter's start). Each is taken when a call has become so much less likely, at four to five times the time before it.
    fn default() -> Self {
        let after = |seconds| RestAfter::Time(Duration::from_secs(seconds));
        Self { ready: after(30), workers: after(120), sandbox: after(600) }
    }
}

/// What of the host goes into every sandbox.
#[derive(Debug)]
pub(crate) struct Grounds {
    pub(crate) hierarchy: Hierarchy,
    /// Name of this host's control groups.
    pub(crate) host_name: String,
    pub(crate) inside: Inside,
    /// An empty directory.
    pub(crate) mount_point: PathBuf,
    /// Instances that any function may keep ready, at most.
    pub(crate) ready_max: Option<u32>,
    /// How long a call may have to wait for others while more come than are served.
    pub(crate) delay_max: Option<Duration>,
    /// When applications are put to rest that do not say so themselves.
    pub(crate) rest: HostRest,
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
        let (segment, segment_fd) = make_segment(application, grounds.ready_max)?;
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
                Event::Forked { .. }
                | Event::Created
                | Event::WorkerDied { .. }
                | Event::WorkerKept { .. }
                | Event::Rests { .. } => {}
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

fn make_segment(application: &Application, ready_max: Option<u32>) -> Result<(Segment, OwnedFd), SandboxError> {
    let slots = slots(application);
    let functions: Vec<Function> = application
        .functions
        .iter()
        .map(|function| Function {
            name: function.name.as_str().to_owned(),
            timeout_ns: u64::try_from(function.timeout.as_nanos()).unwrap_or(u64::MAX),
            next: function.next.clone(),
            ready: ready(function.ready, slots / application.functions.len(), ready_max),
            content_format: function.content_format,
        })
        .collect();
    let usual = Geometry::usual(functions.len(), slots, application.limits.payload_bytes);
    let geometry = usual.with_queues(application.limits.queue);
    let targets: Vec<String> = application.calls.iter().map(ToString::to_string).collect();
    let layout = Layout::new(Geometry { targets: targets.len(), ..geometry })?;
    let catalogue = Catalogue {
        application: application.name.as_str().to_owned(),
        functions,
        targets,
        spin_ns: u64::try_from(application.limits.spin.as_nanos()).unwrap_or(0),
        lingering_bytes_max: usize::try_from(application.limits.memory_bytes / LINGERING_SHARE).unwrap_or(usize::MAX),
    };
    Ok(Segment::create(layout, &catalogue)?)
}

/// How many instances of a function stand ready: of its share of the slots at most half, or a quarter where Sandbar chooses, so that more
/// calls can be under way than are waited for, but one in any case that its manifest does not rule out.
fn ready(asked: Ready, share: usize, host_max: Option<u32>) -> sandbar_bus::Ready {
    let host_max = host_max.map_or(usize::MAX, |max| max as usize);
    let part_of_share = |part: usize| (share / part).max(1).min(host_max);
    match asked {
        Ready::Auto => {
            let most = part_of_share(4).min(READY_AUTO_MAX);
            sandbar_bus::Ready { least: most.min(1), most }
        }
        Ready::Exactly(number) => sandbar_bus::Ready::exactly((number as usize).min(part_of_share(2))),
    }
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

async fn next_event(control: &AsyncFd<OwnedFd>) -> Result<Received<Event>, ReceiveError> {
    loop {
        let mut ready = control.readable().await.map_err(ReceiveError::System)?;
        match protocol::receive::<Event>(control.get_ref().as_fd()) {
            Err(ReceiveError::Nothing) => ready.clear_ready(),
            result => return result,
        }
    }
}
