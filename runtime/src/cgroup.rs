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
mod kill;
mod mounts;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
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

/// The group, in a sandbox's own on v2, of all that is in no function's.
const REST_GROUP: &str = "rest";
/// The groups of functions in their sandbox's: this and the function's index.
const FUNCTION_GROUP_PREFIX: &str = "function-";

/// How often a group is made anew when the host's group is removed by somebody else at the same moment.
const MAKE_ATTEMPTS: u32 = 3;

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

/// The hierarchies of this host which have the controllers that limits need.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    trees: Vec<Arc<Tree>>,
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

/// What [`Hierarchy::sweep`] found and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Sandboxes whose groups were removed.
    pub(crate) sandboxes: usize,
    /// Processes that were killed.
    pub(crate) processes: usize,
}

impl Hierarchy {
    /// Finds the controllers on this host, and moves this process out of the way of sandboxes if it is in a group that was
    /// delegated to it.
    ///
    /// # Errors
    /// A controller is missing or cannot be used; the error says what to do.
    pub(crate) fn detect() -> Result<Self, DetectError> {
        let read = |path: &'static str| fs::read_to_string(path).map_err(|source| DetectError::Proc { path, source });
        // The table of controllers only serves to explain what is missing, so that its absence is no error.
        let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let mountinfo = read("/proc/self/mountinfo")?;
        mounts::leave_delegated_group(&mountinfo, &read("/proc/self/cgroup")?).map_err(DetectError::NoLimits)?;
        let trees = mounts::locate(&mountinfo, &read("/proc/self/cgroup")?, &known)?;
        // A base that can hand nothing down is no good, and better found out now than at the first sandbox.
        for tree in trees.iter().filter(|tree| tree.version == Version::V2) {
            settings::hand_down(&tree.base, &tree.controllers).map_err(DetectError::NoLimits)?;
        }
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
        let mut cgroup = Cgroup::empty(host_name, sandbox_name);
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
        let mut cgroup = Cgroup::empty(host_name, name);
        for tree in &self.trees {
            let group = match tree.base.child(host_name)? {
                Some(host) => host.child(name)?,
                None => None,
            };
            cgroup.members.extend(group.map(|group| Member { tree: Arc::clone(tree), group }));
        }
        Ok(cgroup)
    }
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
    settings::limit_all(&group, tree, limits)
}

/// Names become directory names: one component, and never the name of a kernel file, all of which have a dot.
fn check_name(name: &str) -> Result<(), CgroupError> {
    let legal = (1..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if legal { Ok(()) } else { Err(CgroupError::Name { name: name.escape_debug().collect() }) }
}

#[cfg(test)]
mod tests;
