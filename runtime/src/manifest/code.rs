//! The file that holds a function's code: where it may be, and whether its runtime can start it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::Runtime;
use crate::bundle;

/// The permission bits of which one makes a file a program.
const EXECUTE_BITS: u32 = 0o111;

const ELF_MAGIC: &[u8] = b"\x7fELF";
const SCRIPT_MAGIC: &[u8] = b"#!";

/// The path without `.` and doubled slashes, if it stays below the folder that it is relative to.
pub(super) fn relative(written: &str) -> Result<PathBuf, String> {
    if written.is_empty() || written.contains('\0') {
        return Err("is not a path".to_owned());
    }
    let mut path = PathBuf::new();
    for component in Path::new(written).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                return Err("leads out of the application's folder by `..`".to_owned());
            }
            Component::RootDir | Component::Prefix(_) => {
                return Err("is absolute; code is named relative to the application's folder".to_owned());
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err("is the application's folder itself, not a file in it".to_owned());
    }
    Ok(path)
}

/// Whether the runtime can start what stands at `path` in `dir`; if not, why, as the end of a sentence.
pub(super) fn look(dir: &Path, path: &Path, runtime: Runtime) -> Result<(), String> {
    if let Some(left_out) = bundle::left_out(path) {
        return Err(format!("is in `{left_out}/`, which is not deployed; copy it elsewhere, such as to bin/"));
    }
    refuse_links(dir, path)?;
    let unreadable = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            return "does not exist in the application's folder".to_owned();
        }
        format!("cannot be read: {error}")
    };
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(dir.join(path))
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut head = Vec::new();
    file.take(4).read_to_end(&mut head).map_err(unreadable)?;
    startable(&head, metadata.permissions().mode(), runtime)
}

/// A bundle holds no symbolic link, so that none in the path may be relied upon.
pub(super) fn refuse_links(dir: &Path, path: &Path) -> Result<(), String> {
    let mut at = dir.to_path_buf();
    for component in path.components() {
        at.push(component);
        let is_link = fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            return Err("leads over a symbolic link, which is not deployed".to_owned());
        }
    }
    Ok(())
}

fn startable(head: &[u8], mode: u32, runtime: Runtime) -> Result<(), String> {
    let is_elf = head.starts_with(ELF_MAGIC);
    let is_script = head.starts_with(SCRIPT_MAGIC);
    match runtime {
        Runtime::Python3 if is_elf => {
            Err("is a program, not Python source; its runtime is native or executable".to_owned())
        }
        Runtime::Python3 => Ok(()),
        Runtime::Native if !is_elf => {
            Err("is not a program (an ELF file); native is for those linked with sandbar-function".to_owned())
        }
        Runtime::Executable if !is_elf && !is_script => {
            Err("cannot be run: it is not a program (an ELF file) and does not start with `#!`".to_owned())
        }
        Runtime::Native | Runtime::Executable if mode & EXECUTE_BITS == 0 => {
            let what = if is_script { "a script" } else { "a program" };
            Err(format!("is {what} without permission to be run: chmod +x"))
        }
        Runtime::Native | Runtime::Executable => Ok(()),
    }
}
