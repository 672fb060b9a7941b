//! An application's log: lines in a file that is turned over when it has grown, and for those who follow.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::manifest::{Application, Name};
use crate::watch::watch;

/// Bytes of one file; an application has two at most.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a line; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Lines of one function that are taken in a period, and how long that is.
const LINES_AT_ONCE: usize = 1000;
const LINES_PERIOD: Duration = Duration::from_millis(250);
/// Lines that a slow follower may be behind before it misses some.
const FOLLOWED_LINES_MAX: usize = 1024;

/// One line of an application's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    /// When the agent read it.
    pub time: SystemTime,
    /// The function that wrote it; empty for the sandbox itself.
    pub function: String,
    /// The text, without its line end.
    pub text: String,
}

/// A log, open for writing.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: Mutex<Turned>,
    /// Made for the first who follows: its room for lines is more than all else that an application at rest takes up.
    followers: OnceLock<broadcast::Sender<LogLine>>,
}

#[derive(Debug)]
struct Turned {
    file: File,
    bytes: u64,
}

impl Log {
    /// Opens or makes the log at `path`.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file: Mutex::new(Turned { file, bytes }), followers: OnceLock::new() })
    }

    /// Adds a line. One that cannot be stored reaches followers all the same.
    pub(crate) fn add(&self, function: &str, text: &str) {
        let line = LogLine { time: SystemTime::now(), function: function.to_owned(), text: text.to_owned() };
        if let Err(error) = self.store(&line) {
            tracing::warn!(path = %self.path.display(), %error, "a log line could not be stored");
        }
        if let Some(followers) = self.followers.get() {
            // Fails when nobody follows any longer.
            let _nobody = followers.send(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turned> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, line: &LogLine) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut turned = self.lock();
        if turned.bytes + bytes.len() as u64 > FILE_BYTES_MAX {
            fs::rename(&self.path, earlier(&self.path))?;
            *turned = Turned { file: append_to(&self.path)?, bytes: 0 };
        }
        turned.bytes += bytes.len() as u64;
        turned.file.write_all(&bytes)
    }

    /// What is stored, and what comes if `follow`.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub(crate) fn read(&self, function: Option<&str>, follow: bool) -> io::Result<LogStream> {
        // Under the lock: no line is missed between what is stored and what comes, and none comes twice.
        let turned = self.lock();
        let coming =
            follow.then(|| self.followers.get_or_init(|| broadcast::Sender::new(FOLLOWED_LINES_MAX)).subscribe());
        let stored = [earlier(&self.path), self.path.clone()].map(|path| lines_of(&path));
        drop(turned);
        let function = function.map(str::to_owned);
        let mut lines = VecDeque::new();
        for file in stored {
            lines.extend(file?);
        }
        Ok(LogStream { stored: lines, coming, function })
    }

    /// Deletes the log's files.
    pub(crate) fn delete(&self) {
        for path in [earlier(&self.path), self.path.clone()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a log could not be deleted");
                }
                _ => {}
            }
        }
    }
}

/// Reads the log pipes of a sandbox (its own, then one for each function) until the sandbox is no more.
pub(crate) fn read_pipes(application: &Application, pipes: Vec<OwnedFd>, log: &Arc<Log>) {
    let names = application.functions.iter().map(|function| function.name.as_str().to_owned());
    for (name, pipe) in std::iter::once(String::new()).chain(names).zip(pipes) {
        tokio::spawn(read_pipe(name, pipe, Arc::clone(log)));
    }
}

/// Reads a log pipe, line by line. One who writes faster than a log may grow is held up by a full pipe.
async fn read_pipe(function: String, pipe: OwnedFd, log: Arc<Log>) {
    let set = nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK));
    let Ok(pipe) = set.map_err(std::io::Error::from).and_then(|_| watch(pipe)) else { return };
    let mut line = Vec::new();
    let mut bytes = [0; 4096];
    let (mut since, mut lines) = (Instant::now(), 0);
    loop {
        let Ok(mut ready) = pipe.readable().await else { return };
        match nix::unistd::read(pipe.get_ref(), &mut bytes) {
            Ok(0) => break,
            Ok(count) => {
                lines += add_lines(&function, &mut line, &bytes[..count], &log);
                if lines > LINES_AT_ONCE {
                    tokio::time::sleep_until(since + LINES_PERIOD).await;
                }
                if since.elapsed() >= LINES_PERIOD {
                    (since, lines) = (Instant::now(), 0);
                }
                tokio::task::yield_now().await;
            }
            Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
            Err(_) => break,
        }
    }
    if !line.is_empty() {
        log.add(&function, &String::from_utf8_lossy(&line));
    }
}

/// Adds the lines that `bytes` complete; how many there were.
fn add_lines(function: &str, line: &mut Vec<u8>, bytes: &[u8], log: &Log) -> usize {
    let mut lines = 0;
    for byte in bytes {
        if *byte != b'\n' {
            line.push(*byte);
        }
        if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
            log.add(function, String::from_utf8_lossy(line).trim_end());
            line.clear();
            lines += 1;
        }
    }
    lines
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn earlier(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Deletes the logs of applications that are not deployed, as an agent left them that was killed while it deployed or removed one.
///
/// # Errors
/// When the directory cannot be listed or a log cannot be deleted.
pub(crate) fn sweep(directory: &Path, deployed: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let file_name = entry?.file_name();
        let name = file_name.to_str().and_then(|name| name.strip_suffix(".log").or(name.strip_suffix(".log.1")));
        if name.is_some_and(|name| Name::new(name).is_ok() && !deployed(name)) {
            fs::remove_file(directory.join(&file_name))?;
        }
    }
    Ok(())
}

/// The lines of a file, which need not exist. What a crash of the host cut off is left out.
fn lines_of(path: &Path) -> io::Result<Vec<LogLine>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let lines = BufReader::new(file).lines();
    lines.filter_map(|line| line.map(|line| serde_json::from_str(&line).ok()).transpose()).collect()
}

/// Lines of a log: first what is stored, then, if followed, what comes.
#[derive(Debug)]
pub struct LogStream {
    stored: VecDeque<LogLine>,
    coming: Option<broadcast::Receiver<LogLine>>,
    function: Option<String>,
}

impl LogStream {
    /// The next line; `None` at the end of a stream that is not followed, or when the application is removed. A follower that
    /// is too slow misses lines, and is told so by a line.
    pub async fn next(&mut self) -> Option<LogLine> {
        loop {
            let line = match self.stored.pop_front() {
                Some(line) => line,
                None => match self.coming.as_mut()?.recv().await {
                    Ok(line) => line,
                    Err(broadcast::error::RecvError::Closed) => return None,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let text = format!("({missed} lines missed: the log grows faster than it is read)");
                        return Some(LogLine { time: SystemTime::now(), function: String::new(), text });
                    }
                },
            };
            if self.function.as_ref().is_none_or(|function| *function == line.function) {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stored_lines_come_first_and_followed_ones_after() {
        let directory = std::env::temp_dir().join(format!("sandbar-log-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let log = Log::open(directory.join("a.log")).unwrap();
        log.add("f", "one");
        log.add("g", "two");
        let mut stream = log.read(Some("f"), true).unwrap();
        log.add("f", "three");
        assert_eq!(stream.next().await.unwrap().text, "one");
        assert_eq!(stream.next().await.unwrap().text, "three");
        drop(log);
        assert!(stream.next().await.is_none());
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_log_is_turned_over_and_keeps_what_came_last() {
        let directory = std::env::temp_dir().join(format!("sandbar-turn-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let log = Log::open(directory.join("a.log")).unwrap();
        let text = "x".repeat(LINE_BYTES_MAX);
        for _ in 0..1100 {
            log.add("f", &text);
        }
        log.add("f", "last");
        let bytes: u64 = fs::read_dir(&directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 2 * FILE_BYTES_MAX);
        let mut stream = log.read(None, false).unwrap();
        let mut last = None;
        while let Some(line) = stream.next().await {
            last = Some(line);
        }
        assert_eq!(last.unwrap().text, "last");
        log.delete();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(directory).unwrap();
    }
}
