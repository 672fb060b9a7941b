//! Making an instance's process, and giving it its identity.
#![allow(unsafe_code, reason = "fork, identity and exit are system calls without safe wrappers")]

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Instances run as this user id plus the number of their slot, in the sandbox's user namespace.
pub const INSTANCE_UID_BASE: u32 = 2000;

/// An instance's standing when the kernel looks for a process to kill for want of memory: before its worker and the supervisor.
pub const OOM_SCORE_INSTANCE: i32 = 1000;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The worker.
    Parent,
    /// The new instance.
    Child,
}

/// Forks. The child becomes a child of this process's *parent*, the sandbox's supervisor, which reaps all instances whether
/// their worker lives or not. The kernel writes the child's process id to `pid` before the child runs, so that no moment
/// exists at which an instance cannot be told from its process id.
///
/// # Errors
/// As fork: no room for another process.
pub fn fork_sibling(pid: &AtomicU32) -> io::Result<Side> {
    let tid = thread_id_word();
    let flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    let flags = if tid.is_null() { flags } else { flags | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID };
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no CLONE_VM: the child has a copy of this address space, as after fork(2), and continues here. `pid` is
    // alive for the call, and `tid` is the very word that the C library had the kernel write for this thread. The caller
    // has one thread, so that no lock of another is held for ever in the child.
    #[cfg(not(target_arch = "x86_64"))]
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, none, pid.as_ptr(), none, tid) };
    // SAFETY: as above; x86-64 has the last two arguments the other way round.
    #[cfg(target_arch = "x86_64")]
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, none, pid.as_ptr(), tid, none) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        _ => Ok(Side::Parent),
    }
}

/// Where the C library keeps this thread's id, so that it is right in the child as after the library's own fork; null if
/// the kernel does not tell.
fn thread_id_word() -> *mut libc::c_void {
    const PR_GET_TID_ADDRESS: libc::c_int = 40;
    let mut word: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: the kernel writes one pointer to `word`.
    let result = unsafe { libc::prctl(PR_GET_TID_ADDRESS, &raw mut word) };
    if result == 0 { word } else { std::ptr::null_mut() }
}

/// Gives this process the identity of the instance in a slot: a user and group of its own, no capability, the rules of
/// instances, no way back. `rules` is the descriptor of those rules, if the kernel has such.
///
/// # Errors
/// When the kernel refuses: the process must not go on.
pub fn become_instance(slot: usize, rules: RawFd) -> io::Result<()> {
    // What a call writes is its own, unless it says otherwise.
    // SAFETY: no memory is involved.
    unsafe { libc::umask(0o077) };
    let id = INSTANCE_UID_BASE + u32::try_from(slot).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_setresgid, id, id, id) })?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::syscall(libc::SYS_setresuid, id, id, id) })?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let none = [CapabilitySets::default(); 2];
    // SAFETY: both structures are laid out as version 3 of capset(2) has them, and alive for the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })?;
    // A change of user makes a process undumpable, which closes its own /proc/self (and so /dev/stdout) to it. Other
    // instances have other users and may not look into it either way.
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into())?;
    enter_rules(rules)
}

/// Sets this process's standing when the kernel looks for one to kill for want of memory: the higher, the sooner.
///
/// # Errors
/// When it may not go as low, or not write to its own `/proc` at all.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    // Opened to write and no more: to cut the file off first would be a right of its own under Landlock rules.
    let mut file = OpenOptions::new().write(true).open("/proc/self/oom_score_adj")?;
    file.write_all(score.to_string().as_bytes())
}

/// A worker's standing for want of memory, by which instances get theirs: while it forks one the worker stands as that is to stand,
/// and the instance inherits it. To set its own, each would have to be looked up in `/proc`, at a tenth of what it costs in all.
#[derive(Debug)]
pub struct Standing {
    /// The worker's own file in `/proc`. Open for as long as the process lives, and closed in each instance.
    file: RawFd,
    own: Vec<u8>,
    /// Of its instances, as it is written: made once, as each page that a worker writes to between two forks it has to copy.
    instances: Vec<u8>,
}

impl Standing {
    /// The standing of this process.
    ///
    /// # Errors
    /// When it may not be read and written.
    pub fn open() -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open("/proc/self/oom_score_adj")?;
        let mut own = Vec::new();
        file.read_to_end(&mut own)?;
        Ok(Self { file: file.into_raw_fd(), own, instances: OOM_SCORE_INSTANCE.to_string().into_bytes() })
    }

    /// Forks an instance, as [`fork_sibling`].
    ///
    /// # Errors
    /// As there, or when the worker's standing cannot be changed.
    pub fn fork(&self, pid: &AtomicU32) -> io::Result<Side> {
        // Ahead of the fork, in one process that has the code and the data of it at hand: each instance would have to copy them.
        reseed();
        self.set(&self.instances)?;
        let side = fork_sibling(pid);
        if matches!(side, Ok(Side::Child)) {
            // SAFETY: `open` has opened it, and nobody uses it in the child.
            unsafe { libc::close(self.file) };
        } else {
            // A worker that cannot go back is killed sooner than it should, and made again.
            let _stays = self.set(&self.own);
        }
        side
    }

    fn set(&self, score: &[u8]) -> io::Result<()> {
        // SAFETY: the bytes are ours and as long as said.
        let written = unsafe { libc::pwrite(self.file, score.as_ptr().cast(), score.len(), 0) };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Lets whoever was woken just now run, before this process goes on: what is left for it to do is nobody's to wait for.
///
/// The kernel does not always prefer who is woken to who wakes, which would then be torn down first. By the system call itself, as the page
/// of the C library's function may not be there yet.
pub fn step_back() {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_sched_yield) };
}

/// Sleeps for so long, less than a second; by the system call itself, as [`step_back`].
pub fn sleep(time: Duration) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    // SAFETY: the kernel reads the time, and is not asked for what is left of it.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, std::ptr::null_mut::<libc::timespec>()) };
}

/// Page faults of this process that needed no disk, so far.
#[must_use]
pub fn faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel writes as much as there is room for.
    unsafe { libc::syscall(libc::SYS_getrusage, libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    // SAFETY: all zeroes are a value, should it not have written.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_minflt).unwrap_or(0)
}

/// Enters Landlock rules that the supervisor has made, and closes their descriptor.
///
/// # Errors
/// When the kernel refuses rules that it has.
pub fn enter_rules(rules: RawFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let entered = check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) });
    // SAFETY: the supervisor put a descriptor into this place, and nobody else uses it.
    check(unsafe { libc::close(rules) }.into())?;
    match entered {
        // On a kernel without such rules something else is in their place.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENOSYS | libc::EOPNOTSUPP)) => Ok(()),
        other => other,
    }
}

/// Gives the C library's random generators a new seed: one that a worker has set, or the one they start with, would give all of its
/// instances the same numbers.
fn reseed() {
    let Some(seed) = random() else { return };
    let [low, high] = [seed, seed >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0));
    // SAFETY: this process has one thread.
    unsafe { libc::srand(low) };
    // SAFETY: as above.
    unsafe { srand48(libc::c_long::from(high)) };
}

/// A number by chance; `None` if the kernel has none to give.
#[must_use]
pub fn random() -> Option<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes to the buffer, as many bytes as it has at most.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    (usize::try_from(got) == Ok(bytes.len())).then(|| u64::from_ne_bytes(bytes))
}

unsafe extern "C" {
    fn srand48(seed: libc::c_long);
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

pub(crate) fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Number of threads of this process; 1 if it cannot be known.
#[must_use]
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Ends this process at once: no destructor, no buffer of the C library that a worker filled before its fork.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: it does not return, and touches nothing on its way.
    unsafe { libc::_exit(status) }
}
