//! The host agent: owns this host's applications and answers calls to them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::bundle::{self, BundleError, BundleLimits};
use crate::call::{Answer, CallId, Outcome, Request};
use crate::cgroup::{Cgroup, DetectError, Hierarchy};
use crate::inside::Inside;
use crate::log::{Log, LogStream};
use crate::manifest::{Application, ManifestError, Name, Runtime};
use crate::python::{self, Python, PythonError};
use crate::sandbox::{Grounds, Sandbox, SandboxError, Specification, USERS_PER_APPLICATION};
use crate::service::{Maker, Service, State};

/// How a host agent is set up. Every limit is a field here.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The directory that holds deployed applications, logs and the host's identity. Made if it is missing.
    pub state: PathBuf,
    /// The largest payload of a call, in bytes. An application's manifest may ask for less.
    pub payload_bytes_max: usize,
    /// Calls under way on the whole host at one time; more are refused as overloaded.
    pub calls_in_flight_max: usize,
    /// The interpreter of Python functions; a bare name is looked for in `PATH`.
    pub python: PathBuf,
    /// Applications get ranges of 65,536 users of the host each, from here on.
    pub first_user: u32,
    /// Applications that may be deployed at one time.
    pub applications_max: usize,
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
            python: "python3".into(),
            // Above what user databases and container managers commonly hand out.
            first_user: 0x7000_0000,
            applications_max: 4096,
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
    services: RwLock<BTreeMap<String, Deployment>>,
    /// Versions that were replaced and finish their calls; they still have their users.
    retiring: std::sync::Mutex<Vec<Deployment>>,
    /// Held while an application is deployed or removed. False once the agent is stopped: then nothing is deployed any more.
    changing: Mutex<bool>,
    calls_in_flight: AtomicUsize,
    next_call: AtomicU64,
    _lock: Flock<File>,
}

#[derive(Clone, Debug)]
struct Deployment {
    service: Arc<Service>,
    /// Which range of users it has.
    users: u32,
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

/// One application, as `sandbar list` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplicationStatus {
    /// The application's name.
    pub name: String,
    /// "running", or what keeps it from running.
    pub state: String,
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
}

/// Why an application was not deployed. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The folder cannot be taken as a bundle.
    #[error("the folder is not deployed")]
    Bundle(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The host has no Python that can be used.
    #[error("the application has functions in Python")]
    Python(#[from] PythonError),
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

/// One call of the host's limited number; given back when dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
        let mount_point = state.join("root");
        for directory in [&applications_directory, &mount_point, &state.join("logs")] {
            make_private_directory(directory).map_err(failed(directory))?;
        }
        bundle::sweep_staging(&applications_directory).map_err(failed(&applications_directory))?;
        let host_name = host_name(&state).map_err(failed(&state))?;
        let hierarchy = Hierarchy::detect().map_err(|error: DetectError| StartError::ControlGroups(Box::new(error)))?;
        let swept = hierarchy.sweep(&host_name).map_err(|error| StartError::ControlGroups(Box::new(error)))?;
        if swept.sandboxes > 0 {
            tracing::info!(sandboxes = swept.sandboxes, processes = swept.processes, "cleared away what was left");
        }
        let inside = Inside::lay_out(&state).map_err(failed(&state))?;
        let grounds = Arc::new(Grounds { hierarchy, host_name, inside, mount_point });
        let shared = Shared {
            config: HostConfig { state, ..config },
            applications_directory,
            grounds,
            services: RwLock::default(),
            retiring: std::sync::Mutex::default(),
            changing: Mutex::new(true),
            calls_in_flight: AtomicUsize::new(0),
            next_call: AtomicU64::new(first_call()),
            _lock: lock,
        };
        let agent = Self { shared: Arc::new(shared) };
        agent.restore().await;
        Ok(agent)
    }

    async fn restore(&self) {
        let directory = &self.shared.applications_directory;
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<Name> = entries.filter_map(|entry| Name::new(entry.file_name().to_str()?).ok()).collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        for name in names {
            let directory = directory.join(name.as_str());
            if let Err(error) = self.restore_one(&directory).await {
                tracing::error!(application = name.as_str(), error = crate::chain(&error), "not restored");
            }
        }
    }

    async fn restore_one(&self, directory: &Path) -> Result<(), DeployError> {
        let application = Arc::new(Application::load(directory)?);
        let users = self.free_users()?;
        let maker = self.maker(&application, directory, users)?;
        let first = maker.make().await.map_err(|error| crate::chain(&error));
        if let Err(error) = &first {
            tracing::warn!(application = application.name.as_str(), error, "does not start; it is tried again");
        }
        self.put(Deployment { service: Arc::new(Service::keep(maker, first)), users });
        Ok(())
    }

    fn maker(&self, application: &Arc<Application>, directory: &Path, users: u32) -> Result<Maker, DeployError> {
        let shared = &self.shared;
        let log_path = shared.config.state.join("logs").join(format!("{}.log", application.name.as_str()));
        let deployed = self.deployment(application.name.as_str());
        // An application has one log, over all its versions.
        let log = match deployed {
            Some(deployed) => Arc::clone(&deployed.service.log),
            None => Arc::new(Log::open(log_path).map_err(DeployError::Log)?),
        };
        let specification = Specification {
            application: Arc::clone(application),
            directory: directory.to_owned(),
            sandbox_name: String::new(),
            first_user: shared.config.first_user + users * USERS_PER_APPLICATION,
            python: self.python_for(application)?,
        };
        Ok(Maker { grounds: Arc::clone(&shared.grounds), specification, log })
    }

    fn python_for(&self, application: &Application) -> Result<Option<Python>, PythonError> {
        let needed = application.functions.iter().any(|function| function.runtime == Runtime::Python3);
        needed.then(|| python::find(&self.shared.config.python)).transpose()
    }

    fn free_users(&self) -> Result<u32, DeployError> {
        let services = self.shared.services.read().unwrap_or_else(PoisonError::into_inner);
        let retiring = self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner);
        let deployments = services.values().chain(retiring.iter());
        let taken: std::collections::BTreeSet<u32> = deployments.map(|deployment| deployment.users).collect();
        let max = self.shared.config.applications_max;
        let limit = u32::try_from(max).unwrap_or(u32::MAX);
        (0..limit).find(|users| !taken.contains(users)).ok_or(DeployError::Full(max))
    }

    fn put(&self, deployment: Deployment) -> Option<Deployment> {
        let name = deployment.service.application.name.as_str().to_owned();
        self.shared.services.write().unwrap_or_else(PoisonError::into_inner).insert(name, deployment)
    }

    fn deployment(&self, application: &str) -> Option<Deployment> {
        self.shared.services.read().unwrap_or_else(PoisonError::into_inner).get(application).cloned()
    }

    /// Deploys the application in a folder; an earlier version of it serves until the new one is ready, finishes its calls,
    /// and is gone. Returns when the application answers calls.
    ///
    /// # Errors
    /// Why it is not deployed; nothing has changed then.
    pub async fn deploy(&self, folder: &Path) -> Result<Deployed, DeployError> {
        let running = self.shared.changing.lock().await;
        if !*running {
            return Err(DeployError::Stopping);
        }
        let (source, into) = (folder.to_owned(), self.shared.applications_directory.clone());
        let staged = tokio::task::spawn_blocking(move || bundle::stage(&source, &into, &BundleLimits::default()))
            .await
            .map_err(|error| DeployError::Bundle(Box::new(error)))??;
        let application = Arc::new(Application::load(&staged.path())?);
        let earlier = self.deployment(application.name.as_str());
        let users = match &earlier {
            Some(earlier) => earlier.users,
            None => self.free_users()?,
        };
        let mut maker = self.maker(&application, &staged.path(), users)?;
        let running = maker.make().await?;
        let installed = match staged.install(&application.name) {
            Ok(installed) => installed,
            Err(error) => {
                Service::keep(maker, Ok(running)).end().await;
                return Err(error.into());
            }
        };
        maker.set_directory(installed.directory);
        let replaced = self.put(Deployment { service: Arc::new(Service::keep(maker, Ok(running))), users });
        let deployed = Deployed {
            application: application.name.as_str().to_owned(),
            functions: application.functions.iter().map(|function| function.name.as_str().to_owned()).collect(),
            replaced: replaced.is_some(),
        };
        if let Some(replaced) = replaced {
            self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).push(replaced.clone());
            tokio::spawn(retire(Arc::clone(&self.shared), replaced, installed.previous));
        }
        Ok(deployed)
    }

    /// Removes an application: ends it, with the calls under way, and deletes its files and its log.
    ///
    /// # Errors
    /// When there is none, or its files cannot be deleted.
    pub async fn remove(&self, application: &str) -> Result<(), RemoveError> {
        let _changing = self.shared.changing.lock().await;
        let removed = self.shared.services.write().unwrap_or_else(PoisonError::into_inner).remove(application);
        let removed = removed.ok_or_else(|| RemoveError::NoSuchApplication(application.to_owned()))?;
        let log = Arc::clone(&removed.service.log);
        removed.service.end().await;
        self.end_retiring(|name| name == application).await;
        log.delete();
        bundle::retire(&self.shared.applications_directory, &removed.service.application.name)
            .map_err(RemoveError::Files)
    }

    /// Whether a call to this application (and function, if named) can exist at all: cheap, for doors that refuse before a
    /// payload has arrived.
    ///
    /// # Errors
    /// What the caller is to be told.
    pub fn find(&self, application: &str, function: Option<&str>) -> Result<(), Box<Answer>> {
        self.target(application, function).map(|_| ())
    }

    fn target(&self, application: &str, function: Option<&str>) -> Result<(Arc<Service>, usize), Box<Answer>> {
        let not_found = |what: String| Box::new(Answer::refused(Outcome::NotFound, what));
        let service = self.deployment(application).map(|deployment| deployment.service);
        let service = service.ok_or_else(|| not_found(format!("no application {application:?} is deployed")))?;
        let index = match function {
            None => Some(service.application.entry),
            Some(name) => service.application.function(name),
        };
        match (index, function) {
            (Some(index), _) => Ok((service, index)),
            (None, function) => {
                let function = function.unwrap_or_default();
                Err(not_found(format!("application {application:?} has no function {function:?}")))
            }
        }
    }

    /// The largest payload any call may carry, in bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        self.shared.config.payload_bytes_max
    }

    /// All applications, by name.
    #[must_use]
    pub fn applications(&self) -> Vec<ApplicationStatus> {
        let services = self.shared.services.read().unwrap_or_else(PoisonError::into_inner);
        services.values().map(|deployment| status(&deployment.service)).collect()
    }

    /// Makes a call and waits for its end. Always returns by the call's deadline.
    pub async fn call(&self, mut request: Request) -> Answer {
        let asked_for = request.trace;
        request.trace |= self.shared.config.trace;
        let in_flight = &self.shared.calls_in_flight;
        let under_way = in_flight.fetch_add(1, Ordering::Relaxed);
        let _in_flight = InFlight(in_flight);
        if under_way >= self.shared.config.calls_in_flight_max {
            return Answer::refused(Outcome::Overloaded, "the host has as many calls under way as it takes");
        }
        let id = CallId(self.shared.next_call.fetch_add(1, Ordering::Relaxed));
        loop {
            let (service, function) = match self.target(&request.application, request.function.as_deref()) {
                Ok(target) => target,
                Err(refused) => return *refused,
            };
            if let Some(refused) = self.too_large(&service.application, request.payload.len()) {
                return refused;
            }
            // A version that was replaced between the look-up and the call: the new one is there now.
            if let Ok(mut answer) = service.call(id, function, &request).await {
                if self.shared.config.trace {
                    service.log.add("", &path_line(id, &answer));
                }
                if !asked_for {
                    answer.hops.clear();
                }
                return answer;
            }
        }
    }

    fn too_large(&self, application: &Application, payload_bytes: usize) -> Option<Answer> {
        let max = application.limits.payload_bytes.min(self.shared.config.payload_bytes_max);
        let refused = || Answer::refused(Outcome::TooLarge, format!("a payload of at most {max} bytes is taken"));
        (payload_bytes > max).then(|| Answer { payload_bytes_max: Some(max), ..refused() })
    }

    /// The log of an application, or of one of its functions.
    ///
    /// # Errors
    /// When there is no such application or function, or its log cannot be read.
    pub fn logs(&self, application: &str, function: Option<&str>, follow: bool) -> Result<LogStream, LogsError> {
        let deployment = self.deployment(application);
        let service = deployment.ok_or_else(|| LogsError::NoSuchApplication(application.to_owned()))?.service;
        if let Some(function) = function.filter(|name| service.application.function(name).is_none()) {
            let known: Vec<_> = service.application.functions.iter().map(|known| known.name.as_str()).collect();
            let (application, function, known) = (application.to_owned(), function.to_owned(), known.join(", "));
            return Err(LogsError::NoSuchFunction { application, function, known });
        }
        service.log.read(function, follow).map_err(LogsError::Files)
    }

    /// Ends replaced versions of these applications at once, with the calls they still have.
    async fn end_retiring(&self, of: impl Fn(&str) -> bool) {
        let retiring = self.shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for deployment in retiring.iter().filter(|deployment| of(deployment.service.application.name.as_str())) {
            deployment.service.end().await;
        }
    }

    /// Ends all sandboxes and leaves nothing of this agent's in the system. What is deployed stays deployed.
    pub async fn stop(&self) {
        let mut running = self.shared.changing.lock().await;
        *running = false;
        let services = std::mem::take(&mut *self.shared.services.write().unwrap_or_else(PoisonError::into_inner));
        let ends: Vec<_> = services
            .into_values()
            .map(|deployment| tokio::spawn(async move { deployment.service.end().await }))
            .collect();
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

/// The path of a call in one line: each function with its instance's process id, how long the message waited for it and how
/// long it ran.
fn path_line(id: CallId, answer: &Answer) -> String {
    let micros = |ns: u64| format!("{}.{} µs", ns / 1000, ns % 1000 / 100);
    let hops = answer.hops.iter().map(|hop| {
        let waited = micros(hop.taken_ns.saturating_sub(hop.sent_ns));
        let ran = micros(hop.done_ns.saturating_sub(hop.taken_ns));
        format!("{}[{}] waited {waited}, ran {ran}", hop.function, hop.pid)
    });
    let hops: Vec<_> = hops.collect();
    format!("call {id}: {}: {}", answer.outcome, hops.join(" > "))
}

fn status(service: &Service) -> ApplicationStatus {
    let application = &service.application;
    let (state, running) = match service.state() {
        State::Running(running) => ("running".to_owned(), Some(running)),
        State::Down(reason) => (format!("down: {reason}"), None),
    };
    let sandbox = running.as_ref().map(|running| &running.sandbox);
    let functions: Vec<_> = application.functions.iter().map(|function| function.name.as_str().to_owned()).collect();
    ApplicationStatus {
        name: application.name.as_str().to_owned(),
        state,
        entry: functions.get(application.entry).cloned().unwrap_or_default(),
        functions,
        pid: sandbox.map(Sandbox::pid),
        memory_bytes: sandbox.and_then(|sandbox| sandbox.usage(Cgroup::memory_bytes)),
        processes: sandbox.and_then(|sandbox| sandbox.usage(Cgroup::processes)),
        calls: service.answered(),
    }
}

/// Lets a version that was replaced finish its calls, ends it, and deletes its files.
async fn retire(shared: Arc<Shared>, replaced: Deployment, files: Option<PathBuf>) {
    replaced.service.drain().await;
    let retiring = |deployment: &Deployment| !Arc::ptr_eq(&deployment.service, &replaced.service);
    shared.retiring.lock().unwrap_or_else(PoisonError::into_inner).retain(retiring);
    let discarded = files.map_or(Ok(()), |files| bundle::discard(&files));
    if let Err(error) = discarded {
        tracing::warn!(%error, "a replaced version's files are left behind");
    }
}

fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Keeps other agents away from the state for as long as this one lives, however it ends.
fn lock(state: &Path) -> Result<Flock<File>, StartError> {
    let path = state.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| StartError::State { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            StartError::InUse { path: state.to_owned() }
        } else {
            StartError::State { path, source: errno.into() }
        }
    })
}

/// The name of this host's control groups: the same at each start on the same state, and no other state's.
fn host_name(state: &Path) -> io::Result<String> {
    let path = state.join("host");
    match fs::read_to_string(&path) {
        Ok(name) if name.starts_with("sandbar-") && Name::new(name.trim()).is_ok() => Ok(name.trim().to_owned()),
        Ok(_) => Err(io::Error::other("the file \"host\" does not hold a host's name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = format!("sandbar-{:08x}", random_u64()? >> 32);
            fs::write(&path, &name)?;
            Ok(name)
        }
        Err(error) => Err(error),
    }
}

/// Calls are numbered from a point by chance, so that ids do not repeat from one start of the agent to the next.
fn first_call() -> u64 {
    random_u64().unwrap_or_else(|_| sandbar_bus::clock::now_ns()) << 16
}

fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
