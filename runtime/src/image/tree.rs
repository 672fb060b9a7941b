//! The tree that an image's layers are unpacked into, one entry at a time.
//!
//! Invariants:
//! 1. Nothing outside the tree is opened, made or removed, whatever links it holds: the directory of each entry is found by the
//!    kernel within the tree's own root (`RESOLVE_IN_ROOT`), as it will be found in the sandbox, and the entry's last name is
//!    never followed.
//! 2. A file is never written through: what has its name is removed first, and it is made anew. One that shares its contents
//!    under another name keeps them.
//! 3. What a layer has brought, the same layer does not take away again or bring twice.
//! 4. Files have mode 0644 or 0755 and directories 0755, all root's: there is no set-uid bit at any time.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{LinkatFlags, UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::ImageLimits;
use super::error::{ImageError, entry, write};

const COPIED_AT_ONCE: usize = 64 << 10;
const TWICE: &str = "comes twice in one layer";

/// A tree under construction.
pub(super) struct Tree<'l> {
    root: OwnedFd,
    /// The root as the kernel names it, to tell where in the tree a directory is.
    root_path: PathBuf,
    limits: &'l ImageLimits,
    entries: u64,
    bytes: u64,
    /// What the layer at hand has brought, by its place in the tree, in which there are no links.
    brought: BTreeSet<PathBuf>,
}

/// Where an entry is.
struct Place {
    parent: OwnedFd,
    name: OsString,
    /// From the root, without links.
    path: PathBuf,
}

/// A regular file of a layer, but for its contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileAttributes {
    pub(super) executable: bool,
    /// Seconds since 1970. Kept, because interpreters tell by it whether what they compiled is still right.
    pub(super) modified: u64,
}

impl<'l> Tree<'l> {
    /// Takes an empty directory.
    pub(super) fn new(root: OwnedFd, limits: &'l ImageLimits) -> io::Result<Self> {
        fchmod(&root, Mode::from_bits_truncate(0o755))?;
        let root_path = path_of(&root)?;
        Ok(Self { root, root_path, limits, entries: 0, bytes: 0, brought: BTreeSet::new() })
    }

    /// What comes from here on is of another layer.
    pub(super) fn begin_layer(&mut self) {
        self.brought.clear();
    }

    /// A directory, which keeps what lower layers have in it.
    pub(super) fn directory(&mut self, path: &Path) -> Result<(), ImageError> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let place = self.place(path)?;
        if kind_of(&place)? != Some(SFlag::S_IFDIR) {
            self.make_room(&place)?;
            make_directory(&place)?;
        }
        self.bring(place)
    }

    pub(super) fn file(
        &mut self,
        path: &Path,
        attributes: FileAttributes,
        contents: impl Read,
    ) -> Result<(), ImageError> {
        let place = self.place(path)?;
        self.make_room(&place)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let created = openat(&place.parent, place.name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let mut file = File::from(created.map_err(write(path))?);
        let room = self.limits.file_bytes.min(self.limits.total_bytes.saturating_sub(self.bytes));
        // What counts is what was copied, not what was announced.
        let copied = copy(contents.take(room.saturating_add(1)), &mut file, path)?;
        if copied > self.limits.file_bytes {
            return Err(ImageError::TooMany { limit: self.limits.file_bytes, what: "bytes of one file" });
        }
        if copied > room {
            return Err(ImageError::TooMany { limit: self.limits.total_bytes, what: "bytes in all" });
        }
        self.bytes += copied;
        fchmod(&file, Mode::from_bits_truncate(if attributes.executable { 0o755 } else { 0o644 }))
            .map_err(write(path))?;
        let modified = TimeSpec::from_duration(Duration::from_secs(attributes.modified));
        futimens(&file, &modified, &modified).map_err(write(path))?;
        self.bring(place)
    }

    /// A symbolic link, whose target is looked at and not followed.
    pub(super) fn symbolic_link(&mut self, path: &Path, target: &Path) -> Result<(), ImageError> {
        let place = self.place(path)?;
        if target.as_os_str().is_empty() {
            return Err(entry(path, "is a symbolic link without a target"));
        }
        if climbs_out(&place.path, target) {
            return Err(entry(path, "is a symbolic link out of the root"));
        }
        self.make_room(&place)?;
        symlinkat(target, &place.parent, place.name.as_os_str()).map_err(write(path))?;
        self.bring(place)
    }

    /// Another name for a file of this or a lower layer.
    pub(super) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), ImageError> {
        let missing = || entry(path, "is a hard link to what is not in the image");
        let parent = self.resolve(target.parent().unwrap_or(Path::new(""))).map_err(|_| missing())?;
        let name = target.file_name().ok_or_else(missing)?.to_owned();
        let target = Place { path: self.path_in_tree(&parent, target)?.join(&name), parent, name };
        match kind_of(&target)? {
            None => return Err(missing()),
            Some(SFlag::S_IFREG | SFlag::S_IFLNK) => {}
            Some(_) => return Err(entry(path, "is a hard link to a directory")),
        }
        let place = self.place(path)?;
        if place.path == target.path {
            return Err(entry(path, "is a hard link to itself"));
        }
        self.make_room(&place)?;
        // Without a flag to follow, a symbolic link is given another name itself.
        linkat(&target.parent, target.name.as_os_str(), &place.parent, place.name.as_os_str(), LinkatFlags::empty())
            .map_err(write(path))?;
        self.bring(place)
    }

    /// Takes away what lower layers have by this name.
    pub(super) fn white_out(&mut self, path: &Path) -> Result<(), ImageError> {
        self.count()?;
        let Some(place) = self.place_if_there(path)? else { return Ok(()) };
        self.make_room(&place)
    }

    /// Takes away what lower layers have in this directory. Once for each: it costs as much as the directory has in it.
    pub(super) fn make_opaque(&mut self, directory: &Path, marker: &str) -> Result<(), ImageError> {
        self.count()?;
        let opened = match self.resolve(directory) {
            Ok(opened) => opened,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(errno) => return Err(write(directory)(errno)),
        };
        let path = self.path_in_tree(&opened, directory)?;
        if !self.brought.insert(path.join(marker)) {
            return Err(entry(&path.join(marker), TWICE));
        }
        self.clear(&opened, &path)
    }

    /// Removes what the layer at hand has not brought. Its depth is that of the tree, which is bounded.
    fn clear(&self, directory: &OwnedFd, path: &Path) -> Result<(), ImageError> {
        let mut listing = Dir::openat(directory, ".", directory_flags(), Mode::empty()).map_err(write(path))?;
        let names: Result<Vec<_>, _> =
            listing.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned())).collect();
        for name in names.map_err(write(path))? {
            let name = OsStr::from_bytes(name.to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let parent = directory.try_clone().map_err(|source| ImageError::Write { path: path.to_owned(), source })?;
            let place = Place { parent, name: name.to_owned(), path: path.join(name) };
            if !self.has_brought(&place.path) {
                remove(&place)?;
            } else if kind_of(&place)? == Some(SFlag::S_IFDIR) {
                let child = openat(directory, name, directory_flags(), Mode::empty()).map_err(write(&place.path))?;
                self.clear(&child, &place.path)?;
            }
        }
        Ok(())
    }

    /// The place of an entry; directories that nobody mentioned are made.
    fn place(&mut self, path: &Path) -> Result<Place, ImageError> {
        let name = path.file_name().ok_or_else(|| entry(path, "has no name"))?.to_owned();
        let parent = self.directories(path.parent().unwrap_or(Path::new("")))?;
        self.place_in(parent, name, path)
    }

    /// The place of an entry whose directory may not exist.
    fn place_if_there(&self, path: &Path) -> Result<Option<Place>, ImageError> {
        let name = path.file_name().ok_or_else(|| entry(path, "has no name"))?.to_owned();
        match self.resolve(path.parent().unwrap_or(Path::new(""))) {
            Ok(parent) => self.place_in(parent, name, path).map(Some),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(write(path)(errno)),
        }
    }

    fn place_in(&self, parent: OwnedFd, name: OsString, path: &Path) -> Result<Place, ImageError> {
        let within = self.path_in_tree(&parent, path)?.join(&name);
        if within.components().count() > self.limits.depth {
            return Err(ImageError::TooMany { limit: self.limits.depth as u64, what: "directories inside each other" });
        }
        Ok(Place { parent, name, path: within })
    }

    /// Opens a directory by a path in the tree, and makes what is missing of it.
    fn directories(&mut self, path: &Path) -> Result<OwnedFd, ImageError> {
        match self.resolve(path) {
            Err(Errno::ENOENT) => {}
            Err(Errno::ENOTDIR) => return Err(entry(path, "is no directory, and has something in it")),
            opened => return opened.map_err(write(path)),
        }
        if path.components().count() > self.limits.depth {
            return Err(ImageError::TooMany { limit: self.limits.depth as u64, what: "directories inside each other" });
        }
        let place = self.place(path)?;
        if kind_of(&place)?.is_some() {
            return Err(entry(path, "is a symbolic link to nothing, and has something in it"));
        }
        self.count()?;
        make_directory(&place)
    }

    fn resolve(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(&self.root, path, OpenHow::new().flags(directory_flags()).resolve(resolve))
    }

    /// Where in the tree an open directory is.
    fn path_in_tree(&self, directory: &OwnedFd, shown: &Path) -> Result<PathBuf, ImageError> {
        let path = path_of(directory).map_err(|source| ImageError::Write { path: shown.to_owned(), source })?;
        let within = path.strip_prefix(&self.root_path).map_err(|_| entry(shown, "is not in the root"))?;
        Ok(within.to_owned())
    }

    /// Removes what lower layers have in an entry's place.
    fn make_room(&self, place: &Place) -> Result<(), ImageError> {
        if self.has_brought(&place.path) {
            return Err(entry(&place.path, TWICE));
        }
        if kind_of(place)?.is_some() { remove(place) } else { Ok(()) }
    }

    fn has_brought(&self, path: &Path) -> bool {
        // Paths are in the order of their components: what is in a directory follows it.
        self.brought.range(path.to_owned()..).next().is_some_and(|next| next.starts_with(path))
    }

    fn bring(&mut self, place: Place) -> Result<(), ImageError> {
        self.brought.insert(place.path);
        self.count()
    }

    fn count(&mut self) -> Result<(), ImageError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ImageError::TooMany { limit: self.limits.entries, what: "files and directories" });
        }
        Ok(())
    }
}

/// Copies, and tells whose fault it is if that fails.
fn copy(mut from: impl Read, to: &mut File, path: &Path) -> Result<u64, ImageError> {
    let mut buffer = vec![0; COPIED_AT_ONCE];
    let mut copied = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|source| ImageError::Read { what: format!("{path:?}"), source })?,
        };
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { return Ok(copied) };
        to.write_all(read).map_err(|source| ImageError::Write { path: path.to_owned(), source })?;
        copied += count as u64;
    }
}

/// Whether a link in this place, if its target is relative, leads above the root.
fn climbs_out(place: &Path, target: &Path) -> bool {
    let mut depth = place.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::RootDir => depth = 0,
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    false
}

fn path_of(directory: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// What is in the place, if anything; a link is a link.
fn kind_of(place: &Place) -> Result<Option<SFlag>, ImageError> {
    match fstatat(&place.parent, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(write(&place.path)(errno)),
    }
}

fn make_directory(place: &Place) -> Result<OwnedFd, ImageError> {
    let failed = write(&place.path);
    let name = place.name.as_os_str();
    mkdirat(&place.parent, name, Mode::S_IRWXU).map_err(&failed)?;
    let made = openat(&place.parent, name, directory_flags() | OFlag::O_NOFOLLOW, Mode::empty()).map_err(&failed)?;
    fchmod(made.as_fd(), Mode::from_bits_truncate(0o755)).map_err(&failed)?;
    Ok(made)
}

/// Removes what is in the place, with all that is in it. No link is followed.
fn remove(place: &Place) -> Result<(), ImageError> {
    match unlinkat(&place.parent, place.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => {}
        removed => return removed.map_err(write(&place.path)),
    }
    let path = Path::new("/proc/self/fd").join(place.parent.as_raw_fd().to_string()).join(&place.name);
    fs::remove_dir_all(path).map_err(|source| ImageError::Write { path: place.path.clone(), source })
}
