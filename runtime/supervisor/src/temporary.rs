//! Temporary files end with the call that wrote them: what a call leaves in `/tmp` or `/dev/shm` is deleted before its slot is used
//! again, so that neither its data nor the room it took is there for the next. What a worker wrote while it loaded its code stays.
//!
//! Whether there is anything to delete is seen from the number of files alone, in one system call for each place; the places are
//! walked only when there are more files than the workers' own.
//!
//! Everything is reached from the descriptors of the two places, one name at a time, and no link is followed.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{UnlinkatFlags, unlinkat};
use sandbar_function::process::{INSTANCE_UID_BASE, random};

/// Directories that are followed inside each other; each is an open descriptor meanwhile.
const DEPTH_MAX: usize = 64;
/// After a walk, this many times as long passes before the next: files of calls that go on must not take all of the supervisor's time.
const PAUSE_FACTOR: u32 = 8;

/// The places where calls may write.
#[derive(Debug)]
pub(crate) struct TemporaryFiles {
    places: Vec<Place>,
    walk_again_at: Instant,
}

#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    /// How many files there are that no call wrote, itself included.
    kept: u64,
}

impl TemporaryFiles {
    /// To be called before any code of the application runs.
    ///
    /// # Errors
    /// When a place is not there.
    pub(crate) fn open() -> Result<Self, Errno> {
        let place = |path: &str| {
            let directory = open(path, directory_flags(), Mode::empty())?;
            let kept = files(directory.as_fd())?;
            Ok(Place { directory, kept })
        };
        let places = vec![place("/tmp")?, place("/dev/shm")?];
        Ok(Self { places, walk_again_at: Instant::now() })
    }

    /// Deletes all files of these users, none of whom has a process any more. False if that is to be tried again a little later.
    pub(crate) fn delete_of(&mut self, users: &BTreeSet<u32>) -> bool {
        if !self.places.iter().any(Place::has_files_of_calls) {
            return true;
        }
        let begin = Instant::now();
        if begin < self.walk_again_at {
            return false;
        }
        for place in &mut self.places {
            if place.has_files_of_calls() {
                place.kept = 1 + Walk { users, top: place.directory.as_fd() }.whole();
            }
        }
        self.walk_again_at = Instant::now() + begin.elapsed() * PAUSE_FACTOR;
        true
    }

    /// When [`delete_of`](Self::delete_of) is worth another try.
    pub(crate) fn pause(&self) -> Duration {
        self.walk_again_at.saturating_duration_since(Instant::now())
    }
}

impl Place {
    fn has_files_of_calls(&self) -> bool {
        files(self.directory.as_fd()).is_ok_and(|files| files > self.kept)
    }
}

/// How many files and directories a file system has.
fn files(directory: BorrowedFd<'_>) -> Result<u64, Errno> {
    let status = fstatfs(directory)?;
    Ok(status.files().saturating_sub(status.files_free()))
}

/// One walk through a place. Errors are passed over: whatever is gone is gone, and what cannot be deleted now is found by the next walk.
struct Walk<'w> {
    users: &'w BTreeSet<u32>,
    top: BorrowedFd<'w>,
}

impl Walk<'_> {
    /// Walks through all of it; returns how many files there are that no call wrote.
    fn whole(&self) -> u64 {
        let mut moved = Vec::new();
        let kept = self.look_through(self.top, 0, &mut moved);
        // Each round takes the trees that lay too deep from where the last one moved them to: to the top.
        while let Some(name) = moved.pop() {
            self.delete(self.top, &name, 0, &mut moved);
        }
        kept
    }

    fn look_through(&self, directory: BorrowedFd<'_>, depth: usize, moved: &mut Vec<CString>) -> u64 {
        let mut kept = 0;
        for name in names(directory) {
            let Ok(stat) = fstatat(directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if self.users.contains(&stat.st_uid) {
                self.delete(directory, &name, depth, moved);
                continue;
            }
            kept += u64::from(stat.st_uid < INSTANCE_UID_BASE);
            if is_directory(&stat)
                && depth < DEPTH_MAX
                && let Ok(inner) = openat(directory, name.as_c_str(), directory_flags(), Mode::empty())
            {
                kept += self.look_through(inner.as_fd(), depth + 1, moved);
            }
        }
        kept
    }

    /// Deletes a file, or a directory with all that is in it, whoever wrote it.
    fn delete(&self, directory: BorrowedFd<'_>, name: &CStr, depth: usize, moved: &mut Vec<CString>) {
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            Ok(()) | Err(_) => return,
        }
        if depth >= DEPTH_MAX {
            moved.extend(self.move_to_top(directory, name, moved.len()));
            return;
        }
        if let Ok(inner) = openat(directory, name, directory_flags(), Mode::empty()) {
            for name in names(inner.as_fd()) {
                self.delete(inner.as_fd(), &name, depth + 1, moved);
            }
        }
        // One that is not empty, as something was moved in or out of it just now, is found again.
        let _not_empty = unlinkat(directory, name, UnlinkatFlags::RemoveDir);
    }

    fn move_to_top(&self, directory: BorrowedFd<'_>, name: &CStr, number: usize) -> Option<CString> {
        let at_top = CString::new(format!(".deleted-{number}-{:016x}", random()?)).ok()?;
        renameat(directory, name, self.top, at_top.as_c_str()).ok()?;
        Some(at_top)
    }
}

fn names(directory: BorrowedFd<'_>) -> Vec<CString> {
    let Ok(mut listing) = Dir::openat(directory, ".", directory_flags(), Mode::empty()) else { return Vec::new() };
    let names = listing.iter().map_while(Result::ok).map(|entry| entry.file_name().to_owned());
    names.filter(|name| name.as_c_str() != c"." && name.as_c_str() != c"..").collect()
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Runs what deletes in a folder of the test's own as in a sandbox, with ids as they are there.
    fn place(folder: &Path) -> Place {
        let directory = open(folder, directory_flags(), Mode::empty()).expect("the folder is there");
        Place { directory, kept: 1 }
    }

    fn own(path: &Path, user: u32) {
        std::os::unix::fs::lchown(path, Some(user), Some(user)).expect("only root may run this");
    }

    fn write(path: &Path, user: u32) {
        fs::write(path, "x").expect("there is room");
        own(path, user);
    }

    #[test]
    fn what_ended_calls_wrote_goes_and_all_else_stays() {
        if !nix::unistd::geteuid().is_root() {
            return println!("SKIPPED: only root can write as others");
        }
        let folder = tempfile::tempdir().expect("there is room");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("workers/inner")).expect("there is room");
        own(&at("workers"), 1000);
        own(&at("workers/inner"), 1000);
        write(&at("workers/inner/ended"), 2001);
        write(&at("alive"), 2002);
        write(&at("ended"), 2001);
        std::os::unix::fs::symlink("/etc/passwd", at("link")).expect("there is room");
        own(&at("link"), 2001);
        fs::create_dir(at("tree")).expect("there is room");
        own(&at("tree"), 2001);
        write(&at("tree/of-another"), 2002);
        let users = BTreeSet::from([2001]);
        let place = place(folder.path());
        let kept = Walk { users: &users, top: place.directory.as_fd() }.whole();
        assert_eq!(kept, 2, "the worker's two directories");
        let left: BTreeSet<_> =
            fs::read_dir(folder.path()).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, BTreeSet::from(["workers".into(), "alive".into()]));
        assert!(!at("workers/inner/ended").exists());
    }

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes() {
        if !nix::unistd::geteuid().is_root() {
            return println!("SKIPPED: only root can write as others");
        }
        let folder = tempfile::tempdir().expect("there is room");
        let mut directory = open(folder.path(), directory_flags(), Mode::empty()).expect("it is there");
        for depth in 0..3000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).expect("there is room");
            if depth == 0 {
                own(&folder.path().join("d"), 2001);
            }
            directory = openat(&directory, "d", directory_flags(), Mode::empty()).expect("it is there");
        }
        let users = BTreeSet::from([2001]);
        let place = place(folder.path());
        Walk { users: &users, top: place.directory.as_fd() }.whole();
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
    }
}
