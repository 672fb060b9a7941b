//! What an attack has tried, and what of it was not refused.

use std::ffi::c_long;
use std::fmt;

use sandbar_function::Context;

/// An attack notes down what it tries. One that returns was held if it says so.
pub(crate) type Attack = fn(&mut Tried<'_>);
/// Attacks by name.
pub(crate) type Attacks = &'static [(&'static str, Attack)];

/// What a refusal may look like.
const REFUSED: [i32; 6] = [libc::EACCES, libc::EPERM, libc::EROFS, libc::ENOENT, libc::ENOSYS, libc::ESRCH];

/// The record of an attack.
pub(crate) struct Tried<'c> {
    pub(crate) context: &'c Context<'c>,
    count: usize,
    gave_way: Vec<String>,
}

/// Why a system call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// A system call by its number.
pub(crate) fn call(number: c_long, arguments: &[usize]) -> Result<c_long, Errno> {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: addresses among the arguments are null, or of memory that lives through the call; each is for the kernel to check.
    let result = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) };
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
}

/// A call with this error, or one of success, is no refusal.
pub(crate) fn is_refused<T>(result: &Result<T, Errno>) -> bool {
    result.as_ref().is_err_and(|errno| REFUSED.contains(&errno.0))
}

impl<'c> Tried<'c> {
    pub(crate) fn new(context: &'c Context<'c>) -> Self {
        Self { context, count: 0, gave_way: Vec::new() }
    }

    /// Something that must be so.
    pub(crate) fn check(&mut self, what: impl fmt::Display, holds: bool) {
        self.count += 1;
        if !holds {
            self.gave_way.push(what.to_string());
        }
    }

    /// A system call that must not exist.
    pub(crate) fn absent(&mut self, what: impl fmt::Display, number: c_long, arguments: &[usize]) {
        let result = call(number, arguments);
        self.check(format_args!("{what}: {result:?}"), result == Err(Errno(libc::ENOSYS)));
    }

    /// A system call that must be refused, in one way or another.
    pub(crate) fn refused(&mut self, what: impl fmt::Display, number: c_long, arguments: &[usize]) {
        let result = call(number, arguments);
        self.check(format_args!("{what}: {result:?}"), is_refused(&result));
    }

    pub(crate) fn answer(&self) -> String {
        match (self.gave_way.len(), self.count) {
            (_, 0) => "the probe tried nothing".to_owned(),
            (0, count) => format!("held: {count} tried"),
            (failed, count) => {
                let shown: Vec<&str> = self.gave_way.iter().take(20).map(String::as_str).collect();
                format!("gave way: {failed} of {count}: {}", shown.join("; "))
            }
        }
    }
}

/// A process of its own for something that may not come back; how it ended, as waitpid(2) tells.
pub(crate) fn in_child(act: impl FnOnce()) -> i32 {
    let pid = fork();
    if pid == 0 {
        act();
        exit(0);
    }
    let mut status = 0;
    // SAFETY: the kernel writes one number to `status`.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

/// fork(2): 0 in the child, negative if there is no room.
pub(crate) fn fork() -> i32 {
    // SAFETY: the attack has one thread where it forks.
    unsafe { libc::fork() }
}

/// Ends the process at once.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: it does not return, and touches nothing.
    unsafe { libc::_exit(status) }
}

/// Stays until it is killed.
pub(crate) fn stay() -> ! {
    loop {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    }
}
