//! Limits of a sandbox: a control group in each hierarchy that has a controller which the limits need.
//!
//! ```text
//! cgroup v1: a hierarchy per controller        cgroup v2: one hierarchy       hybrid: some of each
//!   memory/HOST/SANDBOX                          BASE/HOST/SANDBOX
//!     …/function-N                                 …/rest, …/function-N   (only if a function has limits of its own)
//!   pids/HOST/SANDBOX
//!   cpu/HOST/SANDBOX          HOST is the host agent's own name, so that what an agent left behind can be found.
//!   freezer/HOST/SANDBOX
//! ```
//!
//! Each controller is looked for where it is, not where hosts usually have it: a host may mount cgroup2 and still have
//! every controller on v1. BASE is the root of the cgroup2 mount, or the group above the agent's own if that one is
//! called [`AGENT_GROUP`]: so does a service manager delegate a subtree (systemd: `Delegate=yes`, `DelegateSubgroup=agent`). Where the
//! manager does not make that group (systemd before 254), the agent makes it and moves there.
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
mod hierarchy;
mod kill;
mod mounts;
mod settings;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::unistd::Pid;

pub(crate) use error::{CgroupError, DetectError};
pub(crate) use hierarchy::Hierarchy;

use group::Group;
use mounts::{Controller, Tree, Version};

/// The name of the agent's own group, if it is below the group that was delegated to it.
const AGENT_GROUP: &str = "agent";

/// The group, in a sandbox's own on v2, of all that is in no function's.
const REST_GROUP: &str = "rest";
/// The groups of functions in their sandbox's: this and the function's index.
const FUNCTION_GROUP_PREFIX: &str = "function-";

/// What a control group allows. What is not limited is limited by the groups above only.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CgroupLimits {
    /// Memory and swap together, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Processes and threads.
    pub(crate) processes: Option<u32>,
    /// Processor time, in processors.
    pub(crate) cpus: Option<f64>,
}

impl CgroupLimits {
    /// Whether there is no limit at all.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The control groups of one sandbox: one in each tree of the hierarchy, and below it those of functions with limits of their own.
#[derive(Debug)]
pub(crate) struct Cgroup {
    host_name: String,
    name: String,
    members: Vec<Member>,
    /// Where the sandbox's processes are that are in no function's group, if not in the group itself: on v2 a group that hands its
    /// controllers down holds no process.
    rest: Vec<Group>,
    /// By index of the function.
    functions: BTreeMap<usize, Vec<Member>>,
}

/// What a process needs to enter the control groups of a function, and to see why others of them were killed.
#[derive(Debug)]
pub(crate) struct FunctionEntry {
    /// The kernel's count of kills for want of memory.
    pub(crate) memory_kills: OwnedFd,
    /// For each group, the file to which a process writes to enter it.
    pub(crate) entries: Vec<OwnedFd>,
}

/// A sandbox's group in one tree.
#[derive(Debug)]
struct Member {
    tree: Arc<Tree>,
    group: Group,
}

impl Cgroup {
    fn empty(host_name: &str, name: &str) -> Self {
        let (host_name, name) = (host_name.to_owned(), name.to_owned());
        Self { host_name, name, members: Vec::new(), rest: Vec::new(), functions: BTreeMap::new() }
    }

    /// Gives functions limits of their own, below the sandbox's. To be called before [`attach`](Self::attach). What it made goes with the
    /// sandbox's own groups if it fails.
    ///
    /// # Errors
    /// The kernel refuses a group or a limit.
    pub(crate) fn divide(&mut self, functions: &[(usize, CgroupLimits)]) -> Result<(), CgroupError> {
        // Freezing the sandbox's group freezes those in it; a function needs no freezer of its own.
        let limiting = |member: &&Member| member.tree.controllers.iter().any(|it| Controller::LIMITING.contains(it));
        for member in self.members.iter().filter(limiting) {
            if functions.is_empty() {
                break;
            }
            if member.tree.version == Version::V2 {
                self.rest.push(member.group.new_child(REST_GROUP)?);
                settings::hand_down(&member.group, &member.tree.controllers)?;
            }
            for (function, limits) in functions {
                let group = member.group.new_child(&format!("{FUNCTION_GROUP_PREFIX}{function}"))?;
                if member.tree.version == Version::V1 {
                    settings::inherit_cpuset(&member.group, &group)?;
                }
                settings::limit_all(&group, &member.tree, limits)?;
                self.functions.entry(*function).or_default().push(Member { tree: Arc::clone(&member.tree), group });
            }
        }
        Ok(())
    }

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
                Version::V1 => entries.push(group.open_to_write(settings::entry(tree.version))?),
                // It goes to the group of the rest, below.
                Version::V2 if !self.rest.is_empty() => {}
                Version::V2 => group.write("cgroup.procs", &pid.to_string())?,
            }
        }
        self.rest.iter().try_for_each(|group| group.write("cgroup.procs", &pid.to_string()))?;
        Ok(entries)
    }

    /// Puts a process under the limits, with all of its threads and every child it has from now on.
    #[cfg(test)]
    pub(crate) fn attach(&self, pid: Pid) -> Result<(), CgroupError> {
        let divided = |member: &&Member| member.tree.version == Version::V2 && !self.rest.is_empty();
        let groups = self.members.iter().filter(|member| !divided(member)).map(|member| &member.group);
        groups.chain(&self.rest).try_for_each(|group| group.write("cgroup.procs", &pid.to_string()))
    }

    /// The kernel's count of processes that it killed for want of memory, among those in no function's group: a file with a key
    /// `oom_kill`.
    ///
    /// # Errors
    /// The kernel's file cannot be opened.
    pub(crate) fn memory_kills(&self) -> Result<OwnedFd, CgroupError> {
        let member = self.member_with(Controller::Memory)?;
        let divided = self.rest.first().filter(|_| member.tree.version == Version::V2);
        divided.unwrap_or(&member.group).open_to_read(settings::oom_events(member.tree.version))
    }

    /// The groups of a function, if it has some of its own.
    ///
    /// # Errors
    /// A kernel file cannot be opened.
    pub(crate) fn function(&self, function: usize) -> Result<Option<FunctionEntry>, CgroupError> {
        let Some(members) = self.functions.get(&function) else { return Ok(None) };
        let memory = members.iter().find(|member| member.tree.controllers.contains(&Controller::Memory));
        let memory =
            memory.ok_or_else(|| CgroupError::NoGroup { name: self.name.clone(), controller: Controller::Memory })?;
        let memory_kills = memory.group.open_to_read(settings::oom_events(memory.tree.version))?;
        let entries = members.iter().map(|member| member.group.open_to_write(settings::entry(member.tree.version)));
        Ok(Some(FunctionEntry { memory_kills, entries: entries.collect::<Result<_, _>>()? }))
    }

    /// How many processes the kernel has killed in the sandbox's own groups for want of memory.
    #[cfg(test)]
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
        drop((self.rest, self.functions));
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

#[cfg(test)]
mod tests;
