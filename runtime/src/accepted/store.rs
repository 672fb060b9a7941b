//! The file that accepted calls are kept in, and the thread that works on it.
//!
//! ```text
//!   run(work) ─┐                 ┌─ BEGIN, each one's work, COMMIT (the disk has it) ─▶ each one is told
//!   run(work) ─┼─▶ jobs ─▶ thread┤
//!   run(work) ─┘                 └─ what has come meanwhile, in one go …
//! ```
//!
//! The file is a database of SQLite: crash-safe by others' work of many years, and its log in front of it makes a commit one sequential
//! write. Whatever waits when a commit is over is committed together, so that a disk which takes 20 ms for that does not set the pace.
//!
//! Invariants:
//! 1. Whoever is told that work succeeded finds it on disk after any crash (`synchronous = FULL`).
//! 2. Nothing is made before it is needed: file and thread exist once there is something to keep.
//!
//! What is done to the file is [`record`](super::record)'s affair.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use rusqlite::Connection;
use tokio::sync::{Mutex, oneshot};

use super::record;

/// What is done in one transaction at most.
const JOBS_AT_ONCE: usize = 256;
/// What SQLite keeps of the file in memory, in KiB.
const CACHE_KIB: u32 = 256;
/// The log in front of the file is cut to this when it has been worked in, in bytes.
const LOG_BYTES: u32 = 4 << 20;

/// Why something was not stored or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Its file cannot be made or opened.
    #[error("the file of accepted calls, {}, cannot be used", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The database said so.
    #[error("the database of accepted calls, {}, cannot be used", path.display())]
    Database {
        /// Its path.
        path: PathBuf,
        /// What it said.
        source: Arc<rusqlite::Error>,
    },
    /// It was written by a later version.
    #[error(
        "{} was written by a later version of Sandbar (format {version}): use that, or move the file away to start without its calls",
        path.display()
    )]
    Later {
        /// Its path.
        path: PathBuf,
        /// Its format's number.
        version: i64,
    },
    /// Something else that was to be committed together with it failed in such a way that the database took all of it back.
    #[error("the database of accepted calls, {}, has taken back what it was about to write", path.display())]
    TakenBack {
        /// Its path.
        path: PathBuf,
    },
    /// There is no thread for it.
    #[error("no thread could be started for the store of accepted calls")]
    Thread(#[source] Arc<io::Error>),
    /// The agent stops.
    #[error("the store of accepted calls is closed")]
    Closed,
}

/// Work on the file, and how whoever wants it is told whether it is on disk.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Completion + Send>;
type Completion = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Not needed yet.
    Unopened,
    Open(Worker),
    Closed,
}

#[derive(Debug)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: thread::JoinHandle<()>,
}

impl Store {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Mutex::new(State::Unopened) }
    }

    /// Whether there is anything to read.
    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Has work done on the file; returns when the disk has it.
    ///
    /// # Errors
    /// When the file cannot be opened, the work fails, or its commit does. Nothing is changed then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, replied) = oneshot::channel();
        let path = self.path.clone();
        let job: Job = Box::new(move |connection| {
            let worked = connection.and_then(|connection| work(connection).map_err(database(&path)));
            Box::new(move |committed| {
                // Whoever asked may have given up.
                let _gone = reply.send(match (worked, committed) {
                    (Ok(_), Err(error)) => Err(error),
                    (worked, _) => worked,
                });
            })
        });
        self.jobs().await?.send(job).map_err(|_| StoreError::Closed)?;
        replied.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes no more work, and returns when what there was is done.
    pub(super) async fn close(&self) {
        let state = std::mem::replace(&mut *self.state.lock().await, State::Closed);
        if let State::Open(Worker { jobs, thread }) = state {
            drop(jobs);
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the store of accepted calls ended badly");
            }
        }
    }

    async fn jobs(&self) -> Result<mpsc::Sender<Job>, StoreError> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(worker) => return Ok(worker.jobs.clone()),
            State::Closed => return Err(StoreError::Closed),
            State::Unopened => {}
        }
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || Worker::start(&path)).await;
        let worker = opened.unwrap_or(Err(StoreError::Closed))?;
        let jobs = worker.jobs.clone();
        *state = State::Open(worker);
        Ok(jobs)
    }
}

impl Worker {
    fn start(path: &Path) -> Result<Self, StoreError> {
        let connection = open(path)?;
        let (jobs, coming) = mpsc::channel();
        let path = path.to_owned();
        let work = move || work(&connection, &path, &coming);
        let thread = thread::Builder::new().name("accepted-calls".to_owned()).spawn(work);
        Ok(Self { jobs, thread: thread.map_err(|error| StoreError::Thread(Arc::new(error)))? })
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    // SQLite would make it readable for all; its log has the mode that the file has.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(|source| StoreError::File { path: path.to_owned(), source: Arc::new(source) })?;
    let prepare = || {
        let connection = Connection::open(path)?;
        // One process has the file, for the state directory is locked: no memory has to be shared with others.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        // Before the first table, or it has no effect.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
        let version = record::prepare(&connection)?;
        Ok((connection, version))
    };
    let (connection, version) = prepare().map_err(database(path))?;
    if version > record::VERSION {
        return Err(StoreError::Later { path: path.to_owned(), version });
    }
    Ok(connection)
}

/// The thread: until nobody can send jobs any more, and all are done.
fn work(connection: &Connection, path: &Path, coming: &mpsc::Receiver<Job>) {
    while let Ok(first) = coming.recv() {
        let jobs = std::iter::once(first).chain(coming.try_iter().take(JOBS_AT_ONCE - 1));
        let (completions, committed) = commit(connection, path, jobs.collect());
        for completion in completions {
            completion(committed.clone());
        }
    }
}

/// Does jobs in one transaction.
fn commit(connection: &Connection, path: &Path, jobs: Vec<Job>) -> (Vec<Completion>, Result<(), StoreError>) {
    let mut open = connection.execute_batch("BEGIN").map_err(database(path));
    let mut completions = Vec::with_capacity(jobs.len());
    for job in jobs {
        completions.push(job(open.clone().map(|()| connection)));
        if open.is_ok() && connection.is_autocommit() {
            // A full disk, say: that ends the transaction with all that is in it, and not just the one statement.
            open = Err(StoreError::TakenBack { path: path.to_owned() });
        }
    }
    let committed = open.and_then(|()| {
        connection.execute_batch("COMMIT").map_err(|source| {
            // It may leave the transaction open.
            let _rolled_back = connection.execute_batch("ROLLBACK");
            database(path)(source)
        })
    });
    (completions, committed)
}

fn database(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Database { path: path.to_owned(), source: Arc::new(source) }
}

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
