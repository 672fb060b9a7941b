//! Starting a supervisor, up to the point where it starts the workers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::SockType;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use sandbar_supervisor::protocol::{self, Event, FunctionGroup, Go, Plan, Received};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::phases::Phases;
use super::process::Process;
use super::{Grounds, SandboxError, Specification, credential_pair, host, next_event, plan, watched};
use crate::cgroup::Cgroup;

/// How long the supervisor may take to build the sandbox.
const BUILD_MAX: Duration = Duration::from_secs(20);
/// Users of one application: as many as the kernel's own default for a container.
pub(crate) const USERS_PER_APPLICATION: u32 = 65_536;

/// What is left at the supervisor's side once the sandbox has begun.
pub(super) struct Ends {
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Starts the supervisor and brings it to the point where it starts the workers.
pub(super) async fn make_process(
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
            | Event::WorkerKept { .. }
            | Event::Rests { .. }) => {
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
