//! A process that is made by fork, without exec: it has the bus that the test has, and is there at once.
#![allow(unsafe_code, reason = "fork, kill and wait have no safe wrapper in the standard library")]

use std::io::Write;

/// What a process ends with when what it runs has panicked.
const PANICKED: i32 = 101;

/// A child of this process. It is killed when this is dropped, or when the thread that made it ends.
#[derive(Debug)]
pub(crate) struct Process {
    pid: libc::pid_t,
    reaped: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was killed by this signal.
    Signal(i32),
    /// It ended by itself, with this status.
    Exit(i32),
}

impl Process {
    /// Forks a process that runs `life` and then ends.
    pub(crate) fn fork(life: impl FnOnce()) -> Self {
        // SAFETY: the child runs Rust code that needs no other thread: it takes no lock but those of the allocator, which
        // the C library keeps usable over a fork.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid > 0 {
            return Self { pid, reaped: false };
        }
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life));
        if let Err(why) = &lived {
            let why = why.downcast_ref::<String>().map(String::as_str).or(why.downcast_ref::<&str>().copied());
            let _told = writeln!(std::io::stderr(), "a process of the test ended: {}", why.unwrap_or("a panic"));
        }
        // SAFETY: ends the process at once, before anything of the test harness runs in it.
        unsafe { libc::_exit(if lived.is_ok() { 0 } else { PANICKED }) }
    }

    /// Kills it, and waits until it is gone. How it ended: it may have ended before.
    pub(crate) fn kill(&mut self) -> End {
        // SAFETY: no memory is involved; the process is our child and not reaped, so that its id is no other's.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        self.wait()
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> End {
        let mut status = 0;
        loop {
            // SAFETY: the status is ours to fill.
            let reaped = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
            if reaped == self.pid {
                break;
            }
            let error = std::io::Error::last_os_error();
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waitpid: {error}");
        }
        self.reaped = true;
        match libc::WIFSIGNALED(status) {
            true => End::Signal(libc::WTERMSIG(status)),
            false => End::Exit(libc::WEXITSTATUS(status)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
        }
    }
}
