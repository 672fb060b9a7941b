//! Unpacking an archive into a bundle.
//!
//! The archive is read twice. The first time nothing is written: every entry is judged, every checksum is checked, and we learn
//! whether all is in one folder, which is then left off. The second time, the same judge sees each entry again before it is
//! written, so that it does not matter whether the archive is still the same.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

use super::copy::{create, file_mode, finish};
use super::{BundleError, BundleLimits, LEFT_OUT};
use crate::archive::decompress::StreamLimits;
use crate::archive::path::{self, PathError};
use crate::archive::{ArchiveError, Entry, Kind, each_entry};
use crate::manifest::FILE_NAME;

/// The bundle's own directory, in [`Unpacking::nodes`].
const ROOT: usize = 0;

/// As much of a path as messages show.
const SHOWN_CHARS_MAX: usize = 120;

const DEPTH: &str = "directories inside each other";

/// Up to so many bytes, any ratio is harmless.
const ANY_RATIO_BYTES: u64 = 1 << 20;

/// An archive that has been read once.
#[derive(Debug)]
pub(super) struct Surveyed<'a> {
    file: &'a File,
    file_bytes: u64,
    /// The one folder that all of it is in, if its manifest is in there.
    top: Option<String>,
}

/// Which parts of a path do not count.
#[derive(Clone, Copy)]
enum Top<'t> {
    /// It is not known yet whether all is in one folder.
    Unknown,
    Kept,
    Left(&'t str),
}

impl Top<'_> {
    /// How many directories there may be above the bundle's own.
    fn levels(self) -> usize {
        match self {
            Self::Kept => 0,
            Self::Unknown | Self::Left(_) => 1,
        }
    }
}

/// A file or directory of the bundle to be.
#[derive(Debug)]
struct Node {
    parent: usize,
    name: String,
    is_directory: bool,
    /// Whether it has an entry of its own: a directory may be there for the sake of what is in it.
    is_listed: bool,
    /// What it is to have once it is written.
    mode: libc::mode_t,
}

/// What has come out of an archive so far.
struct Unpacking<'u> {
    limits: &'u BundleLimits,
    top: Top<'u>,
    /// Parents come before what is in them.
    nodes: Vec<Node>,
    /// By directory, and name as far as case does not matter.
    index: HashMap<(usize, String), usize>,
    bytes: u64,
    /// Where it is written to, if it is.
    root: Option<OwnedFd>,
}

/// Reads the archive once, without writing anything.
///
/// # Errors
/// It is no bundle.
pub(super) fn survey<'a>(file: &'a File, file_bytes: u64, limits: &BundleLimits) -> Result<Surveyed<'a>, BundleError> {
    let mut unpacking = Unpacking::new(limits, Top::Unknown, None);
    unpacking.run(file, file_bytes)?;
    Ok(Surveyed { file, file_bytes, top: unpacking.folder_of_manifest()? })
}

impl Surveyed<'_> {
    /// Unpacks the archive into the empty directory `root`.
    ///
    /// # Errors
    /// It cannot be written, or is no longer what it was.
    pub(super) fn unpack(&self, root: OwnedFd, limits: &BundleLimits) -> Result<(), BundleError> {
        let top = self.top.as_deref().map_or(Top::Kept, Top::Left);
        let mut unpacking = Unpacking::new(limits, top, Some(root));
        unpacking.run(self.file, self.file_bytes)?;
        unpacking.finish()
    }
}

impl<'u> Unpacking<'u> {
    fn new(limits: &'u BundleLimits, top: Top<'u>, root: Option<OwnedFd>) -> Self {
        let node = Node { parent: ROOT, name: String::new(), is_directory: true, is_listed: false, mode: 0o755 };
        Self { limits, top, nodes: vec![node], index: HashMap::new(), bytes: 0, root }
    }

    fn run(&mut self, mut file: &File, file_bytes: u64) -> Result<(), BundleError> {
        let BundleLimits { total_bytes, ratio, .. } = *self.limits;
        // A tar has headers, and what is left out of a bundle may be in an archive.
        let output_bytes = total_bytes.saturating_mul(2);
        if file_bytes > output_bytes {
            return Err(ArchiveError::TooLarge { limit: output_bytes }.into());
        }
        io::Seek::rewind(&mut file).map_err(ArchiveError::Read)?;
        let stream = StreamLimits { output_bytes, ratio, any_ratio_bytes: ANY_RATIO_BYTES };
        each_entry(file, file_bytes, stream, |entry, contents| self.take(entry, contents))
    }

    fn take(&mut self, entry: &Entry, contents: &mut dyn Read) -> Result<(), BundleError> {
        let is_directory = entry.kind == Kind::Directory;
        let refused = |problem| {
            if matches!(problem, PathError::Deep(_)) {
                return self.too_many(shown(&entry.path), self.limits.depth as u64, DEPTH);
            }
            BundleError::Path { path: shown(&entry.path), problem }
        };
        let parts = path::parts(&entry.path, is_directory, self.limits.depth + self.top.levels()).map_err(refused)?;
        let parts: Result<Vec<&str>, PathError> = parts.into_iter().map(path::name).collect();
        let parts = parts.map_err(refused)?;
        let Some(parts) = self.below_top(&parts).map_err(|()| BundleError::Changed)? else { return Ok(()) };
        let Some((name, directories)) = parts.split_last() else { return Ok(()) };
        if !matches!(entry.kind, Kind::File | Kind::Directory) {
            return Err(BundleError::Kind { path: shown(&entry.path).into(), kind: entry.kind.name() });
        }
        let mut parent = ROOT;
        for part in directories {
            parent = self.directory(parent, part, false)?;
        }
        if is_directory {
            return self.directory(parent, name, true).map(drop);
        }
        if let Some(&there) = self.index.get(&(parent, path::folded(name))) {
            return Err(self.twins(there, parent, name, false));
        }
        let made = self.node(parent, name, false)?;
        self.nodes[made].mode = file_mode(entry.mode);
        self.file(parent, name, entry, contents)
    }

    /// What of a path is in the bundle; nothing of it, if it is left out.
    fn below_top<'p, 's>(&self, parts: &'p [&'s str]) -> Result<Option<&'p [&'s str]>, ()> {
        let is_left_out = |part: Option<&&str>| part.is_some_and(|part| LEFT_OUT.contains(part));
        let parts = match self.top {
            _ if is_left_out(parts.first()) => return Ok(None),
            Top::Kept => parts,
            Top::Unknown if is_left_out(parts.get(1)) => return Ok(None),
            Top::Unknown => parts,
            Top::Left(_) if parts.is_empty() => parts,
            Top::Left(top) if parts[0] != top => return Err(()),
            Top::Left(_) if is_left_out(parts.get(1)) => return Ok(None),
            Top::Left(_) => &parts[1..],
        };
        Ok(Some(parts))
    }

    /// A directory, made if it is not there.
    fn directory(&mut self, parent: usize, name: &str, is_listed: bool) -> Result<usize, BundleError> {
        let Some(&there) = self.index.get(&(parent, path::folded(name))) else {
            let made = self.node(parent, name, true)?;
            self.nodes[made].is_listed = is_listed;
            if self.root.is_some() {
                let made_in = self.open(parent)?;
                mkdirat(&made_in, name, Mode::S_IRWXU).map_err(|error| self.unwritable(made, error))?;
            }
            return Ok(made);
        };
        let node = &mut self.nodes[there];
        if node.name == name && node.is_directory && !(is_listed && node.is_listed) {
            node.is_listed |= is_listed;
            return Ok(there);
        }
        Err(self.twins(there, parent, name, true))
    }

    fn node(&mut self, parent: usize, name: &str, is_directory: bool) -> Result<usize, BundleError> {
        // The folder that may have to be left off is among them until that is known.
        if self.nodes.len() > self.limits.entries + usize::from(matches!(self.top, Top::Unknown)) {
            let path = self.path(parent, name);
            return Err(self.too_many(path, self.limits.entries as u64, "files and directories"));
        }
        self.index.insert((parent, path::folded(name)), self.nodes.len());
        self.nodes.push(Node { parent, name: name.to_owned(), is_directory, is_listed: true, mode: 0o755 });
        Ok(self.nodes.len() - 1)
    }

    fn file(&mut self, parent: usize, name: &str, entry: &Entry, contents: &mut dyn Read) -> Result<(), BundleError> {
        let path = self.path(parent, name);
        let unwritable = |source: io::Error| BundleError::Write { path: path.clone().into(), source };
        let room = self.limits.file_bytes.min(self.limits.total_bytes - self.bytes);
        let mut to: Box<dyn Write> = match self.root {
            None => Box::new(io::sink()),
            Some(_) => {
                let made_in = self.open(parent)?;
                Box::new(create(&made_in, name).map_err(unwritable)?)
            }
        };
        // What is said to be too large is not read; what is not said to be so is counted.
        let copied = if entry.size > room {
            entry.size
        } else {
            io::copy(&mut contents.take(room + 1), &mut to).map_err(|error| match error.downcast::<ArchiveError>() {
                Ok(source) => BundleError::InEntry { path: path.clone(), source },
                Err(error) => unwritable(error),
            })?
        };
        if copied > self.limits.file_bytes {
            return Err(self.too_many(path, self.limits.file_bytes, "bytes in one file"));
        }
        if copied > room {
            return Err(self.too_many(path, self.limits.total_bytes, "bytes in all"));
        }
        self.bytes += copied;
        Ok(())
    }

    /// The folder to be left off, if there is one; the manifest is in it, or at the top.
    fn folder_of_manifest(&self) -> Result<Option<String>, BundleError> {
        let child = |parent: usize, name: &str| {
            let index = self.index.get(&(parent, path::folded(name)))?;
            self.nodes.get(*index).filter(|node| node.name == name)
        };
        if child(ROOT, FILE_NAME).is_some() {
            return Ok(None);
        }
        let mut top = self.nodes.iter().enumerate().skip(1).filter(|(_, node)| node.parent == ROOT);
        match (top.next(), top.next()) {
            (Some((index, node)), None) if child(index, FILE_NAME).is_some() => Ok(Some(node.name.clone())),
            _ => Err(BundleError::NoManifest),
        }
    }

    /// Has all that was written written to the disk. Until here nothing waited for it: most of what is refused is refused sooner.
    fn finish(self) -> Result<(), BundleError> {
        for (index, node) in self.nodes.iter().enumerate().rev() {
            let opened = self.open(index)?;
            finish(&opened, node.mode)
                .map_err(|source| BundleError::Write { path: self.path_of(index).into(), source })?;
        }
        Ok(())
    }

    /// Opens what was made, through no link and nowhere else.
    fn open(&self, index: usize) -> Result<OwnedFd, BundleError> {
        let root = self.root.as_ref().ok_or(BundleError::Changed)?;
        let path = if index == ROOT { ".".to_owned() } else { self.path_of(index) };
        let kept_in =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat2(root, path.as_str(), OpenHow::new().flags(flags).resolve(kept_in))
            .map_err(|error| self.unwritable(index, error))
    }

    fn unwritable(&self, index: usize, error: Errno) -> BundleError {
        BundleError::Write { path: self.path_of(index).into(), source: error.into() }
    }

    fn too_many(&self, path: String, limit: u64, what: &'static str) -> BundleError {
        BundleError::TooMany { path: shown(path.as_bytes()).into(), limit, what }
    }

    /// Why there cannot be another of this name.
    fn twins(&self, there: usize, parent: usize, name: &str, is_directory: bool) -> BundleError {
        let (path, other) = (self.path(parent, name), self.path_of(there));
        let (same_name, path, other) = (path == other, shown(path.as_bytes()), shown(other.as_bytes()));
        if !same_name {
            return BundleError::Twins { path, other };
        }
        let same = self.nodes[there].is_directory == is_directory;
        if same { BundleError::Twice { path } } else { BundleError::FileAndDirectory { path } }
    }

    fn path(&self, parent: usize, name: &str) -> String {
        if parent == ROOT { name.to_owned() } else { format!("{}/{name}", self.path_of(parent)) }
    }

    fn path_of(&self, index: usize) -> String {
        let node = &self.nodes[index];
        self.path(node.parent, &node.name)
    }
}

/// A path for messages, which an archive may have made long.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests;
