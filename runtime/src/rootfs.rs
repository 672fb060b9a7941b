//! The root file system that an application brings or names: found once, and from then on used by descriptor.
//!
//! A directory of the host is used only below one that the host's configuration allows, both compared by their canonical paths.
//! What is opened then is opened below the allowed directory, through no link: a path that is changed in between leads to an
//! error, not elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::image::{Digest, ImageError, Images};
use crate::manifest;

/// Where images have Python, in the order of the search path of a sandbox.
const PYTHONS: [&str; 2] = ["usr/local/bin/python3", "usr/bin/python3"];

/// The permission bits of which one makes a file a program.
const EXECUTE_BITS: u32 = 0o111;

/// A root file system for sandboxes of one application.
#[derive(Debug)]
pub(crate) struct Rootfs {
    directory: OwnedFd,
    /// The image that was unpacked for it, if it is one.
    pub(crate) image: Option<Digest>,
}

/// What of a host root file systems may be.
#[derive(Debug)]
pub(crate) struct Sources<'s> {
    /// The application's files.
    pub(crate) bundle: &'s Path,
    /// Directories of the host that applications may name, or what is in them.
    pub(crate) allowed: &'s [PathBuf],
    /// The host agent's own directory, of which nothing may be seen.
    pub(crate) state: &'s Path,
    pub(crate) images: &'s Images,
}

/// Why a root file system cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    /// It cannot be found or opened.
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The host does not let applications use it.
    #[error(
        "{} is a directory of the host that applications may not use; `sandbar serve --allow-rootfs {}` allows it",
        path.display(),
        path.display()
    )]
    NotAllowed { path: PathBuf },
    /// It holds the host agent's own files, or is one of them.
    #[error("{} is where this host keeps its applications; it cannot be a root file system", path.display())]
    OwnState { path: PathBuf },
    /// The image cannot be used.
    #[error("{} cannot be unpacked", path.display())]
    Image {
        path: PathBuf,
        #[source]
        source: ImageError,
    },
    /// A function needs an interpreter.
    #[error("it has no Python: neither /usr/local/bin/python3 nor /usr/bin/python3 is a program in it")]
    NoPython,
}

impl Rootfs {
    /// Finds what a manifest names. An image is unpacked, if it was not before.
    ///
    /// # Errors
    /// Why it cannot be used; nothing is left behind.
    pub(crate) fn find(wanted: &manifest::Rootfs, sources: &Sources<'_>) -> Result<Self, RootfsError> {
        let path = wanted.path();
        let directory = if path.is_absolute() {
            open_on_host(path, sources)?
        } else {
            let bundle = open_directory(sources.bundle)?;
            open_below(&bundle, path, path)?
        };
        match wanted {
            manifest::Rootfs::Directory(_) => Ok(Self { directory, image: None }),
            manifest::Rootfs::Image { tag, .. } => {
                let image = sources.images.obtain(directory, tag.as_deref());
                let image = image.map_err(|source| RootfsError::Image { path: path.to_owned(), source })?;
                Ok(Self { directory: image.directory, image: Some(image.digest) })
            }
        }
    }

    /// Where it has Python, as a path inside. Links are followed as they will be in the sandbox.
    ///
    /// # Errors
    /// When it has none.
    pub(crate) fn python(&self) -> Result<PathBuf, RootfsError> {
        let is_program = |path: &&&str| {
            let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
            let stat = openat2(&self.directory, **path, how).and_then(fstat);
            stat.is_ok_and(|stat| {
                let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
                kind == SFlag::S_IFREG && stat.st_mode & EXECUTE_BITS != 0
            })
        };
        let found = PYTHONS.iter().find(is_program).ok_or(RootfsError::NoPython)?;
        Ok(Path::new("/").join(found))
    }

    /// A mount of its own of the directory, attached nowhere, for one sandbox. What is mounted below is not part of it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn detached_mount(&self) -> io::Result<OwnedFd> {
        open_tree(self.directory.as_fd())
    }
}

/// Opens a directory of the host, if it may be used.
fn open_on_host(path: &Path, sources: &Sources<'_>) -> Result<OwnedFd, RootfsError> {
    let failed = |source| RootfsError::Open { path: path.to_owned(), source };
    let not_allowed = || RootfsError::NotAllowed { path: path.to_owned() };
    if sources.allowed.is_empty() {
        return Err(not_allowed());
    }
    let canonical = path.canonicalize().map_err(failed)?;
    let canonical_allowed = sources.allowed.iter().filter_map(|allowed| allowed.canonicalize().ok());
    let allowed =
        canonical_allowed.into_iter().find(|allowed| canonical.starts_with(allowed)).ok_or_else(not_allowed)?;
    if canonical.starts_with(sources.state) || sources.state.starts_with(&canonical) {
        return Err(RootfsError::OwnState { path: canonical });
    }
    let below = canonical.strip_prefix(&allowed).map_err(|_| not_allowed())?;
    let allowed =
        open_below(&open_directory(Path::new("/"))?, allowed.strip_prefix("/").unwrap_or(&allowed), &allowed)?;
    open_below(&allowed, below, path)
}

fn open_directory(path: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|errno| RootfsError::Open { path: path.to_owned(), source: errno.into() })
}

/// Opens a directory below another, through no link.
fn open_below(directory: &OwnedFd, path: &Path, shown: &Path) -> Result<OwnedFd, RootfsError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(directory, path, OpenHow::new().flags(flags).resolve(resolve))
        .map_err(|errno| RootfsError::Open { path: shown.to_owned(), source: errno.into() })
}

#[allow(unsafe_code, reason = "open_tree(2) has no wrapper")]
fn open_tree(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the path is a C string that lives for ever.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image::ImageLimits;

    struct Hosts {
        folder: tempfile::TempDir,
        images: Images,
    }

    impl Hosts {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for directory in ["bundle/root", "state/images", "allowed/root", "elsewhere/root"] {
                fs::create_dir_all(folder.path().join(directory)).unwrap();
            }
            let images = Images::open(folder.path().join("state/images"), ImageLimits::default()).unwrap();
            Self { folder, images }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(path)
        }

        fn find(&self, path: impl Into<PathBuf>, allowed: &[PathBuf]) -> Result<Rootfs, RootfsError> {
            let (bundle, state) = (self.path("bundle"), self.path("state"));
            let sources = Sources { bundle: &bundle, allowed, state: &state, images: &self.images };
            Rootfs::find(&manifest::Rootfs::Directory(path.into()), &sources)
        }
    }

    #[test]
    fn a_directory_of_the_host_is_used_only_below_an_allowed_one() {
        let hosts = Hosts::new();
        let allowed = [hosts.path("allowed")];
        assert!(hosts.find("root", &[]).is_ok(), "what is in the bundle needs nobody's leave");
        assert!(hosts.find(hosts.path("allowed/root"), &allowed).is_ok());
        assert!(hosts.find(hosts.path("allowed"), &allowed).is_ok());
        for (path, allowed) in [("allowed/root", &[][..]), ("elsewhere/root", &allowed), ("allowed-not", &allowed)] {
            fs::create_dir_all(hosts.path("allowed-not")).unwrap();
            let refused = hosts.find(hosts.path(path), allowed).unwrap_err().to_string();
            assert!(refused.contains("sandbar serve --allow-rootfs"), "{path}: {refused}");
        }
    }

    #[test]
    fn links_are_followed_before_it_is_asked_what_is_allowed() {
        let hosts = Hosts::new();
        let allowed = [hosts.path("link-to-allowed")];
        symlink(hosts.path("allowed"), hosts.path("link-to-allowed")).unwrap();
        symlink(hosts.path("elsewhere"), hosts.path("allowed/out")).unwrap();
        symlink("root", hosts.path("allowed/within")).unwrap();
        assert!(matches!(hosts.find(hosts.path("allowed/out/root"), &allowed), Err(RootfsError::NotAllowed { .. })));
        assert!(hosts.find(hosts.path("link-to-allowed/within"), &allowed).is_ok());
    }

    #[test]
    fn a_link_in_a_bundle_is_not_followed() {
        let hosts = Hosts::new();
        symlink(hosts.path("elsewhere"), hosts.path("bundle/link")).unwrap();
        for path in ["link", "link/root"] {
            assert!(matches!(hosts.find(path, &[]), Err(RootfsError::Open { .. })), "{path}");
        }
    }

    #[test]
    fn the_agents_own_state_is_nobodys_root() {
        let hosts = Hosts::new();
        let allowed = [hosts.path("")];
        for path in ["state", "state/images", ""] {
            assert!(matches!(hosts.find(hosts.path(path), &allowed), Err(RootfsError::OwnState { .. })), "{path:?}");
        }
    }

    #[test]
    fn python_is_found_through_links_that_stay_inside() {
        let hosts = Hosts::new();
        let root = hosts.path("bundle/root");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        let python = |hosts: &Hosts| hosts.find("root", &[]).unwrap().python();
        assert!(matches!(python(&hosts), Err(RootfsError::NoPython)));
        // On a host with this shell; but inside there is none.
        symlink("/bin/sh", root.join("usr/bin/python3")).unwrap();
        assert!(matches!(python(&hosts), Err(RootfsError::NoPython)));
        symlink("usr/bin", root.join("bin")).unwrap();
        fs::write(root.join("usr/bin/sh"), "").unwrap();
        assert!(matches!(python(&hosts), Err(RootfsError::NoPython)), "not executable");
        fs::set_permissions(root.join("usr/bin/sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(python(&hosts).unwrap(), Path::new("/usr/bin/python3"));
    }
}
