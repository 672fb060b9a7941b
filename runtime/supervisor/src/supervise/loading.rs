//! A worker while it loads its code: what it says on its status socket, and how long it may take.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use sandbar_function::worker::READY;

use crate::spawn::Spawned;
use crate::template::hear_forked;

/// How long a worker may take to load its code.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// How long a worker that has closed its status socket without a word may take to end.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Bytes that a worker may say of why it cannot load its code.
const REASON_BYTES_MAX: usize = 8 << 10;

/// A process that loads the function's code.
#[derive(Debug)]
pub(super) struct Loading {
    /// `None` until a template has forked it.
    pub(super) pid: Option<Pid>,
    /// `None` once it has closed its end.
    pub(super) status: Option<OwnedFd>,
    said: Vec<u8>,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// What a worker that loads has said by now.
pub(super) enum Said {
    /// Nothing that is complete.
    Nothing,
    /// That it is ready.
    Ready,
    /// Why it never will be.
    Reason,
    /// That there will be no process: the template has not forked it.
    Unborn,
}

impl Loading {
    pub(super) fn new(spawned: Spawned) -> Self {
        let since = Instant::now();
        let Spawned { pid, status } = spawned;
        Self { pid, status: Some(status), said: Vec::new(), since, until: since + LOAD_MAX }
    }

    /// Hears what has come.
    pub(super) fn hear(&mut self) -> Said {
        let Some(socket) = &self.status else { return Said::Nothing };
        if self.pid.is_none() {
            self.pid = match hear_forked(socket) {
                Ok(None) => return Said::Nothing,
                Ok(pid) => pid,
                Err(_) => return Said::Unborn,
            };
        }
        let ended = hear(socket, &mut self.said);
        if self.said == READY.as_bytes() {
            return Said::Ready;
        }
        if ended && self.said.is_empty() {
            // It will say nothing more. How it ended is seen when it is reaped; one that does not end is ended soon.
            self.until = self.until.min(Instant::now() + LAST_WORD);
            self.status = None;
            return Said::Nothing;
        }
        if ended { Said::Reason } else { Said::Nothing }
    }

    /// All that it has said to its end.
    pub(super) fn last_words(mut self) -> String {
        if let Some(socket) = &self.status {
            hear(socket, &mut self.said);
        }
        String::from_utf8_lossy(&self.said).trim().to_owned()
    }
}

/// Reads what has come on a status socket; true when nothing more will.
fn hear(status: &OwnedFd, said: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match nix::unistd::read(status, &mut bytes) {
            Ok(0) => return true,
            Ok(count) => said.extend_from_slice(&bytes[..count]),
            Err(errno) => return errno != nix::errno::Errno::EAGAIN,
        }
        if said.len() > REASON_BYTES_MAX {
            said.truncate(REASON_BYTES_MAX);
            return true;
        }
    }
}
