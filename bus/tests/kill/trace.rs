//! One process, stopped at an instruction of one's choice.
//!
//! ```text
//!   fork ── prepares itself ── SIGSTOP │ step 1 │ step 2 │ … │ step N, its exit
//!                                      0        1        2
//! ```
//!
//! A [`Path`] is the address of each instruction on the way, noted by single steps. A later process is brought to step `k` by
//! single steps alone, or, which is quicker, by a breakpoint of the processor at an earlier instruction of the path that is passed
//! few times, and steps from there. Where it stops is compared with the path: one that went another way is not where it should be, and
//! another process is tried.
//!
//! The code that the kernel maps into each process to read the clock (its vDSO) is not on a path: all of it belongs to the step that
//! calls it. Its way depends on time, as it reads again what changed meanwhile, and takes a turn more after the end of a second: a
//! path that was noted on a busy machine would not be gone again on an idle one. It writes nothing but its own stack and what it
//! returns, so that who is killed within it leaves what it leaves when it is killed before.

use std::collections::HashMap;
use std::ffi::c_void;
use std::mem::offset_of;
use std::ops::Range;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long anything may take that must happen, on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The code of a traced process that found something wrong itself.
const WRONG: i32 = 101;

/// Where the vDSO lies, in this process and in all it forks; nowhere, if the kernel maps none.
static VDSO: LazyLock<Range<u64>> = LazyLock::new(|| {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else { return 0..0 };
    let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
    u64::from_str_radix(from, 16).unwrap()..u64::from_str_radix(to, 16).unwrap()
});

/// A process that is traced. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Traced {
    pid: Pid,
    /// It runs: it has gone to sleep on the way to the next stop.
    pub(crate) asleep: bool,
    ended: bool,
}

/// The way of a process from its first stop to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    /// The instruction it stands before, after so many steps.
    addresses: Vec<u64>,
    /// For each step, how often its instruction had been passed before.
    passes: Vec<usize>,
    /// The steps in which it fell asleep.
    pub(crate) sleeps: Vec<usize>,
    passed: HashMap<u64, usize>,
}

/// What a process did instead of coming by the path.
#[derive(Debug)]
#[allow(dead_code, reason = "told where it failed the test")]
pub(crate) enum Stray {
    /// It ended on the way.
    Ended,
    /// It stands at this address instead of that.
    Elsewhere(u64, u64),
}

/// What became of a process that was let go on.
enum Seen {
    Stopped,
    Ended,
    Asleep,
}

impl Path {
    fn add(&mut self, address: u64) {
        // A repeated string instruction steps in its place, and a breakpoint there does not stop at each turn.
        let in_its_place = self.addresses.last() == Some(&address);
        let passed = self.passed.entry(address).or_default();
        self.passes.push(if in_its_place { usize::MAX / 2 } else { *passed });
        *passed += 1;
        self.addresses.push(address);
    }

    /// Steps to the end of the process.
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The step from which `k` is reached with the fewest stops.
    fn landmark(&self, k: usize) -> usize {
        (0..=k).rev().take(2_000).min_by_key(|j| self.passes[*j] + k - j).unwrap_or(0)
    }
}

impl Traced {
    /// Forks a process that does `work`, and waits for its first stop. `work` calls what it is given when it is prepared.
    pub(crate) fn begin(work: impl FnOnce(&dyn Fn())) -> Self {
        // SAFETY: the child runs `work` alone and ends without returning from here. Of what another thread might have locked
        // it needs the allocator only, which the C library makes usable in it.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "no process: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&stop_to_be_traced)));
            // SAFETY: ends the process; nothing of its parent's is touched.
            unsafe { libc::_exit(if done.is_ok() { 0 } else { WRONG }) };
        }
        let traced = Self { pid: Pid::from_raw(pid), asleep: false, ended: false };
        let status = waitpid(traced.pid, None).unwrap();
        assert_eq!(status, WaitStatus::Stopped(traced.pid, Signal::SIGSTOP), "its preparation failed");
        ptrace::setoptions(traced.pid, ptrace::Options::PTRACE_O_EXITKILL).unwrap();
        traced
    }

    /// Steps to the end and notes the way; `after` is called at each stop with the number of steps done, and `wakes` when the
    /// process sleeps.
    pub(crate) fn note(mut self, wakes: &dyn Fn() -> bool, mut after: impl FnMut(usize)) -> Path {
        let mut path = Path::default();
        loop {
            path.add(self.address());
            after(path.len() - 1);
            let mut seen = self.step(true);
            if matches!(seen, Seen::Asleep) {
                path.sleeps.push(path.len() - 1);
                self.asleep = true;
                seen = self.woken(wakes);
            }
            if matches!(seen, Seen::Ended) {
                return path;
            }
        }
    }

    /// Brings the process to the stop after `k` steps, by steps alone if `slowly`.
    pub(crate) fn reach(&mut self, path: &Path, k: usize, slowly: bool, wakes: &dyn Fn() -> bool) -> Result<(), Stray> {
        let sleeps = !path.sleeps.is_empty();
        let mut from = if slowly { 0 } else { path.landmark(k) };
        if from > 0 && self.set_breakpoint(Some(path.addresses[from])).is_err() {
            // Where the processor has no breakpoints for us.
            from = 0;
        }
        if from > 0 {
            self.run_to_breakpoint(path.passes[from], sleeps, wakes)?;
        }
        for _ in from..k {
            let mut seen = self.step(sleeps);
            if matches!(seen, Seen::Asleep) {
                self.asleep = true;
                seen = self.woken(wakes);
            }
            if !matches!(seen, Seen::Stopped) {
                return Err(Stray::Ended);
            }
        }
        let (at, expected) = (self.address(), path.addresses[k]);
        if at == expected { Ok(()) } else { Err(Stray::Elsewhere(at, expected)) }
    }

    /// Takes the step in which the process falls asleep, and leaves it there.
    pub(crate) fn fall_asleep(&mut self) {
        ptrace::step(self.pid, None).unwrap();
        assert!(matches!(self.next(true), Seen::Asleep), "it was to sleep");
        self.asleep = true;
    }

    /// One step of a path: an instruction, and, if that calls the vDSO, all until it returns.
    fn step(&mut self, may_sleep: bool) -> Seen {
        ptrace::step(self.pid, None).unwrap();
        let seen = self.next(may_sleep);
        if matches!(seen, Seen::Stopped) && VDSO.contains(&self.address()) { self.leave_vdso() } else { seen }
    }

    /// Lets the process, which stands at the beginning of a function of the vDSO, return from it. It runs: by steps it may read
    /// the clock again for ever, as on a busy machine each of them takes longer than the clock stays the same.
    fn leave_vdso(&mut self) -> Seen {
        // Nothing lies on its stack yet but the address to which it returns.
        let stack = ptrace::getregs(self.pid).unwrap().rsp as *mut c_void;
        let back = ptrace::read(self.pid, stack).unwrap().cast_unsigned();
        if self.set_breakpoint(Some(back)).is_ok() {
            ptrace::cont(self.pid, None).unwrap();
            let seen = self.next(false);
            if matches!(seen, Seen::Stopped) {
                self.set_breakpoint(None).unwrap();
            }
            return seen;
        }
        // Where there are none.
        while VDSO.contains(&self.address()) {
            ptrace::step(self.pid, None).unwrap();
            if !matches!(self.next(false), Seen::Stopped) {
                return Seen::Ended;
            }
        }
        Seen::Stopped
    }

    /// Lets the process run to its breakpoint, which it passes so often before, and takes that away.
    fn run_to_breakpoint(&mut self, passes: usize, sleeps: bool, wakes: &dyn Fn() -> bool) -> Result<(), Stray> {
        for _ in 0..=passes {
            ptrace::cont(self.pid, None).unwrap();
            let mut seen = self.next(sleeps);
            if matches!(seen, Seen::Asleep) {
                self.asleep = true;
                seen = self.woken(wakes);
            }
            if !matches!(seen, Seen::Stopped) {
                return Err(Stray::Ended);
            }
        }
        self.set_breakpoint(None).unwrap();
        Ok(())
    }

    fn set_breakpoint(&self, at: Option<u64>) -> nix::Result<()> {
        let register = |n: usize| (offset_of!(libc::user, u_debugreg) + 8 * n) as *mut c_void;
        let write = |n, value: u64| ptrace::write_user(self.pid, register(n), value.cast_signed());
        match at {
            // The first breakpoint, at an instruction: bit 0 enables it, all others 0.
            Some(address) => write(0, address).and_then(|()| write(7, 1)),
            None => write(7, 0),
        }
    }

    /// Lets the process run to its end, waking it when it sleeps.
    pub(crate) fn run_to_end(mut self, wakes: &dyn Fn() -> bool) {
        loop {
            if !self.asleep {
                ptrace::cont(self.pid, None).unwrap();
            }
            let seen = if self.asleep { self.woken(wakes) } else { self.next(true) };
            match seen {
                Seen::Stopped => {}
                Seen::Asleep => self.asleep = true,
                Seen::Ended => return,
            }
        }
    }

    /// Kills the process where it is.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.ended {
            return;
        }
        kill(self.pid, Signal::SIGKILL).unwrap();
        while !matches!(waitpid(self.pid, None).unwrap(), WaitStatus::Signaled(..) | WaitStatus::Exited(..)) {}
        self.ended = true;
    }

    /// The process sleeps: brings what it waits for, as often as it takes. It must not sleep on when it was brought all there is.
    fn woken(&mut self, wakes: &dyn Fn() -> bool) -> Seen {
        let mut since = Instant::now();
        loop {
            if wakes() {
                since = Instant::now();
            }
            assert!(since.elapsed() < PATIENCE, "the traced process sleeps beside a message");
            // Only what lasts is sleep: it may be on its way already.
            for _ in 0..20 {
                if let Some(seen) = self.look() {
                    self.asleep = false;
                    return seen;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// The next stop or end; or that it sleeps, where that `may` be.
    fn next(&mut self, may_sleep: bool) -> Seen {
        if !may_sleep {
            let status = waitpid(self.pid, None).unwrap();
            return self.judge(status);
        }
        let since = Instant::now();
        loop {
            for _ in 0..20 {
                if let Some(seen) = self.look() {
                    return seen;
                }
                std::thread::yield_now();
            }
            if is_asleep(&format!("/proc/{}", self.pid)) {
                // Between the two looks it may have stopped, after a sleep so short that nobody meant it.
                return self.look().unwrap_or(Seen::Asleep);
            }
            assert!(since.elapsed() < PATIENCE, "the traced process does not come to its next stop");
        }
    }

    fn look(&mut self) -> Option<Seen> {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).unwrap();
        (status != WaitStatus::StillAlive).then(|| self.judge(status))
    }

    fn judge(&mut self, status: WaitStatus) -> Seen {
        if status == WaitStatus::Stopped(self.pid, Signal::SIGTRAP) {
            return Seen::Stopped;
        }
        self.ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
        assert_eq!(status, WaitStatus::Exited(self.pid, 0), "the traced process");
        Seen::Ended
    }

    fn address(&self) -> u64 {
        ptrace::getregs(self.pid).unwrap().rip
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

fn stop_to_be_traced() {
    ptrace::traceme().unwrap();
    // SAFETY: no memory is involved.
    let this = unsafe { libc::getpid() };
    // SAFETY: likewise.
    unsafe { libc::kill(this, libc::SIGSTOP) };
}

/// Whether a task sleeps on a word of shared memory, as only the bus does; `task` is its directory in /proc.
pub(crate) fn is_asleep(task: &str) -> bool {
    let Ok(call) = std::fs::read_to_string(format!("{task}/syscall")) else { return false };
    let mut words = call.split(' ');
    // Interruptible: not on its way into that sleep, held up by others of its process who map memory.
    let stat = std::fs::read_to_string(format!("{task}/stat")).unwrap_or_default();
    let sleeps = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'));
    let futex = words.next().and_then(|word| word.parse().ok()) == Some(libc::SYS_futex);
    // The second argument, after the word's address: a plain FUTEX_WAIT, which is 0.
    sleeps && futex && words.nth(1) == Some("0x0")
}

/// Why processes cannot be traced here, if they cannot.
pub(crate) fn refusal() -> Option<String> {
    // SAFETY: the child makes one system call and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let refused = ptrace::traceme().err().map_or(0, |error| error as i32);
        // SAFETY: ends the process.
        unsafe { libc::_exit(refused) };
    }
    match waitpid(Pid::from_raw(pid), None) {
        Ok(WaitStatus::Exited(_, 0)) => None,
        other => Some(format!("a process may not be traced here: {other:?}")),
    }
}
