//! How a host agent is set up.

use std::path::PathBuf;
use std::time::Duration;

use sandbar_supervisor::protocol::Renewal;

use super::Ceiling;
use crate::accepted::AcceptedLimits;
use crate::sandbox::HostRest;

/// How a host agent is set up. Every limit is a field here.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The directory that holds deployed applications, logs and the host's identity. Made if it is missing.
    pub state: PathBuf,
    /// The largest payload of a call, in bytes. An application's manifest may ask for less.
    pub payload_bytes_max: usize,
    /// Calls under way on the whole host at one time, those that each application is assured of not counted; more are refused
    /// as overloaded.
    pub calls_in_flight_max: usize,
    /// Calls that each application may have under way whatever the others have: no application's flood keeps another out.
    pub calls_assured: usize,
    /// The interpreter of Python functions; a bare name is looked for in `PATH`.
    pub python: PathBuf,
    /// Applications get ranges of 65,536 users of the host each, from here on.
    pub first_user: u32,
    /// Applications that may be deployed at one time.
    pub applications_max: usize,
    /// What no application may have more of, whatever its manifest says.
    pub ceiling: Ceiling,
    /// How long a call may have to wait for others of its application while more come than are served; more are refused as overloaded.
    /// `None`: the limits on numbers alone count.
    pub delay_max: Option<Duration>,
    /// What is kept of asynchronous calls.
    pub accepted: AcceptedLimits,
    /// When applications are put to rest that do not say so themselves.
    pub rest: HostRest,
    /// When the workers of functions are renewed.
    pub renewal: Renewal,
    /// Directories that applications may name as root file systems, themselves or what is in them. What an application brings
    /// along needs no leave.
    pub rootfs_allowed: Vec<PathBuf>,
    /// Whether the path of every call is written to its application's log.
    pub trace: bool,
}

impl HostConfig {
    /// The usual set-up, with this state directory.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            payload_bytes_max: 16 << 20,
            calls_in_flight_max: 1024,
            calls_assured: 16,
            python: "python3".into(),
            // Above what user databases and container managers commonly hand out.
            first_user: 0x7000_0000,
            applications_max: 4096,
            ceiling: Ceiling::default(),
            delay_max: Some(Duration::from_millis(20)),
            accepted: AcceptedLimits::default(),
            rest: HostRest::default(),
            renewal: Renewal { calls: 10_000, seconds: 3600 },
            rootfs_allowed: Vec::new(),
            trace: false,
        }
    }
}
