//! Where on this host each controller is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process;

use super::group::Group;
use super::{AGENT_GROUP, CgroupError, DetectError};

/// A controller that sandboxes need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
    /// Of v1 alone; part of every group on v2.
    Freezer,
}

impl Controller {
    /// Those without which there are no limits.
    pub(super) const LIMITING: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Freezer => "freezer",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of the kernel's two interfaces a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// One hierarchy that is used.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) version: Version,
    /// Those that are used of the ones it has.
    pub(super) controllers: Vec<Controller>,
    /// The group in which the host's group is made.
    pub(super) base: Group,
}

/// A mount of a control group file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group that is the mount's root.
    root: PathBuf,
    point: PathBuf,
    read_only: bool,
    /// Names of the controllers, on v1.
    controllers: Vec<String>,
}

/// Finds the controllers in the texts of `/proc/self/mountinfo`, `/proc/self/cgroup` and `/proc/cgroups`.
pub(super) fn locate(mountinfo: &str, own_groups: &str, known: &str) -> Result<Vec<Tree>, DetectError> {
    let mounts = mounts(mountinfo);
    let mut trees: Vec<(PathBuf, Tree)> = Vec::new();
    for controller in Controller::LIMITING {
        let (mount, base) = find(controller, &mounts, own_groups)?.ok_or_else(|| missing(controller, known))?;
        add(controller, mount, base, &mut trees);
    }
    // On v2 every group can be frozen and killed. A host without any freezer is served too, see `kill`.
    if trees.iter().all(|(_, tree)| tree.version == Version::V1)
        && let Ok(Some((mount, base))) = find(Controller::Freezer, &mounts, own_groups)
    {
        add(Controller::Freezer, mount, base, &mut trees);
    }
    Ok(trees.into_iter().map(|(_, tree)| tree).collect())
}

/// Moves this process into a group called [`AGENT_GROUP`] below its own, if a service manager has delegated that to it: on v2 a
/// group that hands controllers down holds no process. systemd can do so only from version 254 on (`DelegateSubgroup`).
pub(super) fn leave_delegated_group(mountinfo: &str, own_groups: &str) -> Result<(), CgroupError> {
    for mount in mounts(mountinfo).iter().filter(|mount| mount.version == Version::V2 && !mount.read_only) {
        let Some(own) = own_group(own_groups).and_then(|own| within(mount, own)) else { continue };
        // A mount whose directory cannot be opened lies under another mount.
        let Ok(own) = Group::open(&own) else { continue };
        if own.is_delegated() && own.has("memory.max") {
            own.child_or_new(AGENT_GROUP)?.write("cgroup.procs", &process::id().to_string())?;
        }
    }
    Ok(())
}

/// The mount that has the controller, and its group in which ours are to be made.
fn find<'m>(
    controller: Controller,
    mounts: &'m [Mount],
    own_groups: &str,
) -> Result<Option<(&'m Mount, Group)>, DetectError> {
    let mut read_only = None;
    for mount in mounts {
        // A mount whose directory cannot be opened or has no such file lies under another mount.
        let Ok(base) = Group::open(&base_path(mount, own_groups)) else {
            continue;
        };
        if !base.has("cgroup.procs") {
            continue;
        }
        let has_controller = match mount.version {
            Version::V1 => mount.controllers.iter().any(|name| name == controller.name()),
            Version::V2 => base
                .read("cgroup.controllers")
                .map_err(DetectError::Mount)?
                .split_ascii_whitespace()
                .any(|name| name == controller.name()),
        };
        if has_controller && mount.read_only {
            read_only = Some(DetectError::ReadOnly { controller, path: mount.point.clone() });
        } else if has_controller {
            return Ok(Some((mount, base)));
        }
    }
    read_only.map_or(Ok(None), Err)
}

/// Controllers that are mounted together share a tree.
fn add(controller: Controller, mount: &Mount, base: Group, trees: &mut Vec<(PathBuf, Tree)>) {
    match trees.iter_mut().find(|(point, _)| *point == mount.point) {
        Some((_, tree)) => tree.controllers.push(controller),
        None => {
            let tree = Tree { version: mount.version, controllers: vec![controller], base };
            trees.push((mount.point.clone(), tree));
        }
    }
}

fn missing(controller: Controller, known: &str) -> DetectError {
    let switched_off = known
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .any(|fields| matches!(fields.as_slice(), [name, _, _, "0"] if *name == controller.name()));
    if switched_off { DetectError::SwitchedOff { controller } } else { DetectError::NotMounted { controller } }
}

/// The root of the mount; on v2, the group above the agent's own if that one is called [`AGENT_GROUP`].
fn base_path(mount: &Mount, own_groups: &str) -> PathBuf {
    let delegated = || {
        let own = own_group(own_groups)?;
        let above = (own.file_name()? == AGENT_GROUP).then(|| own.parent())??;
        within(mount, above)
    };
    match mount.version {
        Version::V1 => None,
        Version::V2 => delegated(),
    }
    .unwrap_or_else(|| mount.point.clone())
}

/// This process's group on v2.
fn own_group(own_groups: &str) -> Option<&Path> {
    own_groups.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

/// Where the mount shows a group, if it does.
fn within(mount: &Mount, group: &Path) -> Option<PathBuf> {
    let below_mount = group.strip_prefix(&mount.root).ok()?;
    (!below_mount.components().any(|part| part.as_os_str() == "..")).then(|| mount.point.join(below_mount))
}

/// The mounts of control group file systems; of two on one directory, the later, which covers the other.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in mountinfo.lines() {
        let Some(mount) = mount(line) else { continue };
        mounts.retain(|earlier| earlier.point != mount.point);
        mounts.push(mount);
    }
    mounts
}

/// A line of mountinfo is `id parent device root point options [tag…] - type source super-options` (proc(5)).
fn mount(line: &str) -> Option<Mount> {
    let (of_mount, of_file_system) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ').skip(3);
    let (root, point, options) = (of_mount.next()?, of_mount.next()?, of_mount.next()?);
    let mut of_file_system = of_file_system.split(' ');
    let version = match of_file_system.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let super_options = of_file_system.nth(1)?;
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        version,
        root: unescape(root),
        point: unescape(point),
        read_only: is_read_only(options) || is_read_only(super_options),
        controllers: super_options.split(',').map(str::to_owned).collect(),
    })
}

/// The kernel writes blanks and backslashes in paths as `\040` and the like.
fn unescape(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        path.push_str(plain);
        match escaped.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(char::from(byte));
                rest = &escaped[3..];
            }
            None => {
                path.push('\\');
                rest = escaped;
            }
        }
    }
    path.push_str(rest);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests;
