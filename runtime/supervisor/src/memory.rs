//! Whether it was for want of memory that the kernel killed.
//!
//! The agent opens the kernel's count for the sandbox's control group, and for each function that has a group of its own, and hands
//! the supervisor the descriptors: no control group file system is mounted inside.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::uio::pread;

/// Longer than either of the kernel's files is.
const EVENTS_BYTES_MAX: usize = 512;

/// The kernel's count of processes that it killed for want of memory in one control group.
#[derive(Debug)]
pub struct MemoryKills {
    file: OwnedFd,
    /// Kills that somebody has been told of.
    told: Cell<u64>,
}

impl MemoryKills {
    /// Counts from here on.
    pub(crate) fn new(file: OwnedFd) -> Self {
        let told = Cell::new(0);
        let kills = Self { file, told };
        kills.told.set(kills.count().unwrap_or(0));
        kills
    }

    /// Takes one kill that nobody has been told of yet; false if there is none.
    pub(crate) fn take_one(&self) -> bool {
        let told = self.told.get();
        let more = self.count().is_ok_and(|count| count > told);
        self.told.set(told + u64::from(more));
        more
    }

    /// All kills so far are old news.
    pub(crate) fn forget(&self) {
        self.told.set(self.count().unwrap_or_else(|_| self.told.get()));
    }

    /// The file that is read.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn count(&self) -> io::Result<u64> {
        let mut bytes = [0; EVENTS_BYTES_MAX];
        let len = pread(&self.file, &mut bytes, 0)?;
        kills_in(&String::from_utf8_lossy(&bytes[..len])).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The number after the key `oom_kill`, which `memory.oom_control` (v1) and `memory.events` (v2) both have.
fn kills_in(text: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == "oom_kill")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_kernel_files_tell_the_number_of_kills() {
        assert_eq!(kills_in("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(kills_in("low 0\nhigh 0\nmax 12\noom 2\noom_kill 5\noom_group_kill 0\n"), Some(5));
        assert_eq!(kills_in("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn each_kill_is_told_once() {
        let mut file = tempfile::tempfile().expect("there is room");
        file.write_all(b"oom_kill 1\n").expect("there is room");
        let kills = MemoryKills::new(file.try_clone().expect("there are descriptors").into());
        assert!(!kills.take_one(), "it was before our time");
        file.write_all(b"").expect("there is room");
        std::os::unix::fs::FileExt::write_all_at(&file, b"oom_kill 3\n", 0).expect("there is room");
        assert!(kills.take_one() && kills.take_one());
        assert!(!kills.take_one());
    }
}
