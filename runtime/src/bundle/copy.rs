//! Copying a tree of regular files and directories by descriptors, within limits.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::fsync;

use super::{BundleError, BundleLimits, LEFT_OUT};
use crate::archive::path;

/// Any of these makes a file a program.
const EXECUTE_BITS: u32 = 0o111;

/// What identifies a directory on this host, whatever path led to it.
type Identity = (libc::dev_t, libc::ino_t);

/// One copy under way.
struct Copy<'c> {
    limits: &'c BundleLimits,
    /// The directory that holds the copies: a source that contains it would be copied into itself.
    forbidden: Identity,
    entries: usize,
    bytes: u64,
}

/// A directory of the source and its copy. Paths are for messages alone.
struct Pair {
    from: OwnedFd,
    from_path: PathBuf,
    to: OwnedFd,
    to_path: PathBuf,
}

/// Copies all that is in the directory `from`, but for what is left out, to the empty directory `to`.
pub(super) fn tree(
    from: OwnedFd,
    from_path: &Path,
    to: OwnedFd,
    to_path: &Path,
    forbidden: &OwnedFd,
    limits: &BundleLimits,
) -> Result<(), BundleError> {
    let unreadable = |error: Errno| BundleError::Read { path: from_path.to_owned(), source: error.into() };
    let forbidden = identity(&fstat(forbidden).map_err(unreadable)?);
    let mut copy = Copy { limits, forbidden, entries: 0, bytes: 0 };
    copy.directory(Pair { from, from_path: from_path.to_owned(), to, to_path: to_path.to_owned() }, 0)
}

impl Copy<'_> {
    fn directory(&mut self, pair: Pair, depth: usize) -> Result<(), BundleError> {
        let unreadable = |error: Errno| BundleError::Read { path: pair.from_path.clone(), source: error.into() };
        if identity(&fstat(&pair.from).map_err(unreadable)?) == self.forbidden {
            return Err(BundleError::OwnState { path: pair.from_path });
        }
        if depth > self.limits.depth {
            return Err(too_many(&pair.from_path, self.limits.depth as u64, "directories inside each other"));
        }
        // Names that other systems take for one are not both taken, as in an archive.
        let mut folded = HashMap::new();
        for name in self.names(&pair)? {
            let shown = || pair.from_path.join(name.to_string_lossy().as_ref()).to_string_lossy().into_owned();
            if depth == 0 && LEFT_OUT.iter().any(|left_out| left_out.as_bytes() == name.to_bytes()) {
                continue;
            }
            let text = path::name(name.to_bytes()).map_err(|problem| BundleError::Path { path: shown(), problem })?;
            if let Some(other) = folded.insert(path::folded(text), text.to_owned()) {
                return Err(BundleError::Twins { path: shown(), other });
            }
            self.entry(&pair, text, depth)?;
        }
        finish(&pair.to, 0o755).map_err(|source| BundleError::Write { path: pair.to_path.clone(), source })
    }

    /// The names in the source's directory, counted while they are read: a directory has no bound of its own.
    fn names(&mut self, pair: &Pair) -> Result<Vec<CString>, BundleError> {
        let unreadable = |error: Errno| BundleError::Read { path: pair.from_path.clone(), source: error.into() };
        let mut listing = Dir::openat(&pair.from, ".", directory_flags(), Mode::empty()).map_err(unreadable)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > self.limits.entries {
                let path = pair.from_path.join(name.to_string_lossy().as_ref());
                return Err(too_many(&path, self.limits.entries as u64, "files and directories"));
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }

    fn entry(&mut self, pair: &Pair, name: &str, depth: usize) -> Result<(), BundleError> {
        let from_path = pair.from_path.join(name);
        let unreadable = |error: Errno| BundleError::Read { path: from_path.clone(), source: error.into() };
        // To open a device can set something off, so that the entry is looked at first. What was opened is looked at
        // again, as the entry may be another by then.
        let seen = fstatat(&pair.from, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(unreadable)?;
        refuse_special(&seen, &from_path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let from = openat(&pair.from, name, flags, Mode::empty()).map_err(unreadable)?;
        let opened = fstat(&from).map_err(unreadable)?;
        refuse_special(&opened, &from_path)?;
        let to_path = pair.to_path.join(name);
        if kind(&opened) == SFlag::S_IFDIR {
            let to = make_directory(&pair.to, name)
                .map_err(|error| BundleError::Write { path: to_path.clone(), source: error.into() })?;
            self.directory(Pair { from, from_path, to, to_path }, depth + 1)
        } else {
            let destination = Destination { directory: &pair.to, name, path: to_path };
            self.file(File::from(from), &from_path, &opened, &destination)
        }
    }

    fn file(
        &mut self,
        from: File,
        from_path: &Path,
        opened: &FileStat,
        destination: &Destination<'_>,
    ) -> Result<(), BundleError> {
        let room = self.limits.file_bytes.min(self.limits.total_bytes.saturating_sub(self.bytes));
        let unwritable = |source: io::Error| BundleError::Write { path: destination.path.clone(), source };
        let mut to = create(destination.directory, destination.name).map_err(unwritable)?;
        // The size that was seen is a promise that a file which is being written does not keep: what counts is what
        // was copied.
        let copied = io::copy(&mut from.take(room.saturating_add(1)), &mut to).map_err(unwritable)?;
        if copied > self.limits.file_bytes {
            return Err(too_many(from_path, self.limits.file_bytes, "bytes in one file"));
        }
        if copied > room {
            return Err(too_many(from_path, self.limits.total_bytes, "bytes in all"));
        }
        self.bytes += copied;
        finish(&to, file_mode(opened.st_mode)).map_err(unwritable)
    }
}

/// Where a file's copy is to be.
struct Destination<'d> {
    directory: &'d OwnedFd,
    name: &'d str,
    path: PathBuf,
}

/// A file that was not there.
pub(super) fn create(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
}

fn make_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, Mode::S_IRWXU)?;
    openat(parent, name, directory_flags(), Mode::empty())
}

/// The mode that a file of this mode has in a bundle.
pub(super) fn file_mode(mode: libc::mode_t) -> libc::mode_t {
    if mode & EXECUTE_BITS == 0 { 0o644 } else { 0o755 }
}

/// Sets the mode, whatever the process's umask is, and has the contents written to the disk.
pub(super) fn finish(fd: &impl AsFd, mode: libc::mode_t) -> io::Result<()> {
    fchmod(fd, Mode::from_bits_truncate(mode))?;
    Ok(fsync(fd)?)
}

pub(super) fn refuse_special(stat: &FileStat, path: &Path) -> Result<(), BundleError> {
    let kind = match kind(stat) {
        SFlag::S_IFREG | SFlag::S_IFDIR => return Ok(()),
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK | SFlag::S_IFCHR => "a device",
        _ => "of an unknown kind",
    };
    Err(BundleError::Kind { path: path.to_owned(), kind })
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

fn too_many(path: &Path, limit: u64, what: &'static str) -> BundleError {
    BundleError::TooMany { path: path.to_owned(), limit, what }
}

pub(super) fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC
}
