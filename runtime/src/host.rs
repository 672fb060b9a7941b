//! The host agent: owns this host's applications and the bus that joins them.
//!
//! It deploys, removes, starts and stops applications, and gives each its range of users; of their calls it knows nothing: the
//! [host bus](crate::host_bus) makes them.

mod ceiling;
mod check;
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
use sandbar_supervisor::protocol::Renewal;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::bundle::{self, BundleLimits};
use crate::call::{Answer, Origin, Request};
use crate::cgroup::{DetectError, Hierarchy};
use crate::host_bus::{Caller, HostBus, admits};
use crate::image::{ImageLimits, Images};
use crate::inside::Inside;
use crate::log::{self, Log, LogStream};
use crate::manifest::{Application, Name};
use crate::outputs::Outputs;
use crate::sandbox::{Grounds, HostRest, Specification, USERS_PER_APPLICATION};
use crate::service::{Maker, Service};
pub use ceiling::{Ceiling, CeilingError};
pub use check::check_archive;
pub use error::{DeployError, LogsError, RemoveError, RestError, StartError};
use state::{first_call, host_name, lock, make_private_directory};
pub use status::ApplicationStatus;

/// How long the start waits for applications to be back before others are served without them: as long as many take on a small
/// machine.
const RESTORE_MAX: Duration = Duration::from_secs(15);

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
            rest: HostRest::default(),
            renewal: Renewal { calls: 10_000, seconds: 3600 },
            rootfs_allowed: Vec::new(),
            trace: false,
        }
    }
}

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
    /// Versions that were replaced and finish their calls; they still have their users.
    retiring: std::sync::Mutex<Vec<Arc<Service>>>,
    /// Held while an application is deployed or removed.
    changing: Mutex<()>,
    /// Becomes true when the agent is to stop: nothing is deployed any more.
    stopping: watch::Sender<bool>,
    _lock: Flock<File>,
}

/// What [`HostAgent::deploy`] did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployed {
    /// The application's name.
    pub application: String,
    /// Its functions, in the manifest's order.
    pub functions: Vec<String>,
    /// Whether an earlier version was replaced.
    pub replaced: bool,
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
        let shared = Shared {
            bus: Arc::new(HostBus::new(&config, first_call())),
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

    /// Deploys the application in a folder or an archive; an earlier version of it serves until the new one is ready, finishes
    /// its calls, and is gone. Returns when the application answers calls.
    ///
    /// # Errors
    /// Why it is not deployed; nothing has changed then.
    pub async fn deploy(&self, source: &Path) -> Result<Deployed, DeployError> {
        let _changing = self.shared.changing.lock().await;
        let stopping = self.shared.stopping.subscribe();
        if *stopping.borrow() {
            return Err(DeployError::Stopping);
        }
        let deployed = self.deploy_alone(source, stopping).await;
        if deployed.is_err() {
            self.shared.delete_unused_images().await;
        }
        deployed
    }

    /// Deploys while nothing else is deployed or removed.
    async fn deploy_alone(&self, source: &Path, mut stopping: watch::Receiver<bool>) -> Result<Deployed, DeployError> {
        let (source, into) = (source.to_owned(), self.shared.applications_directory.clone());
        let staged = tokio::task::spawn_blocking(move || bundle::stage(&source, &into, &BundleLimits::default()))
            .await
            .map_err(|error| DeployError::Bundle(Box::new(error)))??;
        let application = Arc::new(Application::load(&staged.path())?);
        let first_user = match self.shared.bus.service(application.name.as_str()) {
            Some(earlier) => earlier.first_user,
            None => self.free_users()?,
        };
        let mut maker = self.maker(&application, &staged.path(), first_user).await?;
        let stops = async move {
            let _stops = stopping.wait_for(|stopping| *stopping).await;
        };
        let running = match maker.make(stops).await {
            Ok(running) => running,
            Err(error) => {
                self.forget_log(&maker);
                return Err(error.into());
            }
        };
        let installed = match staged.install(&application.name) {
            Ok(installed) => installed,
            Err(error) => {
                self.forget_log(&maker);
                Service::keep(maker, Some(running)).end().await;
                return Err(error.into());
            }
        };
        maker.set_directory(installed.directory);
        let replaced = self.shared.bus.put(Arc::new(Service::keep(maker, Some(running))));
        let deployed = Deployed {
            application: application.name.as_str().to_owned(),
            functions: application.functions.iter().map(|function| function.name.as_str().to_owned()).collect(),
            replaced: replaced.is_some(),
        };
        if let Some(replaced) = replaced {
            self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&replaced));
            tokio::spawn(retire(Arc::clone(&self.shared), replaced, installed.previous));
        }
        Ok(deployed)
    }

    /// Deletes the log of an application that was not deployed, unless an earlier version is.
    fn forget_log(&self, maker: &Maker) {
        if self.shared.bus.service(maker.specification.application.name.as_str()).is_none() {
            maker.log.delete();
        }
    }

    /// Removes an application: ends it, with the calls under way, and deletes its files and its log.
    ///
    /// # Errors
    /// When there is none, or its files cannot be deleted.
    pub async fn remove(&self, application: &str) -> Result<(), RemoveError> {
        let _changing = self.shared.changing.lock().await;
        let removed = self.shared.bus.take(application);
        let removed = removed.ok_or_else(|| RemoveError::NoSuchApplication(application.to_owned()))?;
        removed.end().await;
        self.end_retiring(|name| name == application).await;
        // First the files: an application that comes back, should the agent end in between, has its log.
        let retired = bundle::retire(&self.shared.applications_directory, &removed.application.name);
        removed.log.delete();
        self.shared.delete_unused_images().await;
        retired.map_err(RemoveError::Files)
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

    /// Makes a call for a front door: as [`HostBus::call`].
    pub async fn call(&self, request: Request) -> Answer {
        self.shared.bus.call(Caller::Door(request.origin), request).await
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

    /// The names of the applications that may be called from there, each with its functions'.
    #[must_use]
    pub fn reachable(&self, origin: Origin) -> Vec<(String, Vec<String>)> {
        let services = self.shared.bus.services();
        let open =
            services.iter().map(|service| &service.application).filter(|application| admits(application, origin));
        open.map(|application| {
            let functions = application.functions.iter().map(|function| function.name.to_string());
            (application.name.to_string(), functions.collect())
        })
        .collect()
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

/// Lets a version that was replaced finish its calls, ends it, and deletes its files.
async fn retire(shared: Arc<Shared>, replaced: Arc<Service>, files: Option<PathBuf>) {
    replaced.drain().await;
    let retiring = |service: &Arc<Service>| !Arc::ptr_eq(service, &replaced);
    shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).retain(retiring);
    let discarded = files.map_or(Ok(()), |files| bundle::discard(&files));
    if let Err(error) = discarded {
        tracing::warn!(%error, "a replaced version's files are left behind");
    }
    let _changing = shared.changing.lock().await;
    shared.delete_unused_images().await;
}
