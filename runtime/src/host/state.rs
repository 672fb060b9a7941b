//! The state directory: who may use it, and what this host is called.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::StartError;
use crate::manifest::Name;

/// Makes a directory that nobody else can look into, or takes one that is there.
///
/// # Errors
/// When it is not there then.
pub(super) fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Keeps other agents away from the state for as long as this one lives, however it ends.
///
/// # Errors
/// When another agent has the state, or the lock's file cannot be made.
pub(super) fn lock(state: &Path) -> Result<Flock<File>, StartError> {
    let path = state.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| StartError::State { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            StartError::InUse { path: state.to_owned() }
        } else {
            StartError::State { path, source: errno.into() }
        }
    })
}

/// The name of this host's control groups: the same at each start on the same state, and no other state's.
///
/// # Errors
/// When the file that holds it cannot be read or made, or holds something else.
pub(super) fn host_name(state: &Path) -> io::Result<String> {
    let path = state.join("host");
    match fs::read_to_string(&path) {
        Ok(name) if name.starts_with("sandbar-") && Name::new(name.trim()).is_ok() => Ok(name.trim().to_owned()),
        Ok(_) => Err(io::Error::other("the file \"host\" does not hold a host's name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = format!("sandbar-{:08x}", getrandom::u64()? >> 32);
            write_whole(&path, &name)?;
            Ok(name)
        }
        Err(error) => Err(error),
    }
}

/// Writes a file that is either whole or not there, whenever this process or the machine stops.
fn write_whole(path: &Path, contents: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// Calls are numbered from a point by chance, so that ids do not repeat from one start of the agent to the next.
pub(super) fn first_call() -> u64 {
    getrandom::u64().unwrap_or_else(|_| sandbar_bus::clock::now_ns()) << 16
}
