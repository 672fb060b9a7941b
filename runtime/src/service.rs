//! A deployed application: its sandbox is made, made again when it ends by itself, and replaced by a new version's without
//! losing a call.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sandbar_bus::clock::now_ns;
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::call::{Answer, Call, Outcome, Request};
use crate::host_bus::HostBus;
use crate::image::Digest;
use crate::log::{self, Log};
use crate::manifest::Application;
use crate::memory;
use crate::running::{Retired, Running};
use crate::sandbox::{Grounds, Sandbox, SandboxError, Specification};

/// Pause before a sandbox that ended by itself is made again: doubles each time, from the first to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// A sandbox that lived this long has ended of something new.
const LIVED_WELL: Duration = Duration::from_secs(30);
/// How long a call waits for a sandbox that is being made again.
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long after an application went to rest the agent gives memory back.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(6);
/// How often, until it is put to rest, one looks whether an application was called.
const REST_LOOKS: u32 = 4;
/// How long an old version may take to finish its calls after a new one has come.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Sandboxes that are started or made again at one time: as many as keep a small machine busy. When a host starts, or all its
/// sandboxes have died at once, each would else wait for all others until its time is over.
static TURNS: Semaphore = Semaphore::const_new(4);
/// How long one of them is counted.
const TURN_MAX: Duration = Duration::from_secs(3);

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
    answered_before: Arc<AtomicU64>,
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
        Ok(Running::new(Arc::clone(application), sandbox, Arc::clone(&self.log), delay_max, Weak::clone(&self.bus)))
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
        let answered_before = Arc::new(AtomicU64::new(0));
        let (states, state) = watch::channel(first);
        let (stop, stopped) = watch::channel(Stop::No);
        let keeper = Keeper {
            maker,
            states,
            stopped,
            rest_after,
            wanted: Arc::clone(&wanted),
            answered_before: Arc::clone(&answered_before),
        };
        let keeper = Mutex::new(Some(tokio::spawn(keeper.run())));
        Self { application, log, first_user, image, state, keeper, stop, wanted, answered_before }
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
        let now = match &*self.state.borrow() {
            State::Running(running) => running.answered.load(Ordering::Relaxed),
            State::Resting | State::Down(_) => 0,
        };
        self.answered_before.load(Ordering::Relaxed) + now
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

/// Completes when a sandbox was not called for so long, and is out of service for it.
async fn until_rest(running: &Running, after: Option<Duration>) {
    let Some(after) = after else { return std::future::pending().await };
    let mut answered = running.answered.load(Ordering::Relaxed);
    let mut quiet = 0;
    loop {
        tokio::time::sleep(after / REST_LOOKS).await;
        let now = running.answered.load(Ordering::Relaxed);
        quiet = if now == answered { quiet + 1 } else { 0 };
        answered = now;
        if quiet >= REST_LOOKS && running.retire_if_idle() {
            return;
        }
    }
}

/// Owns the sandbox of an application for as long as it is deployed.
struct Keeper {
    maker: Maker,
    states: watch::Sender<State>,
    stopped: watch::Receiver<Stop>,
    /// How long it is not called before it is put to rest.
    rest_after: Option<Duration>,
    wanted: Arc<Notify>,
    answered_before: Arc<AtomicU64>,
}

/// Why a sandbox is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// It ended by itself.
    Ended,
    /// It was not called for long.
    Rests,
    /// The service ends.
    Stopped,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = AGAIN.0;
        if matches!(*self.states.borrow(), State::Down(_)) {
            self.make("started").await;
        }
        loop {
            let state = self.states.borrow().clone();
            match state {
                State::Running(running) => {
                    let since = Instant::now();
                    let over = Box::pin(self.keep(&running)).await;
                    Box::pin(self.retire(running, over)).await;
                    if over == Over::Stopped {
                        return;
                    }
                    if over == Over::Rests || since.elapsed() > LIVED_WELL {
                        pause = AGAIN.0;
                    }
                }
                State::Resting => {
                    tokio::select! {
                        () = self.wanted.notified() => {}
                        _ = self.stopped.wait_for(|stop| *stop != Stop::No) => return,
                    }
                    self.make("made for a call").await;
                }
                State::Down(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = self.stopped.wait_for(|stop| *stop != Stop::No) => return,
                    }
                    pause = (pause * 2).min(AGAIN.1);
                    self.make("made again").await;
                }
            }
        }
    }

    /// Serves a sandbox until it is over.
    async fn keep(&mut self, running: &Arc<Running>) -> Over {
        let serving = running.serve();
        tokio::pin!(serving);
        let stop = tokio::select! {
            () = &mut serving => return Over::Ended,
            () = until_rest(running, self.rest_after) => return Over::Rests,
            stop = self.stopped.wait_for(|stop| *stop != Stop::No) => stop.map_or(Stop::AtOnce, |stop| *stop),
        };
        if stop == Stop::Drained {
            let drained = async {
                while !running.retire_if_idle() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = &mut serving => {}
                _ = self.stopped.wait_for(|stop| *stop == Stop::AtOnce) => {}
                result = tokio::time::timeout(DRAIN_MAX, drained) => {
                    if result.is_err() {
                        self.maker.log.add("", "the old version is ended with calls under way");
                    }
                }
            }
        }
        Over::Stopped
    }

    /// Takes a sandbox out of service and ends it.
    async fn retire(&self, running: Arc<Running>, over: Over) {
        let state = match over {
            Over::Rests => {
                tracing::debug!(application = self.maker.specification.application.name.as_str(), "put to rest");
                // One that was told while another sandbox was made is of a call that has long been served.
                tokio::select! {
                    biased;
                    () = self.wanted.notified() => {}
                    () = std::future::ready(()) => {}
                }
                State::Resting
            }
            Over::Ended | Over::Stopped => State::Down("its sandbox ended".to_owned()),
        };
        self.states.send_replace(state);
        running.retire();
        running.sandbox.end().await;
        self.answered_before.fetch_add(running.answered.load(Ordering::Relaxed), Ordering::Relaxed);
        drop(running);
        if over == Over::Rests {
            // Later than the others that go to rest about now.
            tokio::spawn(async {
                tokio::time::sleep(GIVE_BACK_AFTER).await;
                tokio::task::spawn_blocking(memory::give_back);
            });
        }
    }

    /// Makes a sandbox; `what` is said of it in the log.
    async fn make(&self, what: &str) {
        let name = self.maker.specification.application.name.as_str();
        // Its state is large, and is not to lie in that of every application at rest.
        match Box::pin(self.in_turn()).await {
            Ok(running) => {
                if matches!(*self.states.borrow(), State::Resting) {
                    tracing::debug!(application = name, "back from rest");
                } else {
                    self.maker.log.add("", &format!("the sandbox was {what}"));
                }
                self.states.send_replace(State::Running(running));
            }
            Err(SandboxError::Unwanted) => {}
            Err(error) => {
                let error = crate::chain(&error);
                tracing::warn!(application = name, error, "a sandbox could not be {what}; it is tried again");
                self.maker.log.add("", &format!("the sandbox could not be {what}: {error}"));
                self.states.send_replace(State::Down(error));
            }
        }
    }

    /// Makes a sandbox when no more than a few others are being made. One that takes long is no longer counted: its code may hang.
    async fn in_turn(&self) -> Result<Arc<Running>, SandboxError> {
        let unwanted = || {
            let mut stopped = self.stopped.clone();
            async move {
                let _stopped = stopped.wait_for(|stop| *stop != Stop::No).await;
            }
        };
        let turn = tokio::select! {
            turn = TURNS.acquire() => turn,
            () = unwanted() => return Err(SandboxError::Unwanted),
        };
        let making = self.maker.make(unwanted());
        tokio::pin!(making);
        if let Ok(made) = tokio::time::timeout(TURN_MAX, &mut making).await {
            return made;
        }
        drop(turn);
        making.await
    }
}
