//! The bundle of an application: its folder, copied into the host's state before anything is made of it, or an archive of it,
//! unpacked there.
//!
//! ```text
//! SOURCE ──stage──▶ applications/.staging-PID-N ──install──▶ applications/NAME
//!                          │ dropped: removed          └── what was there takes the staging name, to be deleted later
//! ```
//!
//! What is copied is what is checked and what runs: nothing is read from the author's folder a second time. An archive is read
//! once before anything is staged (see [`unpack`]), so that most of what is refused writes nothing.
//!
//! Invariants:
//! 1. A bundle holds regular files and directories only, with names that [`archive::path::name`](crate::archive::path::name) lets pass and of which no two in a
//!    directory differ in case alone, within every limit of [`BundleLimits`]. Anything else in the folder or archive is an
//!    error that names it, not something passed over, but for [`LEFT_OUT`].
//! 2. Below the folder that was named, no symbolic link is followed: each entry is opened relative to the descriptor of
//!    its directory, and the open descriptor is asked what it is.
//! 3. Modes are 0644 or, with any execute bit in the source, 0755; owner, set-uid bits and extended attributes (so file
//!    capabilities) stay behind. The copies are readable by all, as instances run under other users; the directory
//!    above is the host agent's alone.
//! 4. Files and directories are on the disk before the bundle takes its name, and it takes it in one step.

mod copy;
mod unpack;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat, stat};
use nix::unistd::fsync;

use crate::archive::ArchiveError;
use crate::archive::path::PathError;
use crate::manifest::{FILE_NAME, Name};

/// What is not deployed if it is at the top of the folder: history and build output.
const LEFT_OUT: [&str; 2] = [".git", "target"];

/// Staging directories start with this; no application's name does.
const STAGING_PREFIX: &str = ".staging-";

/// Makes the names of this process's staging directories differ.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// The most that a bundle may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BundleLimits {
    /// Files and directories together: each costs the host an inode and a deployment a write to the disk.
    pub(crate) entries: usize,
    /// Directories inside each other; each is an open descriptor while it is copied.
    pub(crate) depth: usize,
    /// The bytes of one file.
    pub(crate) file_bytes: u64,
    /// The bytes of all files. An archive is read up to twice as far.
    pub(crate) total_bytes: u64,
    /// How many times an archive's own size it may decompress to, beyond the first MiB.
    pub(crate) ratio: u64,
}

impl Default for BundleLimits {
    /// Room for a Python function with its packages; a container image is too much.
    fn default() -> Self {
        Self { entries: 10_000, depth: 32, file_bytes: 128 << 20, total_bytes: 256 << 20, ratio: 200 }
    }
}

/// Why a folder or an archive was not taken as a bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// Something could not be opened, read or listed.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An entry is neither a regular file nor a directory.
    #[error("{path:?} is {kind}; a bundle holds regular files and directories only")]
    Kind { path: PathBuf, kind: &'static str },
    /// A path or a name is not as a bundle may have it.
    #[error("{path:?} {problem}")]
    Path { path: String, problem: PathError },
    /// Two names are one on other systems.
    #[error("{path:?} and {other:?} differ in case only, and are one file on other systems; rename one")]
    Twins { path: String, other: String },
    /// Something is in an archive twice.
    #[error("{path:?} is in the archive twice; pack it anew")]
    Twice { path: String },
    /// A file has files below it, or a directory contents.
    #[error("{path:?} is both a file and a directory; pack the archive anew")]
    FileAndDirectory { path: String },
    /// An archive is not as it should be, where it is not at an entry's contents.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An entry's contents are not as they should be.
    #[error("{path:?} cannot be unpacked")]
    InEntry {
        path: String,
        #[source]
        source: ArchiveError,
    },
    /// An archive has no manifest where it could be.
    #[error("there is no {FILE_NAME} at the top of the archive, nor in a folder that holds all that it has")]
    NoManifest,
    /// What was read twice was not the same.
    #[error("the archive changed while it was read; deploy it again")]
    Changed,
    /// A limit of [`BundleLimits`] is exceeded.
    #[error("{path:?} is too much: a bundle holds up to {limit} {what}")]
    TooMany { path: PathBuf, limit: u64, what: &'static str },
    /// The folder holds the host's own state, or is in it.
    #[error("{path:?} is where this host keeps its applications; it cannot be deployed")]
    OwnState { path: PathBuf },
    /// The copy could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The bundle could not take its place.
    #[error("cannot put the bundle in its place {}", path.display())]
    Install {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A copied bundle that has no name yet. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    applications: OwnedFd,
    applications_path: PathBuf,
    staging_name: String,
    /// Whether the staging name is no longer this bundle's.
    installed: bool,
}

/// A bundle that has taken its application's name.
#[derive(Debug)]
pub(crate) struct Installed {
    /// Where it is now.
    pub(crate) directory: PathBuf,
    /// Where the version before it is now, if there was one: to be given to [`discard`] when nothing runs from it.
    pub(crate) previous: Option<PathBuf>,
}

/// The top-level folder of this path, if it is one that is not deployed.
pub(crate) fn left_out(path: &Path) -> Option<&'static str> {
    LEFT_OUT.into_iter().find(|name| path.starts_with(name))
}

/// Copies the folder `source` into `applications`, the directory of the host's state that holds the bundles, or unpacks it
/// there, if it is an archive.
///
/// # Errors
/// It is no bundle, or it could not be copied; nothing is left behind.
pub(crate) fn stage(source: &Path, applications: &Path, limits: &BundleLimits) -> Result<Staged, BundleError> {
    let (source_fd, archive_bytes) = open_source(source)?;
    let Some(archive_bytes) = archive_bytes else {
        let (staged, destination) = Staged::new_open(applications)?;
        copy::tree(source_fd, source, destination, &staged.path(), &staged.applications, limits)?;
        return Ok(staged);
    };
    let archive = File::from(source_fd);
    let surveyed = unpack::survey(&archive, archive_bytes, limits)?;
    let (staged, destination) = Staged::new_open(applications)?;
    surveyed.unpack(destination, limits)?;
    Ok(staged)
}

/// Opens a folder, or a regular file, whose size is told. To open anything else could set something off.
fn open_source(source: &Path) -> Result<(OwnedFd, Option<u64>), BundleError> {
    let unreadable = |error: Errno| BundleError::Read { path: source.to_owned(), source: error.into() };
    copy::refuse_special(&stat(source).map_err(unreadable)?, source)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = open(source, flags, Mode::empty()).map_err(unreadable)?;
    let seen = fstat(&opened).map_err(unreadable)?;
    copy::refuse_special(&seen, source)?;
    let is_file = copy::kind(&seen) == SFlag::S_IFREG;
    Ok((opened, is_file.then(|| seen.st_size.cast_unsigned())))
}

impl Staged {
    /// An empty bundle, and its directory.
    fn new_open(applications: &Path) -> Result<(Self, OwnedFd), BundleError> {
        let staged = Self::new(applications)?;
        let directory =
            openat(&staged.applications, staged.staging_name.as_str(), copy::directory_flags(), Mode::empty())
                .map_err(|error| BundleError::Write { path: staged.path(), source: error.into() })?;
        Ok((staged, directory))
    }

    fn new(applications_path: &Path) -> Result<Self, BundleError> {
        let failed = |path: &Path, error: Errno| BundleError::Write { path: path.to_owned(), source: error.into() };
        let applications = open(applications_path, copy::directory_flags(), Mode::empty())
            .map_err(|error| failed(applications_path, error))?;
        loop {
            let number = STAGED.fetch_add(1, Ordering::Relaxed);
            let staging_name = format!("{STAGING_PREFIX}{}-{number}", std::process::id());
            match mkdirat(&applications, staging_name.as_str(), Mode::S_IRWXU) {
                Ok(()) => {
                    let applications_path = applications_path.to_owned();
                    return Ok(Self { applications, applications_path, staging_name, installed: false });
                }
                // An earlier process of this id left it; the number goes on until one is free.
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(failed(&applications_path.join(staging_name), error)),
            }
        }
    }

    /// Where the copy is: what is to be loaded and checked.
    pub(crate) fn path(&self) -> PathBuf {
        self.applications_path.join(&self.staging_name)
    }

    /// Gives the bundle its application's name. What had the name until now keeps its files, under another name.
    ///
    /// # Errors
    /// The file system refuses; the bundle is removed. If it refuses only to confirm that the new names are on the disk,
    /// the bundle has its name all the same.
    pub(crate) fn install(mut self, name: &Name) -> Result<Installed, BundleError> {
        let directory = self.applications_path.join(name.as_str());
        let failed = |error: Errno| BundleError::Install { path: directory.clone(), source: error.into() };
        let replaced = match self.rename(name, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => false,
            Err(Errno::EEXIST) => {
                self.rename(name, RenameFlags::RENAME_EXCHANGE).map_err(failed)?;
                true
            }
            Err(error) => return Err(failed(error)),
        };
        self.installed = true;
        fsync(&self.applications).map_err(failed)?;
        Ok(Installed { previous: replaced.then(|| self.path()), directory })
    }

    fn rename(&self, name: &Name, flags: RenameFlags) -> Result<(), Errno> {
        let (from, to) = (self.staging_name.as_str(), name.as_str());
        renameat2(&self.applications, from, &self.applications, to, flags)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.installed
            && let Err(error) = discard(&self.path())
        {
            tracing::warn!(path = %self.path().display(), %error, "a staged bundle could not be removed");
        }
    }
}

/// Deletes a bundle that nothing runs from; one that is gone is no error.
///
/// # Errors
/// The file system refuses.
pub(crate) fn discard(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Deletes an application's bundle. It loses its name first, at once: what an interruption leaves is no application, and is
/// deleted by [`sweep_staging`].
///
/// # Errors
/// The file system refuses.
pub(crate) fn retire(applications: &Path, name: &Name) -> io::Result<()> {
    let nameless = applications.join(format!("{STAGING_PREFIX}{}-retired-{name}", std::process::id()));
    match fs::rename(applications.join(name.as_str()), &nameless) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => discard(&nameless),
    }
}

/// Deletes what interrupted deployments left in `applications`, and versions that were replaced but not deleted yet.
/// Only for the start of a host agent, when nothing is being deployed. Returns how many there were.
///
/// # Errors
/// The directory cannot be listed, or a leftover cannot be deleted.
pub(crate) fn sweep_staging(applications: &Path) -> io::Result<usize> {
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(applications)? {
        names.push(entry?.file_name());
    }
    names.retain(|name| name.to_string_lossy().starts_with(STAGING_PREFIX));
    names.iter().try_for_each(|name| discard(&applications.join(name)))?;
    Ok(names.len())
}

#[cfg(test)]
mod tests;
