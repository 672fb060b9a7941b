//! What runs inside sandboxes, as this executable carries it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

const SUPERVISOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sandbar-supervisor"));
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libsandbar_function.so"));
const PYTHON_WORKER: &str = include_str!("../function/python/worker.py");

/// Where a sandbox sees [`Inside::directory`].
pub(crate) const DIRECTORY_INSIDE: &str = "/sandbar";
/// The worker of Python functions, in that directory.
pub(crate) const PYTHON_WORKER_NAME: &str = "worker.py";

/// The supervisor, ready to be executed, and a directory of what workers load.
#[derive(Debug)]
pub(crate) struct Inside {
    supervisor: OwnedFd,
    /// To be seen by every sandbox, read-only.
    pub(crate) directory: PathBuf,
}

impl Inside {
    /// Lays everything out, below the host's state directory.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn lay_out(state: &Path) -> io::Result<Self> {
        let directory = state.join("inside");
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        replace(&directory.join("libsandbar_function.so"), LIBRARY)?;
        replace(&directory.join(PYTHON_WORKER_NAME), PYTHON_WORKER.as_bytes())?;
        Ok(Self { supervisor: sealed(SUPERVISOR)?, directory })
    }

    /// A path by which this process and its children can execute the supervisor: a sealed copy in memory, on no file
    /// system, which nobody can change.
    pub(crate) fn supervisor(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.supervisor.as_raw_fd()))
    }
}

/// Replaces a file as a whole: sandboxes that an earlier agent made may still have the old one open.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, contents)?;
    fs::set_permissions(&new, Permissions::from_mode(0o644))?;
    fs::rename(new, path)
}

fn sealed(contents: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels from 6.3 on want to be told that a memfd is to be executed; older ones do not know the flag.
    let to_be_executed = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let executable = memfd_create("sandbar-supervisor", flags | to_be_executed);
    let mut file = File::from(executable.or_else(|_| memfd_create("sandbar-supervisor", flags))?);
    file.write_all(contents)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}
