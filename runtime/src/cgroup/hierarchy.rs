//! Where this host has its controllers, and the groups that sandboxes get there: made, found again, and swept.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use nix::errno::Errno;

use super::mounts::{self, Tree, Version};
use super::{Cgroup, CgroupError, CgroupLimits, DetectError, Member, settings};

/// How often a group is made anew when the host's group is removed by somebody else at the same moment.
const MAKE_ATTEMPTS: u32 = 3;

/// The hierarchies of this host which have the controllers that limits need.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    pub(super) trees: Vec<Arc<Tree>>,
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
