//! Limits of a sandbox: a control group in each hierarchy that has a controller which the limits need.
//!
//! ```text
//! cgroup v1: a hierarchy per controller        cgroup v2: one hierarchy       hybrid: some of each
//!   memory/HOST/SANDBOX                          BASE/HOST/SANDBOX
//!   pids/HOST/SANDBOX
//!   cpu/HOST/SANDBOX          HOST is the host agent's own name, so that what an agent left behind can be found.
//!   freezer/HOST/SANDBOX
//! ```
//!
//! Each controller is looked for where it is, not where hosts usually have it: a host may mount cgroup2 and still have
//! every controller on v1. BASE is the root of the cgroup2 mount, or the group above the agent's own if that one is
//! called [`AGENT_GROUP`]: so does a service manager delegate a subtree (systemd: `Delegate=yes`,
//! `DelegateSubgroup=agent`).
//!
//! Invariants:
//! 1. A group is made anew for each sandbox and never used twice: kernels exist that kill at birth what is cloned into
//!    a group that was once written to by `cgroup.kill`.
//! 2. A group that exists and holds processes or groups is never taken over.
//! 3. After the mounts were opened, everything is done relative to descriptors.
//! 4. Every wait has an end.
//!
//! All of it blocks: reads and writes of kernel files mostly take microseconds, [`Cgroup::kill_all`] and
//! [`Cgroup::remove`] up to seconds if a process does not die.

mod error;
mod group;
mod kill;
mod mounts;
mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;

pub(crate) use error::{CgroupError, DetectError};

use group::Group;
use mounts::{Controller, Tree, Version};

/// The name of the agent's own group, if it is below the group that was delegated to it.
const AGENT_GROUP: &str = "agent";

/// How often a group is made anew when the host's group is removed by somebody else at the same moment.
const MAKE_ATTEMPTS: u32 = 3;

/// What the control groups of one sandbox allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CgroupLimits {
    /// Memory and swap together, in bytes.
    pub(crate) memory_bytes: u64,
    /// Processes and threads.
    pub(crate) processes: u32,
    /// Processor time, in processors.
    pub(crate) cpus: f64,
}

/// The hierarchies of this host which have the controllers that limits need.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    trees: Vec<Arc<Tree>>,
}

/// The control groups of one sandbox: one in each tree of the hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup {
    host_name: String,
    name: String,
    members: Vec<Member>,
}

/// A sandbox's group in one tree.
#[derive(Debug)]
struct Member {
    tree: Arc<Tree>,
    group: Group,
}

/// What [`Hierarchy::sweep`] found and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Sandboxes whose groups were removed.
    pub(crate) sandboxes: usize,
    /// Processes that were killed.
    pub(crate) processes: usize,
}

impl Hierarchy {
    /// Finds the controllers on this host.
    ///
    /// # Errors
    /// A controller is missing or cannot be used; the error says what to do.
    pub(crate) fn detect() -> Result<Self, DetectError> {
        let read = |path: &'static str| fs::read_to_string(path).map_err(|source| DetectError::Proc { path, source });
        // The table of controllers only serves to explain what is missing, so that its absence is no error.
        let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let trees = mounts::locate(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, &known)?;
        Ok(Self { trees: trees.into_iter().map(Arc::new).collect() })
    }

    /// Makes the groups of a new sandbox and sets their limits. Nothing is left if it fails.
    ///
    /// # Errors
    /// A group of that name is in use, or the kernel refuses a group or a limit.
    pub(crate) fn make(
        &self,
        host_name: &str,
        sandbox_name: &str,
        limits: &CgroupLimits,
    ) -> Result<Cgroup, CgroupError> {
        check_name(host_name)?;
        check_name(sandbox_name)?;
        let mut cgroup = Cgroup { host_name: host_name.to_owned(), name: sandbox_name.to_owned(), members: Vec::new() };
        for tree in &self.trees {
            let made = make_in(tree, host_name, sandbox_name, limits, &mut cgroup.members);
            if let Err(error) = made {
                if let Err(left) = cgroup.remove().and_then(|()| self.remove_host(host_name).map(|_| ())) {
                    tracing::warn!(sandbox = sandbox_name, error = %left, "a half-made control group could not be removed");
                }
                return Err(error);
            }
        }
        Ok(cgroup)
    }

    /// Kills and removes every sandbox below the host's name, as an earlier agent of that name left them, and then the
    /// host's own group. Touches nothing else. Goes on after an error and returns the first.
    ///
    /// # Errors
    /// A process did not die or a group could not be removed.
    pub(crate) fn sweep(&self, host_name: &str) -> Result<Swept, CgroupError> {
        check_name(host_name)?;
        let mut names = BTreeSet::new();
        for tree in &self.trees {
            if let Some(host) = tree.base.child(host_name)? {
                names.extend(host.children()?);
            }
        }
        let mut swept = Swept::default();
        let mut first_error = None;
        for name in names {
            let removed = self.existing(host_name, &name).and_then(|cgroup| {
                let killed = cgroup.kill_all()?;
                cgroup.remove().map(|()| killed)
            });
            match removed {
                Ok(killed) => {
                    swept.sandboxes += 1;
                    swept.processes += killed;
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        match first_error {
            Some(error) => Err(error),
            None => self.remove_host(host_name).map(|_| swept),
        }
    }

    /// Removes the host's own group in every tree, unless sandboxes are in it. Returns whether none is left.
    ///
    /// # Errors
    /// The kernel refuses for another reason than that the group is in use.
    pub(crate) fn remove_host(&self, host_name: &str) -> Result<bool, CgroupError> {
        check_name(host_name)?;
        let mut all_gone = true;
        for tree in &self.trees {
            match tree.base.remove_child(host_name) {
                Ok(()) => {}
                Err(CgroupError::Remove { source: Errno::EBUSY | Errno::ENOTEMPTY, .. }) => all_gone = false,
                Err(error) => return Err(error),
            }
        }
        Ok(all_gone)
    }

    /// The groups of a sandbox that exists, in whatever trees it does.
    fn existing(&self, host_name: &str, name: &str) -> Result<Cgroup, CgroupError> {
        let mut members = Vec::new();
        for tree in &self.trees {
            let group = match tree.base.child(host_name)? {
                Some(host) => host.child(name)?,
                None => None,
            };
            members.extend(group.map(|group| Member { tree: Arc::clone(tree), group }));
        }
        Ok(Cgroup { host_name: host_name.to_owned(), name: name.to_owned(), members })
    }
}

impl Cgroup {
    /// Puts a process of one thread under the limits, with every child it has from now on: on v2 at once; on v1 once it has
    /// written `0` to each of the files returned. For a thread that moves itself the kernel does not halt every fork and exit
    /// on the host, for which it waits several milliseconds; that way is barred on v2.
    ///
    /// # Errors
    /// The process is gone, or the kernel refuses it.
    pub(crate) fn admit(&self, pid: Pid) -> Result<Vec<OwnedFd>, CgroupError> {
        let mut entries = Vec::new();
        for Member { tree, group } in &self.members {
            match tree.version {
                Version::V1 => entries.push(group.open_to_write("tasks")?),
                Version::V2 => group.write("cgroup.procs", &pid.to_string())?,
            }
        }
        Ok(entries)
    }

    /// Puts a process under the limits, with all of its threads and every child it has from now on.
    #[cfg(test)]
    pub(crate) fn attach(&self, pid: Pid) -> Result<(), CgroupError> {
        self.members.iter().try_for_each(|member| member.group.write("cgroup.procs", &pid.to_string()))
    }

    /// How many processes the kernel has killed here for want of memory.
    ///
    /// # Errors
    /// The kernel's file cannot be read.
    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupError> {
        let member = self.member_with(Controller::Memory)?;
        member.group.read_key(settings::oom_events(member.tree.version), "oom_kill")
    }

    /// The memory in use, in bytes.
    ///
    /// # Errors
    /// The kernel's file cannot be read.
    pub(crate) fn memory_bytes(&self) -> Result<u64, CgroupError> {
        let member = self.member_with(Controller::Memory)?;
        member.group.read_number(settings::memory_usage(member.tree.version))
    }

    /// The processes and threads that exist.
    ///
    /// # Errors
    /// The kernel's file cannot be read.
    pub(crate) fn processes(&self) -> Result<u64, CgroupError> {
        self.member_with(Controller::Pids)?.group.read_number("pids.current")
    }

    /// Kills every process of the groups, those forked meanwhile too, and waits until all are dead. Returns how many
    /// were seen alive.
    ///
    /// # Errors
    /// A process is still there after [`kill::TIME_MAX`]: it sits in the kernel, where no signal reaches it.
    pub(crate) fn kill_all(&self) -> Result<usize, CgroupError> {
        let groups: Vec<_> = self.members.iter().map(|member| &member.group).collect();
        kill::all(&groups)
    }

    /// Kills what is left in the groups and removes them.
    ///
    /// # Errors
    /// A process did not die, or the kernel holds on to a group.
    pub(crate) fn remove(self) -> Result<(), CgroupError> {
        self.kill_all()?;
        for Member { tree, group } in self.members {
            drop(group);
            if let Some(host) = tree.base.child(&self.host_name)? {
                host.remove_tree(&self.name)?;
            }
        }
        Ok(())
    }

    fn member_with(&self, controller: Controller) -> Result<&Member, CgroupError> {
        self.members
            .iter()
            .find(|member| member.tree.controllers.contains(&controller))
            .ok_or_else(|| CgroupError::NoGroup { name: self.name.clone(), controller })
    }
}

/// Makes the sandbox's group in one tree, with the limits of the controllers that the tree has.
fn make_in(
    tree: &Arc<Tree>,
    host_name: &str,
    name: &str,
    limits: &CgroupLimits,
    members: &mut Vec<Member>,
) -> Result<(), CgroupError> {
    let mut attempt = 1;
    let (host, group) = loop {
        let host = tree.base.child_or_new(host_name)?;
        match host.new_child(name) {
            Ok(group) => break (host, group),
            // Another thread found the host's group empty and removed it just now.
            Err(CgroupError::Make { source: Errno::ENOENT, .. }) if attempt < MAKE_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    };
    members.push(Member { tree: Arc::clone(tree), group: group.try_clone()? });
    match tree.version {
        Version::V1 => {
            settings::inherit_cpuset(&tree.base, &host)?;
            settings::inherit_cpuset(&host, &group)?;
        }
        Version::V2 => {
            settings::hand_down(&tree.base, &tree.controllers)?;
            settings::hand_down(&host, &tree.controllers)?;
        }
    }
    tree.controllers.iter().try_for_each(|&controller| settings::limit(&group, tree.version, controller, limits))
}

/// Names become directory names: one component, and never the name of a kernel file, all of which have a dot.
fn check_name(name: &str) -> Result<(), CgroupError> {
    let legal = (1..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if legal { Ok(()) } else { Err(CgroupError::Name { name: name.escape_debug().collect() }) }
}

#[cfg(test)]
mod tests;
