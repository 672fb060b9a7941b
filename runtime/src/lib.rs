//! Applications, sandboxes, workers, instances, and the host agent that owns them.

mod accepted;
mod archive;
mod bundle;
pub mod call;
mod cgroup;
mod host;
mod host_bus;
mod image;
mod inside;
mod log;
pub mod manifest;
mod memory;
pub mod outputs;
mod python;
mod rootfs;
mod running;
mod sandbox;
mod service;
pub mod template;
mod watch;

pub use accepted::{AcceptedCall, AcceptedError, AcceptedLimits, AcceptedState, AcceptedStatus, NoRoom, StoreError};
pub use call::{ACCEPTED_CALLS, Answer, CallId, Hop, Mode, Origin, Outcome, Request, Ticket, TicketError};
pub use host::{
    ApplicationStatus, Ceiling, CeilingError, DeployError, Deployed, HostAgent, HostConfig, LogsError, RemoveError,
    RestError, StartError, check_archive,
};
pub use host_bus::{CALL_DEPTH_MAX, Caller, HostBus};
pub use log::{LogLine, LogStream};
pub use python::PythonError;
pub use sandbar_bus::{AnswerProperties, Code, Method, RequestProperties};
pub use sandbar_supervisor::protocol::Renewal;
pub use sandbox::HostRest;
pub use sandbox::SandboxError;
pub use watch::watch;

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
