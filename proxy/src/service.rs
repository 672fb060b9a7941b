//! What a front door calls.
//!
//! The doors know the host by this trait alone, so that a door can be driven, tested and measured
//! without a host behind it.

use std::future::Future;
use std::sync::Arc;

use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{Answer, HostAgent, Origin, Request};

/// An application as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedApplication {
    /// The application's name: the first segment of its path.
    pub name: String,
    /// Its functions' names: the second segment of theirs.
    pub functions: Vec<String>,
}

/// A host as its front doors see it. A cheap handle: every call in flight holds a clone.
pub trait Service: Clone + Send + Sync + 'static {
    /// Whether a call to this application (and function, if named) can exist at all and may come from there. Doors ask it
    /// before a payload has arrived, and on their receiving path: it has to be cheap.
    ///
    /// # Errors
    /// The outcome and reason the caller is to be told.
    fn find(&self, origin: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>>;

    /// Makes a call and waits for its end. Has to return by the call's deadline. Whoever drops the future gives the
    /// call up: its answer is lost, and whether it still runs is the service's affair.
    fn call(&self, request: Request) -> impl Future<Output = Answer> + Send;

    /// The largest payload any call may carry, in bytes.
    fn payload_bytes_max(&self) -> usize;

    /// What functions give out, for whoever watches.
    fn outputs(&self) -> Arc<Outputs>;

    /// The applications that may be called from there, and their functions, for discovery.
    fn applications(&self, origin: Origin) -> Vec<ServedApplication>;
}

impl Service for HostAgent {
    fn find(&self, origin: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        Self::find(self, origin, application, function)
    }

    fn call(&self, request: Request) -> impl Future<Output = Answer> + Send {
        Self::call(self, request)
    }

    fn payload_bytes_max(&self) -> usize {
        Self::payload_bytes_max(self)
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(Self::outputs(self))
    }

    fn applications(&self, origin: Origin) -> Vec<ServedApplication> {
        let reachable = self.reachable(origin).into_iter();
        reachable.map(|(name, functions)| ServedApplication { name, functions }).collect()
    }
}
