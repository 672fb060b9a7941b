//! The first process of a sandbox, as its agent holds it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::{SandboxError, watched};

/// How long the processes of a killed sandbox may take to be gone before their control groups are told to kill them, which
/// thaws the frozen.
const END_MAX: Duration = Duration::from_secs(2);
/// The first process of a sandbox. Dropped, it is killed and, with it, everything in its process id namespace.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process of this id, which is a child of ours that nobody has reaped: the id cannot be another's yet.
    pub(super) fn watch(pid: Pid) -> Result<Self, SandboxError> {
        let pidfd = pidfd_open(pid).map_err(|source| SandboxError::Host { step: "watch the supervisor", source })?;
        Ok(Self { pid, pidfd: watched(pidfd)? })
    }

    fn kill(&self) {
        // SIGKILL to the first process of a process id namespace: the kernel kills all others before it lets it go.
        let _gone = pidfd_kill(self.pidfd.get_ref().as_fd());
    }

    pub(super) async fn end(&self) {
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
