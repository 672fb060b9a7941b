//! What can go wrong with control groups.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::AGENT_GROUP;
use super::mounts::Controller;

/// Why no hierarchy can be used for limits.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DetectError {
    /// What the kernel says about control groups could not be read.
    #[error("cannot read {path}")]
    Proc {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    /// The kernel has the controller, but it is switched off.
    #[error(
        "the kernel's {controller} controller is switched off; on the kernel's command line, take away cgroup_disable={controller}, or add cgroup_enable={controller} if the distribution's kernel wants to be asked"
    )]
    SwitchedOff { controller: Controller },
    /// No mount has the controller.
    #[error(
        "no control group mount has the {controller} controller; mount cgroup2 on /sys/fs/cgroup, or start the agent in a group that was given the controller"
    )]
    NotMounted { controller: Controller },
    /// The only mount of the controller is read-only, as in a container.
    #[error("{} has the {controller} controller, but is mounted read-only", path.display())]
    ReadOnly { controller: Controller, path: PathBuf },
    /// A mount's directory could not be opened or read.
    #[error("cannot use the control group mount")]
    Mount(#[source] CgroupError),
    /// The group in which those of sandboxes are to be made does not let them have limits.
    #[error("sandboxes cannot be given limits")]
    NoLimits(#[source] CgroupError),
}

/// Why something could not be done with a control group.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// A name that cannot be a group's.
    #[error("`{name}` cannot be the name of a control group: letters, digits, `-` and `_` can")]
    Name { name: String },
    /// A group could not be opened.
    #[error("cannot open the control group {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    /// A group could not be made.
    #[error("cannot make the control group {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    /// A group of the name is there, with processes or groups in it.
    #[error("the control group {} is in use", path.display())]
    InUse { path: PathBuf },
    /// A group's directory could not be listed.
    #[error("cannot list the control group {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    /// A kernel file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A kernel file does not hold what it is documented to hold.
    #[error("{} holds no {wanted}", path.display())]
    Content { path: PathBuf, wanted: &'static str },
    /// A kernel file refused a value.
    #[error("cannot write `{value}` to {}", path.display())]
    Write {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    /// cgroup v2 hands no controller to groups below one that holds processes itself.
    #[error(
        "{0} holds processes, so that it cannot hand its controllers to sandboxes; start the agent in a group called {AGENT_GROUP} below it (systemd: Delegate=yes and DelegateSubgroup={AGENT_GROUP}; in a container: mkdir {0}/{AGENT_GROUP}, then move every process of {0}/cgroup.procs there)",
        path.display()
    )]
    HoldsProcesses { path: PathBuf },
    /// The sandbox has no group with the controller.
    #[error("the sandbox {name} has no control group with the {controller} controller")]
    NoGroup { name: String, controller: Controller },
    /// Processes did not die.
    #[error("{processes} processes of {} do not die; they sit in the kernel, where no signal reaches them", path.display())]
    StillRunning { path: PathBuf, processes: usize },
    /// A group could not be removed.
    #[error("cannot remove the control group {}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: Errno,
    },
}
