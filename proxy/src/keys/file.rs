//! The key file on disk: nobody's but its owner's, and replaced whole.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::unistd::Uid;

use super::KeysError;

/// Far above what ten thousand identities need.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeysError {
    move |source| KeysError::File { action, path: path.to_owned(), source }
}

/// Reads the file, if it is its owner's alone and that owner is we or root.
pub(super) fn read(path: &Path) -> Result<String, KeysError> {
    // A FIFO in its place must not hold us up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = file.map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("read", path))?;
    let exposed = |why: String| Err(KeysError::Exposed { path: path.to_owned(), why });
    if !metadata.is_file() {
        return exposed("is not a regular file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o7777;
        let shown = path.display();
        return exposed(format!("has mode {mode:o}, so that others can reach its keys; run `chmod 600 {shown}`"));
    }
    if metadata.uid() != 0 && metadata.uid() != Uid::effective().as_raw() {
        let (uid, shown) = (metadata.uid(), path.display());
        return exposed(format!("belongs to user {uid}, who can change it; run `chown root {shown}`"));
    }
    let mut text = String::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(failed("read", path))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return exposed(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

/// Keeps others from changing the file at the same time. What is locked is its directory, as the file itself is replaced;
/// it is made if there is none.
pub(super) fn lock(path: &Path) -> Result<Flock<File>, KeysError> {
    let directory = directory(path);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("make a directory for", path)(error));
        }
        _ => {}
    }
    let opened = File::open(directory).map_err(failed("lock", path))?;
    Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_, errno)| failed("lock", path)(errno.into()))
}

/// Replaces the file in one step: it is the old one or the new one, whenever it is read and whatever dies meanwhile.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), KeysError> {
    // A link is followed: what is replaced is the file that it leads to.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &staged)(error)),
        _ => {}
    }
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&staged);
    let mut file = file.map_err(failed("write", &staged))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&staged, path)) {
        std::fs::remove_file(&staged).ok();
        return Err(failed("write", path)(error));
    }
    File::open(directory(path)).and_then(|directory| directory.sync_all()).map_err(failed("write", path))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_what_to_do() {
        let directory = directory();
        let path = directory.path().join("keys.toml");
        replace(&path, "").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(read(&path).is_ok());
        for mode in [0o640, 0o604, 0o660, 0o602] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:o}")), "{error}");
        }
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn a_replacement_leaves_nothing_beside_it_and_survives_what_was_left() {
        let directory = directory();
        let path = directory.path().join("keys.toml");
        std::fs::write(directory.path().join("keys.toml.new"), "left by one that died").unwrap();
        replace(&path, "one").unwrap();
        replace(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
