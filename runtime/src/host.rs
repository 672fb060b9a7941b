//! The host agent: owns this host's applications and the bus that joins them.
//!
//! It starts and stops applications, and gives each its range of users ([`deploy`] is how they come and go); of their calls it knows nothing: the
//! [host bus](crate::host_bus) makes them.

mod ceiling;
mod check;
mod config;
mod deploy;
mod error;
mod roots;
mod state;
mod status;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::fcntl::Flock;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::accepted::{Accepted, AcceptedCall, AcceptedError, AcceptedStatus};
use crate::bundle;
use crate::call::{Answer, Mode, Origin, Request, Ticket};
use crate::cgroup::{DetectError, Hierarchy};
use crate::host_bus::{Caller, HostBus, admits};
use crate::image::{ImageLimits, Images};
use crate::inside::Inside;
use crate::log::{self, Log, LogStream};
use crate::manifest::{Application, Name};
use crate::outputs::Outputs;
use crate::sandbox::{Grounds, Specification, USERS_PER_APPLICATION};
use crate::service::{Maker, Service};
pub use ceiling::{Ceiling, CeilingError};
pub use check::check_archive;
pub use config::HostConfig;
pub use deploy::Deployed;
pub use error::{DeployError, LogsError, RemoveError, RestError, StartError};
use state::{first_call, host_name, lock, make_private_directory};
pub use status::ApplicationStatus;

/// How long the start waits for applications to be back before others are served without them: as long as many take on a small
/// machine.
const RESTORE_MAX: Duration = Duration::from_secs(15);

/// The host agent. A cheap handle: clones share one agent.
#[derive(Clone, Debug)]
pub struct HostAgent {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: HostConfig,
    applications_directory: PathBuf,
    grounds: Arc<Grounds>,
    images: Arc<Images>,
    bus: Arc<HostBus>,
    accepted: Arc<Accepted>,
    /// Versions that were replaced and finish their calls; they still have their users.
    retiring: std::sync::Mutex<Vec<Arc<Service>>>,
    /// Held while an application is deployed or removed.
    changing: Mutex<()>,
    /// Becomes true when the agent is to stop: nothing is deployed any more.
    stopping: watch::Sender<bool>,
    _lock: Flock<File>,
}

impl HostAgent {
    /// Starts a host agent: clears away what an earlier one that was killed left, and puts the applications that are deployed
    /// into service again. One that no longer starts is kept, and tried again.
    ///
    /// # Errors
    /// When the state or the control groups cannot be used.
    pub async fn start(config: HostConfig) -> Result<Self, StartError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::State { path, source }
        };
        make_private_directory(&config.state).map_err(failed(&config.state))?;
        let state = config.state.canonicalize().map_err(failed(&config.state))?;
        let lock = lock(&state)?;
        let applications_directory = state.join("applications");
        let (mount_point, images) = (state.join("root"), state.join("images"));
        let logs_directory = state.join("logs");
        for directory in [&applications_directory, &mount_point, &images, &logs_directory] {
            make_private_directory(directory).map_err(failed(directory))?;
        }
        bundle::sweep_staging(&applications_directory).map_err(failed(&applications_directory))?;
        let deployed = |name: &str| applications_directory.join(name).exists();
        log::sweep(&logs_directory, deployed).map_err(failed(&logs_directory))?;
        let images = Images::open(images.clone(), ImageLimits::default()).map_err(failed(&images))?;
        let host_name = host_name(&state).map_err(failed(&state))?;
        let hierarchy = Hierarchy::detect().map_err(|error: DetectError| StartError::ControlGroups(Box::new(error)))?;
        let swept = hierarchy.sweep(&host_name).map_err(|error| StartError::ControlGroups(Box::new(error)))?;
        if swept.sandboxes > 0 {
            tracing::info!(sandboxes = swept.sandboxes, processes = swept.processes, "cleared away what was left");
        }
        let inside = Inside::lay_out(&state).map_err(failed(&state))?;
        let grounds = Arc::new(Grounds {
            hierarchy,
            host_name,
            inside,
            mount_point,
            ready_max: config.ceiling.ready,
            delay_max: config.delay_max,
            rest: config.rest,
            renewal: config.renewal,
        });
        let bus = Arc::new(HostBus::new(&config, first_call()));
        let calls = state.join("calls.db");
        let accepted = Accepted::open(calls, config.accepted.clone(), Arc::clone(&bus.outputs)).await?;
        let shared = Shared {
            bus,
            accepted,
            config: HostConfig { state, ..config },
            applications_directory,
            grounds,
            images: Arc::new(images),
            retiring: std::sync::Mutex::default(),
            changing: Mutex::default(),
            stopping: watch::Sender::new(false),
            _lock: lock,
        };
        let agent = Self { shared: Arc::new(shared) };
        agent.restore().await;
        agent.shared.delete_unused_images().await;
        agent.shared.accepted.deliver(&agent.shared.bus);
        Ok(agent)
    }

    async fn restore(&self) {
        let directory = &self.shared.applications_directory;
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<Name> = entries.filter_map(|entry| Name::new(entry.file_name().to_str()?).ok()).collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let mut services = Vec::new();
        for name in names {
            match self.restore_one(&directory.join(name.as_str())).await {
                Ok(service) => services.push(service),
                Err(error) => {
                    tracing::error!(application = name.as_str(), error = crate::chain(&error), "not restored");
                }
            }
        }
        let tried = async {
            for service in &services {
                service.tried().await;
            }
        };
        // One whose code hangs must not keep all others from being called.
        if timeout(RESTORE_MAX, tried).await.is_err() {
            tracing::warn!("serving before all applications are back");
        }
    }

    async fn restore_one(&self, directory: &Path) -> Result<Arc<Service>, DeployError> {
        let application = Arc::new(Application::load(directory)?);
        let maker = self.maker(&application, directory, self.free_users()?).await?;
        let service = Arc::new(Service::keep(maker, None));
        self.shared.bus.put(Arc::clone(&service));
        Ok(service)
    }

    async fn maker(
        &self,
        application: &Arc<Application>,
        directory: &Path,
        first_user: u32,
    ) -> Result<Maker, DeployError> {
        let shared = &self.shared;
        shared.config.ceiling.check(application)?;
        let log_path = shared.config.state.join("logs").join(format!("{}.log", application.name.as_str()));
        // An application has one log, over all its versions.
        let log = match shared.bus.service(application.name.as_str()) {
            Some(deployed) => Arc::clone(&deployed.log),
            None => Arc::new(Log::open(log_path).map_err(DeployError::Log)?),
        };
        let rootfs = self.rootfs_for(application, directory).await?;
        let specification = Specification {
            application: Arc::clone(application),
            directory: directory.to_owned(),
            sandbox_name: String::new(),
            first_user,
            python: self.python_for(application, rootfs.as_ref())?,
            rootfs: rootfs.map(Arc::new),
        };
        let (grounds, bus) = (Arc::clone(&shared.grounds), Arc::downgrade(&shared.bus));
        Ok(Maker { grounds, specification, log, bus, answered: Arc::default() })
    }

    /// The first user of a range that no application has.
    fn free_users(&self) -> Result<u32, DeployError> {
        let config = &self.shared.config;
        let services = self.shared.bus.services();
        let retiring = self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: BTreeSet<u32> = services.iter().chain(retiring.iter()).map(|service| service.first_user).collect();
        let ranges = u32::try_from(config.applications_max).unwrap_or(u32::MAX);
        (0..ranges)
            .map_while(|range| config.first_user.checked_add(range.checked_mul(USERS_PER_APPLICATION)?))
            .find(|first_user| !taken.contains(first_user))
            .ok_or(DeployError::Full(config.applications_max))
    }

    /// Puts an application to rest, now, if nothing is under way there.
    ///
    /// # Errors
    /// When there is none, or it is called all the time.
    pub async fn rest(&self, application: &str) -> Result<(), RestError> {
        let service = self.shared.bus.service(application);
        let service = service.ok_or_else(|| RestError::NoSuchApplication(application.to_owned()))?;
        if service.rest().await { Ok(()) } else { Err(RestError::Busy(application.to_owned())) }
    }

    /// The bus that joins the applications, for those who call other than from a front door.
    #[must_use]
    pub fn bus(&self) -> &Arc<HostBus> {
        &self.shared.bus
    }

    /// As [`HostBus::find`].
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn find(&self, origin: Origin, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        self.shared.bus.find(origin, application, function)
    }

    /// Makes a call for a front door, as [`HostBus::call`]; one that is asynchronous is stored instead, and its answer is then
    /// [`Outcome::Accepted`](crate::Outcome::Accepted), with the location among its properties.
    pub async fn call(&self, request: Request) -> Answer {
        match request.mode {
            Mode::Synchronous => self.shared.bus.call(Caller::Door(request.origin), request).await,
            Mode::Asynchronous => self.shared.accepted.accept(&self.shared.bus, request).await,
        }
    }

    /// What is known of an accepted call; `None` if there is none (any more).
    #[must_use]
    pub fn accepted(&self, application: &str, ticket: Ticket) -> Option<AcceptedCall> {
        self.shared.accepted.find(application, ticket)
    }

    /// The answer to an accepted call: [`Outcome::Accepted`](crate::Outcome::Accepted) while it has not ended, and
    /// [`Outcome::NotFound`](crate::Outcome::NotFound) if there is none (any more). One that was given up is answered as its last attempt
    /// was. That of one that was done has an `ETag`.
    pub async fn accepted_answer(&self, application: &str, ticket: Ticket) -> Answer {
        self.shared.accepted.answer(application, ticket).await
    }

    /// Accepted calls that are known, the oldest first: of an application, or all.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn accepted_calls(&self, application: Option<&str>) -> Result<Vec<AcceptedStatus>, AcceptedError> {
        self.shared.accepted.list(application).await
    }

    /// Has a call made again that was given up, as if it had just been accepted.
    ///
    /// # Errors
    /// When it was not given up, or cannot be.
    pub async fn replay(&self, application: &str, ticket: Ticket) -> Result<(), AcceptedError> {
        self.shared.accepted.replay(application, ticket).await
    }

    /// Forgets a call that has ended, or takes one back that has not begun.
    ///
    /// # Errors
    /// When there is none, or it is under way.
    pub async fn forget(&self, application: &str, ticket: Ticket) -> Result<(), AcceptedError> {
        self.shared.accepted.forget(application, ticket).await
    }

    /// The largest payload any call may carry, in bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.shared.config.payload_bytes_max
    }

    /// All applications, by name.
    #[must_use]
    pub fn applications(&self) -> Vec<ApplicationStatus> {
        self.shared.bus.services().iter().map(|service| status::of(service)).collect()
    }

    /// As [`HostBus::observable`].
    #[must_use]
    pub fn observable(&self, application: &str, function: Option<&str>) -> bool {
        self.shared.bus.observable(application, function)
    }

    /// The manifests of the applications that may be called from there, by name, for as long as they are looked at.
    pub fn reachable(&self, origin: Origin, mut look: impl FnMut(&Application)) {
        let services = self.shared.bus.services();
        let applications = services.iter().map(|service| &service.application);
        applications.filter(|application| admits(application, origin)).for_each(|application| look(application));
    }

    /// The log of an application, or of one of its functions.
    ///
    /// # Errors
    /// When there is no such application or function, or its log cannot be read.
    pub fn logs(&self, application: &str, function: Option<&str>, follow: bool) -> Result<LogStream, LogsError> {
        let service = self.shared.bus.service(application);
        let service = service.ok_or_else(|| LogsError::NoSuchApplication(application.to_owned()))?;
        if let Some(function) = function.filter(|name| service.application.function(name).is_none()) {
            let known: Vec<_> = service.application.functions.iter().map(|known| known.name.as_str()).collect();
            let (application, function, known) = (application.to_owned(), function.to_owned(), known.join(", "));
            return Err(LogsError::NoSuchFunction { application, function, known });
        }
        service.log.read(function, follow).map_err(LogsError::Files)
    }

    /// What functions give out, for whoever watches.
    #[must_use]
    pub fn outputs(&self) -> &Arc<Outputs> {
        &self.shared.bus.outputs
    }

    /// Ends replaced versions of these applications at once, with the calls they still have.
    async fn end_retiring(&self, of: impl Fn(&str) -> bool) {
        let retiring = self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for service in retiring.iter().filter(|service| of(service.application.name.as_str())) {
            service.end().await;
        }
    }

    /// Ends all sandboxes and leaves nothing of this agent's in the system. What is deployed stays deployed.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let _changing = self.shared.changing.lock().await;
        self.shared.accepted.stop().await;
        let services = self.shared.bus.take_all().into_iter();
        let ends: Vec<_> = services.map(|service| tokio::spawn(async move { service.end().await })).collect();
        for ended in ends {
            if let Err(error) = ended.await {
                tracing::error!(%error, "an application could not be ended");
            }
        }
        self.end_retiring(|_| true).await;
        let grounds = &self.shared.grounds;
        if let Err(error) = grounds.hierarchy.remove_host(&grounds.host_name) {
            tracing::error!(error = crate::chain(&error), "the host's control group is left behind");
        }
    }
}
