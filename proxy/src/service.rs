//! What a front door calls.
//!
//! The doors know the host by this trait alone, so that a door can be driven, tested and measured
//! without a host behind it.

use std::future::Future;
use std::sync::Arc;

use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{AcceptedCall, Answer, HostAgent, Origin, Outcome, Request, Ticket};

/// An application as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedApplication {
    /// The application's name: the first segment of its path.
    pub name: String,
    /// Whether its entry function can be observed.
    pub observable: bool,
    /// Its functions.
    pub functions: Vec<ServedFunction>,
}

/// A function as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedFunction {
    /// Its name: the second segment of its path.
    pub name: String,
    /// Whether it can be observed.
    pub observable: bool,
}

/// A host as its front doors see it. A cheap handle: every call in flight holds a clone.
pub trait Service: Clone + Send + Sync + 'static {
    /// Whether a call to this application (and function, if named) can exist at all and may come from there. Doors ask it
    /// before a payload has arrived, and on their receiving path: it has to be cheap.
    ///
    /// # Errors
    /// The outcome and reason the caller is to be told.
    fn find(&self, origin: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>>;

    /// Whether this function (the entry function if none is named) may be observed: asked of one that was found, where a request
    /// would observe it.
    fn observable(&self, application: &str, function: Option<&str>) -> bool;

    /// Makes a call and waits for its end; of one whose mode is asynchronous, until it is accepted: the answer is then
    /// [`Outcome::Accepted`](sandbar_runtime::Outcome), with the location in its properties. Has to return by the call's deadline. Whoever drops the future gives the
    /// call up: its answer is lost, and whether it still runs is the service's affair.
    fn call(&self, request: Request) -> impl Future<Output = Answer> + Send;

    /// What is known of an accepted call; `None` if there is none (any more). Cheap, as [`Self::find`].
    fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        let (_, _) = (application, ticket);
        None
    }

    /// The answer to an accepted call: [`Outcome::Accepted`](sandbar_runtime::Outcome) while it has not ended, with
    /// [`Outcome::NotFound`](sandbar_runtime::Outcome) if there is none (any more). Whether the caller may ask is the door's to see to.
    fn accepted_answer(&self, application: &str, ticket: Ticket) -> impl Future<Output = Answer> + Send {
        let (_, _) = (application, ticket);
        std::future::ready(Answer::refused(Outcome::NotFound, "no calls are accepted here"))
    }

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

    fn observable(&self, application: &str, function: Option<&str>) -> bool {
        Self::observable(self, application, function)
    }

    fn call(&self, request: Request) -> impl Future<Output = Answer> + Send {
        Self::call(self, request)
    }

    fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        Self::accepted(self, application, ticket)
    }

    fn accepted_answer(&self, application: &str, ticket: Ticket) -> impl Future<Output = Answer> + Send {
        Self::accepted_answer(self, application, ticket)
    }

    fn payload_bytes_max(&self) -> usize {
        Self::payload_bytes_max(self)
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(Self::outputs(self))
    }

    fn applications(&self, origin: Origin) -> Vec<ServedApplication> {
        let mut served = Vec::new();
        self.reachable(origin, |application| {
            let functions = application.functions.iter();
            served.push(ServedApplication {
                name: application.name.to_string(),
                observable: application.functions[application.entry].observe,
                functions: functions
                    .map(|function| ServedFunction { name: function.name.to_string(), observable: function.observe })
                    .collect(),
            });
        });
        served
    }
}
