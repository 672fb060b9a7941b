//! The sandbox's root file system: built whole on a file system of its own, from a list, before any code of the application
//! runs, and then made read-only.
//!
//! ```text
//!     without a root of its own            with one
//!     tmpfs = the root                     tmpfs ┬ tree   mount points, links and files of the list
//!      ├ mount points, links, files              ├ image  the file system that came with the plan
//!      └ binds, /tmp, /dev/shm, /proc            └ root   overlay: tree above image, both lower layers; nothing is writable
//!                                                   └ binds, /tmp, /dev/shm, /proc
//! ```
//! In an overlay the list's directories lie above what the image has by their names, so that no link in the image is in the
//! way of a mount.
//!
//! The mount namespace belongs to the host's user namespace: once the supervisor has entered its own, nobody inside can mount,
//! unmount or remount anything.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, fchdir, pivot_root};

use crate::protocol::{Bind, Plan};

/// Where temporary files are.
const WRITABLE: [&str; 2] = ["tmp", "dev/shm"];
const PROC: &str = "proc";

/// What is on the tmpfs of a sandbox with a root file system of its own.
const TREE: &str = "tree";
const IMAGE: &str = "image";
const ROOT: &str = "root";

/// Which step failed, on what.
#[derive(Debug, thiserror::Error)]
#[error("root file system: cannot {step} {path}")]
pub struct RootError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn step<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RootError + 'a {
    move |source| RootError { step, path: path.to_owned(), source }
}

/// Builds the root and moves into it. Called by the first process of the sandbox, in its own mount and process id
/// namespaces, while it still has the host's privileges. `own_root` is a mount, attached nowhere, that is to be seen below all
/// else.
///
/// # Errors
/// The step that failed.
pub fn enter(plan: &Plan, own_root: Option<OwnedFd>) -> Result<(), RootError> {
    let top = plan.mount_point.as_path();
    // The agent's may be tighter, and other users than root must see what is made here.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    // Nothing that is mounted from here on is seen by the host, nor the other way round.
    change_mount("make private", Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    // A process that was started in a directory of the host must not keep it.
    mount_new("tmpfs", top, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "size=1m,nr_inodes=4096,mode=0755")?;
    let root = match own_root {
        None => {
            build_tree(top, plan)?;
            top.to_owned()
        }
        Some(image) => {
            build_tree(&top.join(TREE), plan)?;
            lay_over(top, image)?
        }
    };
    let root = root.as_path();
    for bind in &plan.binds {
        bind_read_only(root, bind)?;
    }
    mount_writable(root, plan.tmp_bytes)?;
    mount_proc(root)?;
    pivot(root)?;
    let read_only =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    change_mount("make read-only", Path::new("/"), read_only)
}

/// Makes what is the sandbox's own of its root: links and small files, and in place of each mount an empty directory or file.
fn build_tree(tree: &Path, plan: &Plan) -> Result<(), RootError> {
    for bind in &plan.binds {
        make_mount_point(&within(tree, &bind.target), &bind.source)?;
    }
    for place in WRITABLE.iter().chain([&PROC]) {
        make_directory(&tree.join(place))?;
    }
    for (at, to) in &plan.links {
        let at = within(tree, at);
        make_parent(&at)?;
        symlink(to, &at).map_err(step("make the link", &at))?;
    }
    for (at, contents) in &plan.files {
        let at = within(tree, at);
        make_parent(&at)?;
        fs::write(&at, contents).map_err(step("write", &at))?;
        fs::set_permissions(&at, fs::Permissions::from_mode(0o644)).map_err(step("set the mode of", &at))?;
    }
    Ok(())
}

fn make_mount_point(target: &Path, source: &Path) -> Result<(), RootError> {
    if fs::metadata(source).map_err(step("find", source))?.is_dir() {
        return make_directory(target);
    }
    make_parent(target)?;
    fs::File::create(target).map(drop).map_err(step("make", target))
}

/// Mounts the tree that was built over the image; where.
fn lay_over(top: &Path, image: OwnedFd) -> Result<PathBuf, RootError> {
    let [image_path, root] = [IMAGE, ROOT].map(|name| top.join(name));
    make_directory(&image_path)?;
    make_directory(&root)?;
    attach(&image, &image_path).map_err(step("attach the image at", &image_path))?;
    change_mount("make private", &image_path, MsFlags::MS_PRIVATE)?;
    restrict_tree(&image_path, false).map_err(step("make read-only", &image_path))?;
    // Named relative to here, the layers need no quoting, and the sandbox does not learn where on the host it was built.
    chdir(top).map_err(|errno| step("enter", top)(errno.into()))?;
    // Attributes of a directory that say that it is really another are not believed.
    let layers = format!("lowerdir={TREE}:{IMAGE},redirect_dir=nofollow,metacopy=off");
    mount_new("overlay", &root, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &layers)?;
    Ok(root)
}

#[allow(unsafe_code, reason = "move_mount(2) has no wrapper")]
fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: both paths are C strings and live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn within(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn make_directory(path: &Path) -> Result<(), RootError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(step("make the directory", path))
}

fn make_parent(path: &Path) -> Result<(), RootError> {
    path.parent().map_or(Ok(()), make_directory)
}

fn mount_new(kind: &str, target: &Path, flags: MsFlags, options: &str) -> Result<(), RootError> {
    mount(Some(kind), target, Some(kind), flags, Some(options)).map_err(|errno| step("mount", target)(errno.into()))
}

fn change_mount(what: &'static str, target: &Path, flags: MsFlags) -> Result<(), RootError> {
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(|errno| step(what, target)(errno.into()))
}

fn bind_read_only(root: &Path, bind: &Bind) -> Result<(), RootError> {
    let target = within(root, &bind.target);
    mount(Some(&bind.source), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| step("bind", &target)(errno.into()))?;
    restrict_tree(&target, bind.device).map_err(step("make read-only", &target))
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Takes writing, set-uid and (but for a device node) devices from a whole tree of mounts at once.
#[allow(unsafe_code, reason = "mount_setattr(2) has no wrapper")]
fn restrict_tree(target: &Path, device: bool) -> io::Result<()> {
    const READ_ONLY: u64 = 1;
    const NO_SUID: u64 = 2;
    const NO_DEVICES: u64 = 4;
    const NO_EXEC: u64 = 8;
    let set = READ_ONLY | NO_SUID | if device { NO_EXEC } else { NO_DEVICES };
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let path = std::ffi::CString::new(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path is a C string and the attributes are as long as said; both live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount_writable(root: &Path, bytes: u64) -> Result<(), RootError> {
    for place in WRITABLE {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount_new("tmpfs", &root.join(place), flags, &format!("size={bytes},nr_inodes=16384,mode=1777"))?;
    }
    Ok(())
}

/// `/proc` shows processes alone, and of those a process sees its own user's.
fn mount_proc(root: &Path) -> Result<(), RootError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("proc", &root.join(PROC), flags, "subset=pid,hidepid=invisible")
}

/// Makes `root` the root and lets go of the host's.
fn pivot(root: &Path) -> Result<(), RootError> {
    let directory = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let old = open("/", directory, Mode::empty()).map_err(|errno| step("open", Path::new("/"))(errno.into()))?;
    chdir(root).map_err(|errno| step("enter", root)(errno.into()))?;
    // Both places the same: the old root then lies on top of the new one, and is taken off again.
    pivot_root(".", ".").map_err(|errno| step("make the root", root)(errno.into()))?;
    fchdir(&old).map_err(|errno| step("enter the old root of", root)(errno.into()))?;
    debug_assert!(old.as_raw_fd() > 2);
    umount2(".", MntFlags::MNT_DETACH).map_err(|errno| step("let go of the old root of", root)(errno.into()))?;
    chdir("/").map_err(|errno| step("enter", Path::new("/"))(errno.into()))
}
