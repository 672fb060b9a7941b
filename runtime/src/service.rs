//! A deployed application: its sandbox is made, made again when it ends by itself, and replaced by a new version's without
//! losing a call, put to rest and brought back. [`keeper`] is who does all this.

mod keeper;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sandbar_bus::clock::now_ns;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::call::{Answer, Call, Outcome, Request};
use crate::host_bus::HostBus;
use crate::image::Digest;
use crate::log::{self, Log};
use crate::manifest::Application;
use crate::running::{Retired, Running};
use crate::sandbox::{Grounds, Sandbox, SandboxError, Specification};
use keeper::Keeper;

/// How long a call waits for a sandbox that is being made again.
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// A deployed application.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) application: Arc<Application>,
    pub(crate) log: Arc<Log>,
    /// The first of the host's users that its sandboxes have.
    pub(crate) first_user: u32,
    /// The image that is its root file system, if one is.
    pub(crate) image: Option<Digest>,
    state: watch::Receiver<State>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    stop: watch::Sender<Stop>,
    /// Told when a call comes for an application at rest.
    wanted: Arc<Notify>,
    /// Told when it is to be put to rest now.
    asked_to_rest: Arc<Notify>,
    answered: Arc<AtomicU64>,
}

/// Whether the application can be called.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Running(Arc<Running>),
    /// It has no sandbox, as it was not called for long; the next call has one made.
    Resting,
    /// Its sandbox ended, or could not be made: why. Another is made.
    Down(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// When its calls are over.
    Drained,
    AtOnce,
}

/// Makes sandboxes of one application, each under a name of its own.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) grounds: Arc<Grounds>,
    pub(crate) specification: Specification,
    pub(crate) log: Arc<Log>,
    /// Where calls to other applications go.
    pub(crate) bus: Weak<HostBus>,
    /// Calls answered by all sandboxes that it has made.
    pub(crate) answered: Arc<AtomicU64>,
}

/// Sandboxes made by this agent: their control groups are numbered.
static SANDBOXES: AtomicU64 = AtomicU64::new(0);

impl Maker {
    /// Makes a sandbox and puts it into service, unless it is `unwanted` before it is ready.
    ///
    /// # Errors
    /// As [`Sandbox::start`].
    pub(crate) async fn make(&self, unwanted: impl Future<Output = ()>) -> Result<Arc<Running>, SandboxError> {
        let number = SANDBOXES.fetch_add(1, Ordering::Relaxed);
        let application = &self.specification.application;
        let sandbox_name = format!("{}-{number}", application.name.as_str());
        let specification = Specification { sandbox_name, ..self.specification.clone() };
        let read_logs = |pipes| log::read_pipes(application, pipes, &self.log);
        let sandbox = Sandbox::start(&self.grounds, &specification, read_logs, unwanted).await?;
        let delay_max = self.grounds.delay_max;
        let (application, log, answered) = (Arc::clone(application), Arc::clone(&self.log), Arc::clone(&self.answered));
        Ok(Running::new(application, sandbox, log, (delay_max, answered), Weak::clone(&self.bus)))
    }

    /// How long the application is not called before it is put to rest.
    fn rest_after(&self) -> Option<Duration> {
        self.specification.application.rest.sandbox.unwrap_or(self.grounds.rest.sandbox).time()
    }

    /// Tells the application's files in their final place to sandboxes that are made from now on.
    pub(crate) fn set_directory(&mut self, directory: PathBuf) {
        self.specification.directory = directory;
    }
}

impl Service {
    /// Keeps an application in service, beginning with this sandbox, or, if there is none, with making one.
    pub(crate) fn keep(maker: Maker, first: Option<Arc<Running>>) -> Self {
        let application = Arc::clone(&maker.specification.application);
        let log = Arc::clone(&maker.log);
        let first_user = maker.specification.first_user;
        let image = maker.specification.rootfs.as_ref().and_then(|rootfs| rootfs.image.clone());
        let rest_after = maker.rest_after();
        let first = match first {
            Some(running) => State::Running(running),
            None if rest_after.is_some() => State::Resting,
            None => State::Down("it is being started".to_owned()),
        };
        let wanted = Arc::new(Notify::new());
        let asked_to_rest = Arc::new(Notify::new());
        let answered = Arc::clone(&maker.answered);
        let (states, state) = watch::channel(first);
        let (stop, stopped) = watch::channel(Stop::No);
        let keeper = Keeper {
            maker,
            states,
            stopped,
            rest_after,
            wanted: Arc::clone(&wanted),
            asked_to_rest: Arc::clone(&asked_to_rest),
        };
        let keeper = Mutex::new(Some(tokio::spawn(keeper.run())));
        Self { application, log, first_user, image, state, keeper, stop, wanted, asked_to_rest, answered }
    }

    /// Waits until a service that began without a sandbox has one, has failed to make one, or needs none before it is called.
    pub(crate) async fn tried(&self) {
        if matches!(self.state(), State::Resting) {
            return;
        }
        // The receiver has not seen any state but the first. The keeper lives as long as the service does.
        let _ended = self.state.clone().changed().await;
    }

    /// Whether it can be called now.
    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Calls answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Makes a call.
    ///
    /// # Errors
    /// When the application was removed or replaced: the call has not begun.
    pub(crate) async fn call(&self, call: Call, request: &Request) -> Result<Answer, Retired> {
        let chain = self.application.chain_timeout(call.function);
        let timeout = request.timeout.map_or(chain, |timeout| timeout.min(chain));
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = now_ns().saturating_add(timeout_ns);
        let wait = Wait::begin(timeout);
        loop {
            match self.running(&wait).await {
                Ok(running) => match running.call(call, request, deadline_ns).await {
                    // It ended just now: another is being made.
                    Err(Retired) if *self.stop.borrow() == Stop::No => tokio::task::yield_now().await,
                    result => return result,
                },
                Err(_) if *self.stop.borrow() != Stop::No => return Err(Retired),
                Err(down) => {
                    let (outcome, diagnostic) = down.told();
                    return Ok(Answer { call: Some(call.id), ..Answer::refused(outcome, diagnostic) });
                }
            }
        }
    }

    /// The sandbox, once there is one; else why there is none. One at rest is made for this.
    async fn running(&self, wait: &Wait) -> Result<Arc<Running>, Down> {
        let mut states = self.state.clone();
        let mut rested = false;
        loop {
            let state = states.borrow_and_update().clone();
            let until = match &state {
                State::Running(running) => return Ok(Arc::clone(running)),
                State::Resting => {
                    rested = true;
                    self.wanted.notify_one();
                    wait.for_rest
                }
                State::Down(_) => wait.for_repair,
            };
            // An error means that the keeper has ended, with the service.
            if !matches!(tokio::time::timeout_at(until, states.changed()).await, Ok(Ok(()))) {
                return Err(match self.state() {
                    State::Running(running) => return Ok(running),
                    State::Down(reason) => Down::Ended { reason, rested },
                    State::Resting => Down::NotBack,
                });
            }
        }
    }

    /// Puts the application to rest as soon as nothing is under way; false if something is, for as long as one waits.
    pub(crate) async fn rest(&self) -> bool {
        let mut states = self.state.clone();
        let running = match &*states.borrow_and_update() {
            State::Running(running) => Arc::clone(running),
            State::Resting => return true,
            State::Down(_) => return false,
        };
        self.asked_to_rest.notify_one();
        let other = |state: &State| !matches!(state, State::Running(now) if Arc::ptr_eq(now, &running));
        let rested = tokio::time::timeout(keeper::ASKED_MAX * 2, states.wait_for(other)).await;
        matches!(rested, Ok(Ok(state)) if !matches!(*state, State::Down(_)))
    }

    /// Ends the service once its calls are over. To be called when no new ones come.
    pub(crate) async fn drain(&self) {
        self.finish(Stop::Drained).await;
    }

    /// Ends the service; calls under way end with it.
    pub(crate) async fn end(&self) {
        self.finish(Stop::AtOnce).await;
    }

    async fn finish(&self, stop: Stop) {
        self.stop.send_if_modified(|now| std::mem::replace(now, (*now).max(stop)) < stop);
        // Whoever else ends it holds the lock until it is ended.
        if let Some(keeper) = self.keeper.lock().await.take()
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, application = self.application.name.as_str(), "an application was not ended");
        }
    }
}

/// Until when a call waits for a sandbox.
struct Wait {
    /// That is made for it: as long as the call may take at all.
    for_rest: tokio::time::Instant,
    /// That is made again after it ended by itself.
    for_repair: tokio::time::Instant,
}

impl Wait {
    fn begin(timeout: Duration) -> Self {
        let now = tokio::time::Instant::now();
        Self { for_rest: now + timeout, for_repair: now + timeout.min(AGAIN_WAIT_MAX) }
    }
}

/// Why a call found no sandbox.
enum Down {
    /// It ended, or could not be made; whether it was to be made for this call.
    Ended { reason: String, rested: bool },
    /// The call's time was over before it was made.
    NotBack,
}

impl Down {
    fn told(self) -> (Outcome, String) {
        match self {
            Self::Ended { reason, rested: false } => {
                (Outcome::Overloaded, format!("the application is being restarted: {reason}"))
            }
            Self::Ended { reason, rested: true } => {
                (Outcome::Overloaded, format!("the application was at rest and does not come back: {reason}"))
            }
            Self::NotBack => {
                (Outcome::DeadlinePassed, "the application was at rest and was not back in time".to_owned())
            }
        }
    }
}
