//! Reaping: which process has ended, and how. By the system call itself, as libraries have no name for real-time signals.

use std::fmt;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal of this number.
    Killed(i32),
}

impl End {
    /// Whether it was SIGKILL, which nobody inside sends without being asked but the kernel.
    pub(crate) fn by_sigkill(self) -> bool {
        self == Self::Killed(libc::SIGKILL)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by signal {number} ({signal})"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
        }
    }
}

/// Reaps one child that has ended; `None` if there is none.
#[allow(unsafe_code, reason = "waitpid(2) whose status is looked at here")]
pub(crate) fn reap_one() -> Option<(Pid, End)> {
    let mut status = 0;
    // SAFETY: the kernel writes one number to `status`.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let end = if libc::WIFSIGNALED(status) {
        End::Killed(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    };
    (pid > 0).then(|| (Pid::from_raw(pid), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_end_is_told() {
        assert_eq!(End::Exited(3).to_string(), "exited with status 3");
        assert_eq!(End::Killed(6).to_string(), "was killed by signal 6 (SIGABRT)");
        assert_eq!(End::Killed(34).to_string(), "was killed by signal 34", "a real-time signal has no name");
        assert!(End::Killed(9).by_sigkill() && !End::Exited(9).by_sigkill());
    }
}
