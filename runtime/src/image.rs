//! Images: OCI image layouts, unpacked into the host's state as root file systems of sandboxes.
//!
//! ```text
//! layout ──select──▶ manifest's digest ──is there?──▶ images/sha256-DIGEST
//!                          │ no                            ▲
//!                          └─unpack─▶ images/.staging-PID-N ┘ rename, when all of it is on the disk
//!                                          │ on any error: removed
//! ```
//!
//! Invariants:
//! 1. A directory `images/sha256-DIGEST` is whole: every layer was read to its end, and was what the manifest says.
//! 2. It is never written again. Sandboxes of all applications that have the image share it, each seeing it read-only.
//! 3. Nothing of a layout is believed ([`layout`]), and no entry of a layer reaches out of the tree ([`tree`]).
//! 4. What an image may be has limits, each a field of [`ImageLimits`], counted on what was really read and written.
//!
//! An image's own settings (its command, environment, user and volumes) are not looked at: the manifest of the application says
//! what runs.

mod digest;
mod error;
mod layer;
mod layout;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{fsync, syncfs};

pub(crate) use digest::Digest;
pub(crate) use error::ImageError;
pub(crate) use layout::Layout;
use layout::Selected;
use tree::Tree;

/// Staging directories start with this; no image's directory does.
const STAGING_PREFIX: &str = ".staging-";

/// Makes the names of this process's staging directories differ.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// The most that an image may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageLimits {
    /// The bytes of each document: index, manifest, configuration.
    pub(crate) document_bytes: u64,
    /// The layers of an image.
    pub(crate) layers: usize,
    /// Entries of all layers together: each costs the host an inode, or at least some time.
    pub(crate) entries: u64,
    /// Names in a path.
    pub(crate) depth: usize,
    /// The bytes of one file.
    pub(crate) file_bytes: u64,
    /// The bytes of all files, those that a later layer replaces included.
    pub(crate) total_bytes: u64,
    /// The bytes of all layers as archives, when they are decompressed, whatever they are for.
    pub(crate) archive_bytes: u64,
    /// Bytes that come out of a layer for each that is in it. Far above what real files give.
    pub(crate) ratio: u64,
}

impl Default for ImageLimits {
    /// Room for an interpreter with heavy packages.
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            layers: 128,
            entries: 200_000,
            depth: 64,
            file_bytes: 1 << 30,
            total_bytes: 4 << 30,
            archive_bytes: 5 << 30,
            ratio: 200,
        }
    }
}

/// The images that this host has unpacked.
#[derive(Debug)]
pub(crate) struct Images {
    directory: PathBuf,
    limits: ImageLimits,
}

/// An unpacked image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) digest: Digest,
    /// The root of its files.
    pub(crate) directory: OwnedFd,
}

/// Whether a layout has the image that is meant, without unpacking it.
///
/// # Errors
/// Why not.
pub(crate) fn look(layout: OwnedFd, tag: Option<&str>) -> Result<(), ImageError> {
    let limits = ImageLimits::default();
    Layout::open(layout, &limits)?.select(tag, &limits).map(drop)
}

impl Images {
    /// Takes the directory of images, which exists, and deletes what an interrupted start or deployment left half unpacked or
    /// half deleted. Only for the start of a host agent, when nothing is being unpacked.
    ///
    /// # Errors
    /// When it cannot be listed, or a leftover cannot be deleted.
    pub(crate) fn open(directory: PathBuf, limits: ImageLimits) -> io::Result<Self> {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { directory, limits })
    }

    /// The image of a layout, unpacked now if it was not before.
    ///
    /// # Errors
    /// Why it cannot be; nothing is left behind.
    pub(crate) fn obtain(&self, layout: OwnedFd, tag: Option<&str>) -> Result<Image, ImageError> {
        let layout = Layout::open(layout, &self.limits)?;
        let selected = layout.select(tag, &self.limits)?;
        let digest = selected.digest.clone();
        let path = self.directory.join(digest.directory_name());
        match open_directory(&path) {
            Ok(directory) => return Ok(Image { digest, directory }),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(error::write(&path)(errno)),
        }
        let staging = Staging::new(&self.directory)?;
        let root = open_directory(&staging.path).map_err(error::write(&staging.path))?;
        self.unpack(&layout, &selected, root)?;
        staging.install(&path)?;
        let directory = open_directory(&path).map_err(error::write(&path))?;
        Ok(Image { digest, directory })
    }

    fn unpack(&self, layout: &Layout, selected: &Selected, root: OwnedFd) -> Result<(), ImageError> {
        let mut tree = Tree::new(root, &self.limits)
            .map_err(|source| ImageError::Write { path: self.directory.clone(), source })?;
        let mut room = self.limits.archive_bytes;
        for layer in &selected.layers {
            layer::apply(layout, layer, &mut tree, &self.limits, &mut room)?;
        }
        Ok(())
    }

    /// Deletes all images but these, of which sandboxes are or will be made. An image loses its name first, at once, so that what
    /// an interruption leaves is no image.
    ///
    /// # Errors
    /// When the directory cannot be listed, or an image cannot be deleted.
    pub(crate) fn keep_only(&self, used: &BTreeSet<Digest>) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(Digest::from_directory_name);
            if digest.is_some_and(|digest| !used.contains(&digest)) {
                let nameless = self.directory.join(staging_name());
                fs::rename(entry.path(), &nameless)?;
                fs::remove_dir_all(nameless)?;
            }
        }
        Ok(())
    }
}

fn staging_name() -> String {
    format!("{STAGING_PREFIX}{}-{}", std::process::id(), STAGED.fetch_add(1, Ordering::Relaxed))
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

/// An image that is being unpacked. Dropped, it is removed.
struct Staging {
    images: OwnedFd,
    path: PathBuf,
    installed: bool,
}

impl Staging {
    fn new(images_path: &Path) -> Result<Self, ImageError> {
        let images = open_directory(images_path).map_err(error::write(images_path))?;
        let path = images_path.join(staging_name());
        mkdirat(&images, &path, Mode::S_IRWXU).map_err(error::write(&path))?;
        Ok(Self { images, path, installed: false })
    }

    /// Gives the image its name, once all of it is on the disk.
    fn install(mut self, path: &Path) -> Result<(), ImageError> {
        let failed = error::write(path);
        // One call for the whole file system: an image has far more files than a disk could confirm one by one.
        syncfs(self.images.as_fd()).map_err(&failed)?;
        match renameat2(&self.images, &self.path, &self.images, path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => self.installed = true,
            // A deployment that nobody waited for any more has unpacked the same.
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        fsync(&self.images).map_err(failed)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.installed
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a half unpacked image could not be removed");
        }
    }
}

#[cfg(test)]
mod tests;
