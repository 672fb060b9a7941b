//! What can go wrong when a sandbox is made.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;
use sandbar_supervisor::protocol::ReceiveError;

use crate::cgroup::CgroupError;

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A step on the host's side.
    #[error("cannot {step}")]
    Host {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The segment cannot be laid out.
    #[error("the limits do not fit a segment")]
    Geometry(#[from] sandbar_bus::layout::GeometryError),
    /// The segment cannot be made.
    #[error("cannot make the application's segment")]
    Segment(#[from] sandbar_bus::segment::SegmentError),
    /// The control groups cannot be made.
    #[error("cannot limit the sandbox")]
    ControlGroups(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A step inside.
    #[error("the sandbox cannot be built: {0}")]
    Inside(String),
    /// A worker does not come up.
    #[error("function {function}: {reason}")]
    Worker {
        /// The function.
        function: String,
        /// What its worker said, or how it ended.
        reason: String,
    },
    /// Who was to start the supervisor was killed.
    #[error("the sandbox's launch was ended by {0}")]
    Launch(Signal),
    /// The supervisor ended, or said what makes no sense.
    #[error("the sandbox ended while it was made")]
    Ended(#[source] ReceiveError),
    /// Nobody wants it any longer.
    #[error("the application was removed, or the host stops, while its sandbox was made")]
    Unwanted,
    /// It took too long.
    #[error("the sandbox was not ready after {} s", .0.as_secs())]
    Slow(Duration),
}

impl From<CgroupError> for SandboxError {
    fn from(error: CgroupError) -> Self {
        Self::ControlGroups(Box::new(error))
    }
}

/// A failed system call of such a step.
pub(super) fn host(step: &'static str) -> impl FnOnce(nix::errno::Errno) -> SandboxError {
    move |errno| SandboxError::Host { step, source: errno.into() }
}
