//! The management socket's file: private from its first moment, one agent each, gone with its agent.
//!
//! ```text
//!  .sandbar-PID-NANOS/        mode 0700, beside the socket's place
//!  └── s                      bound and listening here, then mode 0600 ── hard link ──▶ sandbar.sock
//! ```
//!
//! 1. Nobody else can reach the socket before its mode is set: until then it lives in a directory of ours.
//! 2. A file that is in the way is never overwritten: a link either makes the name or fails.
//! 3. What a killed agent left of the socket is moved into our directory first and tried there. Whatever is at the name at any
//!    moment is thus either untouched or in our hands, and of two agents that start together one refuses.
//! 4. Directories of agents that were killed while they did this are removed by the next that binds there.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};

/// Private directories are called so, and then for their maker's process id and the time.
const PRIVATE_PREFIX: &str = ".sandbar-";
/// How often the name may be found taken by a stale socket before we give up: another process keeps making one.
const CLAIM_ATTEMPTS_MAX: u32 = 5;
/// Pause after a failed accept, which is most likely a lack of descriptors that others have to give back.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why a management socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A living process listens there.
    #[error("another sandbar serves on {}", socket.display())]
    InUse {
        /// The socket's path.
        socket: PathBuf,
    },
    /// Something else has this name, and it is not ours to remove.
    #[error("{} exists and is not a socket", socket.display())]
    NotASocket {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The path ends in `..` or is empty.
    #[error("{:?} does not name a file", socket)]
    NoName {
        /// The socket's path.
        socket: PathBuf,
    },
    /// The directory it is to be in cannot be made or written.
    #[error("cannot make a private directory in {}", parent.display())]
    PrivateDirectory {
        /// The directory the socket is to be in.
        parent: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused the socket.
    #[error("cannot listen on {}", socket.display())]
    Listen {
        /// The socket's path.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound management socket. Connections wait in its backlog until it is [served](super::serve);
/// dropped unserved, it takes its file with it.
#[derive(Debug)]
pub struct ManagementSocket {
    listener: OwnerOnly,
    file: SocketFile,
}

impl ManagementSocket {
    /// Makes the socket at `path`, replacing one that a killed agent left. The directory it is to be in is made if it is missing, but
    /// none above that.
    ///
    /// # Errors
    /// [`BindError::InUse`] if a living process listens there, the others as they say.
    pub async fn bind(path: &Path) -> Result<Self, BindError> {
        let name = path.file_name().ok_or_else(|| BindError::NoName { socket: path.to_owned() })?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let failed = |source| BindError::Listen { socket: path.to_owned(), source };
        make_missing(parent)?;
        // Absolute, so that the file is found again at the end wherever the process has gone by then.
        let place = fs::canonicalize(parent).map_err(failed)?.join(name);

        PrivateDirectory::sweep(parent);
        let private = PrivateDirectory::make_in(parent)?;
        let bound = private.path.join("s");
        let listener = UnixListener::bind(&bound).map_err(failed)?;
        fs::set_permissions(&bound, Permissions::from_mode(0o600)).map_err(failed)?;
        let metadata = fs::symlink_metadata(&bound).map_err(failed)?;
        claim_name(&bound, &place, &private).await?;
        Ok(Self {
            listener: OwnerOnly { listener, uid: metadata.uid() },
            file: SocketFile { path: place, identity: (metadata.dev(), metadata.ino()) },
        })
    }

    pub(super) fn into_parts(self) -> (OwnerOnly, SocketFile) {
        (self.listener, self.file)
    }
}

/// Makes the directory, unless it is there. What lies above it may be mistyped and is not made.
fn make_missing(directory: &Path) -> Result<(), BindError> {
    match DirBuilder::new().mode(0o755).create(directory) {
        Err(source) if !directory.is_dir() => Err(BindError::PrivateDirectory { parent: directory.to_owned(), source }),
        _ => Ok(()),
    }
}

/// Gives our socket its name, moving a stale one out of the way.
async fn claim_name(bound: &Path, place: &Path, private: &PrivateDirectory) -> Result<(), BindError> {
    let failed = |source| BindError::Listen { socket: place.to_owned(), source };
    for _ in 0..CLAIM_ATTEMPTS_MAX {
        match fs::hard_link(bound, place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => return linked.map_err(failed),
        }
        match fs::symlink_metadata(place) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket { socket: place.to_owned() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(_) => {}
            Err(error) => return Err(failed(error)),
        }
        // Looked at in place first, so that a living agent's socket keeps its name throughout.
        if listens(place).await {
            return Err(in_use(place));
        }
        take_stale(place, private).await?;
    }
    Err(in_use(place))
}

/// Moves what is at `place` into our directory and removes it, unless a living agent turns out to listen on it.
async fn take_stale(place: &Path, private: &PrivateDirectory) -> Result<(), BindError> {
    let failed = |source| BindError::Listen { socket: place.to_owned(), source };
    let taken = private.path.join("stale");
    match fs::rename(place, &taken) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        moved => moved.map_err(failed)?,
    }
    if listens(&taken).await {
        fs::hard_link(&taken, place).map_err(failed)?;
        return Err(in_use(place));
    }
    fs::remove_file(&taken).map_err(failed)
}

/// Whether a process listens on the socket at `path`. Only a refused connection says that none does; a full
/// backlog, for one, says the contrary.
async fn listens(path: &Path) -> bool {
    match UnixStream::connect(path).await {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

fn in_use(socket: &Path) -> BindError {
    BindError::InUse { socket: socket.to_owned() }
}

/// A directory that only we can enter, removed with what is in it.
#[derive(Debug)]
struct PrivateDirectory {
    path: PathBuf,
}

impl PrivateDirectory {
    /// Removes directories of processes that are no more. One that cannot be removed is no reason not to serve.
    fn sweep(parent: &Path) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(maker) else { continue };
            if !Path::new("/proc").join(pid.to_string()).exists() {
                drop(Self { path: entry.path() });
            }
        }
    }

    fn make_in(parent: &Path) -> Result<Self, BindError> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let path = parent.join(format!("{PRIVATE_PREFIX}{}-{nanos}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| BindError::PrivateDirectory { parent: parent.to_owned(), source })?;
        Ok(Self { path })
    }
}

/// The process that made the private directory of this name, if it is one.
fn maker(name: &str) -> Option<u32> {
    let (pid, nanos) = name.strip_prefix(PRIVATE_PREFIX)?.split_once('-')?;
    nanos.parse::<u32>().ok()?;
    pid.parse().ok()
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(directory = %self.path.display(), %error, "left behind");
        }
    }
}

/// The socket's name in the file system, removed on drop if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another agent may have been given the name since.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if !ours {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "left behind");
        }
    }
}

/// Accepts connections from the socket's owner and closes all others.
#[derive(Debug)]
pub(super) struct OwnerOnly {
    listener: UnixListener,
    /// The user the socket's file belongs to.
    uid: u32,
}

impl OwnerOnly {
    fn is_owner(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == self.uid => true,
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), pid = ?peer.pid(), "management refused: not the owner");
                false
            }
            Err(error) => {
                tracing::warn!(%error, "management refused: the peer is unknown");
                false
            }
        }
    }
}

impl Listener for OwnerOnly {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) if self.is_owner(&stream) => return (stream, ()),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a management connection");
                    tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
