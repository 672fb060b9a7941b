//! A server of a peer's: started, waited for, and ended with its owner.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Skipped;
use crate::running::{Running, pause};

/// From its start until it listens.
const START_MAX: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A server that listens. Dropped, it is asked to end, and waited for.
pub(crate) struct Server(Running);

impl Server {
    /// Starts it, and waits until it listens at `address`. What it says of errors goes to a file in `folder`, whose last line is the reason if it
    /// fails.
    pub(crate) fn start(mut command: Command, name: &str, address: &str, folder: &Path) -> Result<Self, Skipped> {
        let log = folder.join(format!("{name}.log"));
        command.stderr(File::create(&log).unwrap());
        let mut process = Running::start(command).map_err(|error| format!("it did not start: {error}"))?;
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = process.ended() {
                return Err(format!("it ended ({status}): {}", last_line(&log)).into());
            }
            if Instant::now() > until {
                return Err(format!("it does not listen after {} s: {}", START_MAX.as_secs(), last_line(&log)).into());
            }
            pause(LOOK_AGAIN);
        }
        Ok(Self(process))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}
