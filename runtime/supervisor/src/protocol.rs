//! What the host agent and a sandbox's supervisor say to each other, over a socket of whole records (`SOCK_SEQPACKET`) that
//! nobody else has an end of.
//!
//! ```text
//!   agent                          supervisor
//!     │ ── Plan, descriptors ──────▶ │
//!     │ ── FunctionGroup … ────────▶ │  of functions with limits of their own
//!     │ ◀────────────────── Forked ─ │  the launcher made the sandbox's first process, and ends
//!     │                              │  namespaces, root file system
//!     │ ◀───────────────── Created ─ │  in its own user namespace, not yet mapped
//!     │  id maps                     │
//!     │ ── Go, descriptors ────────▶ │  control groups, identity, capabilities, filter; starts the workers
//!     │ ◀─────────────────── Ready ─ │  every worker has loaded its code
//!     │ ◀─ Failed, WorkerDied, Rests │
//! ```
//!
//! Either side takes the end of the socket for the end of the other.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::identity::{Network, ResourceLimits};

/// Bytes of a record at most. A plan of 128 functions stays far below.
pub const RECORD_BYTES_MAX: usize = 128 << 10;
/// Descriptors that come with a plan besides one log pipe for each function.
pub const PLAN_DESCRIPTORS: usize = 6;
/// One more, if the sandbox has a root file system of its own.
const OWN_ROOT_DESCRIPTORS: usize = 1;
/// Descriptors in a record at most.
const DESCRIPTORS_MAX: usize = OWN_ROOT_DESCRIPTORS + PLAN_DESCRIPTORS + sandbar_bus::layout::FUNCTIONS_MAX;

/// All a supervisor needs to make its sandbox. With it come the descriptors: with a root file system of its own, a mount of that
/// which is attached nowhere yet; the segment, the agent's eventfd, the trace socket, the eventfd that wakes the supervisor, the kernel's
/// count of kills for want of memory, the sandbox's own log pipe, and one log pipe for each function in order. A [`FunctionGroup`] follows for
/// each function that has one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The application's name, which becomes the sandbox's host name.
    pub application: String,
    /// An empty directory of the host over which the sandbox's root is built, unseen by the host.
    pub mount_point: PathBuf,
    /// Whether the root lies over a file system that comes with the plan, instead of over nothing.
    pub own_root: bool,
    /// What of the host is seen inside, read-only.
    pub binds: Vec<Bind>,
    /// Symbolic links in the root: where, and what they say.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Small files in the root: where, and what they contain.
    pub files: Vec<(PathBuf, String)>,
    /// Size of `/tmp` in bytes; `/dev/shm` has as much.
    pub tmp_bytes: u64,
    /// Which network it has.
    pub network: Network,
    /// When workers are renewed.
    pub renewal: Renewal,
    /// When it takes the steps to rest that are taken inside.
    pub rest: RestPlan,
    /// What a single process or user may use, beside what the control groups allow all together.
    pub resources: ResourceLimits,
    /// The functions, in the order of the catalogue.
    pub functions: Vec<FunctionPlan>,
}

/// When a worker is replaced by a fresh one, with another address layout and hash seed: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Instances that it has made which have ended.
    pub calls: u64,
    /// Seconds since it was ready, if it has made any.
    pub seconds: u64,
}

/// How long nothing is under way before a step to rest is taken; `None`: it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestPlan {
    /// Until instances that stand ready are ended.
    pub ready: Option<Duration>,
    /// Until workers are, and instances with them.
    pub workers: Option<Duration>,
}

/// How far an application has gone to rest within its sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestStep {
    /// Workers are there, and instances as the manifest says.
    #[default]
    Awake,
    /// No instances.
    Instances,
    /// No workers.
    Workers,
}

/// A file or directory of the host that is seen inside, read-only, without set-uid and devices (save `/dev`'s own).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Inside; absolute.
    pub target: PathBuf,
    /// Whether it is a device node, which is to be usable as such.
    pub device: bool,
}

/// A function, as its worker is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionPlan {
    /// Its name.
    pub name: String,
    /// What its worker is.
    pub program: Program,
    /// How long one of its instances may run.
    pub timeout: Duration,
    /// What callers are told of the limits on its memory when it has exceeded them.
    pub memory_limit: String,
    /// Whether it has control groups of its own.
    pub own_group: bool,
}

/// The control groups of a function that has limits of its own. With it come descriptors: the kernel's count of kills for want of memory
/// there, and for each group the file to which a process writes to enter it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FunctionGroup {
    /// Index of the function.
    pub function: usize,
}

/// What a worker is. Paths are inside the sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// An executable linked with the function crate: it is its own worker.
    Native {
        /// The executable.
        path: PathBuf,
    },
    /// A Python source file, loaded by the worker in Python.
    Python {
        /// The interpreter.
        interpreter: PathBuf,
        /// The worker's source.
        worker: PathBuf,
        /// The function's source.
        code: PathBuf,
        /// The function in it.
        handler: String,
    },
    /// An executable that is run for each call.
    Executable {
        /// The executable.
        path: PathBuf,
    },
}

/// The agent's second word: control groups and id maps are in place. With it come descriptors: for each control group that the
/// supervisor is to enter by itself, the file to which it writes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Go {}

/// What a supervisor tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The first process of the sandbox exists.
    Forked {
        /// Its process id on the host.
        pid: i32,
    },
    /// The process is there, in its own user namespace.
    Created,
    /// Every worker has loaded its code.
    Ready,
    /// The sandbox cannot be made: which step, and why.
    Failed {
        /// The step and its error.
        reason: String,
    },
    /// A worker could not load its code, at the first start.
    WorkerFailed {
        /// Index of the function.
        function: usize,
        /// What the worker said, or how it ended.
        reason: String,
    },
    /// A worker died, and will be started again.
    WorkerDied {
        /// Index of the function.
        function: usize,
        /// How it ended.
        reason: String,
        /// When it is started again, in milliseconds from now.
        again_ms: u64,
    },
    /// A worker could not be renewed, and serves on.
    WorkerKept {
        /// Index of the function.
        function: usize,
        /// What its successor said, or how that ended.
        reason: String,
    },
    /// It has taken a step to rest, or is awake again.
    Rests {
        /// How far it is now.
        step: RestStep,
    },
}

/// Why a record was not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The other side is gone.
    #[error("the other side closed the socket")]
    Closed,
    /// There is nothing yet, on a socket that does not wait.
    #[error("nothing has come yet")]
    Nothing,
    /// The system call failed.
    #[error("cannot receive a record")]
    System(#[source] io::Error),
    /// The record is not what was expected.
    #[error("the record makes no sense")]
    Record(#[source] serde_json::Error),
}

/// A received record.
#[derive(Debug)]
pub struct Received<T> {
    /// What it says.
    pub record: T,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    /// The sender's process id as the kernel vouches for it, if the receiving socket asks for credentials.
    pub sender_pid: Option<i32>,
}

/// Sends a record.
///
/// # Errors
/// When it is too large or the other side is gone.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, record: &T, descriptors: &[RawFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(record)?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(io::Error::other(format!("a record of {} bytes is larger than {RECORD_BYTES_MAX}", bytes.len())));
    }
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives a record.
///
/// # Errors
/// As [`ReceiveError`] says.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Received<T>, ReceiveError> {
    let mut bytes = vec![0; RECORD_BYTES_MAX];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX], UnixCredentials);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags);
    let message = match received {
        Ok(message) => message,
        Err(Errno::EAGAIN) => return Err(ReceiveError::Nothing),
        Err(Errno::ECONNRESET) => return Err(ReceiveError::Closed),
        Err(errno) => return Err(ReceiveError::System(errno.into())),
    };
    let mut descriptors = Vec::new();
    let mut sender_pid = None;
    for control in message.cmsgs().map_err(|errno| ReceiveError::System(errno.into()))? {
        if let ControlMessageOwned::ScmRights(received) = control {
            descriptors.extend(received.into_iter().map(own));
        } else if let ControlMessageOwned::ScmCredentials(credentials) = control {
            sender_pid = Some(credentials.pid());
        }
    }
    let len = message.bytes;
    if len == 0 {
        return Err(ReceiveError::Closed);
    }
    let record = serde_json::from_slice(&bytes[..len]).map_err(ReceiveError::Record)?;
    Ok(Received { record, descriptors, sender_pid })
}

#[allow(unsafe_code, reason = "a received descriptor comes as a number")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just put it into this process's table, for the receiver of the record.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
