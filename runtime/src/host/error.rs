//! Why the host agent could not do what it was asked for: an enum for each thing that it is asked.

use std::io;
use std::path::PathBuf;

use super::CeilingError;
use crate::accepted::StoreError;
use crate::bundle::BundleError;
use crate::manifest::ManifestError;
use crate::python::PythonError;
use crate::rootfs::RootfsError;
use crate::sandbox::SandboxError;

/// Why a host agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory of the state cannot be used.
    #[error("cannot use the state in {}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another agent has the state directory.
    #[error("another sandbar uses the state in {}: stop it, or give this one another with --state", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// The host's control groups cannot be used.
    #[error("cannot limit what applications use")]
    ControlGroups(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The calls that were accepted earlier cannot be read.
    #[error("cannot use the calls that were accepted earlier")]
    Accepted(#[from] StoreError),
}

/// Why an application was not deployed. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The folder or archive cannot be taken as a bundle.
    #[error("the application is not deployed")]
    Bundle(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It asks for more than this host gives.
    #[error("the application is not deployed")]
    Ceiling(#[from] CeilingError),
    /// The host has no Python that can be used.
    #[error("the application has functions in Python")]
    Python(#[from] PythonError),
    /// The root file system that the manifest names cannot be used.
    #[error("the application's own root file system cannot be used")]
    Rootfs(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No room for another application.
    #[error("the host has {0} applications, and takes no more")]
    Full(usize),
    /// The application's log cannot be opened.
    #[error("cannot open the application's log")]
    Log(#[source] io::Error),
    /// Its sandbox cannot be made, or its code cannot be loaded.
    #[error("the application does not start")]
    Sandbox(#[from] SandboxError),
    /// The agent is being stopped.
    #[error("the host agent is being stopped")]
    Stopping,
}

impl From<BundleError> for DeployError {
    fn from(error: BundleError) -> Self {
        Self::Bundle(Box::new(error))
    }
}

impl From<RootfsError> for DeployError {
    fn from(error: RootfsError) -> Self {
        Self::Rootfs(Box::new(error))
    }
}

/// Why an application was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is none of this name.
    #[error("no application {0:?} is deployed")]
    NoSuchApplication(String),
    /// Its files stay.
    #[error("the application is stopped, but its files cannot be deleted")]
    Files(#[source] io::Error),
}

/// Why an application was not put to rest.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// There is none of this name.
    #[error("no application {0:?} is deployed")]
    NoSuchApplication(String),
    /// Something was under way all the time.
    #[error("application {0:?} is serving calls: try again when they are over")]
    Busy(String),
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// There is no such application.
    #[error("no application {0:?} is deployed")]
    NoSuchApplication(String),
    /// It has no such function.
    #[error("application {application:?} has no function {function:?}; it has {known}")]
    NoSuchFunction {
        /// The application.
        application: String,
        /// What was asked for.
        function: String,
        /// What there is.
        known: String,
    },
    /// The files cannot be read.
    #[error("cannot read the log")]
    Files(#[source] io::Error),
}
