//! The processes of a measurement: forked, pinned, waited for with a bound, and killed whichever way the bench ends.
//!
//! The bench itself has one thread, so that a fork takes all of it along.
#![allow(unsafe_code, reason = "fork, prctl, pidfd_open and _exit have no safe wrappers")]

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

use crate::pinning::pin;

/// A process of the bench's own. Dropped, it is killed and reaped.
#[derive(Debug)]
pub(crate) struct Process {
    what: String,
    pid: Pid,
    /// Readable once the process has ended, so that waiting for it can have a bound and needs no turn of a processor.
    ended: OwnedFd,
    reaped: bool,
}

impl Process {
    /// Runs `work` in a process of its own, on one processor if one is named.
    pub(crate) fn start(what: &str, processor: Option<usize>, work: impl FnOnce()) -> Self {
        let bench = getpid();
        // SAFETY: the bench has one thread, so the child may do whatever the parent may.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => run(bench, processor, work),
            ForkResult::Parent { child } => {
                // SAFETY: no memory is involved.
                let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
                let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).unwrap();
                // SAFETY: the kernel has just given us this descriptor.
                let ended = unsafe { OwnedFd::from_raw_fd(fd) };
                Self { what: what.to_owned(), pid: child, ended, reaped: false }
            }
        }
    }

    /// Waits until the process has done its work.
    pub(crate) fn wait(mut self, within: Duration) {
        let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::try_from(within).unwrap()).unwrap();
        assert!(
            ready == 1,
            "{}: not done within {} s: a wake-up was lost, or the host stands still",
            self.what,
            within.as_secs()
        );
        let status = waitpid(self.pid, None).unwrap();
        self.reaped = true;
        assert_eq!(status, WaitStatus::Exited(self.pid, 0), "{}", self.what);
    }

    /// Ends the bench if the process is no longer there.
    pub(crate) fn must_live(&mut self) {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap();
        self.reaped = status != WaitStatus::StillAlive;
        assert!(!self.reaped, "{}: {status:?}", self.what);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            kill(self.pid, Signal::SIGKILL).ok();
            waitpid(self.pid, None).ok();
        }
    }
}

/// The child's side. It never returns, so that nothing the parent owns is dropped twice.
fn run(bench: Pid, processor: Option<usize>, work: impl FnOnce()) -> ! {
    let done = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        assert_eq!(getppid(), bench, "the bench ended before its process began");
        if let Some(processor) = processor {
            pin(processor);
        }
        work();
    }));
    // What went wrong has been printed by the panic.
    // SAFETY: the process ends here, and leaves the parent's buffers and destructors to the parent.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}
