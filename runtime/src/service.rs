//! A deployed application: its sandbox is made, made again when it ends by itself, and replaced by a new version's without
//! losing a call.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sandbar_bus::clock::now_ns;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::call::{Answer, Call, Outcome, Request};
use crate::host_bus::HostBus;
use crate::image::Digest;
use crate::log::{self, Log};
use crate::manifest::Application;
use crate::running::{Retired, Running};
use crate::sandbox::{Grounds, Sandbox, SandboxError, Specification};

/// Pause before a sandbox that ended by itself is made again: doubles each time, from the first to the second.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// A sandbox that lived this long has ended of something new.
const LIVED_WELL: Duration = Duration::from_secs(30);
/// How long a call waits for a sandbox that is being made again.
const AGAIN_WAIT_MAX: Duration = Duration::from_secs(5);
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
    answered_before: Arc<AtomicU64>,
}

/// Whether the application can be called.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Running(Arc<Running>),
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
        Ok(Running::new(Arc::clone(application), sandbox, Arc::clone(&self.log), Weak::clone(&self.bus)))
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
        let first = first.map_or_else(|| State::Down("it is being started".to_owned()), State::Running);
        let answered_before = Arc::new(AtomicU64::new(0));
        let (states, state) = watch::channel(first);
        let (stop, stopped) = watch::channel(Stop::No);
        let keeper = Keeper { maker, states, stopped, answered_before: Arc::clone(&answered_before) };
        let keeper = Mutex::new(Some(tokio::spawn(keeper.run())));
        Self { application, log, first_user, image, state, keeper, stop, answered_before }
    }

    /// Waits until a service that began without a sandbox has one, or has failed to make one.
    pub(crate) async fn tried(&self) {
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
            State::Down(_) => 0,
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
        let wait_until = tokio::time::Instant::now() + timeout.min(AGAIN_WAIT_MAX);
        loop {
            match self.running(wait_until).await {
                Ok(running) => match running.call(call, request, deadline_ns).await {
                    // It ended just now: another is being made.
                    Err(Retired) if *self.stop.borrow() == Stop::No => tokio::task::yield_now().await,
                    result => return result,
                },
                Err(_) if *self.stop.borrow() != Stop::No => return Err(Retired),
                Err(reason) => {
                    let diagnostic = format!("the application is being restarted: {reason}");
                    return Ok(Answer { call: Some(call.id), ..Answer::refused(Outcome::Overloaded, diagnostic) });
                }
            }
        }
    }

    /// The sandbox, once there is one; else why there is none.
    async fn running(&self, wait_until: tokio::time::Instant) -> Result<Arc<Running>, String> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Running(_)));
        if let Ok(Ok(up)) = tokio::time::timeout_at(wait_until, up).await
            && let State::Running(running) = &*up
        {
            return Ok(Arc::clone(running));
        }
        match self.state() {
            State::Running(running) => Ok(running),
            State::Down(reason) => Err(reason),
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

/// Owns the sandbox of an application for as long as it is deployed.
struct Keeper {
    maker: Maker,
    states: watch::Sender<State>,
    stopped: watch::Receiver<Stop>,
    answered_before: Arc<AtomicU64>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = AGAIN.0;
        if matches!(*self.states.borrow(), State::Down(_)) {
            self.make("started").await;
        }
        loop {
            let state = self.states.borrow().clone();
            if let State::Running(running) = state {
                let since = Instant::now();
                let stopped = self.keep(&running).await;
                self.retire(running).await;
                if stopped {
                    return;
                }
                if since.elapsed() > LIVED_WELL {
                    pause = AGAIN.0;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.wait_for(|stop| *stop != Stop::No) => return,
            }
            pause = (pause * 2).min(AGAIN.1);
            self.make("made again").await;
        }
    }

    /// Serves a sandbox until it ends by itself, or until it is to be stopped; true for the latter.
    async fn keep(&mut self, running: &Arc<Running>) -> bool {
        let serving = running.serve();
        tokio::pin!(serving);
        let stop = tokio::select! {
            () = &mut serving => None,
            stop = self.stopped.wait_for(|stop| *stop != Stop::No) => Some(stop.map_or(Stop::AtOnce, |stop| *stop)),
        };
        if stop == Some(Stop::Drained) {
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
        stop.is_some()
    }

    /// Takes a sandbox out of service and ends it.
    async fn retire(&self, running: Arc<Running>) {
        self.states.send_replace(State::Down("its sandbox ended".to_owned()));
        running.retire();
        running.sandbox.end().await;
        self.answered_before.fetch_add(running.answered.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Makes a sandbox; `what` is said of it in the log.
    async fn make(&self, what: &str) {
        let name = self.maker.specification.application.name.as_str();
        match self.in_turn().await {
            Ok(running) => {
                self.maker.log.add("", &format!("the sandbox was {what}"));
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
