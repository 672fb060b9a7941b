//! Namespaces, users, capabilities and resource limits of the sandbox's processes.
//!
//! | process | user inside | capabilities (in the sandbox's user namespace) |
//! |---|---|---|
//! | supervisor | 0 | kill; change of user and group; what is needed to take these from others |
//! | worker | 1000 | change of user and group, by its filter to those of instances only |
//! | instance | 2000 + slot | none |

use std::io;
use std::os::fd::OwnedFd;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid};

/// The user and group of workers.
pub const WORKER_ID: u32 = 1000;

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
pub fn leave_host() -> Result<(), IdentityError> {
    setgroups(&[]).map_err(system("give up supplementary groups"))?;
    let namespaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(system("make the namespaces"))
}

/// Names the host inside, and brings up its only network interface, loopback.
///
/// # Errors
/// The step that failed.
pub fn name_host(name: &str) -> Result<(), IdentityError> {
    sethostname(name).map_err(system("set the host name"))?;
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

/// Enters control groups, each by the file to which a thread writes that enters it.
///
/// # Errors
/// When the kernel refuses.
pub fn enter_groups(entries: Vec<OwnedFd>) -> Result<(), IdentityError> {
    for entry in entries {
        // Nought stands for the thread that writes, which is this process's only one.
        nix::unistd::write(&entry, b"0").map_err(system("enter the control groups"))?;
    }
    Ok(())
}

/// Becomes the sandbox's own root, in its control group's namespace, with the few capabilities a supervisor needs.
///
/// # Errors
/// The step that failed.
pub fn become_supervisor() -> Result<(), IdentityError> {
    unshare(CloneFlags::CLONE_NEWCGROUP).map_err(system("make the control group namespace"))?;
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(root.1, root.1, root.1).map_err(system("become the sandbox's root group"))?;
    setresuid(root.0, root.0, root.0).map_err(system("become the sandbox's root"))?;
    let kept: CapsHashSet =
        [Capability::CAP_KILL, Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_SETPCAP].into();
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
    limit_resources()
}

fn limit_resources() -> Result<(), IdentityError> {
    let limits = [
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

/// Becomes a worker: another user, with nothing but the capability to hand instances users of their own.
///
/// # Errors
/// The step that failed.
pub fn become_worker() -> Result<(), IdentityError> {
    let kept: CapsHashSet = [Capability::CAP_SETUID, Capability::CAP_SETGID].into();
    // While the bounding set still allows it.
    caps::set(None, CapSet::Inheritable, &kept).map_err(capabilities("make a worker's capabilities inheritable"))?;
    for capability in caps::all() {
        if caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).map_err(capabilities("bound capabilities"))?;
        }
    }
    prctl::set_keepcaps(true).map_err(system("keep capabilities"))?;
    let (user, group) = (Uid::from_raw(WORKER_ID), Gid::from_raw(WORKER_ID));
    setresgid(group, group, group).map_err(system("change the group"))?;
    setresuid(user, user, user).map_err(system("change the user"))?;
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Ambient] {
        caps::set(None, set, &kept).map_err(capabilities("set a worker's capabilities"))?;
    }
    Ok(())
}

/// Kills every process that the instance in this slot left behind: all that run as its user. One system call looks at all
/// processes of the namespace while none can be forked, so that nothing escapes by forking. True if there was something.
pub fn kill_leftovers(slot: usize) -> bool {
    let id = sandbar_function::process::INSTANCE_UID_BASE.saturating_add(u32::try_from(slot).unwrap_or(u32::MAX));
    let (instance, root) = (Uid::from_raw(id), Uid::from_raw(0));
    // Real and effective: with either, one may kill what runs as it, and what runs as the sandbox's root is a worker in the
    // making.
    if setresuid(instance, instance, root).is_err() {
        return false;
    }
    // ESRCH: it left nothing.
    let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL);
    // The saved user is the sandbox's root still, and becoming it again brings the capabilities back.
    let _restored = setresuid(root, root, root);
    killed.is_ok()
}
