//! One control group of one hierarchy: a directory, held open, and the kernel files in it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::CgroupError;

/// The longest kernel file that is read, in bytes: the ids of half a million processes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// How deep groups inside a sandbox's group are followed. Nothing here makes any.
const DEPTH_MAX: u32 = 8;

/// The kernel finishes with a dead process a little after it has vanished from `cgroup.procs`; a group is busy until then.
const REMOVE_ATTEMPTS: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// A control group's directory.
#[derive(Debug)]
pub(super) struct Group {
    directory: OwnedFd,
    /// For messages alone; never used to reach the group.
    path: PathBuf,
}

impl Group {
    pub(super) fn open(path: &Path) -> Result<Self, CgroupError> {
        let directory = open(path, directory_flags(), Mode::empty())
            .map_err(|source| CgroupError::Open { path: path.to_owned(), source })?;
        Ok(Self { directory, path: path.to_owned() })
    }

    pub(super) fn try_clone(&self) -> Result<Self, CgroupError> {
        let directory = self.directory.try_clone().map_err(|error| CgroupError::Open {
            path: self.path.clone(),
            source: error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw),
        })?;
        Ok(Self { directory, path: self.path.clone() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The group of that name in this one, if there is one.
    pub(super) fn child(&self, name: &str) -> Result<Option<Self>, CgroupError> {
        let path = self.path.join(name);
        match openat(&self.directory, name, directory_flags() | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(directory) => Ok(Some(Self { directory, path })),
            Err(Errno::ENOENT) => Ok(None),
            Err(source) => Err(CgroupError::Open { path, source }),
        }
    }

    /// The group of that name in this one, made if there is none.
    pub(super) fn child_or_new(&self, name: &str) -> Result<Self, CgroupError> {
        match self.make(name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(source) => {
                return Err(CgroupError::Make { path: self.path.join(name), source });
            }
        }
        self.child(name)?.ok_or_else(|| CgroupError::Make { path: self.path.join(name), source: Errno::ENOENT })
    }

    /// A group that was made just now. One of that name that nobody uses is removed first.
    pub(super) fn new_child(&self, name: &str) -> Result<Self, CgroupError> {
        let path = self.path.join(name);
        if let Some(old) = self.child(name)? {
            if !old.process_ids()?.is_empty() || !old.children()?.is_empty() {
                return Err(CgroupError::InUse { path });
            }
            self.remove_child(name)?;
        }
        match self.make(name) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(CgroupError::InUse { path }),
            Err(source) => return Err(CgroupError::Make { path, source }),
        }
        self.child(name)?.ok_or(CgroupError::Make { path, source: Errno::ENOENT })
    }

    fn make(&self, name: &str) -> Result<(), Errno> {
        mkdirat(&self.directory, name, Mode::from_bits_truncate(0o755))
    }

    /// The names of the groups in this one.
    pub(super) fn children(&self) -> Result<Vec<String>, CgroupError> {
        let failed = |source| CgroupError::List { path: self.path.clone(), source };
        let mut listing = Dir::openat(&self.directory, ".", directory_flags(), Mode::empty()).map_err(failed)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == Some(Type::Directory) && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Removes an empty group; one that is not there is removed already.
    pub(super) fn remove_child(&self, name: &str) -> Result<(), CgroupError> {
        match unlinkat(&self.directory, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(source) => Err(CgroupError::Remove { path: self.path.join(name), source }),
        }
    }

    /// Removes a group whose processes are dead, and the groups in it; waits while the kernel is not done with them.
    pub(super) fn remove_tree(&self, name: &str) -> Result<(), CgroupError> {
        self.remove_to_depth(name, DEPTH_MAX)
    }

    fn remove_to_depth(&self, name: &str, depth: u32) -> Result<(), CgroupError> {
        let Some(group) = self.child(name)? else {
            return Ok(());
        };
        for child in group.children()? {
            if depth == 0 {
                return Err(CgroupError::InUse { path: group.path });
            }
            group.remove_to_depth(&child, depth - 1)?;
        }
        for _ in 1..REMOVE_ATTEMPTS {
            match self.remove_child(name) {
                Err(CgroupError::Remove { source: Errno::EBUSY, .. }) => thread::sleep(REMOVE_PAUSE),
                ended => return ended,
            }
        }
        self.remove_child(name)
    }

    /// The processes of this group and of those in it. A process that this process's pid namespace does not show has
    /// the id 0.
    pub(super) fn process_ids_below(&self) -> Result<Vec<i32>, CgroupError> {
        self.process_ids_to_depth(DEPTH_MAX)
    }

    fn process_ids_to_depth(&self, depth: u32) -> Result<Vec<i32>, CgroupError> {
        let mut ids = self.process_ids()?;
        if depth == 0 {
            return Ok(ids);
        }
        for name in self.children()? {
            if let Some(child) = self.child(&name)? {
                ids.extend(child.process_ids_to_depth(depth - 1)?);
            }
        }
        Ok(ids)
    }

    /// Does this to the group and to those in it.
    pub(super) fn with_all_below(&self, act: &impl Fn(&Self) -> Result<(), CgroupError>) -> Result<(), CgroupError> {
        self.with_all_to_depth(act, DEPTH_MAX)
    }

    fn with_all_to_depth(
        &self,
        act: &impl Fn(&Self) -> Result<(), CgroupError>,
        depth: u32,
    ) -> Result<(), CgroupError> {
        act(self)?;
        if depth == 0 {
            return Ok(());
        }
        for name in self.children()? {
            if let Some(child) = self.child(&name)? {
                child.with_all_to_depth(act, depth - 1)?;
            }
        }
        Ok(())
    }

    fn process_ids(&self) -> Result<Vec<i32>, CgroupError> {
        // A group that was removed under our hands has no process.
        let text = match self.read("cgroup.procs") {
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => String::new(),
            other => other?,
        };
        text.split_ascii_whitespace()
            .map(|id| id.parse().map_err(|_| self.content("cgroup.procs", "list of process ids")))
            .collect()
    }

    /// Whether a service manager says of the group that it is left to who runs in it, as systemd does for `Delegate=yes`.
    pub(super) fn is_delegated(&self) -> bool {
        [c"trusted.delegate", c"user.delegate"].into_iter().any(|name| self.attribute_is_one(name))
    }

    #[allow(unsafe_code, reason = "extended attributes have no wrapper")]
    fn attribute_is_one(&self, name: &CStr) -> bool {
        let mut value = [0; 1];
        let (directory, room) = (self.directory.as_raw_fd(), value.len());
        // SAFETY: the name ends with a zero, the kernel writes into the room given at most, and all of it outlives the call.
        let len = unsafe { libc::fgetxattr(directory, name.as_ptr(), value.as_mut_ptr().cast(), room) };
        len == 1 && value == *b"1"
    }

    /// Whether the group has the kernel file.
    pub(super) fn has(&self, file: &str) -> bool {
        openat(&self.directory, file, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty()).is_ok()
    }

    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        let mut text = String::new();
        self.open_file(file, OFlag::O_RDONLY)
            .and_then(|opened| opened.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|source| CgroupError::Read { path: self.path.join(file), source })?;
        Ok(text)
    }

    pub(super) fn read_number(&self, file: &'static str) -> Result<u64, CgroupError> {
        self.read(file)?.trim().parse().map_err(|_| self.content(file, "number"))
    }

    /// The number that follows the key, in a file of lines `key number`.
    pub(super) fn read_key(&self, file: &'static str, key: &'static str) -> Result<u64, CgroupError> {
        self.read(file)?
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(found, _)| *found == key)
            .and_then(|(_, number)| number.trim().parse().ok())
            .ok_or_else(|| self.content(file, key))
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        // The kernel takes a value whole, by one write, or not at all.
        self.open_file(file, OFlag::O_WRONLY | OFlag::O_TRUNC)
            .and_then(|mut opened| opened.write_all(value.as_bytes()))
            .map_err(|source| CgroupError::Write { path: self.path.join(file), value: value.to_owned(), source })
    }

    /// A kernel file, for somebody else to read.
    pub(super) fn open_to_read(&self, file: &str) -> Result<OwnedFd, CgroupError> {
        let opened = self.open_file(file, OFlag::O_RDONLY);
        opened.map(Into::into).map_err(|source| CgroupError::Read { path: self.path.join(file), source })
    }

    /// A kernel file, for somebody else to write to.
    pub(super) fn open_to_write(&self, file: &str) -> Result<OwnedFd, CgroupError> {
        let opened = self.open_file(file, OFlag::O_WRONLY);
        let value = String::new();
        opened.map(Into::into).map_err(|source| CgroupError::Write { path: self.path.join(file), value, source })
    }

    fn open_file(&self, file: &str, access: OFlag) -> io::Result<File> {
        let flags = access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        Ok(openat(self.directory.as_fd(), file, flags, Mode::empty()).map(File::from)?)
    }

    fn content(&self, file: &str, wanted: &'static str) -> CgroupError {
        CgroupError::Content { path: self.path.join(file), wanted }
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// Whether a kernel file says that its group was removed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}
