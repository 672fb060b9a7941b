//! Everything that can go wrong in the command, and how it is told.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sandbar_proxy::client::{self, SessionError};
use sandbar_proxy::keys::KeysError;
use sandbar_proxy::management::{BindError, ClientError};
use sandbar_runtime::manifest::ManifestError;
use sandbar_runtime::template::TemplateError;
use sandbar_runtime::{DeployError, Outcome, StartError};

use crate::exit::Exit;

/// Why a subcommand did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("`sandbar serve` makes namespaces, mounts and control groups, which only root may do; try it with sudo")]
    NotRoot,
    #[error(transparent)]
    Management(#[from] BindError),
    #[error("the host agent cannot start")]
    Start(#[source] StartError),
    #[error("cannot open the {protocol} door at {address}")]
    OpenDoor { protocol: &'static str, address: SocketAddr, source: Box<dyn Error + Send + Sync> },
    #[error("a door closed by itself")]
    DoorClosed,
    #[error("a door broke down")]
    DoorPanicked(#[source] tokio::task::JoinError),
    #[error("stopped at once; what is left of the sandboxes is cleared away by the next start")]
    StoppedAtOnce,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{}", outcome_line(*outcome, diagnostic, *retry_after))]
    Call { outcome: Outcome, diagnostic: String, retry_after: Option<Duration> },
    #[error("the call has not ended: {location}")]
    NotEnded { location: String },
    #[error("the application in {} has problems", folder.display())]
    Manifest { folder: PathBuf, source: ManifestError },
    #[error("the archive {} has problems", path.display())]
    Archive { path: PathBuf, source: DeployError },
    #[error("cannot make an application in {}", folder.display())]
    Template { folder: PathBuf, source: TemplateError },
    #[error("the folder {} has no name that an application could take; give one with --name", folder.display())]
    Nameless { folder: PathBuf },
    #[error("cannot read {what}")]
    Input { what: String, source: io::Error },
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot write this as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the demonstration needs {}: build the examples with `make examples`, or name their folder with --examples", what.display())]
    NoExamples { what: PathBuf },
    #[error("the demonstration's host did not start")]
    NoHost(#[source] io::Error),
    #[error("the demonstration's host did not stop as it should")]
    HostDidNotStop(#[source] io::Error),
    #[error("cannot write {}", path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Coap(#[from] client::ClientError),
    #[error("the key cannot be used")]
    Credentials(#[from] SessionError),
    #[error("the demonstration was not as it should be in {0} points, each marked WRONG above")]
    Demonstration(usize),
    #[error("{done} of {calls} calls were done{}", because(most))]
    Bench { calls: u64, done: u64, most: String },
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error("there is no identity {identity:?} in {}", file.display())]
    NoSuchIdentity { identity: String, file: PathBuf },
    #[error("{0}")]
    Arguments(String),
    #[error("interrupted")]
    Interrupted,
    #[error("the system refused what every program needs")]
    System(#[source] io::Error),
}

impl Failure {
    /// The exit code that tells this failure to scripts.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::NobodyListens { .. }) => Exit::NoHostAgent,
            Self::Client(ClientError::Refused { status, .. }) if status.as_u16() == 404 => Exit::NotFound,
            Self::Client(ClientError::Refused { status, .. }) if status.as_u16() == 503 => Exit::Overloaded,
            Self::NoSuchIdentity { .. } => Exit::NotFound,
            Self::Call { outcome, .. } => Exit::from(*outcome),
            Self::NotEnded { .. } => Exit::NotEnded,
            Self::Coap(client::ClientError::Session { source, .. }) if says_who_we_are_not(source) => Exit::NotAllowed,
            Self::Nameless { .. } | Self::Arguments(_) => Exit::Usage,
            Self::NotRoot
            | Self::Management(_)
            | Self::Start(_)
            | Self::OpenDoor { .. }
            | Self::DoorClosed
            | Self::DoorPanicked(_)
            | Self::StoppedAtOnce
            | Self::Client(_)
            | Self::Manifest { .. }
            | Self::Archive { .. }
            | Self::Template { .. }
            | Self::Input { .. }
            | Self::Output(_)
            | Self::Json(_)
            | Self::NoExamples { .. }
            | Self::NoHost(_)
            | Self::HostDidNotStop(_)
            | Self::Keep { .. }
            | Self::Coap(_)
            | Self::Credentials(_)
            | Self::Demonstration(_)
            | Self::Bench { .. }
            | Self::Keys(_)
            | Self::Interrupted
            | Self::System(_) => Exit::Failed,
        }
    }

    /// Whether the reader of our output has gone, as `head` does when it has enough.
    pub(crate) fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Whether a server does not believe that we are who we say.
fn says_who_we_are_not(error: &SessionError) -> bool {
    match error {
        SessionError::Refused { .. } | SessionError::UnknownIdentity { .. } | SessionError::Unfinished { .. } => true,
        SessionError::NothingInCommon | SessionError::Ended | SessionError::Broken(_) => false,
    }
}

fn because(most: &str) -> String {
    if most.is_empty() { String::new() } else { format!("; most of the others: {}", crate::output::visible(most)) }
}

fn outcome_line(outcome: Outcome, diagnostic: &str, retry_after: Option<Duration>) -> String {
    let mut line = outcome.to_string();
    if !diagnostic.is_empty() {
        line = format!("{line}: {}", crate::output::visible(diagnostic));
    }
    if let Some(pause) = retry_after {
        line = format!("{line}; try again in {}", humantime::format_duration(pause));
    }
    line
}

/// An error with all its causes: the error on the first line, each cause on lines of its own, indented.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = format!("sandbar: {error}");
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        for line in cause.to_string().lines() {
            text.push_str("\n  ");
            text.push_str(line);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_shows_every_cause_once() {
        let failure = Failure::Input { what: "photo.jpg".into(), source: io::Error::other("first\nsecond") };
        assert_eq!(chain(&failure), "sandbar: cannot read photo.jpg\n  first\n  second");
    }

    #[test]
    fn a_transparent_failure_is_not_told_twice() {
        let failure = Failure::from(BindError::InUse { socket: "/s".into() });
        assert_eq!(chain(&failure), "sandbar: another sandbar serves on /s");
    }

    #[test]
    fn an_outcome_is_told_with_its_reason_and_its_pause() {
        let overloaded = Failure::Call {
            outcome: Outcome::Overloaded,
            diagnostic: "queue full".into(),
            retry_after: Some(Duration::from_secs(1)),
        };
        assert_eq!(overloaded.to_string(), "overloaded: queue full; try again in 1s");
        assert_eq!(overloaded.exit(), Exit::Overloaded);
        let silent = Failure::Call { outcome: Outcome::Failed, diagnostic: String::new(), retry_after: None };
        assert_eq!(silent.to_string(), "failed");
    }

    #[test]
    fn a_closed_output_is_told_apart() {
        assert!(Failure::Output(io::ErrorKind::BrokenPipe.into()).is_closed_output());
        assert!(!Failure::Output(io::ErrorKind::StorageFull.into()).is_closed_output());
    }
}
