//! Namespaces, users, capabilities and resource limits of the sandbox's processes.
//!
//! | process | user inside | capabilities (in the sandbox's user namespace) |
//! |---|---|---|
//! | supervisor | 0 | kill; change of user and group; other users' temporary files; what is needed to take these from others |
//! | worker | 1000 + 2 × function, or one more: each is another than the one before it | change of user and group, by its filter to those of instances only |
//! | template | 999 | as a worker, by its filter to those of workers and instances only |
//! | instance | 2000 + slot | none |
//!
//! When the kernel kills for want of memory, it takes an instance before a worker and a worker before the supervisor
//! ([`OOM_SCORE_SUPERVISOR`] and those beside it).

use std::io;
use std::os::fd::OwnedFd;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid};
use serde::{Deserialize, Serialize};

/// Workers run as users and groups from this on, two for each function.
pub const WORKER_ID_BASE: u32 = 1000;
/// The user and group of a template, from which workers are forked.
pub const TEMPLATE_ID: u32 = WORKER_ID_BASE - 1;
/// The supervisor's standing when the kernel looks for a process to kill for want of memory. Written by the host's root: no process
/// of the sandbox can go below it.
pub const OOM_SCORE_SUPERVISOR: i32 = 0;
/// A worker's: before the supervisor, but after its instances ([`sandbar_function::process::OOM_SCORE_INSTANCE`]).
pub const OOM_SCORE_WORKER: i32 = 500;

/// Limits of a single process or user, besides those that are the same for all.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Processes and threads of one user.
    pub processes: u64,
    /// Bytes of a file.
    pub file_bytes: u64,
}

/// Which network a sandbox has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// One of its own, in which there is nothing but itself.
    #[default]
    None,
    /// The host's.
    Host,
}

/// The user of a function's worker: another in each turn than in the one before, as a worker and its successor live side by side.
#[must_use]
pub fn worker_id(function: usize, turn: u32) -> u32 {
    let function = u32::try_from(function).unwrap_or(u32::MAX);
    WORKER_ID_BASE.saturating_add(function.saturating_mul(2)).saturating_add(turn % 2)
}

/// The user of the instance in a slot.
#[must_use]
pub fn instance_id(slot: usize) -> u32 {
    let base = sandbar_function::process::INSTANCE_UID_BASE;
    base.saturating_add(u32::try_from(slot).unwrap_or(u32::MAX))
}

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A system call.
    #[error("cannot {step}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A change of capabilities.
    #[error("cannot {step}")]
    Capabilities {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: caps::errors::CapsError,
    },
}

fn system(step: &'static str) -> impl FnOnce(nix::errno::Errno) -> IdentityError {
    move |errno| IdentityError::System { step, source: errno.into() }
}

fn capabilities(step: &'static str) -> impl FnOnce(caps::errors::CapsError) -> IdentityError {
    move |source| IdentityError::Capabilities { step, source }
}

/// Leaves the host's namespaces, but for the user's. The *next* child is the first process of the new process id namespace.
///
/// # Errors
/// The step that failed.
pub fn leave_host(network: Network) -> Result<(), IdentityError> {
    // The agent may be protected from the kernel's killer; nothing of a sandbox may inherit that.
    set_oom_score(OOM_SCORE_SUPERVISOR)?;
    setgroups(&[]).map_err(system("give up supplementary groups"))?;
    let namespaces =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let network = match network {
        Network::None => CloneFlags::CLONE_NEWNET,
        Network::Host => CloneFlags::empty(),
    };
    unshare(namespaces | network).map_err(system("make the namespaces"))
}

/// Names the host inside, and brings up the only interface of a network of its own, loopback.
///
/// # Errors
/// The step that failed.
pub fn name_host(name: &str, network: Network) -> Result<(), IdentityError> {
    sethostname(name).map_err(system("set the host name"))?;
    if network == Network::Host {
        return Ok(());
    }
    raise_loopback().map_err(|source| IdentityError::System { step: "bring the loopback interface up", source })
}

#[allow(unsafe_code, reason = "interface flags are set by an ioctl without a wrapper")]
fn raise_loopback() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero request is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: the request is as SIOCSIFFLAGS reads it, and lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Enters a user namespace of its own, in which nothing is mapped until the agent has.
///
/// # Errors
/// When the kernel refuses.
pub fn enter_user_namespace() -> Result<(), IdentityError> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(system("make the user namespace"))
}

/// What the supervisor keeps, in the sandbox's user namespace: to end what instances leave behind, to delete their temporary
/// files, to become worker and instance, and to take the rest from those.
const SUPERVISOR_CAPABILITIES: [Capability; 6] = [
    Capability::CAP_KILL,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
];

fn set_oom_score(score: i32) -> Result<(), IdentityError> {
    sandbar_function::process::set_oom_score(score)
        .map_err(|source| IdentityError::System { step: "set the order of kills for want of memory", source })
}

/// Enters control groups, each by the file to which a thread writes that enters it.
///
/// # Errors
/// When the kernel refuses.
pub fn enter_groups(entries: &[OwnedFd]) -> Result<(), IdentityError> {
    for entry in entries {
        // Nought stands for the thread that writes, which is this process's only one.
        nix::unistd::write(entry, b"0").map_err(system("enter the control groups"))?;
    }
    Ok(())
}

/// Becomes the sandbox's own root, in its control group's namespace, with the few capabilities a supervisor needs.
///
/// # Errors
/// The step that failed.
pub fn become_supervisor(limits: &ResourceLimits) -> Result<(), IdentityError> {
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(system("make the control group namespace"))?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(root.1, root.1, root.1).map_err(system("become the sandbox's root group"))?;
    setresuid(root.0, root.0, root.0).map_err(system("become the sandbox's root"))?;
    let kept: CapsHashSet = SUPERVISOR_CAPABILITIES.into();
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).map_err(capabilities("bound capabilities"))?;
        }
    }
    caps::set(None, CapSet::Effective, &kept).map_err(capabilities("give up effective capabilities"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(capabilities("give up permitted capabilities"))?;
    caps::clear(None, CapSet::Inheritable).map_err(capabilities("give up inheritable capabilities"))?;
    prctl::set_no_new_privs().map_err(system("forbid new privileges"))?;
    prctl::set_dumpable(false).map_err(system("close the supervisor's memory"))?;
    limit_resources(limits)
}

fn limit_resources(of: &ResourceLimits) -> Result<(), IdentityError> {
    let limits = [
        // Counted for each user: what no single call can exceed, as the control group is for all together.
        (Resource::RLIMIT_NPROC, of.processes),
        (Resource::RLIMIT_FSIZE, of.file_bytes),
        (Resource::RLIMIT_SIGPENDING, 1024),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, 1024),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_MEMLOCK, 64 << 10),
        (Resource::RLIMIT_STACK, 8 << 20),
    ];
    for (resource, limit) in limits {
        // A host that allows less must not keep sandboxes from being made.
        let (_, most) = getrlimit(resource).map_err(system("read the limits of resources"))?;
        let limit = limit.min(most);
        setrlimit(resource, limit, limit).map_err(system("limit resources"))?;
    }
    Ok(())
}

/// Becomes a function's worker: another user, with nothing but the capability to hand instances users of their own.
///
/// # Errors
/// The step that failed.
pub fn become_worker(id: u32) -> Result<(), IdentityError> {
    // The files in /proc/self of a process that is not dumpable, as the supervisor is not, belong to the host's root.
    prctl::set_dumpable(true).map_err(system("open its own /proc to a worker"))?;
    set_oom_score(OOM_SCORE_WORKER)?;
    let kept: CapsHashSet = [Capability::CAP_SETUID, Capability::CAP_SETGID].into();
    // While the bounding set still allows it.
    caps::set(None, CapSet::Inheritable, &kept).map_err(capabilities("make a worker's capabilities inheritable"))?;
    for capability in caps::all() {
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).map_err(capabilities("bound capabilities"))?;
        }
    }
    prctl::set_keepcaps(true).map_err(system("keep capabilities"))?;
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(group, group, group).map_err(system("change the group"))?;
    setresuid(user, user, user).map_err(system("change the user"))?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Ambient] {
        caps::set(None, set, &kept).map_err(capabilities("set a worker's capabilities"))?;
    }
    // The change of user closed it again.
    prctl::set_dumpable(true).map_err(system("open its own /proc to a worker"))
}

/// Kills every process of this user. One system call looks at all processes of the namespace while none can be forked, so that nothing
/// escapes by forking. False if there is none; a process that dies is one until it has been reaped.
pub fn kill_user(id: u32) -> bool {
    if !has_processes(id) {
        return false;
    }
    let (user, root) = (Uid::from_raw(id), Uid::from_raw(0));
    // Real and effective: with either, one may kill what runs as it, and what runs as the sandbox's root is a worker in the
    // making.
    if setresuid(user, user, root).is_ok() {
        // That it succeeds says nothing: it does so too where there was nobody whom it could kill.
        let _nobody = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL);
        // The saved user is the sandbox's root still, and becoming it again brings the capabilities back.
        let _restored = setresuid(root, root, root);
    }
    true
}

/// Whether a process of the namespace runs as this user, or has and was not reaped.
#[allow(unsafe_code, reason = "getpriority(2) answers with a number that its wrapper takes for an error's")]
pub fn has_processes(id: u32) -> bool {
    // Of all that looks at every process, this alone tells when there is none of a user, and needs no right to.
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_USER, id) > 0 }
}
