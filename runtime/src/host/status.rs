//! What is told of a deployed application.

use sandbar_supervisor::protocol::RestStep;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::sandbox::Sandbox;
use crate::service::{Service, State};

/// One application, as `sandbar list` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplicationStatus {
    /// The application's name.
    pub name: String,
    /// "running", "resting" (the next call wakes it), or what keeps it from running.
    pub state: String,
    /// How far it has gone to rest, if it has: without "instances" that stand ready, without "workers", or without a "sandbox".
    pub resting: Option<String>,
    /// The function that is called when none is named.
    pub entry: String,
    /// All functions.
    pub functions: Vec<String>,
    /// Host process id of the sandbox's PID 1, while it runs.
    pub pid: Option<u32>,
    /// Memory it uses, in bytes, while it runs: processes, temporary files and messages they wrote.
    pub memory_bytes: Option<u64>,
    /// Processes it has, while it runs.
    pub processes: Option<u64>,
    /// Calls answered since the application was deployed or the agent started, with any outcome.
    pub calls: u64,
}

/// How an application is now.
pub(super) fn of(service: &Service) -> ApplicationStatus {
    let application = &service.application;
    let without = match service.state() {
        State::Running(running) => match running.step() {
            RestStep::Awake => None,
            RestStep::Instances => Some("instances"),
            RestStep::Workers => Some("workers"),
        },
        State::Resting => Some("sandbox"),
        State::Down(_) => None,
    };
    let (state, running) = match service.state() {
        State::Running(running) => ("running".to_owned(), Some(running)),
        State::Resting => ("resting".to_owned(), None),
        State::Down(reason) => (format!("down: {reason}"), None),
    };
    let sandbox = running.as_ref().map(|running| &running.sandbox);
    let functions: Vec<_> = application.functions.iter().map(|function| function.name.as_str().to_owned()).collect();
    ApplicationStatus {
        name: application.name.as_str().to_owned(),
        state,
        resting: without.map(str::to_owned),
        entry: functions.get(application.entry).cloned().unwrap_or_default(),
        functions,
        pid: sandbox.map(Sandbox::pid),
        memory_bytes: sandbox.and_then(|sandbox| sandbox.usage(Cgroup::memory_bytes)),
        processes: sandbox.and_then(|sandbox| sandbox.usage(Cgroup::processes)),
        calls: service.answered(),
    }
}
